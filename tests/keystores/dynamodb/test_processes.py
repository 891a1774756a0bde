"""Several processes on one table: at once, and forked from one that has it open."""

import json
import os
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fieldvault.keys.records import KeySlot, KeyState
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from fieldvault.testing.samples import acme, add, first_key, in_a_fork, record

PROCESSES = 6

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def _at_once(work: Callable[[], object]) -> list[Any]:
    """What each of the processes says that begin the work together."""
    gate, open_gate = os.pipe()
    answers, say = os.pipe()
    children = []
    for _ in range(PROCESSES):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(open_gate)
                os.read(gate, 1)
                os.write(say, json.dumps(work()).encode() + b"\n")
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        children.append(child)
    os.close(open_gate)
    assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {0}
    os.close(say)
    with os.fdopen(answers) as lines:
        return [json.loads(line) for line in lines]


def test_of_processes_that_start_at_once_one_makes_the_first_key(
    client: Any, store: DynamoDBKeyStore, open_store: Callable[[], DynamoDBKeyStore]
) -> None:
    """All of them find an empty table, one makes the key, and all see the same one."""
    client.delete_item(TableName=store._table.name, Key={"pk": {"S": "meta"}, "sk": {"S": "head"}})

    def work() -> object:
        store, ours = open_store(), record(KeySlot("acme"))
        won = add(store, ours)
        (active,) = (key for key in store.keys("acme", None) if key.state is KeyState.ACTIVE)
        assert won is (active.key_id == ours.key_id)
        return [active.key_id.hex(), won]

    answers = _at_once(work)
    assert Counter(won for _, won in answers) == {True: 1, False: PROCESSES - 1}
    assert len({active for active, _ in answers}) == 1
    assert open_store().check().endswith(", 1 tenant")


def test_processes_that_rotate_one_tenant_lose_nothing(
    store: DynamoDBKeyStore, open_store: Callable[[], DynamoDBKeyStore]
) -> None:
    """Every key that a process was told is active was so, once; and every change has its number."""
    first_key(store, acme())

    def work() -> object:
        own = open_store()
        while True:
            (active,) = (key for key in own.keys("acme", None) if key.state is KeyState.ACTIVE)
            own.reserve([active.key_id], 10, limit=2**32)
            if add(own, record(acme(), active.version + 1), active):
                return True

    assert _at_once(work) == [True] * PROCESSES
    keys = store.keys("acme", None)
    assert [key.version for key in keys] == list(range(1, PROCESSES + 2))
    assert [key.state for key in keys].count(KeyState.ACTIVE) == 1
    assert store.generation() == len(store.changes(0) or ()) == PROCESSES


def test_a_forked_child_uses_connections_of_its_own(store: DynamoDBKeyStore) -> None:
    """Parent and child work on with the same object."""
    key = first_key(store, acme())

    def child() -> None:
        assert store.fetch([key.key_id] + [os.urandom(16) for _ in range(250)]).records == {key.key_id: key}
        first_key(store, KeySlot("child"))

    in_a_fork(child)
    assert store.fetch([key.key_id]).records == {key.key_id: key}
    assert list(store.tenants()) == ["acme", "child"]

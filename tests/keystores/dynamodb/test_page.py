"""What docs/keystores/dynamodb.md says: its code runs, and its table and policy are those that are used."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from fieldvault.keys.protocols import Addition
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from fieldvault.keystores.dynamodb.creation import definition
from fieldvault.keystores.dynamodb.failures import OPERATIONS
from fieldvault.testing.samples import acme, first_key, record, successor, wrap_key
from tests.docs.pages import ROOT, blocks
from tests.docs.python import page_module, run_python
from tests.keystores.dynamodb.hooks import counted
from tests.servers.ministack import CREDENTIALS, REGION, MinistackServer

TEXT = (ROOT / "docs/keystores/dynamodb.md").read_text(encoding="utf-8")
TABLE, POLICY = (json.loads(each) for each in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))


def test_the_code_of_the_page_works(
    ministack_server: MinistackServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a server that the SDK is told of by the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack_server.url)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name.upper(), value)
    with page_module("page_dynamodb") as module:
        for block in blocks(TEXT, "docs/keystores/dynamodb.md"):
            run_python(block, module)
    where = f"DynamoDB table fieldvault-keys in {REGION}"
    assert capsys.readouterr().out == f"{where}\n{where}, 0 tenants\n"


def test_the_table_is_the_one_that_is_made() -> None:
    """Whoever makes it with another tool copies this."""
    assert definition("fieldvault-keys") == TABLE


def test_the_policy_allows_the_calls_that_are_made() -> None:
    """A transaction takes the rights of what is in it: puts, updates and checks."""
    (statement,) = POLICY["Statement"]
    allowed = {each.removeprefix("dynamodb:") for each in statement["Action"]}
    asked = set(OPERATIONS) - {"CreateTable", "DescribeTable", "TransactWriteItems"}
    assert allowed == asked | {"PutItem", "UpdateItem", "ConditionCheckItem"}


def _units(client: Any, step: Callable[[], object]) -> tuple[int, int, int]:
    """Items read, units written, and calls; every item is small."""
    reads = writes = 0
    with counted(client) as calls:
        step()
    for name, parameters in calls:
        if name == "TransactWriteItems":
            writes += 2 * len(parameters["TransactItems"])
        elif name == "BatchGetItem":
            reads += sum(len(each["Keys"]) for each in parameters["RequestItems"].values())
        else:
            reads, writes = reads + (name == "GetItem"), writes + (name == "UpdateItem")
    return reads, writes, len(calls)


def test_each_step_costs_what_the_page_says(client: Any, store: DynamoDBKeyStore) -> None:
    """In units of the price list."""
    parent, key = wrap_key(store), first_key(store, acme())
    keys = [record(acme(f"subject {number}"), parent=parent.key_id) for number in range(1_000)]
    store.add_active([Addition(each, None) for each in keys[:60]])
    ids = [each.key_id for each in keys]
    steps: list[tuple[str, Callable[[], object]]] = [
        ("looking after the lease, a process", store.generation),
        ("fetching a key of a tenant", lambda: store.fetch([key.key_id])),
        ("a page of 1,000 subjects, in 12 calls", lambda: store.fetch(ids)),
        ("a subject's first key", lambda: first_key(store, acme("ann"))),
        ("a rotation of a tenant's key", lambda: successor(store, key)),
    ]
    for name, step in steps:
        reads, writes, calls = _units(client, step)
        assert f"| {name} | {reads} | {writes or ''} |".replace("|  |", "| |") in TEXT, (name, reads, writes)
        assert calls <= 12
    (active,) = store.current([acme()]).records
    assert _units(client, lambda: store.reserve([active], 1, limit=9)) == (2, 1, 3)
    assert "| a block of uses (65,536 messages) | 2 | 1 |" in TEXT

"""What others do between a read and the write, or the read, that follows it."""

from collections.abc import Callable
from typing import Any

import pytest

from fieldvault.errors import KeyShredded, KeyStoreError
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from fieldvault.testing.samples import acme, add, fence, first_key, record, state_of, successor
from tests.keystores.dynamodb.hooks import meanwhile


def _active(keys: list[KeyRecord]) -> list[KeyRecord]:
    return [key for key in keys if key.state is KeyState.ACTIVE]


def test_a_slot_that_is_rotated_while_it_is_read_has_one_active_key(
    client: Any, store: DynamoDBKeyStore
) -> None:
    """Between the slot and its keys: the slot is read again."""
    readers: list[Callable[[], list[KeyRecord]]] = [
        lambda: list(store.current([acme()]).records.values()),
        lambda: list(store.keys("acme", None)),
    ]
    key = first_key(store, acme())
    for read in readers:
        following: list[KeyRecord] = []

        def rotate(now: KeyRecord = key, following: list[KeyRecord] = following) -> None:
            following.append(successor(store, now))

        with meanwhile(client, "BatchGetItem", 2, rotate):
            found = read()
        assert _active(found) == following
        key = following[0]


@pytest.mark.parametrize("fenced", [None, "ann"])
def test_a_fence_that_comes_after_the_look_for_one_stops_a_first_key(
    client: Any, store: DynamoDBKeyStore, fenced: str | None
) -> None:
    """That of the subject, and that of its tenant."""
    first_key(store, acme("bob"))
    late = record(acme("ann"))
    with (
        meanwhile(client, "TransactWriteItems", 1, lambda: store.shred(fence(subject=fenced))),
        pytest.raises(KeyShredded),
    ):
        add(store, late)
    assert store.fetch([late.key_id]).records == {}


def test_a_key_that_comes_after_the_look_for_keys_is_shredded(client: Any, store: DynamoDBKeyStore) -> None:
    """The shred looks again."""
    late = record(acme())
    with meanwhile(client, "TransactWriteItems", 1, lambda: add(store, late)):
        assert store.shred(fence()) == [late.key_id]
    assert store.fetch([late.key_id]).records[late.key_id].wrapped is None


def test_a_rewrap_comes_too_late_for_a_key_that_is_shredded(client: Any, store: DynamoDBKeyStore) -> None:
    """It does not bring the material back."""
    key = first_key(store, acme())
    assert key.wrapped is not None
    with meanwhile(client, "TransactWriteItems", 1, lambda: store.shred(fence())):
        assert store.rewrap(key.key_id, expect=key.wrapped, wrapped=b"again") is False
    assert store.fetch([key.key_id]).records[key.key_id].wrapped is None


def test_a_transition_finds_what_happened_meanwhile(client: Any, store: DynamoDBKeyStore) -> None:
    """And is decided anew: another's change of the generation is no reason to fail, one of the key is."""
    key, other = first_key(store, acme()), first_key(store, KeySlot("globex"))
    with meanwhile(client, "TransactWriteItems", 1, lambda: successor(store, other)):
        assert store.transition(key.key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED) is True
    with meanwhile(client, "TransactWriteItems", 1, lambda: add(store, record(acme(), 2))):
        assert store.transition(key.key_id, expect=KeyState.SUSPENDED, to=KeyState.ACTIVE) is False
    assert state_of(store, key) is KeyState.SUSPENDED
    assert len(store.changes(0) or ()) == store.generation() == 2


def test_a_generation_is_given_once_though_its_change_was_pruned(
    client: Any, store: DynamoDBKeyStore
) -> None:
    """The number itself is compared, not only the place of the change."""
    key, other = first_key(store, acme()), first_key(store, KeySlot("globex"))

    def rotate_and_prune() -> None:
        successor(store, other)
        client.delete_item(TableName=store._table.name, Key={"pk": {"S": "changes"}, "sk": {"S": f"{1:020}"}})

    with meanwhile(client, "TransactWriteItems", 1, rotate_and_prune):
        successor(store, key)
    assert store.generation() == 2


def test_a_copy_that_begins_meanwhile_takes_no_key(client: Any, store: DynamoDBKeyStore) -> None:
    """The store was looked at before, and served."""
    with (
        meanwhile(client, "TransactWriteItems", 1, store.begin_copy),
        pytest.raises(KeyStoreError, match="unfinished copy"),
    ):
        add(store, record(acme()))
    assert list(store.tenants()) == []


def test_a_copy_does_not_begin_where_a_key_came_meanwhile(client: Any, store: DynamoDBKeyStore) -> None:
    """Though the store was empty when it was looked at."""
    store.generation()
    with meanwhile(
        client, "TransactWriteItems", 1, lambda: store.add_active([Addition(record(acme()), None)])
    ):
        assert store.begin_copy() is None
    assert len(list(store.all_keys("acme"))) == 1

"""Copying to DynamoDB, and from it, while others are at it, and where it is killed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from fieldvault.errors import KeyShredded, KeyStoreError, MovedAway
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore
from fieldvault.keystores.dynamodb import DynamoDBKeyStore, actions
from fieldvault.keystores.dynamodb.items import Slot, slot_address
from fieldvault.keystores.dynamodb.shredding import lock
from fieldvault.lifecycle.copying import copy_key_store
from fieldvault.testing.samples import acme, add, fence, first_key, record, state_of, successor
from tests.keystores.dynamodb.hooks import meanwhile


class _Killed(BaseException):
    """Nothing catches it on its way."""


def _source() -> tuple[MemoryKeyStore, KeyRecord, KeyRecord]:
    source = MemoryKeyStore()
    first_key(source, acme())
    return source, first_key(source, acme("ann")), first_key(source, acme("bob"))


@pytest.mark.parametrize("step", [1, 2], ids=["tenant", "records"])
def test_a_copier_that_was_held_up_writes_nothing(
    client: Any, open_store: Callable[[], DynamoDBKeyStore], step: int
) -> None:
    """Another has begun since: what the first one has read is the past, a key that was shredded among it."""
    (source, ann, bob), slow, late = _source(), open_store(), open_store()
    token, read = slow.begin_copy(), list(source.all_keys("acme"))
    assert token is not None

    def overtake() -> None:
        source.reserve([bob.key_id], 1_000, limit=2**32)
        source.shred(fence(subject="ann"))
        assert copy_key_store(source, late, finish=False).proven

    with (
        meanwhile(client, "TransactWriteItems", step, overtake),
        pytest.raises(KeyStoreError, match="another copy to it was begun since"),
    ):
        slow.take_over(read, [], token=token)
    assert copy_key_store(source, late, finish=True).written == 0
    found = late.fetch([ann.key_id, bob.key_id]).records
    assert found[ann.key_id].wrapped is None
    assert found[bob.key_id].uses == bob.uses + 1_000
    with pytest.raises(KeyShredded):
        add(late, record(acme("ann"), 2))


@pytest.mark.parametrize("step", [1, 2, 3], ids=["tenant", "fence", "records"])
def test_a_copier_that_was_overtaken_writes_nothing(
    client: Any, open_store: Callable[[], DynamoDBKeyStore], step: int
) -> None:
    """Though nothing of what it has to write is there yet."""
    (source, _, _), slow, late = _source(), open_store(), open_store()
    token = slow.begin_copy()
    assert token is not None
    with (
        meanwhile(client, "TransactWriteItems", step, late.begin_copy),
        pytest.raises(KeyStoreError, match="another copy to it was begun since"),
    ):
        slow.take_over(list(source.all_keys("acme")), [fence(subject="dan")], token=token)
    assert list(late.all_keys("acme")) == []
    assert len(list(late.tenants())) == (step > 1)
    assert len(list(late.fences())) == (step > 2)


def test_a_copier_that_was_held_up_opens_nothing(
    client: Any, open_store: Callable[[], DynamoDBKeyStore]
) -> None:
    """It had proven what is no longer so."""
    (source, _, bob), slow = _source(), open_store()
    token = slow.begin_copy()
    assert token is not None

    def overtake() -> None:
        assert open_store().begin_copy() is not None

    with (
        meanwhile(client, "TransactWriteItems", 1, overtake),
        pytest.raises(KeyStoreError, match="another copy to it was begun since"),
    ):
        slow.finish_copy(token=token, generation=1, lease=0)
    with pytest.raises(KeyStoreError):
        open_store().generation()
    assert copy_key_store(source, open_store(), finish=True).finished
    assert open_store().keys("acme", "bob") == [bob]


def _wipe(store: DynamoDBKeyStore, key: KeyRecord) -> None:
    store._table.transact([actions.wipe(key.key_id)])


def _lock(store: DynamoDBKeyStore, key: KeyRecord) -> None:
    store._table.transact([lock(key.slot, Slot(newest=key.key_id))])


@pytest.mark.parametrize("spoil", [_wipe, _lock])
def test_what_is_written_another_way_is_as_it_was_read(
    client: Any, store: DynamoDBKeyStore, spoil: Callable[[DynamoDBKeyStore, KeyRecord], None]
) -> None:
    """The copier's token apart: an older account of a key or a slot is never put over a newer one."""
    token, key = store.begin_copy(), replace(record(acme("bob")), state=KeyState.RETIRED)
    assert token is not None
    store.take_over([key], [], token=token)
    coming = [replace(key, uses=key.uses + 1), replace(record(acme("bob"), 2), state=KeyState.RETIRED)]
    with (
        meanwhile(client, "TransactWriteItems", 1, partial(spoil, store, key)),
        pytest.raises(KeyStoreError),
    ):
        store.take_over(coming[:1] if spoil is _wipe else coming[1:], [], token=token)
    assert [each.version for each in store.keys("acme", "bob")] == [1]
    item = store._table.get(slot_address(key.slot))
    assert item is not None
    assert ("fenced" in item) is (spoil is _lock)


def test_a_fence_whose_slots_are_not_locked_is_completed(store: DynamoDBKeyStore) -> None:
    """By the next pass over the source, which comes with the same fences."""
    (source, ann, _) = _source()
    token = store.begin_copy()
    assert token is not None
    store.take_over(list(source.all_keys("acme")), [fence(subject="ann")], token=token)
    for purpose in Purpose:
        address = slot_address(KeySlot("acme", "ann", purpose))
        store._table.update(address, UpdateExpression="REMOVE fenced")
    store.take_over([], [fence(subject="ann")], token=token)
    store.finish_copy(token=token, generation=1, lease=0)
    assert store.keys("acme", "ann")[0].key_id == ann.key_id
    for purpose in Purpose:
        with pytest.raises(KeyShredded):
            add(store, record(KeySlot("acme", "ann", purpose), 2))


@pytest.mark.parametrize("kill", [4, 5])
def test_a_copy_killed_in_a_large_slot_is_gone_on_with(
    client: Any, open_store: Callable[[], DynamoDBKeyStore], kill: int
) -> None:
    """Written in several transactions; in between, its keys are not as the slot says."""
    source = MemoryKeyStore()
    key = first_key(source, acme())
    for _ in range(199):
        key = successor(source, key)

    def die() -> None:
        raise _Killed

    # The token, the tenant, three of the slot; then what a rotation and a rewrap of all have changed.
    with meanwhile(client, "TransactWriteItems", kill, die), pytest.raises(_Killed):
        copy_key_store(source, open_store(), finish=False)
    assert copy_key_store(source, open_store(), finish=False).proven
    successor(source, key)
    for each in source.all_keys("acme"):
        source.rewrap(each.key_id, expect=each.wrapped or b"", wrapped=b"again")
    with meanwhile(client, "TransactWriteItems", kill - 1, die), pytest.raises(_Killed):
        copy_key_store(source, open_store(), finish=False)
    there = open_store()
    assert copy_key_store(source, there, finish=True).finished
    assert list(there.all_keys("acme")) == list(source.all_keys("acme"))
    assert len(there.current([acme()]).records) == 1


def test_what_a_killed_copy_left_is_given_up(client: Any, open_store: Callable[[], DynamoDBKeyStore]) -> None:
    """No key is left that nothing leads to."""
    source = MemoryKeyStore()
    key = first_key(source, acme())
    for _ in range(120):
        key = successor(source, key)

    def die() -> None:
        raise _Killed

    with meanwhile(client, "TransactWriteItems", 4, die), pytest.raises(_Killed):
        copy_key_store(source, open_store(), finish=False)
    there = open_store()
    assert there.give_up_copy() is True
    left = client.scan(TableName=there._table.name, ConsistentRead=True)["Items"]
    assert [item["sk"]["S"] for item in left] == ["head"]


def test_what_is_under_way_while_a_store_is_moved_away_is_not_answered(
    client: Any, store: DynamoDBKeyStore
) -> None:
    """Its copy may lack it."""
    key = first_key(store, acme())

    def move() -> None:
        store.move_away(token=1)

    for operation, call in (
        ("UpdateItem", lambda: store.reserve([key.key_id], 5, limit=2**32)),
        ("TransactWriteItems", lambda: add(store, record(acme("ann")))),
        ("TransactWriteItems", lambda: add(store, record(KeySlot("globex")))),
        ("TransactWriteItems", lambda: store.rewrap(key.key_id, expect=key.wrapped or b"", wrapped=b"new")),
        ("TransactWriteItems", lambda: add(store, record(acme(), 2), key)),
        ("TransactWriteItems", lambda: store.shred(fence())),
    ):
        with meanwhile(client, operation, 1, move), pytest.raises(MovedAway):
            call()
        assert store.move_back() is True
    assert state_of(store, key) is KeyState.ACTIVE
    assert list(store.tenants()) == ["acme"]


def test_a_shred_that_stopped_midway_is_named(
    client: Any, open_store: Callable[[], DynamoDBKeyStore]
) -> None:
    """By what `fieldvault doctor` prints of the key store, until it is asked for again."""
    source, store = MemoryKeyStore(), open_store()
    key = first_key(source, acme("ann"))
    for _ in range(110):
        key = successor(source, key)
    copy_key_store(source, store, finish=True)

    def die() -> None:
        raise _Killed

    assert "stopped midway" not in store.check()
    with meanwhile(client, "TransactWriteItems", 2, die), pytest.raises(_Killed):
        store.shred(fence(subject="ann"))
    assert store.check().endswith("1 tenant; shreds that stopped midway, shred again: acme / ann")
    store.shred(fence(subject="ann"))
    assert "stopped midway" not in store.check()

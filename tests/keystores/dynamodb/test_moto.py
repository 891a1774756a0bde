"""A second opinion: the life of a tenant's keys on moto, by one caller, as its transactions are for one."""

from itertools import pairwise
from pathlib import Path

import pytest

from fieldvault.errors import KeyShredded
from fieldvault.keys.records import Change, KeySlot, KeyState
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from fieldvault.testing.samples import acme, add, fence, first_key, record, successor, wrap_key
from tests.servers.moto import MotoServer


def test_the_life_of_a_tenants_keys(moto_server: MotoServer, tmp_path: Path) -> None:
    """Every kind of step, and what is seen after each."""
    store = DynamoDBKeyStore(f"keys-{tmp_path.name}", moto_server.client("dynamodb"))
    store.create_table()
    store.create_table()
    parent, first = wrap_key(store), first_key(store, acme())
    child = first_key(store, acme("ann"), parent=parent.key_id)
    assert store.fetch([child.key_id]).records == {child.key_id: child, parent.key_id: parent}
    assert not add(store, record(acme(), 2))
    second = successor(store, first)
    assert store.transition(first.key_id, expect=KeyState.RETIRED, to=KeyState.SUSPENDED)
    assert set(store.current([acme()]).records) == {first.key_id, second.key_id}
    assert not store.transition(first.key_id, expect=KeyState.SUSPENDED, to=KeyState.ACTIVE)
    assert store.reserve([first.key_id, second.key_id], 60, limit=100) == {second.key_id: 60}
    assert store.reserve([second.key_id], 60, limit=100) == {}
    assert second.wrapped is not None
    assert store.rewrap(second.key_id, expect=second.wrapped, wrapped=b"again")
    assert not store.rewrap(second.key_id, expect=second.wrapped, wrapped=b"late")
    assert store.declare_lease(30) == store.declare_lease(5) == 30
    assert store.shred(fence(subject="ann")) == [child.key_id]
    with pytest.raises(KeyShredded):
        add(store, record(acme("ann"), 2))
    first_key(store, KeySlot("globex"))
    whole = fence()
    assert store.shred(whole) == [first.key_id, second.key_id, parent.key_id]
    assert {key.wrapped for key in store.all_keys("acme")} == {None}
    assert store.fence("acme", "bob") == whole
    assert list(store.tenants()) == ["acme", "globex"]
    changes = store.changes(0)
    assert changes is not None
    assert changes[-1] == Change("acme", None, whole_tenant=True)
    assert len(changes) == store.generation() == 4
    assert all(one != other for one, other in pairwise(changes[1:]))

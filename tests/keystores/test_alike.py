"""What is one answer in all stores of the house, beside what the kit asks of every store."""

from collections.abc import Callable

import pytest

from fieldvault.errors import KeyShredded, KeyStoreError
from fieldvault.keys.protocols import Addition, Portable
from fieldvault.keys.records import KeySlot
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.testing.samples import acme, add, fence, first_key, record


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb"])
def store(request: pytest.FixtureRequest, emptied: Callable[[str], str]) -> Portable:
    """An empty store of each kind."""
    return MemoryKeyStore() if request.param == "memory" else SQLKeyStore(emptied(request.param))


def test_a_key_that_is_asked_for_twice_is_reserved_once(store: Portable) -> None:
    """A page of rows may name one key many times."""
    key = first_key(store, acme())
    assert store.reserve([key.key_id, key.key_id], 10, limit=100) == {key.key_id: 10}
    assert store.fetch([key.key_id]).records[key.key_id].uses == key.uses + 10
    store.close()


def test_a_refused_addition_leaves_no_tenant_behind(store: Portable) -> None:
    """Neither beside a fenced scope nor in a store that serves nobody."""
    store.shred(fence("gone"))
    with pytest.raises(KeyShredded):
        store.add_active([Addition(record(KeySlot(name)), None) for name in ("bystander", "gone")])
    store.move_away(token=1)
    with pytest.raises(KeyStoreError):
        add(store, record(KeySlot("late")))
    assert list(store.tenants()) == ["gone"]
    store.move_back()
    first_key(store, KeySlot("bystander"))
    assert list(store.tenants()) == ["bystander", "gone"]
    store.close()

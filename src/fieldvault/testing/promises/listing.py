"""Listing: every key and every tenant once, in pages; leases; the ends of a store's life."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import KeyRecord, KeySlot, Purpose
from fieldvault.testing.samples import acme, fence, first_key, record, successor, wrap_key

T = TypeVar("T")


class ListingPromises:
    """Listing keys and tenants, leases, and checks."""

    page: int = 1_000
    """How many keys, or tenants, the store reads at a time; two pages are filled."""

    def test_the_keys_of_a_scope_come_by_purpose_and_version(self, store: KeyStore) -> None:
        """Those of this scope only."""
        wrap = wrap_key(store)
        first = first_key(store, acme())
        second = successor(store, first)
        index, ann = first_key(store, acme(purpose=Purpose.INDEX)), first_key(store, acme("ann"))
        assert [key.key_id for key in store.keys("acme", None)] == [
            first.key_id,
            second.key_id,
            index.key_id,
            wrap.key_id,
        ]
        assert store.keys("acme", "ann") == [ann]
        assert list(store.keys("acme", "bob")) == list(store.keys("globex", None)) == []

    def test_all_keys_of_a_tenant_come_once(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """By subject, purpose and version, however many pages they fill, the last one to the brim or not."""
        keys = [first_key(store, acme()), wrap_key(store)]
        subjects = [record(acme(f"subject {number}")) for number in range(2 * self.page - len(keys))]
        store.add_active([Addition(key, None) for key in subjects])
        first_key(store, KeySlot("globex"))
        keys += subjects
        assert [key.key_id for key in store.all_keys("acme")] == _in_order(keys)
        second = successor(store, subjects[self.page + self.page // 2])
        keys += [second, first_key(store, acme(second.subject, Purpose.INDEX))]
        assert [key.key_id for key in store.all_keys("acme")] == _in_order(keys)
        assert list(store.all_keys("nobody")) == []
        _goes_on((key.key_id for key in store.all_keys("acme")), _in_order(keys), elsewhere, acme)

    def test_all_tenants_come_once(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """However many pages they fill, the last one to the brim or not; the shredded ones too."""
        assert list(store.tenants()) == []
        names = [f"tenant {number}" for number in range(2 * self.page)]
        store.add_active([Addition(record(KeySlot(name)), None) for name in names])
        assert sorted(store.tenants()) == sorted(names)
        store.shred(fence("tenant 7"))
        store.shred(fence("nobody"))
        names.append("nobody")
        assert sorted(store.tenants()) == sorted(names)
        _goes_on(store.tenants(), names, elsewhere, KeySlot)

    def test_the_longest_lease_is_remembered(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """To the millisecond; a shorter one, or none, asks only."""
        assert store.declare_lease(0) == 0
        assert store.declare_lease(30.25) == 30.25
        assert elsewhere.declare_lease(5) == 30.25
        assert elsewhere.declare_lease(90) == 90
        assert store.declare_lease(0) == 90

    def test_a_check_says_what_was_reached(self, store: KeyStore) -> None:
        """One line for a person."""
        first_key(store, acme())
        said = store.check()
        assert said
        assert "\n" not in said

    def test_closing_twice_is_fine(self, store: KeyStore) -> None:
        """Whoever cleans up does not have to remember."""
        store.close()
        store.close()


def _in_order(keys: Iterable[KeyRecord]) -> list[bytes]:
    return [key.key_id for key in sorted(keys, key=lambda key: (key.subject or "", key.purpose, key.version))]


def _goes_on(
    listing: Iterator[T], there: Iterable[T], elsewhere: KeyStore, slot: Callable[[str], KeySlot]
) -> None:
    """Assert that what is there comes, once, though others are made before, between and behind it."""
    seen = [next(listing)]
    for name in ("a", "subject 0 and a half", "tenant 0 and a half", "z"):
        first_key(elsewhere, slot(name))
    seen += listing
    assert set(there) <= set(seen)
    assert len(seen) == len(set(seen))

"""Listing: every key and every tenant once, in pages; leases; the ends of a store's life."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from itertools import groupby

from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import KeySlot, Purpose
from fieldvault.testing.samples import acme, fence, first_key, record, successor, wrap_key


class ListingPromises:
    """Listing keys and tenants, leases, and checks."""

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

    def test_all_keys_of_a_tenant_come_once(self, store: KeyStore) -> None:
        """Its own first, then those of each subject together, however many pages they fill."""
        own = [first_key(store, acme()), wrap_key(store)]
        subjects = [record(acme(f"subject {number}")) for number in range(2_300)]
        store.add_active([Addition(key, None) for key in subjects])
        second = successor(store, subjects[1_700])
        first_key(store, KeySlot("globex"))
        listed = list(store.all_keys("acme"))
        assert listed[:2] == own
        assert sorted(key.key_id for key in listed) == sorted(key.key_id for key in (*own, *subjects, second))
        groups = [subject for subject, _ in groupby(listed, key=lambda key: key.subject)]
        assert len(groups) == len(set(groups))
        versions = [key.version for key in listed if key.subject == second.subject]
        assert versions == [1, 2]
        assert list(store.all_keys("nobody")) == []

    def test_all_tenants_come_once(self, store: KeyStore) -> None:
        """However many pages they fill; the shredded ones too."""
        assert list(store.tenants()) == []
        names = {f"tenant {number}" for number in range(2_300)}
        store.add_active([Addition(record(KeySlot(name)), None) for name in names])
        store.shred(fence("tenant 7"))
        listed = list(store.tenants())
        assert len(listed) == 2_300
        assert set(listed) == names

    def test_a_listing_goes_on_while_keys_are_made(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """What was there at the start comes, whatever else happens meanwhile."""
        names = {f"tenant {number}" for number in range(1_200)}
        store.add_active([Addition(record(KeySlot(name, "ann")), None) for name in names])
        listing = store.tenants()
        seen = {next(listing)}
        first_key(elsewhere, KeySlot("tenant 600 and a half"))
        assert names <= seen | set(listing)

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

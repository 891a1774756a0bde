"""Reading keys: what one look at the store shows."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import KeySlot, KeyState, Purpose
from fieldvault.testing.samples import acme, add, first_key, record, successor, wrap_key


class ReadingPromises:
    """Reading keys."""

    def test_a_record_comes_back_exactly(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Every member, whatever the bytes and however fine the time."""
        moments = [
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ]
        blobs = [bytes(range(256)), b"\x00", os.urandom(8_192)]
        for number, (moment, blob) in enumerate(zip(moments, blobs, strict=True)):
            key = replace(
                record(acme(f"{number}")), created_at=moment, wrapped=blob, uses=2**32, version=2**31 - 1
            )
            assert add(store, key)
            assert elsewhere.fetch([key.key_id]).records == {key.key_id: key}

    def test_fetching_brings_parents_along(self, store: KeyStore) -> None:
        """A subject's key comes with the wrap key that opens it, asked for or not."""
        parent, other = wrap_key(store), first_key(store, acme())
        child = first_key(store, acme("ann"), parent=parent.key_id)
        assert store.fetch([child.key_id]).records == {child.key_id: child, parent.key_id: parent}
        assert store.fetch([child.key_id, parent.key_id, other.key_id]).records.keys() == {
            child.key_id,
            parent.key_id,
            other.key_id,
        }

    def test_unknown_keys_are_missing_from_the_answer(self, store: KeyStore) -> None:
        """They are no error, and neither is asking for nothing or for the same twice."""
        key = first_key(store, acme())
        assert store.fetch([os.urandom(16), key.key_id, key.key_id]).records == {key.key_id: key}
        assert store.fetch([]).records == {}
        assert store.fetch([]).generation == store.generation()

    def test_thousands_of_keys_are_fetched_at_once(self, store: KeyStore) -> None:
        """A page of entities may have as many subjects, and few of them keys."""
        key = first_key(store, acme())
        wanted = [os.urandom(16) for _ in range(12_000)]
        wanted[7_000] = key.key_id
        assert store.fetch(wanted).records == {key.key_id: key}

    def test_current_shows_how_a_slot_stands(self, store: KeyStore) -> None:
        """Active, suspended and newest keys, with their parents; retired ones in between are left out."""
        parent = wrap_key(store)
        retired = first_key(store, acme("ann"), parent=parent.key_id)
        suspended = successor(store, retired)
        active = successor(store, suspended)
        assert store.transition(suspended.key_id, expect=KeyState.RETIRED, to=KeyState.SUSPENDED)
        assert set(store.current([acme("ann")]).records) == {suspended.key_id, active.key_id, parent.key_id}

    def test_current_shows_the_newest_key_in_any_state(self, store: KeyStore) -> None:
        """So that the next version is known where no key is active."""
        old = first_key(store, acme())
        newest = successor(store, old)
        assert store.transition(newest.key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED)
        found = store.current([acme()]).records
        assert {key.version for key in found.values()} == {2}

    def test_current_shows_only_the_slots_asked_for(self, store: KeyStore) -> None:
        """Not those of other tenants, subjects or purposes; unknown slots have nothing."""
        wanted = first_key(store, acme())
        for slot in (acme("ann"), acme(purpose=Purpose.INDEX), KeySlot("globex")):
            first_key(store, slot)
        assert store.current([acme(), KeySlot("nobody")]).records == {wanted.key_id: wanted}
        assert store.current([]).records == {}

    def test_current_does_not_mix_slots(self, store: KeyStore) -> None:
        """Tenants, subjects and purposes that are asked for, in pairs that are not."""
        names = [f"name {number}" for number in range(12)]
        keys = [record(KeySlot(tenant, subject)) for tenant in names for subject in (*names, None)]
        keys += [record(KeySlot(tenant, None, Purpose.INDEX)) for tenant in names]
        store.add_active([Addition(key, None) for key in keys])
        pairs = [key for key in keys if key.tenant == key.subject]
        for wanted in (pairs, pairs[:2], [*keys[:5], *pairs], keys[::7], keys[-3:]):
            found = store.current([key.slot for key in wanted]).records
            assert found == {key.key_id: key for key in wanted}

    def test_current_shows_thousands_of_slots(self, store: KeyStore) -> None:
        """Keys that were added in one step are seen in one read."""
        keys = [record(acme(f"subject {number}")) for number in range(6_000)]
        keys += [record(KeySlot(f"tenant {number}", f"subject {number}")) for number in range(200)]
        assert store.add_active([Addition(key, None) for key in keys]) == {key.key_id for key in keys}
        assert len(store.current([key.slot for key in keys]).records) == 6_200

"""Uses and wrapped forms: counted and changed, never past the bound, never over another's change."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice

import pytest

from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import KeyState
from fieldvault.testing.samples import THREADS, acme, fence, first_key, record, successor, together


class UsesPromises:
    """Reserving uses, and rewrapping."""

    def test_uses_are_reserved_durably(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """The answer is the new total, once however often a key is named, and everyone sees it."""
        key = first_key(store, acme())
        assert store.reserve([key.key_id], 100, limit=2**32) == {key.key_id: 100}
        assert elsewhere.reserve([key.key_id], 50, limit=2**32) == {key.key_id: 150}
        assert store.reserve([key.key_id, key.key_id], 25, limit=2**32) == {key.key_id: 175}
        assert store.fetch([key.key_id]).records[key.key_id].uses == 175

    def test_the_last_use_is_granted_and_not_one_more(self, store: KeyStore) -> None:
        """A key whose total would pass the limit is missing from the answer and unchanged."""
        key, other = first_key(store, acme()), first_key(store, acme("ann"))
        store.reserve([key.key_id], 2**32 - 10, limit=2**32)
        assert store.reserve([key.key_id, other.key_id], 11, limit=2**32) == {other.key_id: 11}
        assert store.reserve([key.key_id], 10, limit=2**32) == {key.key_id: 2**32}
        assert store.reserve([key.key_id], 1, limit=2**32) == {}
        assert store.fetch([key.key_id]).records[key.key_id].uses == 2**32

    @pytest.mark.parametrize("state", [KeyState.RETIRED, KeyState.SUSPENDED, KeyState.DESTROYED])
    def test_only_active_keys_have_uses(self, store: KeyStore, state: KeyState) -> None:
        """What seals nothing reserves nothing; neither does an unknown key."""
        key = first_key(store, acme())
        assert store.transition(key.key_id, expect=KeyState.ACTIVE, to=state)
        assert store.reserve([key.key_id, record(acme()).key_id], 1, limit=2**32) == {}
        assert store.reserve([], 1, limit=2**32) == {}

    def test_many_that_reserve_at_once_never_pass_the_limit(
        self, store: KeyStore, handles: Sequence[KeyStore]
    ) -> None:
        """What was granted adds up to the total, whoever asked and in whichever order."""
        keys = [first_key(store, acme(f"subject {number}")).key_id for number in range(4)]

        def spend(handle: KeyStore) -> int:
            granted = 0
            for _ in range(15):
                granted += len(handle.reserve(random.sample(keys, len(keys)), 10, limit=1_000))
            return granted

        calls = [partial(spend, each) for each in islice(cycle(handles), THREADS)]
        assert sum(together(calls)) == 4 * 100
        assert {found.uses for found in store.fetch(keys).records.values()} == {1_000}

    def test_a_key_is_rewrapped_where_it_is_as_expected(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Nothing else of it changes; the second that expects the old form is told that it is late."""
        key = first_key(store, acme())
        assert key.wrapped is not None
        assert store.rewrap(key.key_id, expect=key.wrapped, wrapped=b"under another root key") is True
        assert store.rewrap(key.key_id, expect=key.wrapped, wrapped=b"too late") is False
        found = elsewhere.fetch([key.key_id]).records[key.key_id]
        assert (found.wrapped, found.info()) == (b"under another root key", key.info())
        assert store.rewrap(record(acme()).key_id, expect=b"x", wrapped=b"y") is False

    @pytest.mark.parametrize("state", [KeyState.RETIRED, KeyState.SUSPENDED])
    def test_keys_that_are_not_active_are_rewrapped_too(self, store: KeyStore, state: KeyState) -> None:
        """They still decrypt, or may again: else they were lost with the old root key."""
        key = first_key(store, acme())
        assert store.transition(key.key_id, expect=KeyState.ACTIVE, to=state)
        assert key.wrapped is not None
        assert store.rewrap(key.key_id, expect=key.wrapped, wrapped=b"again") is True
        found = store.fetch([key.key_id]).records[key.key_id]
        assert (found.state, found.wrapped) == (state, b"again")

    def test_uses_are_kept_whatever_becomes_of_a_key(self, store: KeyStore) -> None:
        """Else a key that is suspended and reinstated would have all its uses once more."""
        key = first_key(store, acme())
        store.reserve([key.key_id], 70, limit=100)

        def uses() -> int:
            return store.fetch([key.key_id]).records[key.key_id].uses

        assert store.rewrap(key.key_id, expect=key.wrapped or b"", wrapped=b"again")
        assert uses() == 70
        for before, after in (
            (KeyState.ACTIVE, KeyState.SUSPENDED),
            (KeyState.SUSPENDED, KeyState.ACTIVE),
        ):
            assert store.transition(key.key_id, expect=before, to=after)
            assert uses() == 70
        assert store.reserve([key.key_id], 31, limit=100) == {}
        successor(store, key)
        assert uses() == 70
        store.shred(fence())
        assert uses() == 70

    def test_a_destroyed_key_is_never_wrapped_again(self, store: KeyStore) -> None:
        """A rewrap that comes after the destruction does not bring the material back."""
        key = first_key(store, acme())
        assert key.wrapped is not None
        store.transition(key.key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED)
        assert store.rewrap(key.key_id, expect=key.wrapped, wrapped=key.wrapped) is False
        assert store.fetch([key.key_id]).records[key.key_id].wrapped is None

    def test_of_many_that_rewrap_at_once_one_does(self, store: KeyStore, handles: Sequence[KeyStore]) -> None:
        """Compare-and-set, on a form that changes each time."""
        key = first_key(store, acme())
        assert key.wrapped is not None
        forms = [b"form %d" % number for number in range(THREADS)]
        expect = key.wrapped
        racing = zip(cycle(handles), forms, strict=False)
        done = together(
            [partial(each.rewrap, key.key_id, expect=expect, wrapped=form) for each, form in racing]
        )
        assert sum(done) == 1
        assert store.fetch([key.key_id]).records[key.key_id].wrapped == forms[done.index(True)]

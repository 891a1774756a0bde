"""States: the transitions that a key's life has, each a compare-and-set."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice

import pytest

from fieldvault.errors import ConfigurationError
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import TRANSITIONS, KeyRecord, KeyState
from fieldvault.testing.samples import THREADS, acme, add, first_key, record, state_of, successor, together

_BEFORE = list(KeyState)


def _key_in(store: KeyStore, state: KeyState, subject: str | None = None) -> KeyRecord:
    key = first_key(store, acme(subject))
    if state is not KeyState.ACTIVE:
        assert store.transition(key.key_id, expect=KeyState.ACTIVE, to=state)
    return key


class StatePromises:
    """States and transitions."""

    @pytest.mark.parametrize("before", _BEFORE)
    def test_a_key_goes_where_its_life_leads(
        self, store: KeyStore, elsewhere: KeyStore, before: KeyState
    ) -> None:
        """Only a destroyed key loses its material, and it does so in the same step."""
        for after in sorted(TRANSITIONS[before]):
            key = _key_in(store, before, subject=after)
            assert store.transition(key.key_id, expect=before, to=after) is True
            found = elsewhere.fetch([key.key_id]).records[key.key_id]
            assert found.state is after
            assert found.wrapped == (None if after is KeyState.DESTROYED else key.wrapped)

    @pytest.mark.parametrize("before", _BEFORE)
    def test_a_key_goes_nowhere_else(self, store: KeyStore, before: KeyState) -> None:
        """Every other transition is an error, and nothing happens."""
        key = _key_in(store, before)
        for after in set(KeyState) - TRANSITIONS[before]:
            with pytest.raises(ConfigurationError):
                store.transition(key.key_id, expect=before, to=after)
        assert state_of(store, key) is before

    def test_a_transition_expects_a_state(self, store: KeyStore) -> None:
        """A key in another state, or none at all, is no error and stays as it is."""
        key = first_key(store, acme())
        assert store.transition(key.key_id, expect=KeyState.SUSPENDED, to=KeyState.DESTROYED) is False
        assert state_of(store, key) is KeyState.ACTIVE
        assert store.transition(record(acme()).key_id, expect=KeyState.ACTIVE, to=KeyState.RETIRED) is False

    def test_a_slot_has_one_active_key(self, store: KeyStore) -> None:
        """A suspended key is not reinstated as active beside another."""
        old = first_key(store, acme())
        assert store.transition(old.key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED)
        new = record(acme(), 2)
        assert add(store, new)
        assert store.transition(old.key_id, expect=KeyState.SUSPENDED, to=KeyState.ACTIVE) is False
        assert (state_of(store, old), state_of(store, new)) == (KeyState.SUSPENDED, KeyState.ACTIVE)

    def test_a_reinstated_key_fills_its_slot(self, store: KeyStore) -> None:
        """It can be replaced as any active key can."""
        key = _key_in(store, KeyState.SUSPENDED)
        assert store.transition(key.key_id, expect=KeyState.SUSPENDED, to=KeyState.ACTIVE)
        assert not add(store, record(acme(), 2))
        successor(store, key)

    def test_of_many_that_change_a_state_at_once_one_does(
        self, store: KeyStore, handles: Sequence[KeyStore]
    ) -> None:
        """Compare-and-set: the others find it done."""
        key = first_key(store, acme())
        for before, after in (
            (KeyState.ACTIVE, KeyState.SUSPENDED),
            (KeyState.SUSPENDED, KeyState.ACTIVE),
        ) * 2:
            calls = [
                partial(each.transition, key.key_id, expect=before, to=after)
                for each in islice(cycle(handles), THREADS)
            ]
            assert sum(together(calls)) == 1

    def test_of_many_keys_reinstated_at_once_one_becomes_active(
        self, store: KeyStore, handles: Sequence[KeyStore]
    ) -> None:
        """Even where they are different keys of the slot."""
        keys = [_key_in(store, KeyState.SUSPENDED)]
        for version in range(2, THREADS + 1):
            keys.append(record(acme(), version))
            assert add(store, keys[-1])
            assert store.transition(keys[-1].key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED)
        calls = [
            partial(each.transition, key.key_id, expect=KeyState.SUSPENDED, to=KeyState.ACTIVE)
            for each, key in zip(cycle(handles), keys, strict=False)
        ]
        assert sum(together(calls)) == 1
        states = [state_of(store, key) for key in keys]
        assert states.count(KeyState.ACTIVE) == 1

    @pytest.mark.parametrize("state", [KeyState.SUSPENDED, KeyState.DESTROYED])
    def test_a_rotation_never_undoes_a_transition(
        self, store: KeyStore, elsewhere: KeyStore, state: KeyState
    ) -> None:
        """Of the two exactly one finds the key active."""
        for turn in range(8):
            key = first_key(store, acme(f"subject {turn}"))
            rotated, left = together(
                [
                    partial(add, store, record(key.slot, 2), key),
                    partial(elsewhere.transition, key.key_id, expect=KeyState.ACTIVE, to=state),
                ]
            )
            assert rotated is not left
            assert state_of(store, key) is (KeyState.RETIRED if rotated else state)

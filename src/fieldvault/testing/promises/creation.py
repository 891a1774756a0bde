"""Creating keys: one active key a slot, whoever comes first."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import cycle

import pytest

from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import KeySlot, KeyState, Purpose
from fieldvault.testing.samples import THREADS, acme, add, first_key, record, state_of, successor, together

_ALIKE = [
    "acme",
    "ACME",
    "Acme",
    "acme ",
    " acme",
    "a\u0301cme",
    "\u00e1cme",
    "\uff41cme",
    "acm\u0435",
    "stra\u00dfe",
    "strasse",
    "\u212a",
    "k",
    "\u0131",
    "i",
    "a\u200bcme",
    "acme%",
    "acm_",
]
"""Names that some collation takes for one another."""


class CreationPromises:
    """Creating keys."""

    def test_the_first_key_of_a_slot_becomes_active(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """It is there, active, for everyone."""
        key = first_key(store, acme())
        assert elsewhere.fetch([key.key_id]).records == {key.key_id: key}

    def test_a_slot_that_has_an_active_key_takes_no_other_first_one(self, store: KeyStore) -> None:
        """The second to come learns that it was not first, and leaves no trace."""
        key, late = first_key(store, acme()), record(acme(), 2)
        assert not add(store, late)
        assert list(store.all_keys("acme")) == [key]

    def test_a_key_takes_over_from_the_active_one(self, store: KeyStore) -> None:
        """The former is retired in the same step."""
        old = first_key(store, acme())
        new = successor(store, old)
        assert (state_of(store, old), state_of(store, new)) == (KeyState.RETIRED, KeyState.ACTIVE)

    def test_a_key_takes_over_from_no_other_than_the_active_one(self, store: KeyStore) -> None:
        """Retired keys, unknown ones and those of other slots are not replaced."""
        old = first_key(store, acme())
        new, stranger = successor(store, old), first_key(store, KeySlot("globex"))
        for replaced in (old, stranger, record(acme())):
            assert not add(store, record(acme(), 3), replaced)
        assert state_of(store, stranger) is KeyState.ACTIVE
        assert [key.key_id for key in store.all_keys("acme")] == [old.key_id, new.key_id]

    @pytest.mark.parametrize("state", [KeyState.SUSPENDED, KeyState.DESTROYED, KeyState.RETIRED])
    def test_a_key_does_not_take_over_from_one_that_left_its_place(
        self, store: KeyStore, state: KeyState
    ) -> None:
        """What was suspended or destroyed meanwhile stays so."""
        key = first_key(store, acme())
        assert store.transition(key.key_id, expect=KeyState.ACTIVE, to=state)
        assert not add(store, record(acme(), 2), key)
        assert state_of(store, key) is state

    def test_versions_of_a_slot_only_grow(self, store: KeyStore) -> None:
        """A number that was used is not used again, not even when its key is destroyed."""
        old = first_key(store, acme())
        new = successor(store, old)
        assert not add(store, record(acme(), 2), new)
        assert store.transition(new.key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED)
        assert not add(store, record(acme(), 2))
        assert add(store, record(acme(), 3))

    def test_each_addition_of_a_batch_stands_for_itself(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """The answer names those that became active, and the others changed nothing."""
        taken, rotated = first_key(store, KeySlot("globex")), first_key(store, acme())
        late, fresh, next_one = record(KeySlot("globex"), 2), record(KeySlot("initech")), record(acme(), 2)
        batch = [Addition(late, None), Addition(fresh, None), Addition(next_one, rotated.key_id)]
        assert store.add_active(batch) == {fresh.key_id, next_one.key_id}
        assert set(elsewhere.fetch([late.key_id, fresh.key_id, next_one.key_id]).records) == {
            fresh.key_id,
            next_one.key_id,
        }
        assert state_of(elsewhere, taken) is KeyState.ACTIVE
        assert store.add_active([]) == set()

    def test_purposes_and_subjects_have_slots_of_their_own(self, store: KeyStore) -> None:
        """One active key each."""
        slots = [acme(purpose=purpose) for purpose in Purpose] + [acme("ann"), acme("bob")]
        keys = [first_key(store, slot) for slot in slots]
        assert {key.key_id for key in store.all_keys("acme")} == {key.key_id for key in keys}

    def test_names_are_equal_only_byte_for_byte(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """No collation takes tenants or subjects that look alike for one another."""
        keys = {name: record(KeySlot(name)) for name in _ALIKE}
        assert store.add_active([Addition(key, None) for key in keys.values()]) == {
            key.key_id for key in keys.values()
        }
        assert sorted(elsewhere.tenants()) == sorted(_ALIKE)
        for name, key in keys.items():
            assert elsewhere.keys(name, None) == [key]
            subject = first_key(store, acme(name))
            assert elsewhere.keys("acme", name) == [subject]

    @pytest.mark.parametrize("letter", ["x", "\u00fc", "\u5e97", "\U0001f511"])
    def test_names_of_255_bytes_fit(self, store: KeyStore, elsewhere: KeyStore, letter: str) -> None:
        """The longest names there can be, in any script, and ones that differ in the last letter only."""
        size = len(letter.encode())
        name = letter * (255 // size) + "x" * (255 % size)
        keys = [first_key(store, KeySlot(name, subject)) for subject in (name, name[:-1] + "y", name[:-1])]
        assert sorted(elsewhere.all_keys(name), key=lambda key: key.key_id) == sorted(
            keys, key=lambda key: key.key_id
        )

    def test_of_many_that_make_a_first_key_at_once_one_wins(
        self, store: KeyStore, handles: Sequence[KeyStore]
    ) -> None:
        """All but one are told that they were late; the winner's key is the only one."""
        for turn in range(5):
            keys = [record(acme(f"subject {turn}")) for _ in range(THREADS)]
            won = together([partial(add, each, key) for each, key in zip(cycle(handles), keys, strict=False)])
            assert sum(won) == 1
            assert store.keys("acme", f"subject {turn}") == [keys[won.index(True)]]

    def test_of_many_that_rotate_at_once_one_wins(self, store: KeyStore, handles: Sequence[KeyStore]) -> None:
        """A slot never has two active keys, and none that nobody was told of."""
        active = first_key(store, acme())
        for version in range(2, 7):
            keys = [record(acme(), version) for _ in range(THREADS)]
            racing = zip(cycle(handles), keys, strict=False)
            won = together([partial(add, each, key, active) for each, key in racing])
            assert sum(won) == 1
            assert state_of(store, active) is KeyState.RETIRED
            active = keys[won.index(True)]
            assert state_of(store, active) is KeyState.ACTIVE
        assert len(store.keys("acme", None)) == 6

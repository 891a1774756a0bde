"""That a key was destroyed is final: it is asked for once, and remembered within bounds."""

import pytest

from fieldvault import errors
from fieldvault.keys.cache import KeyCache
from tests.keys.parties import Rig


@pytest.mark.parametrize("whole_tenant", [True, False], ids=["tenant", "subject"])
def test_a_destroyed_key_is_asked_for_once(rig: Rig, whole_tenant: bool) -> None:
    """Every later look is answered without the key store, each with an error of its own."""
    party = rig.party()
    blob = party.seal("x", subject="li")
    party.vault.shred("acme", None if whole_tenant else "li", actor="test", reason="asked")
    party.store.calls.clear()
    refusals = []
    for _ in range(3):
        with pytest.raises(errors.KeyShredded) as caught:
            party.open(blob, subject="li")
        refusals.append(caught.value)
    assert party.store.counted() == {"fetch": 1}
    assert len({id(error) for error in refusals}) == 3
    assert len({str(error) for error in refusals}) == 1


def test_keys_of_others_are_asked_for_as_before(rig: Rig) -> None:
    """A batch of destroyed and living keys brings the living ones."""
    party, other = rig.party(), rig.party()
    gone, here = party.seal("x", subject="li"), party.seal("y", subject="ada")
    party.vault.shred("acme", "li", actor="test", reason="asked")
    other.vault.ring.prefetch(blobs=[gone, here])
    other.store.calls.clear()
    assert other.open(here, subject="ada") == "y"
    with pytest.raises(errors.KeyShredded):
        other.open(gone, subject="li")
    assert "fetch" not in other.store.counted()


def test_the_memory_of_destroyed_keys_is_bounded() -> None:
    """The last ones are known; who is forgotten is asked for again."""
    cache = KeyCache(2)
    for number in range(3):
        cache.note_destroyed(bytes([number]), f"why {number}")
    assert [cache.destroyed(bytes([number])) for number in range(3)] == [None, "why 1", "why 2"]

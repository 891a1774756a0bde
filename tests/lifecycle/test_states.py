"""Suspending and reinstating."""

import pytest

from fieldvault.errors import ConfigurationError, KeyNotFound, KeyStoreError, KeySuspended
from fieldvault.keys.records import TRANSITIONS, KeyInfo, KeyState, Purpose
from tests.keys.parties import Party, Rig


def newest(party: Party) -> KeyInfo:
    """The newest data key of the tenant."""
    return [key for key in party.vault.keys("acme") if key.purpose is Purpose.DATA][-1]


def states(party: Party) -> list[str]:
    """The states of the tenant's data keys."""
    return [key.state.value for key in party.vault.keys("acme") if key.purpose is Purpose.DATA]


def test_a_key_is_suspended_and_reinstated(rig: Rig) -> None:
    """Reversibly: it is active again, the same key, and reads what it sealed."""
    party = rig.party()
    blob = party.seal("x")
    key_id = newest(party).key_id
    assert party.vault.suspend(key_id).state is KeyState.SUSPENDED
    info = party.vault.reinstate(key_id)
    assert (info.state, info.key_id) == (KeyState.ACTIVE, key_id)
    assert party.open(blob) == "x"
    assert party.seal("y")[3:19] == key_id


def test_a_key_that_was_replaced_comes_back_for_reading_only(rig: Rig) -> None:
    """Whoever rotated away from it does not want it to seal."""
    party = rig.party()
    blob = party.seal("x")
    old = newest(party).key_id
    party.vault.suspend(old)
    party.vault.rotate("acme")
    assert party.vault.reinstate(old).state is KeyState.RETIRED
    assert states(party) == ["retired", "active"]
    assert party.open(blob) == "x"


def test_a_replaced_key_does_not_seal_again_even_where_no_other_is_active(rig: Rig) -> None:
    """Its successor may be suspended at the moment; it is the successor that comes back active."""
    party = rig.party()
    party.seal("x")
    old = newest(party).key_id
    new = party.vault.rotate("acme").key_id
    party.vault.suspend(old)
    party.vault.suspend(new)
    assert party.vault.reinstate(old).state is KeyState.RETIRED
    assert party.vault.reinstate(new).state is KeyState.ACTIVE
    assert states(party) == ["retired", "active"]


def test_suspension_reaches_other_processes_within_the_lease(rig: Rig) -> None:
    """And so does the way back."""
    here, elsewhere = rig.party(), rig.party()
    blob = here.seal("x")
    elsewhere.open(blob)
    key_id = newest(here).key_id
    here.vault.suspend(key_id)
    assert elsewhere.open(blob) == "x"
    rig.clock.advance(30)
    with pytest.raises(KeySuspended):
        elsewhere.open(blob)
    here.vault.reinstate(key_id)
    assert elsewhere.open(blob) == "x", "what is not cached is read anew"


def test_what_is_no_key_is_told(rig: Rig) -> None:
    """Both ways."""
    party = rig.party()
    for change in (party.vault.suspend, party.vault.reinstate):
        with pytest.raises(KeyNotFound):
            change(bytes(16))


def test_illegal_transitions_are_refused_by_name(rig: Rig) -> None:
    """Suspending twice, reinstating what is not suspended, touching what is destroyed."""
    party = rig.party()
    party.seal("x")
    key_id = newest(party).key_id
    with pytest.raises(ConfigurationError, match="from active to active"):
        party.vault.reinstate(key_id)
    party.vault.suspend(key_id)
    with pytest.raises(ConfigurationError, match="from suspended to suspended"):
        party.vault.suspend(key_id)
    party.vault.rotate("acme")
    party.vault.reinstate(key_id)
    with pytest.raises(ConfigurationError, match="from retired to retired"):
        party.vault.reinstate(key_id)
    party.vault.shred("acme", actor="operator", reason="left")
    for change in (party.vault.suspend, party.vault.reinstate):
        with pytest.raises(ConfigurationError, match="it is final"):
            change(key_id)


@pytest.mark.parametrize("expect", KeyState)
@pytest.mark.parametrize("to", KeyState)
def test_the_key_store_allows_the_life_of_a_key_and_nothing_else(
    rig: Rig, expect: KeyState, to: KeyState
) -> None:
    """Every pair of states, as NIST SP 800-57 draws them."""
    if to in TRANSITIONS[expect]:
        assert rig.store.transition(bytes(16), expect=expect, to=to) is False, "there is no such key"
    else:
        with pytest.raises(ConfigurationError):
            rig.store.transition(bytes(16), expect=expect, to=to)


def test_a_race_for_a_key_is_told_as_one(memory_rig: Rig) -> None:
    """Compare-and-set: the state is no longer what was read."""
    party = memory_rig.party()
    party.seal("x")
    key_id = newest(party).key_id

    def other() -> None:
        memory_rig.store.transition(key_id, expect=KeyState.ACTIVE, to=KeyState.RETIRED)

    party.store.once(party.store.before, "transition", other)
    with pytest.raises(KeyStoreError, match="at the same moment"):
        party.vault.suspend(key_id)
    assert states(party) == ["retired"]

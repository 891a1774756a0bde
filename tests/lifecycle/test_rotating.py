"""Rotating keys one after the other, while others work on them."""

from datetime import timedelta

import pytest

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import KeyInfo, KeySlot, KeyState, Purpose
from fieldvault.lifecycle.rotating import Outcome, Rotated, leading, rotate_key, rotate_subjects
from tests.keys.parties import Party, Rig


def key_of(party: Party, subject: str | None = None) -> KeyInfo:
    """The leading data key of the tenant, or of a subject."""
    found = leading(party.vault.key_store.keys("acme", subject))
    assert found is not None
    return found


def test_the_active_key_is_replaced(rig: Rig) -> None:
    """By the next version, which seals from then on; the former one opens."""
    party = rig.party()
    blob = party.seal("x", subject="ann")
    done = rotate_key(party.vault.ring, key_of(party, "ann"))
    assert done == Rotated(key_of(party, "ann"), Outcome.ROTATED)
    assert (done.key.version, done.key.state) == (2, KeyState.ACTIVE)
    assert party.open(blob, subject="ann") == "x"
    assert party.seal("y", subject="ann")[3:19] == done.key.key_id


def test_a_key_that_another_process_replaced_is_left_its_way(rig: Rig) -> None:
    """Two operators at once rotate everyone once."""
    here, elsewhere = rig.party(), rig.party()
    here.seal("x")
    seen = key_of(here)
    elsewhere.vault.rotate("acme")
    assert rotate_key(here.vault.ring, seen) == Rotated(seen, Outcome.OVERTAKEN)
    assert key_of(here).version == 2


def test_a_key_that_is_suspended_meanwhile_gets_no_successor(rig: Rig) -> None:
    """Whoever suspended it does not want its scope to seal."""
    party = rig.party()
    party.seal("x")
    seen = key_of(party)
    party.vault.suspend(seen.key_id)
    assert rotate_key(party.vault.ring, seen).outcome is Outcome.OVERTAKEN
    assert rotate_key(party.vault.ring, key_of(party)).outcome is Outcome.SUSPENDED
    states = [key.state for key in party.vault.keys("acme") if key.purpose is Purpose.DATA]
    assert states == [KeyState.SUSPENDED]


def test_who_is_shredded_meanwhile_gets_no_key(rig: Rig) -> None:
    """The listing is older than the fence."""
    party = rig.party()
    party.seal("x", subject="ann")
    seen = key_of(party, "ann")
    party.store.once(
        party.store.before,
        "add_active",
        lambda: rig.party().vault.shred("acme", "ann", actor="a", reason="r"),
    )
    assert rotate_key(party.vault.ring, seen).outcome is Outcome.SHREDDED
    assert rotate_key(party.vault.ring, key_of(party, "ann")).outcome is Outcome.SHREDDED
    assert [key.state for key in party.vault.keys("acme", "ann")] == [KeyState.DESTROYED]


def test_subjects_under_a_suspended_wrap_key_are_passed_over(rig: Rig) -> None:
    """Nothing of them can be wrapped."""
    party = rig.party()
    party.seal("x", subject="ann")
    (wrap_key,) = (key for key in party.vault.keys("acme") if key.purpose is Purpose.WRAP)
    party.vault.suspend(wrap_key.key_id)
    assert [done.outcome for done in rotate_subjects(party.vault.ring, "acme")] == [Outcome.SUSPENDED]


def test_subjects_are_rotated_once_however_often_it_is_begun(rig: Rig) -> None:
    """By the time of the first call; and the tenant's own key is not theirs."""
    party = rig.party()
    for subject in (None, "ann", "bob", "carl"):
        party.seal("x", subject=subject)
    began = max(key.created_at for key in party.vault.keys("acme")) + timedelta(microseconds=1)
    # Whoever is interrupted takes no more of them.
    assert next(rotate_subjects(party.vault.ring, "acme", before=began)).key.subject == "ann"
    again = [
        (done.key.subject, done.outcome) for done in rotate_subjects(party.vault.ring, "acme", before=began)
    ]
    assert again == [("ann", Outcome.NEWER), ("bob", Outcome.ROTATED), ("carl", Outcome.ROTATED)]
    assert key_of(party).version == 1
    assert {key_of(party, subject).version for subject in ("ann", "bob", "carl")} == {2}


def test_an_outage_ends_it_where_it_is(rig: Rig) -> None:
    """What was rotated stays so."""
    party = rig.party()
    for subject in ("ann", "bob"):
        party.seal("x", subject=subject)
    going = rotate_subjects(party.vault.ring, "acme")
    next(going)
    party.store.down = True
    with pytest.raises(KeyStoreError):
        next(going)
    party.store.down = False
    assert [key_of(party, subject).version for subject in ("ann", "bob")] == [2, 1]


def test_of_several_data_keys_the_active_one_leads(rig: Rig) -> None:
    """Then a suspended one, then the newest; keys for other purposes never do."""
    party = rig.party()
    party.seal("x", subject="ann")
    first = party.vault.keys("acme", "ann")[0].key_id
    party.vault.suspend(first)
    second = party.vault.rotate("acme", "ann").key_id
    assert key_of(party, "ann").key_id == second
    party.vault.suspend(second)
    party.vault.reinstate(first)
    assert key_of(party, "ann").key_id == second
    assert leading(party.vault.key_store.keys("acme", None)) is None
    assert KeySlot("acme", None, Purpose.WRAP) in {
        record.slot for record in party.vault.key_store.keys("acme", None)
    }

"""The keys of a rotation, in the key store."""

from datetime import timedelta

import pytest

from fieldvault.errors import ConfigurationError
from fieldvault.keys import indexing
from fieldvault.keys.records import KeyState
from fieldvault.lifecycle import index_keys
from fieldvault.lifecycle.states import change
from tests.keys.parties import Party, Rig


def rotated(rig: Rig) -> Party:
    """A party whose tenant's index key is being rotated."""
    party = rig.party()
    party.vault.ring.index_keys("acme")
    party.vault.rotate_index("acme")
    return party


def test_a_former_key_is_not_suspended(rig: Rig) -> None:
    """Values under it would get in twice. The message says what to do; nothing changed."""
    party = rotated(rig)
    before = party.vault.index_rotation("acme")
    with pytest.raises(ConfigurationError, match="drop it with the end of the rotation"):
        party.vault.suspend(before.former[0].key_id)
    assert party.vault.index_rotation("acme") == before
    assert before.former[0].state is KeyState.RETIRED


def test_the_active_key_can_be_suspended_during_a_rotation(rig: Rig) -> None:
    """It stops the tenant's searches, and is reversible."""
    party = rotated(rig)
    active = party.vault.index_rotation("acme").active.key_id
    assert party.vault.suspend(active).state is KeyState.SUSPENDED
    assert party.vault.reinstate(active).state is KeyState.ACTIVE
    assert len(party.vault.index_rotation("acme").former) == 1


def test_a_former_key_that_was_suspended_is_a_former_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As earlier releases allowed: the rotation is not over, and ends with that key destroyed."""
    party = rotated(rig)
    (former,) = party.vault.index_rotation("acme").former
    change(party.vault.ring, former.key_id, KeyState.RETIRED, KeyState.SUSPENDED)
    assert [key.key_id for key in party.vault.index_rotation("acme").former] == [former.key_id]
    with pytest.raises(ConfigurationError, match="being rotated already"):
        party.vault.rotate_index("acme")
    with pytest.raises(ConfigurationError, match="rebuild after that, then drop it"):
        party.vault.drop_index("acme")
    for module in (indexing, index_keys):
        monkeypatch.setattr(module, "SETTLING", -timedelta(days=1))
    assert [key.state for key in party.vault.drop_index("acme")] == [KeyState.DESTROYED]
    assert party.vault.index_rotation("acme").former == ()

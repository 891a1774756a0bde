"""Making keys: what happens between a key's entry into the store and its entry into the cache."""

import threading
from collections.abc import Mapping

import pytest

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import KMS
from fieldvault.keys.records import KeyState
from fieldvault.testing.samples import fence
from tests.keys.parties import Rig


def test_a_first_key_that_was_replaced_at_once_is_not_used(rig: Rig) -> None:
    """Another process rotated before its maker could cache it; the maker seals under the other's."""
    party, other = rig.party(), rig.party()

    def meanwhile() -> None:
        other.vault.rotate("acme")
        party.vault.ring.lease.renew()

    party.store.once(party.store.after, "add_active", meanwhile)
    blob = party.seal("x")
    assert [record.state for record in rig.store.keys("acme", None)] == [KeyState.RETIRED, KeyState.ACTIVE]
    assert blob[3:19] == rig.store.keys("acme", None)[1].key_id
    assert party.open(blob) == "x"


def test_a_successor_that_was_replaced_at_once_is_not_used(rig: Rig) -> None:
    """Its maker is told which key it made, and seals under the newest."""
    party, other = rig.party(), rig.party()
    party.seal("x")
    party.store.once(party.store.after, "add_active", lambda: other.vault.rotate("acme"))
    assert party.vault.rotate("acme").version == 2
    assert party.seal("y")[3:19] == rig.store.keys("acme", None)[2].key_id


@pytest.mark.parametrize("subject", [None, "alice"])
def test_whoever_comes_second_takes_the_first_ones_key(rig: Rig, subject: str | None) -> None:
    """Another process was first between the read and the write."""
    party, other = rig.party(), rig.party()
    blobs: list[bytes] = []
    party.store.once(
        party.store.before, "add_active", lambda: blobs.append(other.seal("first", subject=subject))
    )
    blobs.append(party.seal("second", subject=subject))
    assert len({blob[3:19] for blob in blobs}) == 1
    assert len(rig.store.keys("acme", subject)) == 1
    assert [party.open(blob) for blob in blobs] == ["first", "second"]
    assert [other.open(blob) for blob in blobs] == ["first", "second"]


def test_a_subjects_key_is_no_younger_than_the_word_of_the_kms(memory_rig: Rig) -> None:
    """It expires with the wrap key that opened or made it, and is opened anew with it."""
    party = memory_rig.party()
    blob = party.seal("x", subject="alice")
    for _ in range(29):
        memory_rig.clock.advance(10)
        party.open(blob)
    new = party.seal("y", subject="bob")
    party.kms_calls()
    memory_rig.clock.advance(9)
    assert party.open(new) == "y"
    assert party.kms_calls() == []
    memory_rig.clock.advance(1)
    assert party.open(new) == "y"
    assert party.kms_calls() == ["unwrap_many"]


class _Abreast:
    """A KMS that answers a wrapping once so many have come."""

    def __init__(self, kms: KMS, number: int) -> None:
        self._kms = kms
        self._barrier = threading.Barrier(number)

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap with the others."""
        self._barrier.wait(30)
        return self._kms.wrap(key, context=context)

    def __getattr__(self, name: str) -> object:
        return getattr(self._kms, name)


def test_first_keys_of_many_tenants_are_wrapped_side_by_side(memory_rig: Rig) -> None:
    """Sixteen at a time: a page of new tenants does not wait for one after the other."""
    kms: object = _Abreast(memory_rig.kms, 16)
    party = Rig(kms, memory_rig.store, memory_rig.clock).party()  # type: ignore[arg-type]
    tenants = [f"tenant {number}" for number in range(32)]
    assert party.vault.prefetch(tenants) == {}
    assert sorted(memory_rig.store.tenants()) == sorted(tenants)


@pytest.mark.parametrize("subject", [None, "alice"])
def test_nothing_is_wrapped_for_who_was_shredded(rig: Rig, subject: str | None) -> None:
    """The key store refuses the key anyway; the KMS is not even told the name.

    A subject's key has the tenant's wrap key above it, and it is that one which is gone.
    """
    party, late = rig.party(), rig.party()
    party.seal("x", subject=subject)
    party.vault.shred("acme", actor="test", reason="asked")
    with pytest.raises(KeyShredded, match="shredded" if subject is None else "destroyed"):
        late.seal("y", subject=subject)
    assert late.kms_calls() == []


def test_a_fenced_tenant_among_many_costs_few_calls(memory_rig: Rig) -> None:
    """It refuses each step that it is part of; the others are found by halves, and have their keys."""
    memory_rig.store.shred(fence("tenant 41"))
    party = memory_rig.party()
    names = [f"tenant {number}" for number in range(64)]
    failed = party.vault.prefetch(names)
    assert {tenant: type(problem) for tenant, problem in failed.items()} == {"tenant 41": KeyShredded}
    assert party.store.counted()["add_active"] == 2 * 6 + 1
    assert sum(len(memory_rig.store.keys(name, None)) for name in names) == 63

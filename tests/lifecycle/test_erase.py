"""Shredding: complete, repeatable, interruptible, evidenced."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fieldvault import CachePolicy
from fieldvault.errors import ConfigurationError, KeyNotFound, KeyShredded, KeyStoreError
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState
from fieldvault.keystores import MemoryKeyStore
from tests.keys.parties import Party, Rig, Running


def shred(party: Party, tenant: str = "acme", subject: str | None = None) -> Any:
    """Shred, for a reason."""
    return party.vault.shred(tenant, subject, actor="operator", reason="asked to be forgotten")


def test_a_shredded_tenant_is_unreadable_with_all_its_subjects(rig: Rig) -> None:
    """Every key of every version, warm here and cold elsewhere; other tenants go on."""
    party = rig.party()
    blobs = [party.seal("x"), party.seal("x", subject="alice")]
    party.vault.rotate("acme")
    blobs += [party.seal("x"), party.seal("x", subject="bob")]
    other = party.seal("x", "globex", "alice")
    shred(party)
    for reader in (party, rig.party()):
        for blob in blobs:
            with pytest.raises(KeyShredded):
                reader.open(blob)
        assert reader.open(other, "globex") == "x"
    records = list(rig.store.keys("acme", None))
    assert {record.state for record in records} == {KeyState.DESTROYED}
    assert {record.wrapped for record in records} == {None}


def test_a_shredded_subject_leaves_its_tenant_and_others_alone(rig: Rig) -> None:
    """Only this person's values are gone."""
    party = rig.party()
    alice, bob, own = party.seal("a", subject="alice"), party.seal("b", subject="bob"), party.seal("c")
    namesake = party.seal("d", "globex", "alice")
    receipt = shred(party, subject="alice")
    assert receipt.subject == "alice"
    with pytest.raises(KeyShredded):
        party.open(alice)
    assert (party.open(bob), party.open(own), party.open(namesake, "globex")) == ("b", "c", "d")


def test_the_receipt_says_whose_keys_which_who_why_and_when(rig: Rig) -> None:
    """In a form that goes into JSON."""
    party = rig.party(CachePolicy(lease=20, grace=10))
    rig.party(CachePolicy(lease=100, grace=50))
    party.seal("x")
    party.vault.rotate("acme")
    party.seal("x", subject="alice")
    before = datetime.now(UTC)
    receipt = shred(party)
    after = datetime.now(UTC)
    assert (receipt.tenant, receipt.subject) == ("acme", None)
    assert (receipt.actor, receipt.reason) == ("operator", "asked to be forgotten")
    assert before <= receipt.fenced_at <= after
    longest = timedelta(seconds=150)
    assert before + longest <= receipt.unreadable_after <= after + longest
    assert set(receipt.key_ids) == {record.key_id for record in rig.store.keys("acme", None)}
    assert len(receipt.key_ids) == 3
    told = json.loads(json.dumps(receipt.as_dict()))
    assert told["key_ids"] == [key_id.hex() for key_id in receipt.key_ids]
    assert datetime.fromisoformat(told["fenced_at"]) == receipt.fenced_at
    assert datetime.fromisoformat(told["unreadable_after"]) == receipt.unreadable_after
    assert (told["tenant"], told["subject"], told["actor"]) == ("acme", None, "operator")


def test_the_longest_lease_counts_although_its_process_is_gone(rig: Rig) -> None:
    """Nobody knows that it is."""
    party = rig.party(CachePolicy(lease=1, grace=0))
    rig.party(CachePolicy(lease=500, grace=100)).vault.close()
    party.seal("x")
    receipt = shred(party)
    assert receipt.unreadable_after - datetime.now(UTC) > timedelta(seconds=595)


def test_shredding_again_ends_in_the_same_state_and_tells_of_the_first(rig: Rig) -> None:
    """By whoever it is asked again."""
    party = rig.party()
    party.seal("x")
    first = shred(party)
    generation = rig.store.generation()
    second = rig.party().vault.shred("acme", actor="somebody else", reason="again")
    assert (second.actor, second.reason, second.fenced_at) == (first.actor, first.reason, first.fenced_at)
    assert second.key_ids == first.key_ids
    assert rig.store.generation() == generation


def test_an_unknown_tenant_is_refused_and_not_fenced(rig: Rig) -> None:
    """A mistyped name would lock out whoever comes to have it."""
    party = rig.party()
    party.seal("x")
    with pytest.raises(KeyNotFound):
        shred(party, "acmee")
    assert rig.store.fence("acmee", None) is None
    assert party.seal("x", "acmee")


def test_a_subject_without_keys_is_fenced_all_the_same(rig: Rig) -> None:
    """Whoever asks to be forgotten gets no key later."""
    party = rig.party()
    party.seal("x")
    assert shred(party, subject="alice").key_ids == ()
    with pytest.raises(KeyShredded):
        party.seal("x", subject="alice")


@pytest.mark.parametrize(
    "arguments",
    [
        {"tenant": ""},
        {"tenant": "a\x00b"},
        {"tenant": 7.5},
        {"subject": ""},
        {"subject": "x" * 256},
        {"actor": ""},
        {"actor": None},
        {"actor": "a\nb"},
        {"reason": ""},
        {"reason": "  "},
        {"reason": None},
        {"reason": 7},
        {"reason": "x" * 1001},
        {"reason": "nul \x00"},
        {"reason": "lone \ud800"},
    ],
)
def test_a_shred_that_cannot_be_recorded_is_refused_before_anything_happens(
    rig: Rig, arguments: dict[str, Any]
) -> None:
    """Who and why are part of the evidence."""
    party = rig.party()
    blob = party.seal("x")
    given = {"tenant": "acme", "subject": None, "actor": "operator", "reason": "asked"} | arguments
    with pytest.raises(ConfigurationError):
        party.vault.shred(**given)
    assert party.open(blob) == "x"
    assert rig.store.fence("acme", None) is None


def test_the_longest_reason_is_kept_in_any_script(rig: Rig) -> None:
    """A thousand characters."""
    party = rig.party()
    party.seal("x")
    reason = "客户要求删除\n" * 142 + "......"
    assert len(reason) == 1000
    assert party.vault.shred("acme", actor="运营", reason=reason).reason == reason


def state_of(rig: Rig) -> object:
    """All that the key store knows of the tenant."""
    fence = rig.store.fence("acme", None)
    return (
        [(record.key_id, record.state, record.wrapped) for record in rig.store.keys("acme", None)],
        None if fence is None else (fence.tenant, fence.subject, fence.actor, fence.reason),
        list(rig.store.tenants()),
    )


CALLS = {"fence": 2, "keys": 2, "shred": 1, "generation": 1, "changes": 1, "declare_lease": 1}
"""What a shred asks of the key store, and how often."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("call", "nth"), [(call, nth + 1) for call in CALLS for nth in range(CALLS[call])])
def test_a_shred_interrupted_anywhere_and_repeated_ends_in_the_same_state(
    rig: Rig, when: str, call: str, nth: int
) -> None:
    """The key store fails before, or after, each call that a shred makes of it."""
    party = rig.party()
    blobs = [party.seal("x"), party.seal("x", subject="alice")]
    seen = Counter[str]()

    def strike() -> None:
        seen[call] += 1
        if seen[call] == nth:
            raise KeyStoreError("the key store went away")

    place = party.store.before if when == "before" else party.store.after
    place[call] = strike
    with pytest.raises(KeyStoreError, match="went away"):
        shred(party)
    place.clear()
    receipt = shred(party)
    assert len(receipt.key_ids) == 2
    for blob in blobs:
        with pytest.raises(KeyShredded):
            party.open(blob)
    assert state_of(rig) == (
        [(key_id, KeyState.DESTROYED, None) for key_id in receipt.key_ids],
        ("acme", None, "operator", "asked to be forgotten"),
        ["acme"],
    )


def test_every_call_that_a_shred_makes_is_among_those_that_are_made_to_fail(rig: Rig) -> None:
    """A new one has to be added to the list above."""
    party = rig.party()
    party.seal("x")
    party.store.calls.clear()
    shred(party)
    assert party.store.counted() == CALLS


class Forgetful(MemoryKeyStore):
    """A key store that does not keep its promises."""

    def keys(self, tenant: str, subject: str | None) -> list[KeyRecord]:
        """Answer with material that should be gone."""
        return [replace(record, wrapped=b"still here") for record in super().keys(tenant, subject)]


def test_a_key_store_that_kept_the_keys_gets_no_receipt(local_kms: Any, clock: Any) -> None:
    """A receipt is evidence."""
    party = Rig(local_kms, Forgetful(), clock).party()
    party.seal("x")
    with pytest.raises(KeyStoreError, match="does not keep its promises"):
        shred(party)


def test_a_key_store_that_lost_the_fence_gets_no_receipt(memory_rig: Rig) -> None:
    """Its keys could come back."""
    party = memory_rig.party()
    party.seal("x")
    store = memory_rig.store
    assert isinstance(store, MemoryKeyStore)
    party.store.after["shred"] = store._fences.clear
    with pytest.raises(KeyStoreError, match="lost its fence"):
        shred(party)


def test_creation_that_races_with_a_shred_loses(rig: Rig) -> None:
    """A first key on its way to the store meets the fence there."""
    party, other = rig.party(), rig.party()
    party.seal("x")
    with other.kms.hold(when=lambda context: context["purpose"] == "wrap") as hold:
        sealing = Running(lambda: other.seal("y", subject="alice"))
        assert hold.reached.wait(10)
        shred(party)
    with pytest.raises(KeyShredded):
        sealing.result()
    assert all(record.wrapped is None for record in rig.store.all_keys("acme"))


def test_a_rotation_that_races_with_a_shred_loses(rig: Rig) -> None:
    """It brings no key back."""
    party, other = rig.party(), rig.party()
    party.seal("x")
    with other.kms.hold() as hold:
        rotating = Running(lambda: other.vault.rotate("acme"))
        assert hold.reached.wait(10)
        shred(party)
    with pytest.raises(KeyShredded):
        rotating.result()
    assert {record.state for record in rig.store.keys("acme", None)} == {KeyState.DESTROYED}


def test_a_tenants_shred_costs_the_same_however_many_subjects_it_has(rig: Rig) -> None:
    """Their keys are not touched, one by one or at all."""
    counts = []
    for tenant, subjects in (("few", 1), ("many", 200)):
        party = rig.party()
        party.vault.ring.prefetch(slots=[KeySlot(tenant, str(index)) for index in range(subjects)])
        party.store.calls.clear()
        shred(party, tenant)
        counts.append(party.store.counted())
    assert counts[0] == counts[1]

"""Loading: the hierarchy, the states as readers and writers see them, and batches."""

from dataclasses import replace
from typing import Any

import pytest

from fieldvault import CachePolicy
from fieldvault.errors import (
    DecryptionError,
    KeyNotFound,
    KeyShredded,
    KeyStoreError,
    KeySuspended,
    KMSError,
    TenantMismatch,
)
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore
from tests.keys.parties import FIELD, Rig


def states(rig: Rig, tenant: str = "acme", purpose: Purpose = Purpose.DATA) -> list[str]:
    """The states of a tenant's own keys of a purpose, by version."""
    return [record.state.value for record in rig.store.keys(tenant, None) if record.purpose is purpose]


def active(rig: Rig, tenant: str = "acme", subject: str | None = None) -> KeyRecord:
    """The active data key of a slot."""
    found = [
        record
        for record in rig.store.keys(tenant, subject)
        if record.state is KeyState.ACTIVE and record.purpose is Purpose.DATA
    ]
    assert len(found) == 1
    return found[0]


# -- the hierarchy ------------------------------------------------------------------------------------------


def test_a_tenants_keys_are_wrapped_by_the_kms_under_their_context(rig: Rig) -> None:
    """All three purposes, each with the tenant, the purpose and the key id."""
    party = rig.party()
    party.seal("x", subject="alice")
    party.seal("x")
    party.vault.ring.loader.active([KeySlot("acme", None, Purpose.INDEX)])
    contexts = [context for call in party.kms.calls for context in call.contexts]
    own = {record.purpose: record for record in rig.store.keys("acme", None)}
    assert set(own) == set(Purpose)
    assert {context["purpose"]: context for context in contexts} == {
        purpose: {"tenant": "acme", "purpose": purpose.value, "key_id": record.key_id.hex()}
        for purpose, record in own.items()
    }
    assert len(contexts) == 3
    assert all(record.parent is None for record in own.values())


def test_subjects_cost_no_kms_call_each(rig: Rig) -> None:
    """Twenty subjects, one wrap key: wrapped once, and unwrapped once by a cold process."""
    party, cold = rig.party(), rig.party()
    blobs = [party.seal(index, subject=f"subject {index}") for index in range(20)]
    assert party.kms_calls() == ["wrap"]
    wrap_key = next(record for record in rig.store.keys("acme", None) if record.purpose is Purpose.WRAP)
    assert active(rig, subject="subject 7").parent == wrap_key.key_id
    assert [cold.open(blob) for blob in blobs] == list(range(20))
    assert cold.kms_calls() == ["unwrap_many"]


def test_two_subjects_and_their_tenant_have_keys_of_their_own(rig: Rig) -> None:
    """No ciphertext of one opens for another."""
    party = rig.party()
    own, alice, bob = party.seal("x"), party.seal("x", subject="alice"), party.seal("x", subject="bob")
    assert len({blob[3:19] for blob in (own, alice, bob)}) == 3
    assert party.open(alice) == party.open(alice, subject="alice") == "x"
    for blob, subject in ((alice, "bob"), (bob, "alice"), (own, "alice")):
        with pytest.raises(DecryptionError):
            party.open(blob, subject=subject)


def test_another_tenants_ciphertext_is_refused(rig: Rig) -> None:
    """Warm and cold."""
    blob = rig.party().seal("x")
    party = rig.party()
    for _ in range(2):
        with pytest.raises(TenantMismatch):
            party.open(blob, "globex")


def test_a_key_of_another_purpose_never_opens_values(rig: Rig) -> None:
    """A ciphertext that names the wrap key is refused like any changed one."""
    party = rig.party()
    blob = party.seal("x", subject="alice")
    parent = active(rig, subject="alice").parent
    assert parent is not None
    forged = blob[:3] + parent + blob[19:]
    with pytest.raises(DecryptionError):
        party.open(forged)
    with pytest.raises(DecryptionError):
        party.vault.ring.for_opening(forged)
    assert forged[:19] not in party.vault.ring.cache.opening


def test_an_unknown_key_is_told(rig: Rig) -> None:
    """It is another store's, or it was lost."""
    party = rig.party()
    blob = party.seal("x")
    with pytest.raises(KeyNotFound):
        party.open(blob[:3] + bytes(16) + blob[19:])


# -- attackers with a hand in the key store or in the KMS ---------------------------------------------------


def test_a_lying_kms_is_found_out(rig: Rig) -> None:
    """Another key than the one that was wrapped: never a wrong plaintext, never sealed under."""
    tenant, subject = rig.party().seal("x"), rig.party().seal("x", subject="alice")
    liar = rig.party()
    liar.kms.lie()
    for blob in (tenant, subject):
        with pytest.raises(KMSError, match="another key"):
            liar.open(blob)
    for name in (None, "alice", "somebody new"):
        with pytest.raises(KMSError, match="another key"):
            liar.seal("x", subject=name)
    liar.kms.heal()
    assert (liar.open(tenant), liar.open(subject)) == ("x", "x")


def test_a_kms_that_checks_no_context_does_not_move_keys_between_tenants(
    memory_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even so the value itself is bound to its tenant."""
    store = memory_rig.store
    assert isinstance(store, MemoryKeyStore)
    party = memory_rig.party()
    blob = party.seal("x")
    record = active(memory_rig)
    (secret,) = [party.vault.ring.cache.get(record.key_id)]
    assert secret is not None
    material = secret.secret.reveal()
    cold = memory_rig.party()
    monkeypatch.setattr(cold.kms, "unwrap_many", lambda items: [material] * len(items))
    store._keys[record.key_id] = replace(record, tenant="globex")
    with pytest.raises(DecryptionError):
        cold.open(blob, "globex")


def swap(store: MemoryKeyStore, one: KeyRecord, other: KeyRecord) -> None:
    """Exchange the wrapped keys of two records."""
    store._keys[one.key_id] = replace(one, wrapped=other.wrapped, parent=other.parent)
    store._keys[other.key_id] = replace(other, wrapped=one.wrapped, parent=one.parent)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("acme", None), ("globex", None)),
        (("acme", "alice"), ("acme", "bob")),
        (("acme", "alice"), ("globex", "alice")),
        (("acme", "alice"), ("acme", None)),
    ],
)
def test_wrapped_keys_that_were_swapped_in_the_store_are_refused(
    memory_rig: Rig, one: tuple[str, str | None], other: tuple[str, str | None]
) -> None:
    """For reading and for writing."""
    assert isinstance(memory_rig.store, MemoryKeyStore)
    party = memory_rig.party()
    blobs = {scope: party.seal("x", *scope) for scope in (one, other)}
    swap(memory_rig.store, active(memory_rig, *one), active(memory_rig, *other))
    cold = memory_rig.party()
    for scope, blob in blobs.items():
        with pytest.raises(KMSError):
            cold.open(blob, *scope)
        with pytest.raises(KMSError):
            cold.seal("y", *scope)


@pytest.mark.parametrize(
    ("subject", "moved"),
    [
        (None, {"tenant": "globex"}),
        (None, {"subject": "mallory"}),
        (None, {"parent": "self"}),
        (None, {"parent": "another"}),
        (None, {"wrapped": b"\x01\x00\x00\x00\x01" + bytes(48)}),
        ("alice", {"tenant": "globex"}),
        ("alice", {"subject": "mallory"}),
        ("alice", {"subject": None}),
        ("alice", {"parent": "self"}),
        ("alice", {"parent": "another"}),
        ("alice", {"parent": "none"}),
        ("alice", {"wrapped": b"\x01" + bytes(48)}),
    ],
)
def test_a_record_that_was_moved_in_the_store_is_refused(
    memory_rig: Rig, subject: str | None, moved: dict[str, Any]
) -> None:
    """To another tenant, another subject, or under another key."""
    store = memory_rig.store
    assert isinstance(store, MemoryKeyStore)
    party = memory_rig.party()
    blob = party.seal("x", subject=subject)
    party.seal("x", "globex", "bob")
    record = active(memory_rig, subject=subject)
    parents = {"self": record.key_id, "another": active(memory_rig, "globex", "bob").parent, "none": None}
    values = {name: parents.get(value, value) if name == "parent" else value for name, value in moved.items()}
    changed = replace(record, **values)
    store._keys[record.key_id] = changed
    cold = memory_rig.party()
    with pytest.raises(KMSError):
        cold.open(blob, changed.tenant)


def test_a_subjects_key_whose_wrap_key_is_lost_is_not_found(memory_rig: Rig) -> None:
    """It cannot be read, and that is no outage."""
    store = memory_rig.store
    assert isinstance(store, MemoryKeyStore)
    blob = memory_rig.party().seal("x", subject="alice")
    parent = active(memory_rig, subject="alice").parent
    assert parent is not None
    del store._keys[parent]
    with pytest.raises(KeyNotFound, match="which wraps"):
        memory_rig.party().open(blob)


# -- states -------------------------------------------------------------------------------------------------


def test_a_rotated_key_still_opens_and_never_seals_again(rig: Rig) -> None:
    """Here at once, elsewhere within the lease."""
    here, elsewhere = rig.party(), rig.party()
    old = here.seal("old")
    elsewhere.open(old)
    info = here.vault.rotate("acme")
    assert (info.version, info.state) == (2, KeyState.ACTIVE)
    assert states(rig) == ["retired", "active"]
    assert here.seal("new")[3:19] == info.key_id
    assert here.open(old) == "old"
    rig.clock.advance(30)
    assert elsewhere.seal("new")[3:19] == info.key_id
    assert elsewhere.open(old) == "old"


def test_rotation_asks_the_kms_once(rig: Rig) -> None:
    """Who made the key need not have it unwrapped."""
    party = rig.party()
    party.seal("x")
    party.kms_calls()
    party.vault.rotate("acme")
    party.seal("x")
    assert party.kms_calls() == ["wrap"]


def test_a_subjects_key_is_rotated_alone(rig: Rig) -> None:
    """Its tenant's keys and other subjects' stay."""
    party = rig.party()
    old = party.seal("x", subject="alice")
    party.seal("x", subject="bob")
    info = party.vault.rotate("acme", "alice")
    assert (info.subject, info.version) == ("alice", 2)
    assert active(rig, subject="bob").version == 1
    assert party.open(old) == "x"


def test_nothing_is_rotated_where_there_is_no_key(rig: Rig) -> None:
    """A mistyped tenant does not become one."""
    with pytest.raises(KeyNotFound):
        rig.party().vault.rotate("acmee")
    assert list(rig.store.tenants()) == []


def test_a_suspended_key_neither_seals_nor_opens_and_is_not_replaced(rig: Rig) -> None:
    """Whoever suspended it did not ask for a new one."""
    here, elsewhere = rig.party(), rig.party()
    blob = here.seal("x")
    elsewhere.open(blob)
    here.vault.suspend(active(rig).key_id)
    rig.clock.advance(30)
    for party in (here, elsewhere, rig.party()):
        with pytest.raises(KeySuspended):
            party.open(blob)
        with pytest.raises(KeySuspended):
            party.seal("y")
    assert states(rig) == ["suspended"]


def test_a_suspended_key_can_be_rotated_away_from(rig: Rig) -> None:
    """As its error says; what it sealed waits."""
    party = rig.party()
    blob = party.seal("x")
    party.vault.suspend(active(rig).key_id)
    party.vault.rotate("acme")
    assert states(rig) == ["suspended", "active"]
    assert party.open(party.seal("y")) == "y"
    with pytest.raises(KeySuspended):
        party.open(blob)


def test_a_suspended_wrap_key_stops_its_subjects(rig: Rig) -> None:
    """Old subjects and new ones; the tenant's own values go on."""
    party = rig.party()
    blob, own = party.seal("x", subject="alice"), party.seal("x")
    parent = active(rig, subject="alice").parent
    assert parent is not None
    party.vault.suspend(parent)
    with pytest.raises(KeySuspended):
        party.open(blob)
    for subject in ("alice", "somebody new"):
        with pytest.raises(KeySuspended):
            party.seal("y", subject=subject)
    assert party.open(own) == "x"
    party.vault.reinstate(parent)
    assert party.open(blob) == "x"
    assert party.open(party.seal("y", subject="somebody new")) == "y"


def test_a_destroyed_key_is_told_apart_from_an_unknown_one(rig: Rig) -> None:
    """And a new active key takes its place."""
    party = rig.party()
    blob = party.seal("x")
    assert rig.store.transition(active(rig).key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED)
    rig.clock.advance(30)
    with pytest.raises(KeyShredded):
        party.open(blob)
    assert party.open(party.seal("y")) == "y"
    assert states(rig) == ["destroyed", "active"]


def test_a_shredded_scope_never_gets_a_key_again(rig: Rig) -> None:
    """Neither the tenant, nor a subject of it; nor one that never was."""
    party = rig.party()
    blob = party.seal("x", subject="alice")
    party.seal("x")
    party.vault.shred("acme", "alice", actor="operator", reason="asked")
    with pytest.raises(KeyShredded):
        party.open(blob)
    with pytest.raises(KeyShredded, match="alice"):
        party.seal("y", subject="alice")
    assert party.open(party.seal("y", subject="bob")) == "y"
    party.vault.shred("acme", actor="operator", reason="left")
    for subject in (None, "alice", "bob", "somebody new"):
        with pytest.raises(KeyShredded):
            party.seal("y", subject=subject)
    with pytest.raises(KeyShredded):
        party.vault.rotate("acme")


# -- batches ------------------------------------------------------------------------------------------------


def test_a_thousand_cold_subjects_cost_one_read_and_one_kms_call(rig: Rig) -> None:
    """A page of rows of a thousand people."""
    party, cold = rig.party(), rig.party()
    party.vault.ring.prefetch(slots=[KeySlot("acme", str(index)) for index in range(1000)])
    blobs = [party.seal(index, subject=str(index)) for index in range(1000)]
    assert cold.vault.decrypt_many(blobs, field=FIELD, tenant="acme") == list(range(1000))
    assert cold.store.calls == ["fetch"]
    assert cold.kms_calls() == ["unwrap_many"]


def test_cold_tenants_are_unwrapped_in_one_call(rig: Rig) -> None:
    """Of a batch that spans tenants."""
    party, cold = rig.party(), rig.party()
    blobs = {str(index): party.seal(index, str(index)) for index in range(20)}
    cold.vault.ring.prefetch(blobs=[*blobs.values(), None])
    assert (cold.store.calls, cold.kms_calls()) == (["fetch"], ["unwrap_many"])
    assert [cold.open(blob, tenant) for tenant, blob in blobs.items()] == list(range(20))
    assert (cold.store.calls, cold.kms_calls()) == (["fetch"], [])


def test_first_keys_of_many_subjects_are_stored_in_one_step(rig: Rig) -> None:
    """After one read, and two steps for the wrap key."""
    party = rig.party()
    party.vault.ring.prefetch(slots=[KeySlot("acme", str(index)) for index in range(100)])
    assert party.store.counted() == {"current": 2, "add_active": 2}
    assert party.kms_calls() == ["wrap"]


def test_a_shredded_subject_among_many_stops_nobody_else(rig: Rig) -> None:
    """The others' first keys are made."""
    party = rig.party()
    party.seal("x", subject="2")
    party.vault.shred("acme", "2", actor="operator", reason="asked")
    outcome = party.vault.ring.loader.active([KeySlot("acme", str(index)) for index in range(5)])
    assert [type(outcome[KeySlot("acme", str(index))]).__name__ for index in range(5)] == [
        "CachedKey",
        "CachedKey",
        "KeyShredded",
        "CachedKey",
        "CachedKey",
    ]


def test_what_is_no_ciphertext_does_not_stop_a_prefetch(rig: Rig) -> None:
    """It is refused where it is opened."""
    party, cold = rig.party(), rig.party()
    blob = party.seal("x")
    odd: list[object] = [b"", b"short", "text", 7, None, bytearray(blob), memoryview(blob), blob]
    cold.vault.ring.prefetch(blobs=odd)  # type: ignore[arg-type]
    assert cold.kms_calls() == ["unwrap_many"]
    assert cold.open(blob) == "x"


def test_a_page_of_more_keys_than_the_cache_holds_is_read(rig: Rig) -> None:
    """With a cache that is too small for it, and never grows."""
    blobs = [rig.party().seal(index, subject=str(index)) for index in range(5)]
    blobs += [rig.party().seal(5)]
    for bound in (1, 2, 3):
        party = rig.party(CachePolicy(max_keys=bound))
        assert party.vault.decrypt_many(blobs, field=FIELD, tenant="acme") == list(range(6))
        for index in range(6):
            assert party.open(party.seal(index, subject=str(index))) == index
            assert len(party.vault.ring.cache) <= bound


def test_a_key_store_whose_answers_never_settle_is_given_up_on(memory_rig: Rig) -> None:
    """After a number of rounds, and not never."""
    party, other = memory_rig.party(), memory_rig.party()
    blob = other.seal("x")

    def change() -> None:
        key_id = blob[3:19]
        other.vault.suspend(key_id)
        other.vault.reinstate(key_id)
        party.vault.ring.lease.renew()

    party.store.after["fetch"] = change
    with pytest.raises(KeyStoreError, match="faster than they can be read"):
        party.open(blob)


def test_a_rotation_that_others_always_win_is_given_up_on(memory_rig: Rig) -> None:
    """With an error that says so."""
    party, other = memory_rig.party(), memory_rig.party()
    party.seal("x")
    party.store.before["add_active"] = lambda: other.vault.rotate("acme")
    with pytest.raises(KeyStoreError, match="faster than it can be replaced"):
        party.vault.rotate("acme")

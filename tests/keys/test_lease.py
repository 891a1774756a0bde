"""The lease: read at use, once; caught up with; never gone back."""

import time

import pytest

from fieldvault import CachePolicy
from fieldvault.errors import KeyShredded, KeyStoreError, KeyStoreRefused
from fieldvault.keystores import MemoryKeyStore
from tests.keys.parties import Party, Rig, Running, in_threads

POLICY = CachePolicy(ttl=10_000, lease=30, grace=60)


def test_within_the_lease_nothing_is_asked(rig: Rig) -> None:
    """Neither the key store nor the KMS."""
    party = rig.party(POLICY)
    blob = party.seal("x")
    party.store.calls.clear()
    party.kms.calls.clear()
    rig.clock.advance(29.9)
    party.seal("y")
    assert party.open(blob) == "x"
    assert party.store.calls == []
    assert party.kms.calls == []


def test_past_the_lease_one_generation_is_read_and_nothing_else(rig: Rig) -> None:
    """However many keys are used afterwards; the KMS is not asked."""
    party = rig.party(POLICY)
    blobs = {tenant: party.seal("x", tenant, "someone") for tenant in ("a", "b", "c")}
    for _ in range(3):
        rig.clock.advance(30)
        party.store.calls.clear()
        party.kms.calls.clear()
        for tenant, blob in blobs.items():
            assert party.open(blob, tenant) == "x"
            party.seal("y", tenant, "someone")
        assert party.store.calls == ["generation"]
        assert party.kms.calls == []


def test_a_herd_past_the_lease_reads_the_generation_once(memory_rig: Rig) -> None:
    """Those who come while it is read wait for it."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    memory_rig.clock.advance(30)
    party.store.calls.clear()
    party.store.before["generation"] = lambda: time.sleep(0.1)
    assert in_threads(32, lambda _: party.open(blob)) == ["x"] * 32
    assert party.store.calls == ["generation"]


def test_a_change_evicts_the_touched_scope_only(rig: Rig) -> None:
    """The other tenants' keys stay unwrapped."""
    here, elsewhere = rig.party(POLICY), rig.party(POLICY)
    blobs = {tenant: here.seal("x", tenant) for tenant in ("a", "b", "c")}
    elsewhere.vault.rotate("b")
    rig.clock.advance(30)
    here.kms_calls()
    assert [here.open(blob, tenant) for tenant, blob in blobs.items()] == ["x"] * 3
    (call,) = here.kms.calls
    assert [context["tenant"] for context in call.contexts] == ["b"]


def test_a_tenants_shred_evicts_its_subjects(rig: Rig) -> None:
    """Within the lease at the latest, and those of no other tenant."""
    here, elsewhere = rig.party(POLICY), rig.party(POLICY)
    alice, bob = here.seal("a", "acme", "alice"), here.seal("b", "globex", "bob")
    elsewhere.vault.shred("acme", actor="operator", reason="left")
    assert here.open(alice) == "a", "within the lease the cached key serves"
    rig.clock.advance(30)
    with pytest.raises(KeyShredded):
        here.open(alice)
    here.kms.calls.clear()
    assert here.open(bob, "globex") == "b"
    assert here.kms.calls == []


def older(store: MemoryKeyStore) -> None:
    """Put an older copy of the key store back: the last change never happened."""
    store._changes.pop()


@pytest.fixture
def restored(memory_rig: Rig) -> Party:
    """Return a party whose key store was restored from before a rotation that it has seen."""
    party = memory_rig.party(POLICY)
    party.seal("x")
    party.vault.rotate("acme")
    assert isinstance(memory_rig.store, MemoryKeyStore)
    older(memory_rig.store)
    party.store.calls.clear()
    return party


def test_a_key_store_that_went_back_is_refused_at_once_in_spite_of_the_grace(
    memory_rig: Rig, restored: Party
) -> None:
    """A shred may be missing from it; that is no outage."""
    blob = memory_rig.party().seal("elsewhere")
    memory_rig.clock.advance(30)
    for _ in range(2):
        with pytest.raises(KeyStoreError, match="older copy"):
            restored.vault.ring.lease.ensure()
        with pytest.raises(KeyStoreError, match="older copy"):
            restored.open(blob)
        with pytest.raises(KeyStoreError, match="older copy"):
            restored.seal("y")
    assert len(restored.vault.ring.cache) == 0


def test_a_key_store_that_went_back_gets_no_new_keys(memory_rig: Rig, restored: Party) -> None:
    """Nor a rotation: nothing is written into it."""
    for work in (lambda: restored.seal("x", "new tenant"), lambda: restored.vault.rotate("acme")):
        with pytest.raises(KeyStoreError, match="older copy"):
            work()
    assert "add_active" not in restored.store.counted()
    assert "new tenant" not in list(memory_rig.store.tenants())


def test_a_key_store_that_has_caught_up_serves_again(memory_rig: Rig, restored: Party) -> None:
    """Once the missing changes were made again."""
    memory_rig.clock.advance(30)
    with pytest.raises(KeyStoreError, match="older copy"):
        restored.seal("x")
    memory_rig.party().vault.rotate("acme")
    assert restored.open(restored.seal("x")) == "x"


def test_a_store_that_answers_later_than_a_lease_lasts_gives_no_lease(memory_rig: Rig) -> None:
    """What it saw may be older than the lease allows by the time that it is known."""
    party = memory_rig.party(CachePolicy(ttl=10_000, lease=30, grace=0))
    blob = party.seal("x")
    memory_rig.clock.advance(30)
    party.store.after["generation"] = lambda: memory_rig.clock.advance(31)
    with pytest.raises(KeyStoreError, match="longer to answer than a lease"):
        party.open(blob)
    party.store.after.clear()
    assert party.open(blob) == "x"


def test_a_process_that_stood_still_while_it_read_the_generation_reads_it_again(memory_rig: Rig) -> None:
    """The late answer is of no use, and no error either."""
    party = memory_rig.party(CachePolicy(ttl=10_000, lease=30, grace=0))
    blob = party.seal("x")
    memory_rig.clock.advance(30)
    party.store.calls.clear()
    party.store.once(party.store.after, "generation", lambda: memory_rig.clock.advance(5_000))
    assert party.open(blob) == "x"
    assert party.store.calls == ["generation"] * 2


def test_an_outage_that_is_told_after_the_grace_is_not_served_over(memory_rig: Rig) -> None:
    """A connection that hangs does not stretch the grace."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    memory_rig.clock.advance(30)

    def hang() -> None:
        memory_rig.clock.advance(90)
        raise KeyStoreError("timed out")

    party.store.before["generation"] = hang
    with pytest.raises(KeyStoreError, match="timed out"):
        party.open(blob)


def test_a_key_store_that_refuses_is_not_served_over(memory_rig: Rig) -> None:
    """Nor is an outage after that, until the key store has let this process in again."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")

    def refuse() -> None:
        raise KeyStoreRefused("permission denied")

    party.store.before["generation"] = refuse
    memory_rig.clock.advance(29)
    assert party.open(blob) == "x"
    memory_rig.clock.advance(1)
    with pytest.raises(KeyStoreRefused):
        party.open(blob)
    del party.store.before["generation"]
    party.store.down = True
    with pytest.raises(KeyStoreError, match="is out"):
        party.open(blob)
    party.store.down = False
    assert party.open(blob) == "x"
    party.store.down = True
    memory_rig.clock.advance(31)
    assert party.open(blob) == "x"


def test_a_refusal_ends_the_grace_of_an_outage(memory_rig: Rig) -> None:
    """Between two tries of an unreachable key store nobody asks; the next one hears of the refusal."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    memory_rig.clock.advance(31)
    party.store.down = True
    assert party.open(blob) == "x"
    party.store.down = False

    def refuse() -> None:
        raise KeyStoreRefused("permission denied")

    party.store.before["generation"] = refuse
    memory_rig.clock.advance(1)
    for _ in range(2):
        with pytest.raises(KeyStoreRefused):
            party.open(blob)


def test_an_error_that_is_no_outage_is_no_reason_to_serve_on(memory_rig: Rig) -> None:
    """The grace is for a key store that cannot be reached, and not for a defect."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    memory_rig.clock.advance(30)

    def defect() -> None:
        raise ZeroDivisionError

    party.store.before["generation"] = defect
    with pytest.raises(ZeroDivisionError):
        party.open(blob)


def test_first_readers_that_saw_different_generations_do_not_accuse_the_store(memory_rig: Rig) -> None:
    """A read that was slow on its way is not an older copy; nor does it take the generation back."""
    memory_rig.party().seal("x", "acme")
    memory_rig.party().seal("x", "globex")
    party = memory_rig.party(POLICY)

    def meanwhile() -> None:
        memory_rig.party().vault.rotate("globex")
        party.seal("y", "globex")

    # The first read of this party has seen the store as it was before; its answer comes after the other's.
    party.store.once(party.store.after, "current", meanwhile)
    party.seal("y", "acme")
    assert party.vault.ring.lease.generation == memory_rig.store.generation()
    memory_rig.clock.advance(30)
    party.seal("z", "acme")


def test_a_first_reader_that_saw_less_than_another_is_not_vouched_for(memory_rig: Rig) -> None:
    """What was shredded between the two first reads of a process is not served by the slower one."""
    blob = memory_rig.party().seal("x", "acme")
    memory_rig.party().seal("x", "globex")
    party = memory_rig.party(POLICY)

    def meanwhile() -> None:
        memory_rig.party().vault.shred("acme", actor="operator", reason="left")
        party.seal("y", "globex")

    party.store.once(party.store.after, "fetch", meanwhile)
    with pytest.raises(KeyShredded):
        party.open(blob)


def test_a_first_lease_read_beside_another_trusts_nothing_unseen(memory_rig: Rig) -> None:
    """A renewal that knew no generation drops whatever others have cached meanwhile."""
    memory_rig.party().seal("x", "acme")
    party = memory_rig.party(POLICY)
    lease = party.vault.ring.lease

    def meanwhile() -> None:
        party.seal("y", "acme")
        memory_rig.party().vault.rotate("acme")

    party.store.once(party.store.before, "generation", meanwhile)
    lease.renew()
    assert lease.generation == memory_rig.store.generation()
    assert len(party.vault.ring.cache) == 0


def test_a_key_read_before_a_shred_cannot_slip_in_after_it(rig: Rig) -> None:
    """The load's KMS call ends after the shred has; the key that it brings is not kept, nor served."""
    party = rig.party(POLICY)
    blob = rig.party().seal("x")
    with party.kms.hold(when=lambda context: context["tenant"] == "acme", times=1) as hold:
        load = Running(lambda: party.open(blob))
        assert hold.reached.wait(10)
        party.vault.shred("acme", actor="operator", reason="left")
    with pytest.raises(KeyShredded):
        load.result()
    assert len(party.vault.ring.cache) == 0
    with pytest.raises(KeyShredded):
        party.open(blob)


def test_a_shred_is_not_content_with_a_lease_read_that_began_before_it(memory_rig: Rig) -> None:
    """The generation is read again, so that no load can be vouched for by the earlier read."""
    party, other = memory_rig.party(POLICY), memory_rig.party(POLICY)
    blob, other_blob = other.seal("x", "acme"), other.seal("x", "globex")
    party.open(other_blob, "globex")
    memory_rig.clock.advance(30)
    with party.kms.hold(when=lambda context: context["tenant"] == "acme", times=1) as hold:
        load = Running(lambda: party.open(blob))
        assert hold.reached.wait(10)
        memory_rig.clock.advance(30)

        def shred() -> None:
            party.vault.shred("acme", actor="operator", reason="left")

        # A renewal is on its way, its answer already given, when the shred happens from beginning to end.
        party.store.once(party.store.after, "generation", shred)
        party.open(other_blob, "globex")
        assert party.vault.ring.lease.generation == memory_rig.store.generation()
    with pytest.raises(KeyShredded):
        load.result()


def test_changes_of_others_do_not_make_a_load_repeat_its_kms_call(rig: Rig) -> None:
    """While tenants are rotated all the time, a slow KMS call is still made once."""
    party, others = rig.party(POLICY), rig.party(POLICY)
    blob = others.seal("x", "acme")
    others.seal("x", "globex")
    with party.kms.hold(when=lambda context: context["tenant"] == "acme") as hold:
        load = Running(lambda: party.open(blob))
        assert hold.reached.wait(10)
        for _ in range(5):
            others.vault.rotate("globex")
            party.seal("y", "globex", "renews the lease")
            party.vault.ring.lease.renew()
    assert load.result() == "x"
    assert [call for call in party.kms.calls if call.contexts[0]["tenant"] == "acme"] == party.kms.calls[:1]


def test_a_load_that_outlasts_the_memory_of_changes_reads_again(memory_rig: Rig) -> None:
    """What is no longer remembered is not vouched for."""
    party, others = memory_rig.party(POLICY), memory_rig.party(POLICY)
    blob = others.seal("x", "acme")
    others.seal("x", "globex")
    with party.kms.hold(when=lambda context: context["tenant"] == "acme", times=1) as hold:
        load = Running(lambda: party.open(blob))
        assert hold.reached.wait(10)
        for _ in range(70):
            others.vault.rotate("globex")
            party.vault.ring.lease.renew()
    assert load.result() == "x"
    assert party.kms_calls() == ["unwrap_many"] * 2


def test_what_was_read_beyond_the_known_generation_is_not_vouched_for(memory_rig: Rig) -> None:
    """Nor anything before the first lease."""
    party = memory_rig.party()
    lease = party.vault.ring.lease
    memory_rig.party().seal("x")
    (record,) = memory_rig.store.keys("acme", None)
    assert not lease.vouches(record, 0)
    lease.renew()
    assert lease.vouches(record, 0)
    assert not lease.vouches(record, 1)


def test_a_renewal_that_has_just_landed_is_not_repeated(memory_rig: Rig) -> None:
    """Who comes late to a flight looks first."""
    party = memory_rig.party()
    party.vault.ring.lease.renew()
    party.store.calls.clear()
    party.vault.ring.lease._renew_once(["lease"])
    assert party.store.calls == []

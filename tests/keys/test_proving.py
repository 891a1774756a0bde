"""Proving again: a revoked permission stops the reading within the lease, at one call a lease."""

import gc
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from fieldvault import CachePolicy, RetryPolicy, Vault
from fieldvault.errors import KeyShredded, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.records import KeySlot
from fieldvault.testing.fakes import FaultyKMS
from tests.keys.parties import FIELD, Party, Rig, Running, WatchedStore, in_threads

POLICY = CachePolicy(ttl=300, lease=30, grace=60)
ONCE = RetryPolicy(deadline=0, failures=10_000)
SUBJECTS = pytest.mark.parametrize("subject", [None, "alice"])
REFUSALS = pytest.mark.parametrize(
    "error",
    [KMSDenied("no"), KMSKeyDisabled("gone"), KMSError("nonsense")],
    ids=lambda error: type(error).__name__,
)


def proving(rig: Rig, policy: CachePolicy = POLICY, **options: Any) -> Party:
    """A vault that proves its permissions again."""
    return rig.party(policy, reprove=True, **{"retries": ONCE, **options})


class Dedicated(FaultyKMS):
    """A KMS in which each tenant has a root key of its own."""

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """See ``ManyRootKeys``."""
        assert wrapped
        assert "subject" not in context, "a subject's key depends on its wrap key's root key"
        return context["tenant"]


def dedicated(rig: Rig, *, ahead: float = 0) -> Party:
    """A vault with such a KMS."""
    kms, store = Dedicated(rig.kms), WatchedStore(rig.store)
    policy = CachePolicy(ttl=300, lease=30, grace=60, refresh_ahead=ahead)
    return Party(Vault(kms=kms, key_store=store, cache=policy, retries=ONCE, clock=rig.clock), kms, store)


def settled(party: Party) -> None:
    """Wait until nothing is proved in the background any more."""
    while threads := party.vault.ring.refresher.threads:
        threads[0].join(10)
        assert not threads[0].is_alive(), "the proof hangs"


# -- refused ------------------------------------------------------------------------------------------------


@SUBJECTS
@REFUSALS
def test_a_refusal_stops_reading_and_writing_within_the_lease(
    rig: Rig, error: KMSError, subject: str | None
) -> None:
    """Not after it, whenever the key was unwrapped; and no grace covers it."""
    party = proving(rig)
    blob = party.seal("x", subject=subject)
    rig.clock.advance(60)
    assert party.open(blob) == "x"
    party.kms.fail(error)
    rig.clock.advance(29.9)
    assert party.open(blob) == "x"
    rig.clock.advance(0.1)
    for _ in range(2):
        with pytest.raises(type(error)):
            party.open(blob)
        with pytest.raises(type(error)):
            party.seal("y", subject=subject)
    assert len(party.vault.ring.cache) == 0
    party.kms.heal()
    assert party.open(blob) == "x"
    assert party.open(party.seal("y", subject=subject)) == "y"


def test_a_refusal_stops_searching_within_the_lease(rig: Rig) -> None:
    """Index keys are keys."""
    party = proving(rig)
    party.vault.ring.index_keys("acme")
    party.kms.fail(KMSDenied("no"))
    rig.clock.advance(29.9)
    party.vault.ring.index_keys("acme")
    rig.clock.advance(0.1)
    assert party.vault.ring.indexing_may_wait("acme")
    with pytest.raises(KMSDenied):
        party.vault.ring.index_keys("acme")


def test_a_refusal_stops_batches_within_the_lease(rig: Rig) -> None:
    """And the values of a run that it hits in the middle are not handed out."""
    party = proving(rig)
    blobs = [party.seal(index) for index in range(10)]
    rig.clock.advance(30)
    party.kms.fail(KMSDenied("no"))
    with pytest.raises(KMSDenied):
        party.vault.decrypt_many(blobs, field=FIELD, tenant="acme")
    with pytest.raises(KMSDenied):
        party.vault.encrypt_many(["y"] * 10, field=FIELD, tenant="acme")


def test_a_lie_stops_the_reading_too(rig: Rig) -> None:
    """A KMS that answers with another key has not let anybody use this one."""
    party = proving(rig)
    blob = party.seal("x")
    party.kms.lie()
    rig.clock.advance(30)
    with pytest.raises(KMSError, match="another key"):
        party.open(blob)


def test_without_the_policy_a_refusal_is_noticed_at_the_end_of_the_age(rig: Rig) -> None:
    """Which is what it saves: no call before."""
    party = rig.party(POLICY, retries=ONCE)
    blob = party.seal("x")
    party.kms.fail(KMSDenied("no"))
    rig.clock.advance(299)
    assert party.open(blob) == "x"
    assert party.kms_calls() == ["wrap"]
    rig.clock.advance(1)
    with pytest.raises(KMSDenied):
        party.open(blob)


def test_a_key_that_was_rewrapped_meanwhile_is_read_on(memory_rig: Rig) -> None:
    """The copy at hand is of the old root key, which is gone; the key store has the new one."""
    party = proving(memory_rig)
    blob = party.seal("x")
    (record,) = memory_rig.store.keys("acme", None)
    assert record.wrapped is not None
    fresh = memory_rig.kms.wrap(
        memory_rig.kms.unwrap(record.wrapped, context=_context(record.key_id)),
        context=_context(record.key_id),
    )
    assert memory_rig.store.rewrap(record.key_id, expect=record.wrapped, wrapped=fresh)
    party.kms.fail_items(KMSKeyDisabled("the old root key is gone"), times=1)
    memory_rig.clock.advance(30)
    assert party.open(blob) == "x"


def _context(key_id: bytes) -> dict[str, str]:
    return {"key_id": key_id.hex(), "purpose": "data", "tenant": "acme"}


# -- unavailable --------------------------------------------------------------------------------------------


@SUBJECTS
def test_an_outage_proves_nothing_and_takes_nothing(rig: Rig, subject: str | None) -> None:
    """Cached keys serve to the end of their age and the grace, as if nothing were proved."""
    party = proving(rig)
    blob = party.seal("x", subject=subject)
    party.kms.fail(KMSUnavailable("out"))
    for _ in range(36):
        assert party.open(blob) == "x"
        assert party.open(party.seal("y", subject=subject)) == "y"
        rig.clock.advance(10)
    with pytest.raises(KMSUnavailable):
        party.open(blob)


def test_in_an_outage_the_kms_is_asked_now_and_then(rig: Rig) -> None:
    """Not for each value, and soon enough to hear a refusal within the lease when it is back."""
    party = proving(rig)
    blob = party.seal("x")
    party.kms.fail(KMSUnavailable("out"))
    rig.clock.advance(30)
    party.kms.calls.clear()
    for _ in range(100):
        party.open(blob)
    assert party.kms_calls() == ["unwrap_many"]
    party.kms.heal()
    party.kms.fail(KMSDenied("no"))
    rig.clock.advance(5)
    with pytest.raises(KMSDenied):
        party.open(blob)


def test_an_outage_after_a_refusal_serves_nothing(rig: Rig) -> None:
    """What was refused is not brought back by not hearing more."""
    party = proving(rig)
    blob = party.seal("x")
    rig.clock.advance(30)
    party.kms.fail(KMSDenied("no"))
    with pytest.raises(KMSDenied):
        party.open(blob)
    party.kms.heal()
    party.kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable):
        party.open(blob)


def test_an_answer_that_comes_later_than_a_lease_lasts_is_no_proof(memory_rig: Rig) -> None:
    """Once is an accident of this process; always is a KMS that is too slow."""
    party = proving(memory_rig)
    blob = party.seal("x")
    unwrap_many = party.kms.unwrap_many
    late = [31, 0]

    def slow(items: Any) -> Any:
        answers = unwrap_many(items)
        memory_rig.clock.advance(late.pop(0) if late else 31)
        return answers

    party.kms.unwrap_many = slow  # type: ignore[method-assign]
    memory_rig.clock.advance(30)
    assert party.open(blob) == "x"
    memory_rig.clock.advance(30)
    with pytest.raises(KMSUnavailable, match="longer to answer than a lease"):
        party.open(blob)


@pytest.mark.parametrize("seconds", [30, 300, 360])
def test_a_request_that_meets_an_outage_asks_once(memory_rig: Rig, seconds: float) -> None:
    """For the proof or for the key, not for both: it would wait twice."""
    party = proving(memory_rig)
    blob = party.seal("x")
    party.kms.fail(KMSUnavailable("out"))
    memory_rig.clock.advance(seconds)
    party.kms.calls.clear()
    if seconds < 360:
        assert party.open(blob) == "x"
    else:
        with pytest.raises(KMSUnavailable):
            party.open(blob)
    assert party.kms_calls() == ["unwrap_many"]


# -- what it costs ------------------------------------------------------------------------------------------


def test_one_call_a_lease_covers_all_keys_of_a_root_key(rig: Rig) -> None:
    """However many keys, values, types and purposes are in use; a single key is asked for."""
    party = proving(rig)
    blobs = {tenant: party.seal("x", tenant, "someone") for tenant in ("a", "b", "c")}
    party.vault.ring.index_keys("a")
    for _ in range(4):
        rig.clock.advance(30)
        party.kms.calls.clear()
        for _ in range(3):
            for tenant, blob in blobs.items():
                assert party.open(blob, tenant) == "x"
                party.seal(b"y", tenant, "someone")
            party.vault.ring.index_keys("a")
        assert [(call.method, len(call.contexts)) for call in party.kms.calls] == [("unwrap_many", 1)]


def test_index_keys_cost_no_more_than_others(rig: Rig) -> None:
    """One call, and one read of the generation."""
    party = proving(rig)
    party.vault.ring.index_keys("acme")
    rig.clock.advance(30)
    party.kms.calls.clear()
    party.store.calls.clear()
    party.vault.ring.index_keys("acme")
    assert (party.kms_calls(), party.store.calls) == (["unwrap_many"], ["generation"])


def test_a_proof_that_has_just_landed_is_not_repeated(rig: Rig) -> None:
    """Who comes late to a flight looks first."""
    party = proving(rig)
    blob = party.seal("x")
    key = party.vault.ring.cache.get(blob[3:19])
    assert key is not None
    party.kms.calls.clear()
    party.vault.ring.prover._prove({key.permission: [key]}, [key.permission])
    assert party.kms_calls() == []


def test_what_was_refused_is_not_handed_on(rig: Rig) -> None:
    """Whoever asked for the key gets the refusal, and no key that was dropped."""
    party = proving(rig)
    key_id = party.seal("x")[3:19]
    party.kms.fail(KMSDenied("no"))
    rig.clock.advance(30)
    assert isinstance(party.vault.ring.loader.by_id([key_id])[key_id], KMSDenied)


def test_an_unwrapping_is_a_proof(rig: Rig) -> None:
    """A key that was fetched meanwhile saves the call."""
    party, other = proving(rig), rig.party()
    blob, another = party.seal("x"), other.seal("x", "globex")
    rig.clock.advance(20)
    assert party.open(another, "globex") == "x"
    party.kms.calls.clear()
    rig.clock.advance(29)
    assert party.open(blob) == "x"
    assert party.kms_calls() == []
    rig.clock.advance(1)
    assert party.open(blob) == "x"
    assert party.kms_calls() == ["unwrap_many"]


def test_who_uses_nothing_asks_nothing(rig: Rig) -> None:
    """A process that rests costs nothing."""
    party = proving(rig)
    party.seal("x")
    party.kms.calls.clear()
    rig.clock.advance(250)
    assert party.kms_calls() == []


def test_a_herd_past_the_lease_asks_once(memory_rig: Rig) -> None:
    """Those who come while it is asked wait for the answer."""
    party = proving(memory_rig)
    blob = party.seal("x")
    memory_rig.clock.advance(30)
    party.kms.calls.clear()
    with party.kms.hold() as hold:
        herd = Running(lambda: in_threads(32, lambda _: party.open(blob)))
        assert hold.reached.wait(10)
    assert herd.result() == ["x"] * 32
    assert party.kms_calls() == ["unwrap_many"]


def test_a_destroyed_key_is_never_what_is_asked_for(memory_rig: Rig) -> None:
    """Its wrapped form is not sent to the KMS once the shred is known."""
    party = proving(memory_rig)
    gone, blob = party.seal("x"), party.seal("x", "globex")
    memory_rig.party().vault.shred("acme", actor="tests", reason="asked")
    memory_rig.clock.advance(30)
    party.kms.calls.clear()
    with pytest.raises(KeyShredded):
        party.open(gone)
    assert party.open(blob, "globex") == "x"
    assert {context["tenant"] for call in party.kms.calls for context in call.contexts} == {"globex"}


def test_a_subjects_key_whose_wrap_key_had_to_make_room_is_loaded_again(memory_rig: Rig) -> None:
    """There is nothing at hand then to prove it with."""
    party = proving(memory_rig, CachePolicy(max_keys=1, ttl=300, lease=30, grace=60))
    blob = memory_rig.party().seal("x", subject="alice")
    assert party.open(blob) == "x"
    memory_rig.clock.advance(30)
    assert party.open(blob) == "x"
    party.kms.fail(KMSDenied("no"))
    memory_rig.clock.advance(30)
    with pytest.raises(KMSDenied):
        party.open(blob)


class Versions(FaultyKMS):
    """A KMS that says of which version of its root key a wrapped key is."""

    version = "1"

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """See ``ManyRootKeys``."""
        assert wrapped
        assert context
        return self.version


def test_a_wrap_key_that_was_rewrapped_does_not_prove_the_version_before(memory_rig: Rig) -> None:
    """A subject's key that was opened under it then depends on the version that it is under now."""
    kms, store = Versions(memory_rig.kms), WatchedStore(memory_rig.store)
    vault = Vault(
        kms=kms,
        key_store=store,
        cache=CachePolicy(ttl=300, lease=30, grace=60, refresh_ahead=0),
        retries=ONCE,
        clock=memory_rig.clock,
    )
    party = Party(vault, kms, store)
    blob = party.seal("x", subject="alice")
    cache = vault.ring.cache
    (wrap_key,) = (key for key in cache.held() if key.record.subject is None)
    old = wrap_key.permission
    kms.version = "2"
    vault.ring.loader.renew([wrap_key.record.key_id])
    assert wrap_key.permission is not old
    memory_rig.clock.advance(30)
    assert party.open(blob) == "x"
    alice = cache.get(blob[3:19])
    assert alice is not None
    assert alice.permission is wrap_key.permission
    assert old.until <= memory_rig.clock()


# -- a root key a tenant ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 0.2])
def test_each_tenants_own_root_key_is_proved_by_itself(memory_rig: Rig, ahead: float) -> None:
    """One that is disabled stops its tenant within the lease of its own use, and no other."""
    party = dedicated(memory_rig, ahead=ahead)
    blobs = {tenant: party.seal("x", tenant) for tenant in ("a", "b", "c")}
    party.kms.fail_items(KMSKeyDisabled("gone"), when=lambda context: context["tenant"] == "b")
    memory_rig.clock.advance(30)
    for tenant in ("a", "c"):
        assert party.open(blobs[tenant], tenant) == "x"
        assert party.seal("y", tenant, "alice")
    with pytest.raises(KMSKeyDisabled):
        party.open(blobs["b"], "b")
    settled(party)


def test_a_page_of_tenants_is_proved_in_one_call(memory_rig: Rig) -> None:
    """Never one after the other."""
    party = dedicated(memory_rig)
    tenants = [str(index) for index in range(50)]
    blobs = [party.seal(index, tenant) for index, tenant in enumerate(tenants)]
    memory_rig.clock.advance(30)
    party.kms.calls.clear()
    party.vault.prefetch(tenants)
    party.vault.ring.prefetch(blobs=blobs)
    for index, tenant in enumerate(tenants):
        assert party.open(blobs[index], tenant) == index
    assert [len(call.contexts) for call in party.kms.calls] == [50]


def test_the_permissions_of_keys_that_are_gone_are_not_kept(memory_rig: Rig) -> None:
    """A million tenants that came and went cost nothing."""
    party = dedicated(memory_rig)
    for index in range(20):
        party.seal("x", str(index))
    assert len(party.vault.ring.prover._permissions) == 20
    party.vault.ring.cache.drop(None)
    gc.collect()
    assert len(party.vault.ring.prover._permissions) == 0


# -- ahead --------------------------------------------------------------------------------------------------


def test_a_hot_key_never_waits_for_the_proof(rig: Rig) -> None:
    """The KMS hangs behind every use; its answer brings a lease from the moment that it was asked."""
    party = proving(rig, ahead=0.2)
    blob = party.seal("x")
    rig.clock.advance(24)
    party.kms.calls.clear()
    with party.kms.hold() as hold:
        for _ in range(20):
            assert Running(partial(party.open, blob)).result(5) == "x"
            assert Running(partial(party.seal, "y")).result(5)
        assert hold.reached.wait(10)
        assert party.kms_calls() == ["unwrap_many"]
    settled(party)
    rig.clock.advance(23)
    assert party.open(blob) == "x"
    settled(party)
    assert party.kms_calls() == []
    rig.clock.advance(1)
    assert party.open(blob) == "x"
    settled(party)
    assert party.kms_calls() == ["unwrap_many"]


def test_index_keys_are_proved_ahead_as_well(rig: Rig) -> None:
    """Though no value is sealed with them."""
    party = proving(rig, ahead=0.2)
    party.vault.ring.index_keys("acme")
    rig.clock.advance(25)
    party.kms.calls.clear()
    party.vault.ring.index_keys("acme")
    settled(party)
    assert party.kms_calls() == ["unwrap_many"]


def test_a_refusal_ahead_is_told_at_once(rig: Rig) -> None:
    """Before the lease is over."""
    party = proving(rig, ahead=0.2)
    blob = party.seal("x")
    rig.clock.advance(24)
    party.kms.fail(KMSDenied("no"))
    assert party.open(blob) == "x"
    settled(party)
    with pytest.raises(KMSDenied):
        party.open(blob)


def test_in_an_outage_a_hot_key_never_waits_until_its_age_is_over(rig: Rig) -> None:
    """The background asks, before the end of each pause; no request does."""
    party = proving(rig, ahead=0.2)
    blob = party.seal("x")
    party.kms.fail(KMSUnavailable("out"))
    for _ in range(200):
        before = len(party.kms.calls)
        may_wait = party.vault.ring.opening_may_wait(blob)
        assert party.open(blob) == "x"
        settled(party)
        assert not may_wait or party.vault.ring.lease.age == 0, "only ever for the key store's lease"
        assert len(party.kms.calls) - before <= 1
        rig.clock.advance(1)


def test_tenants_in_use_are_proved_in_one_call_ahead(memory_rig: Rig) -> None:
    """With the one that is used when it is due go the others; those at rest do not."""
    party = dedicated(memory_rig, ahead=0.2)
    blobs = {str(index): party.seal("x", str(index)) for index in range(10)}
    memory_rig.clock.advance(24)
    party.open(blobs["0"], "0")
    settled(party)
    party.kms.calls.clear()
    memory_rig.clock.advance(10)
    for tenant in ("0", "1", "2"):
        party.open(blobs[tenant], tenant)
    settled(party)
    assert party.kms_calls() == []
    memory_rig.clock.advance(14)
    party.open(blobs["0"], "0")
    settled(party)
    (call,) = party.kms.calls
    assert sorted(context["tenant"] for context in call.contexts) == ["0", "1", "2"]


def test_a_renewal_ahead_is_a_proof(rig: Rig) -> None:
    """Where age and permission are due together, the KMS is asked once."""
    party = proving(rig, ahead=0.2)
    blob = party.seal("x")
    for _ in range(10):
        rig.clock.advance(24)
        party.kms.calls.clear()
        assert party.open(blob) == "x"
        settled(party)
        assert party.kms_calls() == ["unwrap_many"]
    assert party.vault.stats().refreshed == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_proves_for_itself(rig: Rig) -> None:
    """Its parent's proof that is under way never lands there."""
    party = proving(rig)
    blob = party.seal("x")
    rig.clock.advance(30)
    with party.kms.hold() as hold:
        waiting = Running(partial(party.open, blob))
        assert hold.reached.wait(10)
        child = os.fork()
        if child == 0:
            works = False
            try:
                party.kms.heal()
                party.kms.fail(KMSDenied("no"))
                try:
                    party.open(blob)
                except KMSDenied:
                    works = True
            finally:
                os._exit(0 if works else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert waiting.result() == "x"


def test_a_coroutine_does_not_ask_in_the_event_loop(memory_rig: Rig) -> None:
    """Where a permission ran out it takes a thread."""
    party = proving(memory_rig)
    blob = party.seal("x")
    memory_rig.clock.advance(30)
    party.vault.ring.lease.renew()
    assert party.vault.ring.opening_may_wait(blob)
    assert party.vault.ring.sealing_may_wait(KeySlot("acme"))
    party.open(blob)
    assert not party.vault.ring.opening_may_wait(blob)

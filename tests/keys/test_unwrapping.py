"""Outages and denials: what serves how long, and what is told."""

from collections.abc import Callable
from functools import partial

import pytest

from fieldvault import CachePolicy
from fieldvault.errors import (
    FieldVaultError,
    KeyStoreError,
    KMSDenied,
    KMSError,
    KMSKeyDisabled,
    KMSUnavailable,
)
from tests.keys.parties import Party, Rig

pytestmark = pytest.mark.usefixtures("impatient")

POLICY = CachePolicy(ttl=300, lease=30, grace=60)
SUBJECTS = pytest.mark.parametrize("subject", [None, "alice"])


def error_of(work: Callable[[], object]) -> type[Exception] | None:
    """The class of what a call raises."""
    try:
        work()
    except FieldVaultError as error:
        return type(error)
    return None


# -- the KMS ------------------------------------------------------------------------------------------------


@SUBJECTS
def test_an_unreachable_kms_is_bridged_up_to_the_grace(memory_rig: Rig, subject: str | None) -> None:
    """Cached keys serve for age and grace; then the outage is told, as one; then all is well again."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x", subject=subject)
    party.kms.fail(KMSUnavailable("out"))
    for _ in range(36):
        assert party.open(blob) == "x"
        assert party.open(party.seal("y", subject=subject)) == "y"
        memory_rig.clock.advance(10)
    assert error_of(lambda: party.open(blob)) is KMSUnavailable
    assert error_of(lambda: party.seal("y", subject=subject)) is KMSUnavailable
    party.kms.heal()
    assert party.open(blob) == "x"
    assert party.open(party.seal("y", subject=subject)) == "y"


def test_in_an_outage_the_kms_is_asked_now_and_then(memory_rig: Rig) -> None:
    """Not for each value: an expired key serves for some seconds before the next try."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    party.kms.fail(KMSUnavailable("out"))
    memory_rig.clock.advance(300)
    party.open(blob)
    asked = len(party.kms.calls)
    assert asked >= 1
    for _ in range(100):
        party.open(blob)
    assert len(party.kms.calls) == asked
    memory_rig.clock.advance(5)
    party.open(blob)
    assert len(party.kms.calls) > asked


def test_a_key_that_comes_back_within_the_grace_serves_for_a_whole_age(memory_rig: Rig) -> None:
    """The outage leaves no trace."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    party.kms.fail(KMSUnavailable("out"))
    memory_rig.clock.advance(310)
    party.open(blob)
    party.kms.heal()
    memory_rig.clock.advance(5)
    party.kms.calls.clear()
    party.open(blob)
    assert party.kms_calls() == ["unwrap_many"]
    memory_rig.clock.advance(299)
    party.open(blob)
    assert party.kms_calls() == []


def test_a_new_subject_can_be_met_while_its_wrap_key_is_bridged(memory_rig: Rig) -> None:
    """The grace is the cached key's, whatever it is needed for."""
    party = memory_rig.party(POLICY)
    party.seal("x", subject="alice")
    bob = memory_rig.party().seal("x", subject="bob")
    party.kms.fail(KMSUnavailable("out"))
    memory_rig.clock.advance(310)
    assert party.open(bob) == "x"
    assert party.open(party.seal("y", subject="carol")) == "y"
    memory_rig.clock.advance(50)
    assert error_of(lambda: party.open(memory_rig.party().seal("z", subject="dave"))) is KMSUnavailable


@SUBJECTS
def test_no_grace_means_none(memory_rig: Rig, subject: str | None) -> None:
    """At the end of the age the outage is told."""
    party = memory_rig.party(CachePolicy(ttl=300, lease=30, grace=0))
    blob = party.seal("x", subject=subject)
    party.kms.fail(KMSUnavailable("out"))
    memory_rig.clock.advance(299)
    assert party.open(blob) == "x"
    memory_rig.clock.advance(1)
    assert error_of(lambda: party.open(blob)) is KMSUnavailable


def test_a_cold_key_in_an_outage_is_an_outage(memory_rig: Rig) -> None:
    """Never a wrong key."""
    blob = memory_rig.party().seal("x")
    party = memory_rig.party()
    party.kms.fail(KMSUnavailable("out"))
    assert error_of(lambda: party.open(blob)) is KMSUnavailable
    assert error_of(lambda: party.seal("y")) is KMSUnavailable
    assert error_of(lambda: party.seal("y", "new tenant")) is KMSUnavailable


@SUBJECTS
@pytest.mark.parametrize(
    "error",
    [KMSDenied("no"), KMSKeyDisabled("gone"), KMSError("not a key of this KMS")],
    ids=lambda it: type(it).__name__,
)
def test_a_refusal_is_never_bridged(memory_rig: Rig, error: KMSError, subject: str | None) -> None:
    """Once it is known, at the end of the key's age, nothing is served; not even in an outage right after."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x", subject=subject)
    party.kms.fail(error)
    memory_rig.clock.advance(300)
    assert error_of(lambda: party.open(blob)) is type(error)
    assert error_of(lambda: party.seal("y", subject=subject)) is type(error)
    party.kms.heal()
    party.kms.fail(KMSUnavailable("out"))
    assert error_of(lambda: party.open(blob)) is KMSUnavailable
    party.kms.heal()
    assert party.open(blob) == "x"


def test_a_refused_wrap_key_takes_its_subjects_with_it(memory_rig: Rig) -> None:
    """Those that are younger, too: what is known is known."""
    party = memory_rig.party(POLICY)
    alice, bob = party.seal("x", subject="alice"), memory_rig.party().seal("x", subject="bob")
    memory_rig.clock.advance(299)
    assert party.open(bob) == "x"
    memory_rig.clock.advance(1)
    party.kms.fail(KMSKeyDisabled("gone"))
    assert error_of(lambda: party.open(alice)) is KMSKeyDisabled
    assert error_of(lambda: party.open(bob)) is KMSKeyDisabled


def test_one_refused_key_of_a_batch_leaves_the_others(memory_rig: Rig) -> None:
    """Each item is judged by itself."""
    blobs = {tenant: memory_rig.party().seal("x", tenant) for tenant in ("a", "b", "c")}
    party = memory_rig.party()
    party.kms.fail_items(KMSDenied("no"), when=lambda context: context["tenant"] == "b")
    party.vault.ring.prefetch(blobs=blobs.values())
    party.kms.calls.clear()
    assert [error_of(partial(party.open, blob, tenant)) for tenant, blob in blobs.items()] == [
        None,
        KMSDenied,
        None,
    ]


def test_a_lie_about_a_cached_key_is_no_outage(memory_rig: Rig) -> None:
    """It is refused, and the copy at hand is not trusted either."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    party.kms.lie()
    memory_rig.clock.advance(300)
    assert error_of(lambda: party.open(blob)) is KMSError


# -- the key store ------------------------------------------------------------------------------------------


@SUBJECTS
def test_an_unreachable_key_store_is_bridged_up_to_lease_and_grace(rig: Rig, subject: str | None) -> None:
    """Then nothing is served, and then all is well again."""
    party = rig.party(POLICY)
    blob = party.seal("x", subject=subject)
    party.store.down = True
    for _ in range(9):
        assert party.open(blob) == "x"
        assert party.open(party.seal("y", subject=subject)) == "y"
        rig.clock.advance(10)
    assert error_of(lambda: party.open(blob)) is KeyStoreError
    assert error_of(lambda: party.seal("y", subject=subject)) is KeyStoreError
    party.store.down = False
    assert party.open(blob) == "x"
    assert party.open(party.seal("y", subject=subject)) == "y"


def test_in_an_outage_the_key_store_is_asked_once_a_second(memory_rig: Rig) -> None:
    """Not for each value."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    memory_rig.clock.advance(30)
    party.store.down = True
    party.store.calls.clear()
    for _ in range(100):
        party.open(blob)
    assert party.store.calls == ["generation"]
    memory_rig.clock.advance(1)
    party.open(blob)
    assert party.store.calls == ["generation"] * 2


def test_without_a_grace_an_unreachable_key_store_stops_at_the_lease(memory_rig: Rig) -> None:
    """Fail closed."""
    party = memory_rig.party(CachePolicy(lease=30, grace=0))
    blob = party.seal("x")
    party.store.down = True
    memory_rig.clock.advance(29)
    assert party.open(blob) == "x"
    memory_rig.clock.advance(1)
    assert error_of(lambda: party.open(blob)) is KeyStoreError


def test_an_aged_key_is_bridged_while_the_key_store_is_out(memory_rig: Rig) -> None:
    """A key whose age ends within the lease's grace serves until that ends."""
    party = memory_rig.party(CachePolicy(ttl=40, lease=30, grace=60))
    blob = party.seal("x")
    memory_rig.clock.advance(20)
    party.vault.ring.lease.renew()
    party.store.down = True
    for _ in range(7):
        memory_rig.clock.advance(10)
        assert party.open(blob) == "x"
        assert party.open(party.seal("y")) == "y"
    memory_rig.clock.advance(10)
    assert error_of(lambda: party.open(blob)) is KeyStoreError


def test_a_cold_key_without_a_key_store_is_an_outage(rig: Rig) -> None:
    """Not an unknown key, and no new one."""
    blob = rig.party().seal("x")
    party = rig.party()
    party.store.down = True
    assert error_of(lambda: party.open(blob)) is KeyStoreError
    assert error_of(lambda: party.seal("y")) is KeyStoreError
    assert error_of(lambda: party.vault.rotate("acme")) is KeyStoreError
    party.store.down = False
    assert len(party.vault.keys("acme")) == 1


def test_a_shred_during_an_outage_is_seen_by_lease_and_grace_at_the_latest(memory_rig: Rig) -> None:
    """As the receipt says."""
    cut_off, here = memory_rig.party(POLICY), memory_rig.party(POLICY)
    blob = cut_off.seal("x")
    cut_off.store.down = True
    here.vault.shred("acme", actor="operator", reason="left")
    memory_rig.clock.advance(89)
    assert cut_off.open(blob) == "x"
    memory_rig.clock.advance(1)
    assert error_of(lambda: cut_off.open(blob)) is KeyStoreError


# -- both ---------------------------------------------------------------------------------------------------


def test_with_both_out_the_shorter_patience_decides(memory_rig: Rig) -> None:
    """And both come back."""
    party = memory_rig.party(POLICY)
    blob = party.seal("x")
    party.kms.fail(KMSUnavailable("out"))
    party.store.down = True
    memory_rig.clock.advance(89)
    assert party.open(blob) == "x"
    memory_rig.clock.advance(1)
    assert error_of(lambda: party.open(blob)) is KeyStoreError
    party.store.down = False
    assert party.open(blob) == "x"
    memory_rig.clock.advance(300)
    assert error_of(lambda: party.open(blob)) is KMSUnavailable
    party.kms.heal()
    assert party.open(blob) == "x"


def test_an_outage_never_comes_as_a_wrong_key(memory_rig: Rig) -> None:
    """Whatever is out when, cold or warm."""
    allowed = {None, KMSUnavailable, KeyStoreError}

    def tell(party: Party, blob: bytes) -> None:
        for work in (
            lambda: party.open(blob),
            lambda: party.seal("y"),
            lambda: party.seal("y", subject="alice"),
        ):
            assert error_of(work) in allowed

    for kms_out in (False, True):
        for store_out in (False, True):
            warm, cold = memory_rig.party(POLICY), memory_rig.party(POLICY)
            blob = warm.seal("x")
            for party in (warm, cold):
                if kms_out:
                    party.kms.fail(KMSUnavailable("out"))
                party.store.down = store_out
            for _ in range(8):
                tell(warm, blob)
                tell(cold, blob)
                memory_rig.clock.advance(50)

"""The circuit breaker: what opens it, who is refused meanwhile, and how it closes."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from fieldvault import CachePolicy, RetryPolicy, Vault
from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import NotAsked, WrappedKey
from fieldvault.keys.retrying import RetryingKMS
from fieldvault.keys.stats import Meter
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS, ManualClock
from tests.keys.parties import Party, Rig, Running, WatchedStore, in_threads

ONCE = RetryPolicy(deadline=0, failures=3, pause=10)
CONTEXT = {"tenant": "acme"}


class States:
    """An observer of the breaker."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_call(self, call: object, /) -> None:
        """Not of interest."""

    def on_miss(self, keys: int, /) -> None:
        """Not of interest."""

    def on_breaker(self, state: str, /) -> None:
        """Note it."""
        self.seen.append(state)


def cold(rig: Rig, count: int) -> list[Callable[[Party], object]]:
    """Calls that each need another key of the KMS."""
    other = rig.party()
    tenants = [f"tenant {index}" for index in range(count)]
    return [
        partial(Party.open, blob=other.seal(index, tenant), tenant=tenant)
        for index, tenant in enumerate(tenants)
    ]


def test_after_outages_in_a_row_the_kms_is_left_alone(memory_rig: Rig) -> None:
    """Calls fail at once and say since when and until when; then one trial closes the breaker."""
    states = States()
    party = memory_rig.party(retries=ONCE, observer=states)
    calls = cold(memory_rig, 6)
    party.kms.fail(KMSUnavailable("out"))
    for call in calls[:3]:
        assert party.vault.stats().breaker == "closed"
        with pytest.raises(KMSUnavailable, match=r"^out$"):
            call(party)
    assert (states.seen, party.vault.stats().breaker) == (["open"], "open")
    party.kms.heal()
    party.kms.calls.clear()
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    memory_rig.clock.advance(9.9)
    for call in calls:
        with pytest.raises(
            KMSUnavailable,
            match=rf"^the KMS has been unavailable since {moment}, and is left alone until {moment}$",
        ):
            call(party)
    with pytest.raises(KMSUnavailable, match="left alone"):
        party.seal("x", "new tenant")
    assert party.kms.calls == []
    assert party.vault.stats().refused == 7
    memory_rig.clock.advance(0.2)
    assert [call(party) for call in calls] == list(range(6))
    assert states.seen == ["open", "half-open", "closed"]


def test_a_trial_that_fails_is_one_try_and_begins_another_pause(memory_rig: Rig) -> None:
    """However long the deadline is."""
    states = States()
    party = memory_rig.party(retries=RetryPolicy(deadline=0.05, failures=1, pause=10), observer=states)
    (call,) = cold(memory_rig, 1)
    party.kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable, match=r"^out$"):
        call(party)
    assert len(party.kms.calls) > 1
    for _ in range(2):
        memory_rig.clock.advance(10)
        party.kms.calls.clear()
        for message in ("^out$", "left alone", "left alone"):
            with pytest.raises(KMSUnavailable, match=message):
                call(party)
        assert len(party.kms.calls) == 1
    assert states.seen == ["open", "half-open", "open", "half-open", "open"]


def test_an_answer_in_between_begins_the_count_anew(memory_rig: Rig) -> None:
    """Only outages in a row count."""
    party = memory_rig.party(retries=ONCE)
    calls = cold(memory_rig, 6)
    for bad, good in ((calls[:2], calls[4]), (calls[:2], calls[5]), (calls[:2], calls[3])):
        party.kms.fail(KMSUnavailable("out"), times=2)
        for call in bad:
            with pytest.raises(KMSUnavailable, match=r"^out$"):
                call(party)
        good(party)
    assert party.vault.stats().breaker == "closed"


@pytest.mark.parametrize(
    "error",
    [KMSDenied("no"), KMSKeyDisabled("gone"), KMSError("another context")],
    ids=lambda it: type(it).__name__,
)
@pytest.mark.parametrize("whole", [True, False], ids=["the call", "the item"])
def test_refusals_never_open_it(memory_rig: Rig, error: KMSError, whole: bool) -> None:
    """Whoever says no is there."""
    party = memory_rig.party(retries=ONCE)
    (call,) = cold(memory_rig, 1)
    (party.kms.fail if whole else party.kms.fail_items)(error)
    for _ in range(10):
        with pytest.raises(type(error), match=str(error)):
            call(party)
    assert party.vault.stats().breaker == "closed"
    assert len(party.kms.calls) == 10


def test_a_refused_trial_closes_it(memory_rig: Rig) -> None:
    """It is an answer."""
    party = memory_rig.party(retries=ONCE)
    (call,) = cold(memory_rig, 1)
    party.kms.fail(KMSUnavailable("out"), times=3)
    for _ in range(3):
        with pytest.raises(KMSUnavailable):
            call(party)
    memory_rig.clock.advance(10)
    party.kms.fail(KMSDenied("no"))
    for _ in range(2):
        with pytest.raises(KMSDenied):
            call(party)
    assert party.vault.stats().breaker == "closed"


def test_single_items_never_open_it_a_batch_of_nothing_else_does(local_kms: LocalKMS) -> None:
    """A KMS that asks for each item by itself tells an outage in every one of them."""
    kms = FaultyKMS(local_kms)
    patient = RetryingKMS(
        kms, policy=RetryPolicy(deadline=0, failures=2), clock=ManualClock(), meter=Meter(None)
    )
    items = [
        WrappedKey(local_kms.wrap(bytes(32), context={"n": str(number)}), {"n": str(number)})
        for number in range(3)
    ]
    kms.fail_items(KMSUnavailable("throttled"), when=lambda context: context["n"] != "1")
    for _ in range(10):
        answers = patient.unwrap_many(items)
        assert [type(answer) for answer in answers] == [KMSUnavailable, bytes, KMSUnavailable]
    assert patient.breaker.state == "closed"
    for _ in range(2):
        with pytest.raises(KMSUnavailable, match="throttled"):
            patient.unwrap_many([items[0], items[2]])
    assert patient.breaker.state == "open"
    with pytest.raises(KMSUnavailable, match="left alone"):
        patient.unwrap_many(items)


def test_keys_at_hand_serve_on_while_it_is_open(memory_rig: Rig) -> None:
    """Warm ones as ever, expired ones within the grace, and nobody waits."""
    party = memory_rig.party(CachePolicy(ttl=300, lease=30, grace=60), retries=ONCE)
    blob = party.seal("x")
    calls = cold(memory_rig, 3)
    party.kms.fail(KMSUnavailable("out"))
    for call in calls:
        with pytest.raises(KMSUnavailable):
            call(party)
    party.kms.calls.clear()
    for _ in range(9):
        assert party.open(blob) == "x"
        memory_rig.clock.advance(1)
    assert party.kms.calls == []
    memory_rig.clock.advance(291)
    for _ in range(6):
        assert party.open(blob) == "x"
        assert party.open(party.seal("y")) == "y"
        memory_rig.clock.advance(10)
    with pytest.raises(KMSUnavailable):
        party.open(blob)


def test_one_trial_at_a_time_and_nobody_waits_for_it(memory_rig: Rig) -> None:
    """While it is under way the others fail at once."""
    party = memory_rig.party(retries=ONCE)
    calls = cold(memory_rig, 20)
    party.kms.fail(KMSUnavailable("out"), times=3)
    for call in calls[:3]:
        with pytest.raises(KMSUnavailable):
            call(party)
    memory_rig.clock.advance(10)
    party.kms.calls.clear()
    with party.kms.hold() as hold:
        trial = Running(partial(calls[0], party))
        assert hold.reached.wait(10)
        answers = in_threads(16, lambda index: calls[index + 1](party))
        assert {type(answer) for answer in answers} == {KMSUnavailable}
        assert all(re.search("one call is trying it now", str(answer)) for answer in answers)
        assert len(party.kms.calls) == 1
    assert trial.result() == 0
    assert in_threads(16, lambda index: calls[index + 1](party)) == list(range(1, 17))


def test_many_threads_open_it_once(memory_rig: Rig) -> None:
    """Late outages of calls that began before are no news, and none of them closes it."""
    states = States()
    party = memory_rig.party(retries=ONCE, observer=states)
    calls = cold(memory_rig, 16)
    hold = party.kms.hold()
    party.kms.fail(KMSUnavailable("out"))
    work = Running(lambda: in_threads(16, lambda index: calls[index](party)))
    assert hold.reached.wait(10)
    hold.release()
    assert {type(answer) for answer in work.result()} == {KMSUnavailable}
    assert states.seen == ["open"]


def test_a_trial_that_is_interrupted_leaves_it_open(local_kms: LocalKMS) -> None:
    """Not half-open for good."""

    class Interrupted(FaultyKMS):
        def wrap(self, key: bytes, *, context: object) -> bytes:  # noqa: ARG002 - it never gets there
            raise KeyboardInterrupt

    clock = ManualClock()
    kms = Interrupted(local_kms)
    patient = RetryingKMS(kms, policy=RetryPolicy(deadline=0, failures=1), clock=clock, meter=Meter(None))
    kms.fail(KMSUnavailable("out"), times=1)
    with pytest.raises(KMSUnavailable):
        patient.unwrap(b"", context=CONTEXT)
    clock.advance(10)
    with pytest.raises(KeyboardInterrupt):
        patient.wrap(bytes(32), context=CONTEXT)
    assert patient.breaker.state == "open"
    clock.advance(10)
    wrapped = local_kms.wrap(bytes(32), context=CONTEXT)
    assert patient.unwrap(wrapped, context=CONTEXT) == bytes(32)
    assert patient.breaker.state == "closed"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_finds_out_by_itself(memory_rig: Rig) -> None:
    """Whatever the parent's threads held at that moment."""
    party = memory_rig.party(retries=ONCE)
    (call, *others) = cold(memory_rig, 4)
    party.kms.fail(KMSUnavailable("out"))
    for other in others:
        with pytest.raises(KMSUnavailable):
            other(party)
    party.kms.heal()
    breaker = party.vault.ring.kms.breaker
    with breaker._lock:
        child = os.fork()
        if child == 0:
            works = False
            try:
                works = call(party) == 0 and party.vault.stats().breaker == "closed"
            finally:
                os._exit(0 if works else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert party.vault.stats().breaker == "open"


# -- several root keys --------------------------------------------------------------------------------------


class OneATenant(FaultyKMS):
    """A KMS in which each tenant has a root key of its own."""

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """See ``ManyRootKeys``."""
        assert wrapped
        return context["tenant"]


class OneAKey(FaultyKMS):
    """A KMS that names another root key for each wrapped key."""

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """See ``ManyRootKeys``."""
        assert context
        return wrapped.hex()


def of_tenants(*tenants: str) -> Callable[[Mapping[str, str]], bool]:
    """Whether a key is one of theirs."""
    return lambda context: context["tenant"] in tenants


def dedicated(
    rig: Rig, kms: FaultyKMS | None = None, retries: RetryPolicy = ONCE, **cache: Any
) -> tuple[Party, States]:
    """A vault with a root key a tenant, and what is told of its breaker."""
    states = States()
    kms, store = kms or OneATenant(rig.kms), WatchedStore(rig.store)
    policy = CachePolicy(**{"lease": 30, "refresh_ahead": 0, **cache})
    vault = Vault(kms=kms, key_store=store, cache=policy, retries=retries, clock=rig.clock, observer=states)
    return Party(vault, kms, store), states


def sealed(rig: Rig, *tenants: str) -> dict[str, bytes]:
    """A ciphertext of each tenant, cold for everybody else."""
    other = rig.party()
    return {tenant: other.seal("x", tenant) for tenant in tenants}


@pytest.mark.parametrize("failures", [1, 3])
@pytest.mark.parametrize("whole", [True, False], ids=["the call", "the item"])
def test_one_root_keys_outage_is_nobody_elses(memory_rig: Rig, whole: bool, failures: int) -> None:
    """However often it is met, and though it always comes first when a pause is over."""
    party, _ = dedicated(memory_rig, retries=RetryPolicy(deadline=0, failures=failures, pause=10))
    tenants = [f"tenant {index}" for index in range(5)]
    blobs = sealed(memory_rig, "poison", *tenants)
    (party.kms.fail if whole else party.kms.fail_items)(KMSUnavailable("out"), when=of_tenants("poison"))
    for tenant in tenants:
        for _ in range(5):
            with pytest.raises(KMSUnavailable):
                party.open(blobs["poison"], "poison")
        assert party.vault.stats().breaker == "open"
        assert party.open(blobs[tenant], tenant) == "x"
        assert party.open(party.seal("y", f"new {tenant}"), f"new {tenant}") == "y"
        memory_rig.clock.advance(10)
    assert party.vault.stats().refused == 25 - failures - len(tenants) + 1, "it is itself left alone"
    party.kms.heal()
    assert party.open(blobs["poison"], "poison") == "x"
    assert party.vault.stats().breaker == "closed"


def test_one_root_keys_outage_hides_no_refusal_of_another(memory_rig: Rig) -> None:
    """Whose permission is proved on, once a lease."""
    party, _ = dedicated(memory_rig)
    blobs = sealed(memory_rig, "poison", "good")
    party.open(blobs["good"], "good")
    party.kms.fail(KMSUnavailable("out"), when=of_tenants("poison"))
    party.kms.fail(KMSDenied("revoked"), when=of_tenants("good"))
    for _ in range(6):
        assert party.open(blobs["good"], "good") == "x"
        for _ in range(4):
            with pytest.raises(KMSUnavailable):
                party.open(blobs["poison"], "poison")
        memory_rig.clock.advance(5)
    with pytest.raises(KMSUnavailable):
        party.open(blobs["poison"], "poison")
    with pytest.raises(KMSDenied):
        party.open(blobs["good"], "good")


def test_the_outage_of_several_is_one_of_the_kms(memory_rig: Rig) -> None:
    """Nobody else waits for it then; one that was not found out has a trial, too, and any answer ends it."""
    party, states = dedicated(memory_rig)
    tenants = [f"tenant {index}" for index in range(6)]
    blobs = sealed(memory_rig, *tenants)
    party.kms.fail(KMSUnavailable("out"))
    for tenant in tenants[:3]:
        assert states.seen == []
        with pytest.raises(KMSUnavailable, match=r"^out$"):
            party.open(blobs[tenant], tenant)
    assert states.seen == ["open"]
    party.kms.calls.clear()
    for tenant in tenants:
        with pytest.raises(KMSUnavailable, match="left alone until"):
            party.open(blobs[tenant], tenant)
    assert party.kms.calls == []
    memory_rig.clock.advance(10)
    for tenant, message in zip(tenants, [*["^out$"] * 4, "left alone", "left alone"], strict=True):
        with pytest.raises(KMSUnavailable, match=message):
            party.open(blobs[tenant], tenant)
    assert len(party.kms.calls) == 4, "each of the three once, and one of the others"
    party.kms.heal()
    memory_rig.clock.advance(10)
    assert [party.open(blobs[tenant], tenant) for tenant in reversed(tenants)] == ["x"] * 6
    assert party.vault.stats().breaker == "closed"


def test_those_that_were_found_out_never_take_the_trial_of_the_others(memory_rig: Rig) -> None:
    """Three are out for good and always first; the KMS is well, and the fourth is served."""
    party, _ = dedicated(memory_rig)
    bad = ["bad 1", "bad 2", "bad 3"]
    blobs = sealed(memory_rig, *bad, "good")
    party.kms.fail(KMSUnavailable("out"), when=of_tenants(*bad))
    for _ in range(2):
        for tenant in bad:
            with pytest.raises(KMSUnavailable):
                party.open(blobs[tenant], tenant)
        memory_rig.clock.advance(10)
    for tenant in bad:
        with pytest.raises(KMSUnavailable, match=r"^out$"):
            party.open(blobs[tenant], tenant)
    assert party.open(blobs["good"], "good") == "x"
    for _ in range(3):
        for tenant in bad:
            with pytest.raises(KMSUnavailable):
                party.open(blobs[tenant], tenant)
        memory_rig.clock.advance(10)
        assert party.open(*_fresh(memory_rig)) == "x", "nor are they taken for the KMS again"


def _fresh(rig: Rig) -> tuple[bytes, str]:
    """A ciphertext of a tenant that nobody knows, and its name."""
    tenant = f"tenant of {rig.clock()}"
    return sealed(rig, tenant)[tenant], tenant


def test_an_outage_of_several_hides_no_refusal(memory_rig: Rig) -> None:
    """A proof waits for no turn."""
    party, _ = dedicated(memory_rig)
    bad = [f"bad {index}" for index in range(8)]
    blobs = sealed(memory_rig, *bad, "good")
    party.open(blobs["good"], "good")
    party.kms.fail(KMSUnavailable("out"), when=of_tenants(*bad))
    party.kms.fail(KMSDenied("revoked"), when=of_tenants("good"))
    memory_rig.clock.advance(29)
    for tenant in bad:
        with pytest.raises(KMSUnavailable):
            party.open(blobs[tenant], tenant)
    assert party.open(blobs["good"], "good") == "x"
    memory_rig.clock.advance(1)
    with pytest.raises(KMSDenied):
        party.open(blobs["good"], "good")


def test_one_tenant_with_many_root_keys_is_one_witness(memory_rig: Rig) -> None:
    """It may have as many versions as it likes."""
    party, _ = dedicated(memory_rig, OneAKey(memory_rig.kms))
    other = memory_rig.party()
    blobs = []
    for _ in range(6):
        blobs.append(other.seal("x", "poison"))
        other.vault.rotate("poison")
    good = other.seal("x", "good")
    party.kms.fail(KMSUnavailable("out"), when=of_tenants("poison"))
    for blob in blobs * 3:
        with pytest.raises(KMSUnavailable):
            party.open(blob, "poison")
    assert party.open(good, "good") == "x"


def test_a_batch_that_brings_an_answer_speaks_for_the_kms(memory_rig: Rig) -> None:
    """However many of its items are out; those that are left alone are not asked for."""
    party, _ = dedicated(memory_rig)
    bad = [f"bad {index}" for index in range(5)]
    blobs = sealed(memory_rig, *bad, "good", "other")
    party.kms.fail_items(KMSUnavailable("out"), when=of_tenants(*bad))
    for _ in range(3):
        party.vault.ring.prefetch(blobs=[blobs["good"], *(blobs[tenant] for tenant in bad)])
        party.vault.ring.cache.drop(None)
    party.kms.calls.clear()
    party.vault.ring.prefetch(blobs=[blobs["other"], *(blobs[tenant] for tenant in bad)])
    assert [[context["tenant"] for context in call.contexts] for call in party.kms.calls] == [["other"]]
    assert party.open(blobs["other"], "other") == "x"


def test_an_item_that_was_not_asked_for_says_nothing_of_its_root_key(memory_rig: Rig) -> None:
    """The KMS gave up before, for another one's sake."""

    class GivingUp(OneATenant):
        def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
            answers = super().unwrap_many(items)
            is_out = any(isinstance(answer, KMSUnavailable) for answer in answers)
            return [
                NotAsked("not asked") if is_out and isinstance(answer, bytes) else answer
                for answer in answers
            ]

    party, _ = dedicated(memory_rig, GivingUp(memory_rig.kms))
    blobs = sealed(memory_rig, "poison", "good")
    party.kms.fail_items(KMSUnavailable("out"), when=of_tenants("poison"))
    for _ in range(5):
        party.vault.ring.prefetch(blobs=blobs.values())
    assert party.open(blobs["good"], "good") == "x"


def test_wrapping_that_is_out_keeps_nobody_from_unwrapping(memory_rig: Rig) -> None:
    """A KMS of several may have lost the one that it takes to wrap."""
    party, _ = dedicated(memory_rig)
    blobs = sealed(memory_rig, "good")
    hold = party.kms.wrap
    party.kms.wrap = _raises  # type: ignore[method-assign]
    for index in range(5):
        with pytest.raises(KMSUnavailable, match=r"^out$" if index < 3 else "left alone"):
            party.seal("x", f"new {index}")
    assert party.open(blobs["good"], "good") == "x"
    party.kms.wrap = hold  # type: ignore[method-assign]
    memory_rig.clock.advance(10)
    assert party.seal("x", "newest")
    assert party.seal("x", "new 0")


def _raises(*_: object, **__: object) -> bytes:
    raise KMSUnavailable("out")


def test_root_keys_in_trouble_are_remembered_up_to_a_bound(
    memory_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be one a tenant."""
    monkeypatch.setattr("fieldvault.keys.breaker._MOST", 4)
    party, _ = dedicated(memory_rig)
    tenants = [f"tenant {index}" for index in range(20)]
    blobs = sealed(memory_rig, *tenants)
    party.kms.fail(KMSUnavailable("out"))
    party.vault.ring.prefetch(blobs=blobs.values())
    assert len(party.vault.ring.kms.breaker._own) == 4
    party.kms.heal()
    memory_rig.clock.advance(10)
    assert [party.open(blobs[tenant], tenant) for tenant in tenants] == ["x"] * 20
    assert not party.vault.ring.kms.breaker._own


@pytest.mark.parametrize("error", [KMSError("not one of mine"), IndexError()])
def test_a_wrapped_key_that_names_no_root_key_is_for_unwrapping_to_judge(
    memory_rig: Rig, error: Exception
) -> None:
    """It spoils no batch, and no new key; nor does a fault of the KMS in naming it."""

    class Unnamed(OneATenant):
        def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
            if context["tenant"] == "odd":
                raise error
            return super().root_key_of(wrapped, context=context)

    party, _ = dedicated(memory_rig, Unnamed(memory_rig.kms))
    blobs = sealed(memory_rig, "odd", "good")
    party.vault.ring.prefetch(blobs=blobs.values())
    assert [party.open(blob, tenant) for tenant, blob in blobs.items()] == ["x"] * 2
    assert party.seal("y", "odd")
    memory_rig.clock.advance(30)
    party.kms.fail(KMSDenied("revoked"), when=of_tenants("odd"))
    with pytest.raises(KMSDenied):
        party.open(blobs["odd"], "odd")
    assert party.open(blobs["good"], "good") == "x"

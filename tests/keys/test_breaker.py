"""The circuit breaker: what opens it, who is refused meanwhile, and how it closes."""

import os
import re
from collections.abc import Callable
from functools import partial

import pytest

from fieldvault import CachePolicy, RetryPolicy
from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.keys.retrying import RetryingKMS
from fieldvault.keys.stats import Meter
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS, ManualClock
from tests.keys.parties import Party, Rig, Running, in_threads

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
    with breaker._lock, breaker._circuit._lock:
        child = os.fork()
        if child == 0:
            works = False
            try:
                works = call(party) == 0 and party.vault.stats().breaker == "closed"
            finally:
                os._exit(0 if works else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert party.vault.stats().breaker == "open"

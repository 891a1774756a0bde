"""Retries of the KMS."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.policy import RetryPolicy
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.keys.retrying import RetryingKMS
from fieldvault.keys.stats import Meter
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS, ManualClock

CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))


def patient_with(kms: KMS, **policy: Any) -> RetryingKMS:
    """A KMS that is asked again."""
    return RetryingKMS(kms, policy=RetryPolicy(**policy), clock=ManualClock(), meter=Meter(None))


def test_an_unavailable_kms_is_asked_again_until_it_is_back(local_kms: LocalKMS) -> None:
    """Throttling for a moment is nobody's error."""
    kms = FaultyKMS(local_kms)
    patient = patient_with(kms, deadline=5)
    kms.fail(KMSUnavailable("throttled"), times=2)
    wrapped = patient.wrap(KEY, context=CONTEXT)
    kms.fail(KMSUnavailable("throttled"), times=2)
    assert patient.unwrap(wrapped, context=CONTEXT) == KEY
    assert [call.method for call in kms.calls] == ["wrap"] * 3 + ["unwrap_many"] * 3


def test_after_the_deadline_the_outage_is_told(local_kms: LocalKMS) -> None:
    """As what it is."""
    kms = FaultyKMS(local_kms)
    kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable, match="out"):
        patient_with(kms, deadline=0.05).unwrap_many([WrappedKey(b"", CONTEXT)])


@pytest.mark.parametrize("error", [KMSDenied("no"), KMSKeyDisabled("gone"), KMSError("broken")])
def test_what_does_not_get_better_is_not_asked_again(local_kms: LocalKMS, error: KMSError) -> None:
    """One call, and the answer stands."""
    kms = FaultyKMS(local_kms)
    kms.fail(error)
    with pytest.raises(type(error)):
        patient_with(kms).wrap(KEY, context=CONTEXT)
    assert len(kms.calls) == 1


def test_of_a_batch_only_the_items_that_failed_are_asked_again(local_kms: LocalKMS) -> None:
    """What is answered stays answered."""
    kms = FaultyKMS(local_kms)
    items = [WrappedKey(local_kms.wrap(KEY, context={"n": str(n)}), {"n": str(n)}) for n in range(3)]
    kms.fail_items(KMSUnavailable("throttled"), when=lambda context: context["n"] == "1", times=1)
    kms.fail_items(KMSDenied("no"), when=lambda context: context["n"] == "2")
    answers = patient_with(kms, deadline=5).unwrap_many(items)
    assert answers[:2] == [KEY, KEY]
    assert isinstance(answers[2], KMSDenied)
    assert [len(call.contexts) for call in kms.calls] == [3, 1]


@pytest.mark.parametrize("error", [KMSUnavailable("out"), KMSDenied("no")])
def test_a_repeat_that_fails_as_a_whole_takes_nothing_back(local_kms: LocalKMS, error: KMSError) -> None:
    """The item that was answered first keeps its answer, the other has the error."""
    kms = FaultyKMS(local_kms)
    items = [WrappedKey(local_kms.wrap(KEY, context={"n": str(n)}), {"n": str(n)}) for n in range(2)]
    kms.fail_items(KMSUnavailable("throttled"), when=lambda context: context["n"] == "1", times=1)
    kms.fail(error, when=lambda _: len(kms.calls) > 1)
    first, second = patient_with(kms, deadline=0.1).unwrap_many(items)
    assert first == KEY
    assert isinstance(second, type(error))


class Miscounting:
    """A KMS that answers fewer items than it was asked."""

    def __init__(self, kms: LocalKMS) -> None:
        self._kms = kms

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap rightly."""
        return self._kms.wrap(key, context=context)

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """Unwrap rightly."""
        return self._kms.unwrap(wrapped, context=context)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Leave one out."""
        return self._kms.unwrap_many(items)[1:]

    def check(self) -> str:
        """Say so."""
        return "miscounting"

    def close(self) -> None:
        """Nothing is open."""


def test_a_kms_that_answers_another_number_of_items_is_not_believed(local_kms: LocalKMS) -> None:
    """Nobody can tell whose answers these are."""
    items = [WrappedKey(local_kms.wrap(KEY, context=CONTEXT), CONTEXT)] * 2
    with pytest.raises(KMSError, match="1 of 2"):
        patient_with(Miscounting(local_kms)).unwrap_many(items)


def test_nothing_to_unwrap_is_no_call(local_kms: LocalKMS) -> None:
    """An empty batch costs nothing."""
    kms = FaultyKMS(local_kms)
    assert patient_with(kms).unwrap_many([]) == []
    assert kms.calls == []


def test_a_check_tells_how_it_is_now(local_kms: LocalKMS) -> None:
    """It is asked once."""
    kms = FaultyKMS(local_kms)
    patient = patient_with(kms)
    assert "root-key file" in patient.check()
    kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable):
        patient.check()
    assert [call.method for call in kms.calls] == ["check", "check"]
    patient.close()


def test_no_try_begins_after_the_deadline(local_kms: LocalKMS) -> None:
    """A slow server uses up the time by itself: what bounds a try is its own time-out."""
    begun: list[float] = []

    class Slow(FaultyKMS):
        def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
            begun.append(time.monotonic())
            time.sleep(0.12)
            return super().wrap(key, context=context)

    kms = Slow(local_kms)
    kms.fail(KMSUnavailable("timed out"))
    for _ in range(3):
        begun.clear()
        with pytest.raises(KMSUnavailable, match="timed out"):
            patient_with(kms, deadline=0.3, failures=100).wrap(KEY, context=CONTEXT)
        assert 1 < len(begun) <= 3
        assert begun[-1] - begun[0] < 0.3


def test_without_a_deadline_there_is_one_try(local_kms: LocalKMS) -> None:
    """For those who do not wait."""
    kms = FaultyKMS(local_kms)
    kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable):
        patient_with(kms, deadline=0).wrap(KEY, context=CONTEXT)
    assert len(kms.calls) == 1


def test_tries_are_spaced_by_a_random_time(local_kms: LocalKMS, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing up to a bound that doubles (full jitter), so that many processes do not knock together."""
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    kms = FaultyKMS(local_kms)
    for _ in range(200):
        kms.fail(KMSUnavailable("throttled"), times=3)
        patient_with(kms, deadline=10).wrap(KEY, context=CONTEXT)
    for place, bound in enumerate((0.05, 0.1, 0.2)):
        waits = slept[place::3]
        assert 0 <= min(waits) < 0.25 * bound
        assert 0.75 * bound < max(waits) <= bound

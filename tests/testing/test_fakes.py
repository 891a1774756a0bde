"""The public fakes."""

import threading
import time
from pathlib import Path

import pytest

from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS, Hold, KMSCall, ManualClock

KEY = bytes(range(32))
A, B = {"tenant": "a"}, {"tenant": "b"}


@pytest.fixture
def kms(tmp_path: Path) -> FaultyKMS:
    """Return a faulty KMS that has no trouble yet."""
    return FaultyKMS(LocalKMS.create(tmp_path / "root.keys"))


def test_without_trouble_it_is_the_kms_behind_it(kms: FaultyKMS) -> None:
    """And counts what is asked."""
    wrapped = kms.wrap(KEY, context=A)
    assert kms.unwrap(wrapped, context=A) == KEY
    assert kms.unwrap_many([WrappedKey(wrapped, A), WrappedKey(wrapped, A)]) == [KEY, KEY]
    assert "root-key file" in kms.check()
    kms.close()
    assert kms.calls == [
        KMSCall("wrap", (A,)),
        KMSCall("unwrap_many", (A,)),
        KMSCall("unwrap_many", (A, A)),
        KMSCall("check", ()),
    ]


def test_an_outage_strikes_every_call_until_it_is_healed(kms: FaultyKMS) -> None:
    """The check as well; each call raises an error of its own."""
    kms.fail(KMSUnavailable("out"))
    errors = []
    for work in (lambda: kms.wrap(KEY, context=A), kms.check, lambda: kms.unwrap_many([])):
        with pytest.raises(KMSUnavailable) as caught:
            work()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    kms.heal()
    assert kms.wrap(KEY, context=A)


def test_trouble_can_be_meant_for_some_and_for_a_while(kms: FaultyKMS) -> None:
    """By context, by number."""
    kms.fail(KMSDenied("no"), when=lambda context: context["tenant"] == "a", times=2)
    assert kms.wrap(KEY, context=B)
    for _ in range(2):
        with pytest.raises(KMSDenied):
            kms.wrap(KEY, context=A)
    assert kms.wrap(KEY, context=A)


def test_single_items_fail_by_themselves(kms: FaultyKMS) -> None:
    """The others are answered rightly; asked one by one it is raised."""
    items = [WrappedKey(kms.wrap(KEY, context=context), context) for context in (A, B)]
    kms.fail_items(KMSDenied("no"), when=lambda context: context == B)
    first, second = kms.unwrap_many(items)
    assert first == KEY
    assert isinstance(second, KMSDenied)
    with pytest.raises(KMSDenied):
        kms.unwrap(items[1].wrapped, context=B)


def test_a_liar_answers_with_another_key(kms: FaultyKMS) -> None:
    """Of the right size, each time another; errors stay errors."""
    wrapped = kms.wrap(KEY, context=A)
    kms.lie()
    answers = {kms.unwrap(wrapped, context=A) for _ in range(3)}
    assert len(answers | {KEY}) == 4
    assert {len(answer) for answer in answers} == {32}
    kms.heal()
    with pytest.raises(KMSError):
        kms.unwrap(wrapped, context=B)


def test_a_held_call_waits_to_be_released(kms: FaultyKMS) -> None:
    """And says that it does."""
    done = threading.Event()

    def work() -> None:
        kms.wrap(KEY, context=A)
        done.set()

    with kms.hold() as hold:
        thread = threading.Thread(target=work)
        thread.start()
        assert hold.reached.wait(10)
        time.sleep(0.02)
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()


def test_healing_lets_held_calls_go(kms: FaultyKMS) -> None:
    """No test hangs for having forgotten one."""
    hold = kms.hold()
    thread = threading.Thread(target=lambda: kms.wrap(KEY, context=A))
    thread.start()
    assert hold.reached.wait(10)
    kms.heal()
    thread.join(10)
    assert not thread.is_alive()


def test_a_call_that_nobody_releases_gives_up() -> None:
    """With an error that says so."""
    with pytest.raises(TimeoutError, match="nobody released"):
        Hold(0.01).wait()


def test_the_clock_moves_when_it_is_told() -> None:
    """And only then."""
    clock = ManualClock(5)
    assert clock() == clock() == 5
    clock.advance(2.5)
    assert clock() == 7.5

"""So many at a time as there may be sessions."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fieldvault.errors import KMSUnavailable
from fieldvault.kms.pkcs11.pool import Pool
from fieldvault.testing.samples import together

LONG = 30.0


def test_what_was_last_in_use_is_taken_first() -> None:
    """So that the rest may go idle for long."""
    pool: Pool[str] = Pool()
    assert pool.take() is None
    pool.give("a")
    pool.give("b")
    assert [pool.take(), pool.take(), pool.take()] == ["b", "a", None]


def test_a_place_is_waited_for_until_a_time_and_not_longer() -> None:
    """It is given up after an error too."""
    pool: Pool[str] = Pool()
    until = time.monotonic() + 0.05
    with pytest.raises(KMSUnavailable, match="all 1 sessions"), pool.place(until, lambda: 1):  # noqa: SIM117
        with pool.place(until, lambda: 1):
            pass
    assert time.monotonic() >= until
    with pool.place(time.monotonic(), lambda: 1):
        pass


def test_many_threads_have_as_many_places_as_there_are() -> None:
    """Also where there are more than when they began to wait."""
    pool: Pool[str] = Pool()
    size, full = [1], threading.Barrier(4)

    def work() -> None:
        with pool.place(time.monotonic() + LONG, lambda: size[0]):
            if size == [1]:
                size[0] = 4
            else:
                full.wait(LONG)

    together([work] * 9)
    assert pool._in_use == 0


def test_who_came_first_goes_first() -> None:
    """Else a busy thread would keep the others waiting for good."""
    pool: Pool[str] = Pool()
    order: list[int] = []

    def work(number: int) -> None:
        with pool.place(time.monotonic() + LONG, lambda: 1):
            order.append(number)

    with ThreadPoolExecutor(3) as threads:
        with pool.place(time.monotonic(), lambda: 1):
            for number in range(3):
                threads.submit(work, number)
                while len(pool._queue) <= number:
                    time.sleep(0.001)
        work(3)
    assert order == [0, 1, 2, 3]


def test_whoever_is_interrupted_as_his_turn_comes_leaves_his_place_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else every such moment would cost the pool a session for good."""
    pool: Pool[str] = Pool()
    in_use = pool.place(time.monotonic(), lambda: 1)
    in_use.__enter__()

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - its time is now
            in_use.__exit__(None, None, None)
            assert self.is_set()
            raise KeyboardInterrupt

    monkeypatch.setattr("fieldvault.kms.pkcs11.pool.threading.Event", Interrupted)
    with pytest.raises(KeyboardInterrupt), pool.place(time.monotonic() + LONG, lambda: 1):
        pass
    with pool.place(time.monotonic(), lambda: 1):
        pass

"""The clock of leases and ages."""

import operator
import time
from functools import partial

import pytest

from fieldvault.keys.clock import Clock, CountedClock, boot_clock
from fieldvault.testing.fakes import ManualClock
from tests.keys.parties import in_threads


def test_the_clock_counts_suspended_time_where_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux it is the clock since boot, which the monotonic one lags behind after each suspension."""
    boot = time.CLOCK_BOOTTIME
    before, now, after = time.clock_gettime(boot), boot_clock()(), time.clock_gettime(boot)
    assert before <= now <= after
    monkeypatch.setattr(time, "clock_gettime", {boot: 7.0, time.CLOCK_MONOTONIC: 5.0}.__getitem__)
    assert boot_clock()() == 7.0


def test_without_such_a_clock_it_is_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weaker promise, and no crash."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert boot_clock() is time.monotonic


@pytest.mark.parametrize(
    "clock", [boot_clock(), time.monotonic, ManualClock(5), partial(operator.add, 2.0, 3.0)], ids=repr
)
def test_a_counted_clock_tells_the_same_time_and_how_often(clock: Clock) -> None:
    """Whatever clock it is made of."""
    counted = CountedClock(clock)
    before, now, after = clock(), counted.read(), clock()
    assert before <= now <= after
    assert counted.readings == 1


def test_no_reading_is_missed_among_threads() -> None:
    """Without a lock."""
    counted = CountedClock(boot_clock())
    in_threads(8, lambda _: [counted.read() for _ in range(5000)])
    assert counted.readings == 40_000
    counted.after_fork()
    assert counted.readings == 0
    counted.read()
    assert counted.readings == 1

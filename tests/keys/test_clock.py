"""The clock of leases and ages."""

import time

import pytest

from fieldvault.keys.clock import boot_clock


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

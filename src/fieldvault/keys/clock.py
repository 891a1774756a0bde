"""The clock of leases and ages: seconds that pass also while the machine is suspended."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

__all__ = ["Clock", "boot_clock"]

Clock = Callable[[], float]


def boot_clock() -> Clock:
    """A clock that counts suspended time (``CLOCK_BOOTTIME``) where there is one, else the monotonic clock.

    ``CLOCK_MONOTONIC`` of Linux stands still in a suspended machine: a laptop woken after a week would
    believe its lease to be seconds old. Where the operating system offers nothing better the promise is the
    weaker one.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boot is None else partial(time.clock_gettime, boot)

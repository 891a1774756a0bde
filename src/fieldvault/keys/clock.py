"""The clock of leases and ages: seconds that pass also while the machine is suspended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat, starmap
from math import inf
from operator import length_hint
from typing import Any

__all__ = ["Clock", "CountedClock", "boot_clock", "next_try"]

_SHORTEST_WAIT = 0.5
"""Seconds before another try is worth its while."""

Clock = Callable[[], float]


def boot_clock() -> Clock:
    """A clock that counts suspended time (``CLOCK_BOOTTIME``) where there is one, else the monotonic clock.

    ``CLOCK_MONOTONIC`` of Linux stands still in a suspended machine: a laptop woken after a week would
    believe its lease to be seconds old. Where the operating system offers nothing better the promise is the
    weaker one.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boot is None else partial(time.clock_gettime, boot)


def next_try(now: float, end: float) -> float:
    """When to try again what has to be done by ``end``: at half of the time left; never, if that is short."""
    half = (end - now) / 2
    return now + half if half >= _SHORTEST_WAIT else inf


class CountedClock:
    """A clock that knows how often it was read, at no cost: what counts is the iterator that reads it.

    One step of it is atomic under the interpreter's lock, so no reading is missed.
    """

    __slots__ = ("_left", "_ours", "read")

    def __init__(self, clock: Clock) -> None:
        function: Callable[..., float] = clock
        arguments: tuple[Any, ...] = ()
        if isinstance(clock, partial) and not clock.keywords:
            function, arguments = clock.func, clock.args
        self._left = repeat(arguments, sys.maxsize)
        self._ours = sys.maxsize
        self.read: Clock = starmap(function, self._left).__next__

    @property
    def readings(self) -> int:
        """How often it was read since it was made, or since the fork."""
        return self._ours - length_hint(self._left)

    def after_fork(self) -> None:
        """In a child: the parent's readings do not count."""
        self._ours = length_hint(self._left)

"""The circuit breaker: a KMS that is out is left alone for a while, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from pybreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker

from fieldvault.errors import KMSUnavailable
from fieldvault.keys.clock import Clock
from fieldvault.keys.policy import RetryPolicy

__all__ = ["Breaker"]


class _Outage(Exception):
    """What the circuit is told of a call that found the KMS unavailable."""


class Breaker:
    """Opens after ``failures`` outages in a row, and lets one call try again after each ``pause``.

    The circuit of ``pybreaker`` keeps count and state. It would hold its lock over the call that it guards,
    and so let calls through one by one: here it hears of each call afterwards. ``tell`` is told of each
    change of the state, with nothing held.
    """

    def __init__(self, policy: RetryPolicy, *, clock: Clock, tell: Callable[[str], None]) -> None:
        self._policy = policy
        self._clock = clock
        self._tell = tell
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: locks of its own; it finds out by itself how the KMS is."""
        self._lock = threading.Lock()
        self._circuit = CircuitBreaker(fail_max=self._policy.failures, throw_new_error_on_trip=False)
        self._since = datetime.now(UTC)
        self._until = 0.0

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        return self._circuit.current_state

    def admit(self) -> bool:
        """Whether the call that is about to begin is the one that tries a KMS which was left alone.

        Whoever is admitted says with ``note`` how it went, whatever happens.

        Raises:
            KMSUnavailable: the KMS is left alone.
        """
        with self._lock:
            remaining = self._until - self._clock()
            if self.state == STATE_CLOSED:
                return False
            is_trial = self.state == STATE_OPEN and remaining <= 0
            if is_trial:
                self._circuit.half_open()
        if is_trial:
            self._tell(self.state)
            return True
        raise KMSUnavailable(self._why(remaining))

    def note(self, outage: bool, *, is_trial: bool) -> None:
        """How a call went: it met an outage of the KMS as a whole, or the KMS answered."""
        with self._lock:
            before = self.state
            if before != STATE_CLOSED and not is_trial:
                # It began before the circuit opened, and is no news.
                return
            with suppress(_Outage):
                self._circuit.call(_report, outage)
            after = self.state
            if after == STATE_OPEN:
                self._until = self._clock() + self._policy.pause
                if before == STATE_CLOSED:
                    self._since = datetime.now(UTC)
        if after != before:
            self._tell(after)

    def _why(self, remaining: float) -> str:
        since = f"the KMS has been unavailable since {_moment(self._since)}"
        if remaining <= 0:
            return f"{since}; one call is trying it now, and until that is back nobody else does"
        until = datetime.now(UTC) + timedelta(seconds=remaining)
        return f"{since}, and is left alone until {_moment(until)}"


def _report(outage: bool) -> None:
    if outage:
        raise _Outage


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

"""Pacing: a process that a service throttles slows down, and nobody waits long for his turn."""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import CapacityNotAvailableError
from botocore.retries.adaptive import ClientRateLimiter, RateClocker
from botocore.retries.bucket import Clock, TokenBucket
from botocore.retries.standard import RetryEventAdapter, ThrottlingErrorDetector
from botocore.retries.throttling import CubicCalculator

__all__ = ["LONGEST_WAIT", "pace"]

LONGEST_WAIT = 0.5
"""Seconds that a call waits for its turn before it counts as throttled."""

_LOOK = 0.02


def pace(client: Any) -> None:
    """Have a client send as fast as the service takes it: the rate limiter of the SDK's adaptive mode.

    That mode's own one keeps callers waiting without bound, all threads of the client behind one another, so
    that no deadline of theirs means anything. With this one a call whose turn is too far off fails.
    """
    clock = Clock()
    limiter = ClientRateLimiter(
        rate_adjustor=CubicCalculator(starting_max_rate=0, start_time=clock.current_time()),
        rate_clocker=RateClocker(clock),
        token_bucket=_ImpatientBucket(max_rate=1, clock=clock),
        throttling_detector=ThrottlingErrorDetector(retry_event_adapter=RetryEventAdapter()),
        clock=clock,
    )
    client.meta.events.register("before-send", limiter.on_sending_request)
    client.meta.events.register("needs-retry", limiter.on_receiving_response)


class _ImpatientBucket(TokenBucket):  # type: ignore[misc]  # botocore has no types
    """Gives a token within ``LONGEST_WAIT``, or raises ``CapacityNotAvailableError``."""

    def acquire(self, amount: int = 1, block: bool = True) -> bool:
        """See ``TokenBucket.acquire``; every caller is a blocking one."""
        end = time.monotonic() + LONGEST_WAIT
        while True:
            try:
                return bool(super().acquire(amount, block=False))
            except CapacityNotAvailableError:
                if not block or time.monotonic() >= end:
                    raise
            time.sleep(_LOOK)

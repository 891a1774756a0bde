"""Turns: so many requests at a time, and a bounded wait for the rest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Lock

from fieldvault.errors import KMSUnavailable

__all__ = ["Turns"]


class Turns:
    """At most ``size`` at a time have a turn; the others wait, first come, first served."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._lock = Lock()
        # What each is called with: ``None`` to begin, or the outage to give up for.
        self._waiting: deque[Future[KMSUnavailable | None]] = deque()

    @contextmanager
    def turn(self, limit: float) -> Iterator[float]:
        """A turn, and the seconds it was waited for.

        Raises:
            KMSUnavailable: it did not come within ``limit`` seconds, or ``call_off`` was called meanwhile.
        """
        waited = self._begin(limit)
        try:
            yield waited
        finally:
            self._end()

    def call_off(self, outage: KMSUnavailable) -> None:
        """Have all who wait now meet this; those who come later wait anew."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if each.set_running_or_notify_cancel():
                each.set_result(outage)

    def _begin(self, limit: float) -> float:
        with self._lock:
            if self._free:
                self._free -= 1
                return 0.0
            called: Future[KMSUnavailable | None] = Future()
            self._waiting.append(called)
        began = time.monotonic()
        outage: KMSUnavailable | None
        try:
            outage = called.result(limit)
        except TimeoutError:
            # Called in the very moment in which it gave up waiting, it does begin.
            outage = self._too_late() if called.cancel() else called.result()
        except BaseException:
            if not called.cancel() and called.result() is None:
                self._end()
            raise
        if outage is not None:
            raise KMSUnavailable(str(outage))
        return time.monotonic() - began

    def _end(self) -> None:
        with self._lock:
            while self._waiting:
                following = self._waiting.popleft()
                if following.set_running_or_notify_cancel():
                    following.set_result(None)
                    return
            self._free += 1

    def _too_late(self) -> KMSUnavailable:
        return KMSUnavailable(f"all {self._size} connections to the KMS are in use")

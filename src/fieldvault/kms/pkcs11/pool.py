"""The sessions of one object with its token: some in use, the others waiting for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from fieldvault.errors import KMSUnavailable

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """Keeps what is idle, and lets only so many threads in at a time as there may be sessions.

    Who came first goes first. ``until`` is a time of ``time.monotonic``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_use = 0
        self._queue: deque[threading.Event] = deque()
        self._idle: list[T] = []

    @contextmanager
    def place(self, until: float, size: Callable[[], int]) -> Iterator[None]:
        """The right to use one of ``size`` sessions, which may change while somebody waits.

        Raises:
            KMSUnavailable: others had all of them until then.
        """
        with self._lock:
            free = self._in_use < size()
            self._in_use += free
        if not free:
            self._wait(until, size)
        try:
            yield
        finally:
            with self._lock:
                self._in_use -= 1
                self._let_in(size())

    def take(self) -> T | None:
        """The one that was last in use, if any is idle."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def give(self, session: T) -> None:
        """Keep it for whoever comes next."""
        with self._lock:
            self._idle.append(session)

    def _wait(self, until: float, size: Callable[[], int]) -> None:
        turn = threading.Event()
        with self._lock:
            self._queue.append(turn)
            self._let_in(size())
        waited = False
        try:
            turn.wait(max(0.0, until - time.monotonic()))
            waited = True
        finally:
            with self._lock:
                let_in = turn.is_set()
                if not let_in:
                    self._queue.remove(turn)
                elif not waited:
                    # Interrupted: nobody uses the place.
                    self._in_use -= 1
                    self._let_in(size())
        if not let_in:
            raise KMSUnavailable(f"all {size()} sessions with the PKCS#11 token are in use")

    def _let_in(self, size: int) -> None:
        while self._queue and self._in_use < size:
            self._in_use += 1
            self._queue.popleft().set()

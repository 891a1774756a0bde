"""Threads for calls that a service takes only one by one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TypeVar

from fieldvault.errors import ConfigurationError
from fieldvault.forks import in_forked_children

__all__ = ["Workers"]

A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """At most ``number`` threads, shared by all callers, started when first needed.

    A forked child starts its own.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self._name = name
        self._renew()
        in_forked_children(self, Workers._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """The answers for all items, in order; a single one is worked on by the caller.

        Raises:
            ConfigurationError: closed by somebody else meanwhile.
        """
        if len(items) < 2:
            return [work(item) for item in items]
        try:
            return list(self._started().map(work, items))
        except CancelledError:
            pass
        raise ConfigurationError("closed while it was in use; close it when all work is done")

    def close(self) -> None:
        """End the threads after the calls that they are at; the next call starts new ones.

        Waits for nobody; what was not begun is not done.
        """
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._number, thread_name_prefix=self._name)
            return self._pool

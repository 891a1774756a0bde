"""Who is in a PKCS#11 module: many threads together, or one alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fieldvault.errors import KMSUnavailable

__all__ = ["Gate"]


class Gate:
    """Lets threads in together, or one alone.

    Who wants to be alone goes first: nobody else comes in before. A thread that is in may come in again, and
    alone too where it is the only one. ``until`` is a time of ``time.monotonic``.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()
        self._alone = 0
        self._waiting = 0

    @contextmanager
    def together(self, until: float) -> Iterator[None]:
        """Nobody is in alone meanwhile.

        Raises:
            KMSUnavailable: somebody was until then.
        """
        if not self._enter(until, alone=False):
            raise _busy()
        try:
            yield
        finally:
            self._leave(alone=False)

    @contextmanager
    def alone(self, until: float) -> Iterator[None]:
        """No other thread is in meanwhile.

        Raises:
            KMSUnavailable: one was until then.
        """
        if not self.close(until):
            raise _busy()
        try:
            yield
        finally:
            self.open()

    def close(self, until: float) -> bool:
        """Come in alone; whether that could be done in time."""
        return self._enter(until, alone=True)

    def open(self) -> None:
        """What follows ``close``: go out."""
        self._leave(alone=True)

    def _enter(self, until: float, *, alone: bool) -> bool:
        with self._changed:
            self._waiting += alone
            try:
                in_time = self._changed.wait_for(
                    self._empty if alone else self._calm, max(0.0, until - time.monotonic())
                )
            finally:
                self._waiting -= alone
            if in_time:
                self._inside[threading.get_ident()] += 1
                self._alone += alone
            else:
                self._changed.notify_all()
            return in_time

    def _leave(self, *, alone: bool) -> None:
        me = threading.get_ident()
        with self._changed:
            self._alone -= alone
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            self._changed.notify_all()

    def _empty(self) -> bool:
        return not self._inside.keys() - {threading.get_ident()}

    def _calm(self) -> bool:
        return threading.get_ident() in self._inside or not (self._alone or self._waiting)


def _busy() -> KMSUnavailable:
    return KMSUnavailable("a call of the PKCS#11 module has not ended in time; no other could be made")

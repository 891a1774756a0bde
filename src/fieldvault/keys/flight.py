"""Single flight: work on one key is done by one caller at a time, and the others wait for its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SingleFlight"]


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Abandoned(Exception):
    """The caller that led the flight was interrupted; somebody else leads the next one."""


class SingleFlight(Generic[K, V]):
    """Runs a batch loader so that no key is loaded twice at the same time, over all threads.

    The lock is held for dictionary operations only, never while loading. A caller leads the keys that nobody
    is loading, finishes those, and only then waits for the others, so two callers never wait for each other.
    """

    __slots__ = ("_flights", "_lock")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every flight; for a forked child, in which their threads do not exist."""
        self._lock = threading.Lock()
        self._flights: dict[K, Future[V]] = {}

    def run(
        self, keys: Iterable[K], load: Callable[[list[K]], Mapping[K, V | Exception]]
    ) -> dict[K, V | Exception]:
        """Each key's value, or the error it met.

        ``load`` gets the keys that this caller leads and answers for each of them.

        What ``load`` raises becomes the outcome of every key that it was given.
        """
        outcome: dict[K, V | Exception] = {}
        missing = list(dict.fromkeys(keys))
        while missing:
            mine, theirs = self._join(missing)
            if mine:
                outcome.update(self._lead(mine, load))
            missing = []
            for key, flight in theirs.items():
                error = flight.exception()
                if isinstance(error, _Abandoned):
                    missing.append(key)
                elif isinstance(error, Exception):
                    outcome[key] = error
                else:
                    outcome[key] = flight.result()
        return outcome

    def _join(self, keys: list[K]) -> tuple[list[K], dict[K, Future[V]]]:
        mine: list[K] = []
        theirs: dict[K, Future[V]] = {}
        with self._lock:
            for key in keys:
                flight = self._flights.get(key)
                if flight is None:
                    self._flights[key] = Future()
                    mine.append(key)
                else:
                    theirs[key] = flight
        return mine, theirs

    def _lead(
        self, keys: list[K], load: Callable[[list[K]], Mapping[K, V | Exception]]
    ) -> Mapping[K, V | Exception]:
        landed: Mapping[K, V | Exception] = dict.fromkeys(keys, _Abandoned())
        try:
            landed = load(keys)
        except Exception as error:  # noqa: BLE001 - handed to every waiter, and raised by each
            landed = dict.fromkeys(keys, error)
        finally:
            with self._lock:
                flights = [(key, self._flights.pop(key)) for key in keys]
            for key, flight in flights:
                value = landed[key]
                if isinstance(value, Exception):
                    flight.set_exception(value)
                else:
                    flight.set_result(value)
        return landed

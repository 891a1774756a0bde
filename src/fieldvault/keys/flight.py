"""Single flight: work on one key is done by one caller at a time, and the others wait for its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

from fieldvault.errors import FieldVaultError

__all__ = ["SingleFlight", "own_copy"]


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
E = TypeVar("E", bound=Exception)

Load = Callable[[list[K]], Mapping[K, V | Exception]]


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

    def run(self, keys: Iterable[K], load: Load[K, V]) -> dict[K, V | Exception]:
        """Each key's value, or the error it met.

        ``load`` gets the keys that this caller leads and answers for each of them. What it raises becomes the
        outcome of every key that it was given; an interruption (a ``BaseException``) concerns its own caller
        only, and one of those who waited leads in its place.
        """
        outcome: dict[K, V | Exception] = {}
        missing = list(dict.fromkeys(keys))
        while missing:
            mine: dict[K, Future[V]] = {}
            landed: dict[K, V | Exception] = {}
            try:
                theirs = self._join(missing, mine)
                if mine:
                    landed = _answers(list(mine), load)
            finally:
                self._land(mine, landed)
            outcome.update(landed)
            missing = []
            for key, flight in theirs.items():
                error = flight.exception()
                if isinstance(error, _Abandoned):
                    missing.append(key)
                elif isinstance(error, Exception):
                    outcome[key] = own_copy(error)
                else:
                    outcome[key] = flight.result()
        return outcome

    def _join(self, keys: list[K], mine: dict[K, Future[V]]) -> dict[K, Future[V]]:
        """The flights that others lead; those that nobody leads become ``mine``."""
        theirs: dict[K, Future[V]] = {}
        with self._lock:
            for key in keys:
                flight = self._flights.get(key)
                if flight is None:
                    # Noted first: wherever an interruption strikes, what is led here is landed.
                    mine[key] = Future()
                    self._flights[key] = mine[key]
                else:
                    theirs[key] = flight
        return theirs

    def _land(self, mine: Mapping[K, Future[V]], landed: Mapping[K, V | Exception]) -> None:
        with self._lock:
            for key, flight in mine.items():
                if self._flights.get(key) is flight:
                    del self._flights[key]
        for key, flight in mine.items():
            value = landed.get(key, _Abandoned())
            if isinstance(value, Exception):
                flight.set_exception(value)
            else:
                flight.set_result(value)


def _answers(keys: list[K], load: Load[K, V]) -> dict[K, V | Exception]:
    try:
        answers = load(keys)
        return {key: answers[key] for key in keys}
    except Exception as error:  # noqa: BLE001 - handed to every waiter, and raised by each
        return dict.fromkeys(keys, error)


def own_copy(error: E) -> E:
    """A copy of an error that others raise too, to be raised by one caller.

    One error raised in many threads gathers the frames of all of them, and with those their plaintexts.
    Errors that are not of this package are given back as they are: not every class can be copied.
    """
    if not isinstance(error, FieldVaultError):
        return error
    kind = type(error)
    copied = kind.__new__(kind)
    copied.args = error.args
    copied.__dict__.update(error.__dict__)
    return copied

"""What a vault has done in this process: the figures, and who counts them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fieldvault.keys.observing import KEY_STORE, KMS_BACKEND, Call, Observer

__all__ = ["CallStats", "Meter", "Stats"]

_LOG = logging.getLogger("fieldvault")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallStats:
    """The calls of one backend, failed ones and repeated tries among them.

    ``items`` are the keys or slots that were asked for. ``seconds`` is the time of all calls together,
    ``longest`` that of the longest. ``operations`` has the calls by method, ``errors`` what calls met by
    class, ``item_errors`` what single keys of ``unwrap_many`` met.
    """

    calls: int = 0
    items: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    operations: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    item_errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a vault has done in this process since it was opened, or since the fork.

    ``hits`` are values whose key was at hand when they were sealed or opened; counting them costs the hot
    path nothing, as they are the readings of a clock that is read anyway. ``misses`` are keys that somebody
    waited for, to be fetched, unwrapped or made; a herd that waits for one key is one miss, and its values
    are hits once they have it in a batch or a coroutine. ``refreshed`` are keys that the KMS answered for
    anew in the background.

    ``kms`` and ``key_store`` are the calls that keys cost; what an operator asks through ``keys`` and
    ``tenants`` is not among them. ``keys`` is how many unwrapped keys are held now. ``lease_age`` is how many
    seconds ago the key store was last known to have nothing new, ``None`` before the first read. ``breaker``
    is ``closed`` while the KMS is asked, ``open`` while it is left alone, if only for one of its root keys,
    ``half-open`` while one call tries it. ``refused`` are calls that were answered with ``KMSUnavailable``
    without asking it.
    """

    hits: int
    misses: int
    refreshed: int
    kms: CallStats
    key_store: CallStats
    keys: int
    lease_age: float | None
    breaker: str
    refused: int
    observer_errors: int


class _Tally:
    """The calls of one backend so far; changed and read under the meter's lock."""

    __slots__ = ("errors", "item_errors", "items", "longest", "operations", "seconds")

    def __init__(self) -> None:
        self.items = 0
        self.seconds = self.longest = 0.0
        self.operations: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.item_errors: Counter[str] = Counter()

    def add(self, call: Call) -> None:
        self.items += call.items
        self.seconds += call.seconds
        self.longest = max(self.longest, call.seconds)
        self.operations[call.operation] += 1
        if call.error is not None:
            self.errors[call.error] += 1
        self.item_errors.update(call.item_errors)

    def read(self) -> CallStats:
        return CallStats(
            calls=self.operations.total(),
            items=self.items,
            seconds=self.seconds,
            longest=self.longest,
            operations=dict(self.operations),
            errors=dict(self.errors),
            item_errors=dict(self.item_errors),
        )


class Meter:
    """Counts, and tells the observer, if there is one. No lock is held while an observer is told.

    It is told in the midst of the work that others may wait for, and so cannot wait for any itself.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: a lock of its own, and figures of its own."""
        self._lock = threading.Lock()
        self._tallies = {KMS_BACKEND: _Tally(), KEY_STORE: _Tally()}
        self._hits = self._misses = self._refreshed = self._refused = self._observer_errors = 0
        self._telling = threading.local()

    def refuse_observers(self) -> None:
        """To be asked by whoever may wait for a key.

        Raises:
            RuntimeError: an observer is being told in this thread.
        """
        if getattr(self._telling, "now", False):
            raise RuntimeError(
                "an observer cannot use the vault that tells it, which may be waiting for it: have another "
                "thread do that"
            )

    def called(self, call: Call) -> None:
        """A backend has answered, or failed."""
        with self._lock:
            self._tallies[call.backend].add(call)
        if self._observer is not None:
            self._tell(self._observer.on_call, call)

    def missed(self, keys: int) -> None:
        """Keys are not at hand, and somebody waits for them."""
        with self._lock:
            self._misses += keys
        if self._observer is not None:
            self._tell(self._observer.on_miss, keys)

    def served(self, values: int) -> None:
        """Values found their key at hand; negative where too many were counted before."""
        with self._lock:
            self._hits += values

    def refreshed(self, keys: int) -> None:
        """Keys were renewed in the background."""
        with self._lock:
            self._refreshed += keys

    def refused(self) -> None:
        """The breaker answered in place of the KMS."""
        with self._lock:
            self._refused += 1

    def switched(self, state: str) -> None:
        """The breaker has changed its state."""
        if self._observer is not None:
            self._tell(self._observer.on_breaker, state)

    def read(self, *, hits: int, keys: int, lease_age: float | None, breaker: str) -> Stats:
        """The figures of now; ``hits`` are those that were counted elsewhere."""
        with self._lock:
            return Stats(
                hits=self._hits + hits,
                misses=self._misses,
                refreshed=self._refreshed,
                kms=self._tallies[KMS_BACKEND].read(),
                key_store=self._tallies[KEY_STORE].read(),
                keys=keys,
                lease_age=lease_age,
                breaker=breaker,
                refused=self._refused,
                observer_errors=self._observer_errors,
            )

    def _tell(self, hook: Callable[[T], None], what: T) -> None:
        self._telling.now = True
        try:
            hook(what)
        except Exception:  # noqa: BLE001 - whoever works for a value has no part in it
            with self._lock:
                self._observer_errors += 1
                is_first = self._observer_errors == 1
            if is_first:
                _LOG.exception("an observer raised; further errors of it are counted and not logged")
        finally:
            self._telling.now = False

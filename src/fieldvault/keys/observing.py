"""Watching the backends: every call of the KMS and of the key store, timed and told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

from fieldvault.errors import KMSError, kind_of
from fieldvault.keys.protocols import KMS, KeyStore

__all__ = ["KEY_STORE", "KMS_BACKEND", "Call", "Observer", "observed_kms", "observed_store"]

KMS_BACKEND, KEY_STORE = "kms", "key_store"

_BATCHES = frozenset({"unwrap_many", "fetch", "current", "add_active", "reserve"})
"""What takes many items in one call."""

_UNTIMED = frozenset({"all_keys", "close", "tenants"})
"""Iterators, which ask while the caller goes through them; and the end."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a backend that has come back, or failed. It names no tenant, subject or key.

    ``backend`` is ``kms`` or ``key_store``, ``operation`` the method's name in its protocol, ``items`` how
    many keys or slots were asked for at once, ``seconds`` how long it took, ``error`` what the call
    as a whole met, a class of ``fieldvault.errors``. ``item_errors`` counts by class what single items of
    ``unwrap_many`` met. A try that is repeated is a call of its own.
    """

    backend: str
    operation: str
    items: int
    seconds: float
    error: str | None = None
    item_errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """``ok``, ``partial`` where some items failed, or the class of the error."""
        return self.error or ("partial" if self.item_errors else "ok")


class Observer(Protocol):
    """Is told what keys cost: for metrics, traces and logs.

    It is told in the thread that did the work, a refresh in the background among them, by several threads at
    once, and never for a value whose key is at hand. What it raises is logged the first time, counted in
    ``Stats.observer_errors``, and reaches nobody else. It should not wait: a request waits with it. Nor can
    it use the vault, whose keys it might then wait for itself: that raises ``RuntimeError``, unless the key
    happens to be at hand; another thread can.
    """

    def on_call(self, call: Call, /) -> None:
        """A call of the KMS or the key store has come back, or failed."""
        ...

    def on_miss(self, keys: int, /) -> None:
        """So many keys are not at hand, and somebody waits for them; a herd for one key tells this once."""
        ...

    def on_breaker(self, state: str, /) -> None:
        """The circuit breaker of the KMS is now ``open``, ``half-open`` or ``closed``."""
        ...


Tell = Callable[[Call], None]


def observed_kms(kms: KMS, tell: Tell) -> KMS:
    """The KMS, with ``tell`` told of each call."""
    return cast("KMS", _Observed(kms, KMS_BACKEND, tell))


def observed_store(store: KeyStore, tell: Tell) -> KeyStore:
    """The key store, with ``tell`` told of each call that the ring makes."""
    return cast("KeyStore", _Observed(store, KEY_STORE, tell))


class _Observed:
    """Stands in front of a backend; whatever else that one can do is there as well, unwatched."""

    __slots__ = ("_backend", "_name", "_tell")

    def __init__(self, backend: object, name: str, tell: Tell) -> None:
        self._backend = backend
        self._name = name
        self._tell = tell

    def __getattr__(self, operation: str) -> Any:
        method = getattr(self._backend, operation)
        if operation in _UNTIMED or operation.startswith("_") or not callable(method):
            return method
        return partial(self._watched, operation, method)

    def __repr__(self) -> str:
        return repr(self._backend)

    def _watched(self, operation: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        batch = args[0] if args and operation in _BATCHES else None
        with self._timed(operation, len(batch) if isinstance(batch, Sized) else 1) as item_errors:
            answer = method(*args, **kwargs)
            if operation == "unwrap_many":
                item_errors.update(kind_of(each) for each in answer if isinstance(each, KMSError))
        return answer

    @contextmanager
    def _timed(self, operation: str, items: int) -> Iterator[Counter[str]]:
        item_errors: Counter[str] = Counter()
        error: str | None = None
        began = time.perf_counter()
        try:
            yield item_errors
        except BaseException as problem:
            error = kind_of(problem)
            raise
        finally:
            seconds = time.perf_counter() - began
            self._tell(Call(self._name, operation, items, seconds, error, item_errors))

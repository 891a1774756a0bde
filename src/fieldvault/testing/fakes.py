"""Fakes for tests of applications: a KMS whose trouble is made to order, and a clock that is set by hand."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from fieldvault.errors import KMSError
from fieldvault.keys.flight import own_copy
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.secret import KEY_SIZE

__all__ = ["FaultyKMS", "Hold", "KMSCall", "ManualClock"]

Context = Mapping[str, str]
When = Callable[[Context], bool]


class ManualClock:
    """A clock for ``Vault(clock=…)`` that stands still until it is told to move on.

    Leases, ages and graces run by it. Retries and rotation by age do not: those go by the real time.
    """

    def __init__(self, seconds: float = 1_000.0) -> None:
        self._seconds = seconds

    def __call__(self) -> float:
        """The seconds of now, from an arbitrary start."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._seconds += seconds


class KMSCall(NamedTuple):
    """A call that a ``FaultyKMS`` met: the method's name, and the context of each item."""

    method: str
    contexts: tuple[Context, ...]


class Hold:
    """Calls held up by ``FaultyKMS.hold``: ``reached`` is set once one is, ``release`` lets all go on.

    Leaving it as a context manager releases it as well. A held call gives up after ``limit`` seconds, so that
    a test that fails does not hang.
    """

    def __init__(self, limit: float) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()
        self._limit = limit

    def release(self) -> None:
        """Let the held calls, and those to come, go on."""
        self._released.set()

    def wait(self) -> None:
        """Hold the calling thread up.

        Raises:
            TimeoutError: nobody released it in time.
        """
        self.reached.set()
        if not self._released.wait(self._limit):
            raise TimeoutError(f"held for {self._limit} s, and nobody released it")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(slots=True)
class _Trouble:
    """What befalls calls, or single items, whose context ``when`` accepts, ``times`` times."""

    when: When | None
    times: float
    hold: Hold | None = None
    error: KMSError | None = None
    item_error: KMSError | None = None
    lies: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, contexts: Sequence[Context]) -> bool:
        """Whether it befalls a call, or an item, with these contexts now."""
        with self.lock:
            if self.times <= 0 or not (self.when is None or any(map(self.when, contexts))):
                return False
            self.times -= 1
            return True


class FaultyKMS:
    """A KMS in front of a working one: it counts what is asked of it, and fails as it is told to.

    Every kind of trouble takes ``when``, which is given a key's encryption context (``tenant``, ``purpose``,
    ``key_id``) and says whether it is meant, and ``times``, how often it strikes; by default always, until
    ``heal``. Trouble is looked at in the order in which it was ordered, and adds up.
    """

    def __init__(self, kms: KMS) -> None:
        self._kms = kms
        self._troubles: list[_Trouble] = []
        self.calls: list[KMSCall] = []

    # -- trouble to order -----------------------------------------------------------------------------------

    def fail(self, error: KMSError, *, when: When | None = None, times: float = float("inf")) -> None:
        """Answer whole calls, ``check`` too, with ``error``: an outage, a denial, a disabled root key."""
        self._troubles.append(_Trouble(when, times, error=error))

    def fail_items(self, error: KMSError, *, when: When | None = None, times: float = float("inf")) -> None:
        """Answer those items of ``unwrap_many`` with ``error``, and the others rightly."""
        self._troubles.append(_Trouble(when, times, item_error=error))

    def hold(self, *, when: When | None = None, times: float = float("inf"), limit: float = 30.0) -> Hold:
        """Hold calls up until they are released."""
        held = Hold(limit)
        self._troubles.append(_Trouble(when, times, hold=held))
        return held

    def lie(self, *, when: When | None = None, times: float = float("inf")) -> None:
        """Unwrap into another key than was wrapped."""
        self._troubles.append(_Trouble(when, times, lies=True))

    def heal(self) -> None:
        """Work rightly from now on, and let go what is held."""
        troubles, self._troubles = self._troubles, []
        for trouble in troubles:
            if trouble.hold is not None:
                trouble.hold.release()

    # -- the KMS protocol -----------------------------------------------------------------------------------

    def wrap(self, key: bytes, *, context: Context) -> bytes:
        """See ``KMS.wrap``."""
        self._meet("wrap", [context])
        return self._kms.wrap(key, context=context)

    def unwrap(self, wrapped: bytes, *, context: Context) -> bytes:
        """See ``KMS.unwrap``."""
        (answer,) = self.unwrap_many([WrappedKey(wrapped, context)])
        if isinstance(answer, KMSError):
            raise answer
        return answer

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """See ``KMS.unwrap_many``."""
        self._meet("unwrap_many", [item.context for item in items])
        return [
            self._item(item, answer) for item, answer in zip(items, self._kms.unwrap_many(items), strict=True)
        ]

    def check(self) -> str:
        """See ``KMS.check``."""
        self._meet("check", [])
        return self._kms.check()

    def close(self) -> None:
        """See ``KMS.close``."""
        self._kms.close()

    def _meet(self, method: str, contexts: Sequence[Context]) -> None:
        self.calls.append(KMSCall(method, tuple(contexts)))
        for trouble in list(self._troubles):
            if trouble.hold is not None and trouble.strikes(contexts):
                trouble.hold.wait()
            if trouble.error is not None and trouble.strikes(contexts):
                raise own_copy(trouble.error)

    def _item(self, item: WrappedKey, answer: bytes | KMSError) -> bytes | KMSError:
        for trouble in list(self._troubles):
            if trouble.item_error is not None and trouble.strikes([item.context]):
                return own_copy(trouble.item_error)
            if trouble.lies and trouble.strikes([item.context]):
                return os.urandom(KEY_SIZE)
        return answer

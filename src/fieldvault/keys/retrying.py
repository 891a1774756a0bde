"""Retries for a KMS that is unreachable for a moment.

Full jitter, a total deadline, nothing else repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.protocols import KMS, WrappedKey

__all__ = ["RetryingKMS"]

T = TypeVar("T")


class RetryingKMS:
    """A KMS whose calls are tried again while it is unavailable, for ``deadline`` seconds in all.

    Only ``KMSUnavailable`` is tried again: a denial or a missing key does not get better by asking. In a
    batch, only the items that met it are asked for again.
    """

    __slots__ = ("_deadline", "kms")

    def __init__(self, kms: KMS, *, deadline: float = 2.0) -> None:
        self.kms = kms
        self._deadline = deadline

    def _persistently(self, call: Callable[[], T]) -> T:
        return Retrying(
            retry=retry_if_exception_type(KMSUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            stop=stop_after_delay(self._deadline),
            reraise=True,
        )(call)

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``KMS.wrap``."""
        return self._persistently(lambda: self.kms.wrap(key, context=context))

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``KMS.unwrap``."""
        return self._persistently(lambda: self.kms.unwrap(wrapped, context=context))

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """See ``KMS.unwrap_many``."""
        if not items:
            return []
        answers: list[bytes | KMSError] = [KMSUnavailable("not asked yet")] * len(items)
        waiting: Sequence[int] = range(len(items))

        def ask() -> None:
            nonlocal waiting
            given = self.kms.unwrap_many([items[index] for index in waiting])
            if len(given) != len(waiting):
                raise KMSError(f"the KMS answered {len(given)} of {len(waiting)} items")
            unavailable: dict[int, KMSUnavailable] = {}
            for index, answer in zip(waiting, given, strict=True):
                answers[index] = answer
                if isinstance(answer, KMSUnavailable):
                    unavailable[index] = answer
            waiting = list(unavailable)
            for error in unavailable.values():
                raise error

        try:
            self._persistently(ask)
        except KMSError as error:
            if len(waiting) == len(items):
                raise
            # The call as a whole failed when it was repeated; what was answered before stays answered.
            for index in waiting:
                answers[index] = error
        return answers

    def check(self) -> str:
        """See ``KMS.check``; asked once, so that a check tells how it is now."""
        return self.kms.check()

    def close(self) -> None:
        """See ``KMS.close``."""
        self.kms.close()

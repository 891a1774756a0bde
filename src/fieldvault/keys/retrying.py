"""Retries for a KMS that is unreachable for a moment, and a circuit breaker for one that stays so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.breaker import Breaker
from fieldvault.keys.clock import Clock
from fieldvault.keys.policy import RetryPolicy
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.keys.stats import Meter

__all__ = ["RetryingKMS"]

T = TypeVar("T")


class RetryingKMS:
    """A KMS whose calls are tried again while it is unavailable, as far as the policy goes.

    Only ``KMSUnavailable`` is tried again: a denial or a missing key does not get better by asking. In a
    batch, only the items that met it are asked for again. A batch of which every item met it is an outage of
    the KMS as a whole, too: some ask for each item by itself.
    """

    __slots__ = ("_meter", "_policy", "breaker", "kms")

    def __init__(self, kms: KMS, *, policy: RetryPolicy, clock: Clock, meter: Meter) -> None:
        self.kms = kms
        self._policy = policy
        self._meter = meter
        self.breaker = Breaker(policy, clock=clock, tell=meter.switched)

    def after_fork(self) -> None:
        """In a child: see ``Breaker``."""
        self.breaker.after_fork()

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``KMS.wrap``."""
        return self._persistently(partial(self.kms.wrap, key, context=context))

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``KMS.unwrap``."""
        return self._persistently(partial(self.kms.unwrap, wrapped, context=context))

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
            self._persistently(ask, met_outage=lambda: len(waiting) == len(items))
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

    def _persistently(self, call: Callable[[], T], met_outage: Callable[[], bool] = lambda: True) -> T:
        try:
            is_trial = self.breaker.admit()
        except KMSUnavailable:
            self._meter.refused()
            raise
        # Whatever ends a trial otherwise than by an answer proves nothing.
        outage = is_trial
        try:
            answer = self._tries(once=is_trial)(call)
            outage = False
        except KMSUnavailable:
            outage = met_outage()
            raise
        except KMSError:
            outage = False
            raise
        finally:
            self.breaker.note(outage, is_trial=is_trial)
        return answer

    def _tries(self, *, once: bool) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(KMSUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            stop=stop_after_attempt(1) if once else stop_before_delay(self._policy.deadline),
            reraise=True,
        )

"""Retries for a KMS that is unreachable for a moment, and a circuit breaker for one that stays so."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Self, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.breaker import Admission, Breaker, Target
from fieldvault.keys.clock import Clock
from fieldvault.keys.policy import RetryPolicy
from fieldvault.keys.protocols import KMS, ManyRootKeys, NotAsked, WrappedKey
from fieldvault.keys.stats import Meter

__all__ = ["RetryingKMS"]

T = TypeVar("T")

_THE_ONLY_ONE = Target("", "", "")
"""All that a KMS can be asked of that has one root key."""


class RetryingKMS:
    """A KMS whose calls are tried again while it is unavailable, as far as the policy goes.

    Only ``KMSUnavailable`` is tried again: a denial or a missing key does not get better by asking. In a
    batch, only the items that met it are asked for again. A root key all of whose items met it is out: some
    KMSs ask for each item by itself. ``names`` tells root keys apart, if there are several.
    """

    __slots__ = ("_meter", "_names", "_policy", "breaker", "kms", "proves")

    def __init__(
        self,
        kms: KMS,
        *,
        policy: RetryPolicy,
        clock: Clock,
        meter: Meter,
        names: ManyRootKeys | None = None,
    ) -> None:
        self.kms = kms
        self._policy = policy
        self._meter = meter
        self._names = names
        self.proves = False
        self.breaker = Breaker(policy, clock=clock, tell=meter.switched)

    def for_proofs(self) -> Self:
        """The same one, for calls that prove a permission; see ``Breaker.admit``."""
        proving = copy.copy(self)
        proving.proves = True
        return proving

    def after_fork(self) -> None:
        """In a child: see ``Breaker``."""
        self.breaker.after_fork()

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``KMS.wrap``."""
        target = _THE_ONLY_ONE
        if self._names is not None:
            # Which root key it will be, nobody knows before.
            target = Target("wrap", f"of {_tenant(context)!r}", _tenant(context))
        return self._one(target, partial(self.kms.wrap, key, context=context))

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``KMS.unwrap``."""
        target = self._target(WrappedKey(wrapped, context))
        return self._one(target, partial(self.kms.unwrap, wrapped, context=context))

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """See ``KMS.unwrap_many``. Where all items met an outage, it raises what the first one met."""
        if not items:
            return []
        targets = [self._target(item) for item in items]
        admission = self._admit(targets)
        answers: list[bytes | KMSError | None] = [admission.refused.get(target) for target in targets]
        try:
            self._ask_all(items, targets, admission, answers)
        finally:
            # A root key is out where nothing was answered for it, and it was asked.
            asked = [
                (target, answer)
                for target, answer in zip(targets, answers, strict=True)
                if target not in admission.refused and answer is not None
            ]
            answered = {target for target, answer in asked if not isinstance(answer, KMSUnavailable)}
            out = {target for target, answer in asked if not isinstance(answer, NotAsked)} - answered
            self.breaker.note(admission, answered=answered, out=out)
            del asked
        given = [answer for answer in answers if answer is not None]
        if all(isinstance(answer, KMSUnavailable) for answer in given):
            for target, answer in zip(targets, given, strict=True):
                if isinstance(answer, KMSUnavailable) and target not in admission.refused:
                    raise answer
        return given

    def check(self) -> str:
        """See ``KMS.check``; asked once, so that a check tells how it is now."""
        return self.kms.check()

    def close(self) -> None:
        """See ``KMS.close``."""
        self.kms.close()

    def _ask_all(
        self,
        items: Sequence[WrappedKey],
        targets: Sequence[Target],
        admission: Admission,
        answers: list[bytes | KMSError | None],
    ) -> None:
        """Have ``answers`` filled where nothing was refused."""
        waiting = [index for index, answer in enumerate(answers) if answer is None]

        by_item = False

        def ask() -> None:
            nonlocal waiting, by_item
            by_item = False
            given = self.kms.unwrap_many([items[index] for index in waiting])
            if len(given) != len(waiting):
                raise KMSError(f"the KMS answered {len(given)} of {len(waiting)} items")
            unavailable: dict[int, KMSUnavailable] = {}
            for index, answer in zip(waiting, given, strict=True):
                answers[index] = answer
                if isinstance(answer, KMSUnavailable) and targets[index] not in admission.trials:
                    unavailable[index] = answer
            waiting, by_item = list(unavailable), True
            for error in unavailable.values():
                raise error

        once = admission.turn is not None or all(targets[index] in admission.trials for index in waiting)
        try:
            self._tries(once=once)(ask)
        except KMSError as error:
            if by_item:
                return
            # Where the call as a whole failed when it was repeated, what was answered before stays answered.
            for index in waiting:
                answers[index] = error
            if len(waiting) == len(items) and not isinstance(error, KMSUnavailable):
                raise

    def _one(self, target: Target, call: Callable[[], T]) -> T:
        admission = self._admit([target])
        once = admission.turn is not None or bool(admission.trials)
        answered: Collection[Target] = ()
        out: Collection[Target] = ()
        try:
            answer = self._tries(once=once)(call)
            answered = (target,)
        except KMSUnavailable:
            out = (target,)
            raise
        except KMSError:
            answered = (target,)
            raise
        finally:
            self.breaker.note(admission, answered=answered, out=out)
        return answer

    def _admit(self, targets: Sequence[Target]) -> Admission:
        try:
            return self.breaker.admit(targets, proof=self.proves)
        except KMSUnavailable:
            self._meter.refused()
            raise

    def _target(self, item: WrappedKey) -> Target:
        if self._names is None:
            return _THE_ONLY_ONE
        try:
            name = self._names.root_key_of(item.wrapped, context=item.context)
        except Exception:  # noqa: BLE001 - a fault in naming spoils no batch
            # Not one that this KMS wrapped, as it seems: that is for unwrapping to say.
            name = f"of {_tenant(item.context)!r}"
        return Target("unwrap", name or "the only one", _tenant(item.context))

    def _tries(self, *, once: bool) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(KMSUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            stop=stop_after_attempt(1) if once else stop_before_delay(self._policy.deadline),
            reraise=True,
        )


def _tenant(context: Mapping[str, str]) -> str:
    return context.get("tenant", "")

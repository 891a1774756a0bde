"""How long keys are kept and used, and how often a KMS is asked: the policies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from fieldvault.errors import ConfigurationError
from fieldvault.keys.records import MAX_USES

__all__ = ["MAX_SECONDS", "CachePolicy", "RetryPolicy", "RotationPolicy"]


MAX_SECONDS = 7 * 24 * 3600
"""A week: the longest that a policy lets cached keys live, since a shred waits for every process."""


def _positive(name: str, value: object) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not 0 < value < math.inf:  # type: ignore[operator]  # a number by now
        raise ConfigurationError(f"{name} is a positive, finite number, not {value!r}")


def _not_negative(name: str, value: object) -> None:
    if isinstance(value, bool) or value != 0:
        _positive(name, value)


def _positive_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} is a positive whole number, not {value!r}")


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How many unwrapped keys a process keeps, and for how long, in seconds.

    ``ttl``: after it a key is unwrapped by the KMS again. ``lease``: after it, and before the next use, the
    process asks the key store whether anything was shredded. ``grace``: how much longer than either cached
    keys serve while the KMS or the key store is unreachable; 0 serves none. ``refresh_ahead``: the last share
    of ``ttl`` and ``lease``, from 0 to below 1, in which what is in use is renewed in the background, so that
    no request waits for it; 0 renews when the time is over. ``reprove``: once a lease, the KMS is asked to
    unwrap one of the cached keys of each root key in use, so that a permission that was revoked and a root
    key that was disabled stop the reading within the lease; without it, within ``ttl``. The time counts while
    the machine is suspended, where the operating system has such a clock.
    """

    max_keys: int = 10_000
    ttl: float = 300.0
    lease: float = 30.0
    grace: float = 60.0
    refresh_ahead: float = 0.2
    reprove: bool = True

    def __post_init__(self) -> None:
        _positive_whole("max_keys", self.max_keys)
        _positive("ttl", self.ttl)
        _positive("lease", self.lease)
        _not_negative("grace", self.grace)
        _not_negative("refresh_ahead", self.refresh_ahead)
        if self.refresh_ahead >= 1:
            raise ConfigurationError(f"refresh_ahead is a share below 1, not {self.refresh_ahead!r}")
        if not isinstance(self.reprove, bool):
            raise ConfigurationError(f"reprove is true or false, not {self.reprove!r}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long an unavailable KMS is asked again, and when it is left alone.

    ``deadline``: seconds from the beginning of a call within which tries may begin, 0 for one try. What
    bounds a try itself is the time-out of the KMS's own client, so a call takes at most ``deadline`` and one
    time-out. Tries are spaced by a random time up to a bound that doubles (full jitter).

    ``failures``: after so many calls in a row that found a root key unavailable, until their deadline, the
    circuit breaker opens for it: for ``pause`` seconds all calls that need it fail at once with
    ``KMSUnavailable``, then one call tries, once; if it is answered all goes on as before, else the pause
    begins anew. An answer of any kind, a denial among them, is no outage. Where so many root keys of
    different tenants, two at least, were found unavailable and nothing was answered in between, the KMS as a
    whole is left alone in the same way.
    """

    deadline: float = 2.0
    failures: int = 3
    pause: float = 10.0

    def __post_init__(self) -> None:
        _not_negative("deadline", self.deadline)
        _positive_whole("failures", self.failures)
        _positive("pause", self.pause)


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When the vault rotates a data key by itself.

    ``max_age``: before a key older than this seals again it is replaced; ``None`` leaves age to the operator.
    Age is looked at when a lease begins and when a block is used up, so a key may seal for one lease more.
    ``max_uses``: messages a key seals at most, up to 2^32 (NIST SP 800-38D). ``block``: messages a process
    reserves at a time in the key store; what a process reserved and did not use when it ended is lost to the
    key.
    """

    max_age: timedelta | None = None
    max_uses: int = MAX_USES
    block: int = 65_536

    def __post_init__(self) -> None:
        age: object = self.max_age
        if age is not None and not (isinstance(age, timedelta) and age > timedelta(0)):
            raise ConfigurationError(f"max_age is None or a positive timedelta, not {self.max_age!r}")
        for name in ("max_uses", "block"):
            _positive_whole(name, getattr(self, name))
        if not self.block <= self.max_uses <= MAX_USES:
            raise ConfigurationError("rotation wants block <= max_uses <= 2**32")

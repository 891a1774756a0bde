"""How long keys are kept and used: the policies of the cache and of rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from fieldvault.errors import ConfigurationError
from fieldvault.keys.records import MAX_USES

__all__ = ["MAX_SECONDS", "CachePolicy", "RotationPolicy"]


MAX_SECONDS = 7 * 24 * 3600
"""A week: the longest that a policy lets cached keys live, since a shred waits for every process."""


def _positive(name: str, value: object) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not 0 < value < math.inf:  # type: ignore[operator]  # a number by now
        raise ConfigurationError(f"{name} is a positive, finite number, not {value!r}")


def _positive_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} is a positive whole number, not {value!r}")


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How many unwrapped keys a process keeps, and for how long, in seconds.

    ``ttl``: after it a key is unwrapped by the KMS again. ``lease``: after it, and before the next use, the
    process asks the key store whether anything was shredded. ``grace``: how much longer than either cached
    keys serve while the KMS or the key store is unreachable; 0 serves none. The time counts while the machine
    is suspended, where the operating system has such a clock.
    """

    max_keys: int = 10_000
    ttl: float = 300.0
    lease: float = 30.0
    grace: float = 60.0

    def __post_init__(self) -> None:
        _positive_whole("max_keys", self.max_keys)
        _positive("ttl", self.ttl)
        _positive("lease", self.lease)
        if isinstance(self.grace, bool) or self.grace != 0:
            _positive("grace", self.grace)


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

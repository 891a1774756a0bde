"""What a key store keeps.

Records of data keys, their states, and the fences of shredded scopes (docs/format.md, 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from fieldvault.errors import ConfigurationError

__all__ = [
    "MAX_USES",
    "TRANSITIONS",
    "Change",
    "Fence",
    "KeyInfo",
    "KeyRecord",
    "KeySlot",
    "KeyState",
    "Purpose",
    "Snapshot",
    "check_transition",
]

MAX_USES = 2**32
"""Messages that one data key seals at most under random 96-bit nonces (NIST SP 800-38D, 8.3)."""


class Purpose(StrEnum):
    """What a data key is for; a key serves one purpose."""

    DATA = "data"
    INDEX = "index"
    WRAP = "wrap"


class KeyState(StrEnum):
    """The states of NIST SP 800-57 part 1, 7, that a data key goes through."""

    ACTIVE = "active"
    RETIRED = "retired"
    SUSPENDED = "suspended"
    DESTROYED = "destroyed"


TRANSITIONS: Mapping[KeyState, frozenset[KeyState]] = MappingProxyType(
    {
        KeyState.ACTIVE: frozenset({KeyState.RETIRED, KeyState.SUSPENDED, KeyState.DESTROYED}),
        KeyState.RETIRED: frozenset({KeyState.SUSPENDED, KeyState.DESTROYED}),
        KeyState.SUSPENDED: frozenset({KeyState.ACTIVE, KeyState.RETIRED, KeyState.DESTROYED}),
        KeyState.DESTROYED: frozenset(),
    }
)
"""From each state, the states that a key may go to; whatever is not here is refused."""


def check_transition(expect: KeyState, to: KeyState) -> None:
    """Refuse a change of state that the life of a key does not have.

    Raises:
        ConfigurationError: ``to`` does not follow ``expect``.
    """
    if to not in TRANSITIONS[expect]:
        after = ", ".join(sorted(TRANSITIONS[expect])) or "nothing: it is final"
        raise ConfigurationError(f"a key does not go from {expect} to {to}; after {expect} comes {after}")


@dataclass(frozen=True, slots=True, order=True)
class KeySlot:
    """The place that at most one active key fills: a tenant, a subject or none, and a purpose."""

    tenant: str
    subject: str | None = None
    purpose: Purpose = Purpose.DATA


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What anyone may know of a data key; holds no key material, wrapped or not.

    ``key_id`` has 16 bytes, ``created_at`` is an aware UTC time, ``version`` counts from 1 within the key's
    slot, ``uses`` are the messages reserved so far (an upper bound of the messages sealed).
    """

    key_id: bytes
    tenant: str
    subject: str | None
    purpose: Purpose
    version: int
    state: KeyState
    created_at: datetime
    uses: int


@dataclass(frozen=True, slots=True)
class KeyRecord(KeyInfo):
    """A data key as the key store keeps it.

    ``wrapped`` is ``None`` once destroyed; ``parent`` is the key id of the wrap key, ``None`` for keys that
    the KMS wrapped.
    """

    wrapped: bytes | None
    parent: bytes | None = None

    @property
    def slot(self) -> KeySlot:
        """The place that this key fills, or once filled."""
        return KeySlot(self.tenant, self.subject, self.purpose)

    def info(self) -> KeyInfo:
        """The record without its key material."""
        return KeyInfo(
            self.key_id,
            self.tenant,
            self.subject,
            self.purpose,
            self.version,
            self.state,
            self.created_at,
            self.uses,
        )


@dataclass(frozen=True, slots=True)
class Fence:
    """The record, kept for good, that a scope was shredded.

    ``subject=None`` fences the whole tenant. ``at`` is an aware UTC time.
    """

    tenant: str
    subject: str | None
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A scope whose cached keys are no longer to be trusted.

    ``whole_tenant`` includes the keys of all its subjects.
    """

    tenant: str
    subject: str | None
    whole_tenant: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one read of a key store saw: records by key id, and the fence generation at that moment."""

    generation: int
    records: Mapping[bytes, KeyRecord]

"""What ``doctor`` looks at: each check ends in one finding, and a problem comes with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from fieldvault.cli.opening import (
    WAYS_TO_CONFIGURATION,
    Opened,
    Undescribed,
    key_store_alone,
    kms_alone,
)
from fieldvault.cli.verify import Verdict
from fieldvault.config import absence
from fieldvault.errors import ConfigurationError, FieldVaultError
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.records import KeyInfo, KeyState, Purpose
from fieldvault.kms.multi import MultiKMS

__all__ = ["Finding", "KeyTally", "Level", "WrapTally", "backends", "erasure_bound", "unopened"]

_NEAR = 0.9
"""The part of a key's uses, or of its age, from which on it is worth a warning."""

_REMEDY = {
    "KMS": "mend the KMS or its section [kms]; without it no process that starts now can read",
    "key store": "mend the key store or its section [key_store]; restore it from its backup if it is lost",
}

_SECTION = {"KMS": "kms", "key store": "key_store"}


class Level(StrEnum):
    """How a check ended; only a problem makes ``doctor`` end with an exit code other than 0."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``doctor``; ``items`` are the keys or files that it is about, where there are several."""

    check: str
    level: Level
    detail: str
    remedy: str | None = None
    items: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The finding in JSON's types."""
        return {
            "check": self.check,
            "level": self.level.value,
            "detail": self.detail,
            "remedy": self.remedy,
            "items": list(self.items),
        }


def backends(it: Opened) -> Iterator[Finding]:
    """The KMS and the key store of a vault that opened."""
    yield _answer("KMS", it.vault.kms)
    yield _answer("key store", it.vault.key_store)


def unopened(config: Path, error: FieldVaultError) -> Iterator[Finding]:
    """Why a vault did not open: each backend is tried alone, so that one failure does not hide another."""
    found: list[Finding] = []
    blamed = False
    for name, open_alone in (("KMS", kms_alone), ("key store", key_store_alone)):
        try:
            backend = open_alone(config)
        except Undescribed:
            continue
        except FieldVaultError as alone:
            blamed = blamed or str(alone) == str(error)
            found.append(Finding(name, Level.PROBLEM, str(alone), _remedy(name, alone)))
        else:
            found.append(_answer(name, backend))
            backend.close()
    if not config.exists():
        yield Finding("configuration", Level.PROBLEM, absence(config), WAYS_TO_CONFIGURATION)
    elif isinstance(error, ConfigurationError) and not blamed:
        yield Finding("configuration", Level.PROBLEM, str(error), f"mend {config}")
    else:
        yield Finding("configuration", Level.OK, str(config))
    yield from found


def _remedy(name: str, error: FieldVaultError) -> str:
    if isinstance(error, ConfigurationError):
        return f"mend the section [{_SECTION[name]}], or the file or variable that it names"
    return _REMEDY[name]


def _answer(name: str, backend: KMS | KeyStore) -> Finding:
    try:
        return Finding(name, Level.OK, backend.check())
    except FieldVaultError as error:
        return Finding(name, Level.PROBLEM, str(error), _REMEDY[name])


@dataclass(slots=True)
class KeyTally:
    """Collects what trying all keys brings to light."""

    rotation: RotationPolicy
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    worn: list[str] = field(default_factory=list)
    stopped: str | None = None

    def take(self, verdicts: Iterable[Verdict]) -> None:
        """Count a tenant's keys."""
        now = datetime.now(UTC)
        for key, problem in verdicts:
            self.tried += 1
            if problem is not None:
                self.wrong.append(f"{_named(key)}: {problem}")
            worn = self._worn(key, now)
            if worn is not None:
                self.worn.append(f"{_named(key)}: {worn}")

    def _worn(self, key: KeyInfo, now: datetime) -> str | None:
        if key.state is not KeyState.ACTIVE or key.purpose is not Purpose.DATA:
            return None
        if key.uses >= _NEAR * self.rotation.max_uses:
            return f"{key.uses} of {self.rotation.max_uses} uses"
        if self.rotation.max_age is not None and now - key.created_at >= _NEAR * self.rotation.max_age:
            return f"{(now - key.created_at).days} of {self.rotation.max_age.days} days old"
        return None

    def findings(self) -> Iterator[Finding]:
        """Whether the keys open, and whether some are near their end."""
        if self.wrong:
            yield Finding(
                "keys",
                Level.PROBLEM,
                f"{len(self.wrong)} of {self.tried} keys are not what their records name",
                "restore the root-key file, or the key store, that they belong to; rotating mends nothing",
                tuple(self.wrong),
            )
        elif self.stopped is not None:
            yield Finding(
                "keys",
                Level.PROBLEM,
                f"after {self.tried} keys: {self.stopped}",
                "call doctor again when the backend answers",
            )
        else:
            yield Finding("keys", Level.OK, f"all {self.tried} unwrap and match their key ids")
        if self.worn:
            yield Finding(
                "key use and age",
                Level.WARNING,
                f"{len(self.worn)} active data keys are near their end, and are rotated once they reach it",
                "or rotate now: fieldvault rotate --all",
                tuple(self.worn),
            )
        else:
            yield Finding("key use and age", Level.OK, "no active data key is near its end")


@dataclass(slots=True)
class WrapTally:
    """Collects what asking each member of a ``MultiKMS`` for each key brings to light."""

    kms: KMS
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    stopped: str | None = None

    def take(self, verdicts: Iterable[Verdict]) -> None:
        """Count a tenant's keys."""
        for key, problem in verdicts:
            self.tried += 1
            if problem is not None:
                self.wrong.append(f"{_named(key)}: {problem}")

    def findings(self) -> Iterator[Finding]:
        """Whether any one member is enough."""
        if not isinstance(self.kms, MultiKMS):
            yield Finding("wraps", Level.OK, "there is one KMS, and it was asked for every key")
            return
        members = ", ".join(self.kms.members)
        if self.wrong:
            yield Finding(
                "wraps",
                Level.PROBLEM,
                f"{len(self.wrong)} of {self.tried} keys are not unwrapped by each of {members}",
                "see to the member that fails; a key that it never wrapped: fieldvault rewrap",
                tuple(self.wrong),
            )
        elif self.stopped is not None:
            yield Finding(
                "wraps",
                Level.PROBLEM,
                f"after {self.tried} keys: {self.stopped}",
                "call doctor again when the backend answers",
            )
        else:
            yield Finding("wraps", Level.OK, f"all {self.tried} keys are unwrapped by each of {members}")
        if self.kms.absent:
            yield Finding(
                "wraps of absent members",
                Level.WARNING,
                f"{', '.join(self.kms.absent)} could not be asked",
                "bring it back for a while, and call doctor --wraps again",
            )


def _named(key: KeyInfo) -> str:
    whose = key.tenant if key.subject is None else f"{key.subject} of {key.tenant}"
    return f"{whose}, {key.purpose} v{key.version}, {key.key_id.hex()}"


def erasure_bound(store: KeyStore, cache: CachePolicy) -> Finding:
    """How long after a shred a process may go on reading with what it cached."""
    try:
        longest = store.declare_lease(0)
    except FieldVaultError as error:
        return Finding("erasure bound", Level.PROBLEM, str(error), _REMEDY["key store"])
    own = cache.lease + cache.grace
    detail = f"up to {longest:g} s after a shred a process may still read"
    if longest > own:
        return Finding(
            "erasure bound",
            Level.OK,
            f"{detail}: another process declared it; this configuration allows {own:g} s",
        )
    return Finding(
        "erasure bound", Level.OK, f"{detail}: lease {cache.lease:g} s and grace {cache.grace:g} s"
    )

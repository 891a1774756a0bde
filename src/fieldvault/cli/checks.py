"""What ``doctor`` looks at: each check ends in one finding, and a problem comes with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from fieldvault.cli.findings import Finding, Level
from fieldvault.cli.members import kms_answer, unopened_kms
from fieldvault.cli.opening import (
    WAYS_TO_CONFIGURATION,
    Opened,
    Undescribed,
    key_store_alone,
    kms_alone,
)
from fieldvault.cli.underway import how_to_finish
from fieldvault.cli.verify import Verdict, kms_kind, named
from fieldvault.config import absence
from fieldvault.errors import (
    ConfigurationError,
    FieldVaultError,
    KMSDenied,
    KMSError,
    KMSKeyDisabled,
    MovedAway,
    UnfinishedCopy,
)
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.records import KeyInfo, KeyState, Purpose
from fieldvault.kms import LocalKMS

__all__ = ["KeyTally", "backends", "erasure_bound", "unopened"]

_SAID: Mapping[type[KMSError], str] = MappingProxyType(
    {
        KMSDenied: "do not unwrap, as the KMS refuses",
        KMSKeyDisabled: "do not unwrap, as the KMS lacks the root key that wrapped them, or has it disabled",
        KMSError: "are not what their records name",
    }
)
"""What is told of keys by what they met; that the KMS is away says nothing of them."""

_NEAR = 0.9
"""The part of a key's uses, or of its age, from which on it is worth a warning."""

_RESTORE_KEY_STORE = (
    "mend the key store or its section [key_store]; restore it from its backup if it is lost; "
    "for a new vault, run fieldvault keystore create"
)


def backends(config: Path, it: Opened) -> Iterator[Finding]:
    """The KMS and the key store of a vault that opened."""
    yield from kms_answer(it.vault.kms)
    yield key_store_answer(config, it.vault.key_store)


def unopened(config: Path, error: FieldVaultError) -> Iterator[Finding]:
    """Why a vault did not open: each backend is tried alone, so that one failure does not hide another."""
    problems: list[FieldVaultError] = []
    found = [*_kms(config, problems), *_key_store(config, problems)]
    if not config.exists():
        yield Finding("configuration", Level.PROBLEM, absence(config), WAYS_TO_CONFIGURATION)
    elif isinstance(error, ConfigurationError) and str(error) not in map(str, problems):
        yield Finding("configuration", Level.PROBLEM, str(error), f"mend {config}")
    else:
        yield Finding("configuration", Level.OK, str(config))
    yield from found


def _kms(config: Path, problems: list[FieldVaultError]) -> Iterator[Finding]:
    try:
        with closing(kms_alone(config)) as kms:
            yield from kms_answer(kms)
    except Undescribed:
        return
    except FieldVaultError as error:
        problems.append(error)
        yield from unopened_kms(config, error)


def _key_store(config: Path, problems: list[FieldVaultError]) -> Iterator[Finding]:
    try:
        with closing(key_store_alone(config)) as store:
            yield key_store_answer(config, store)
    except Undescribed:
        return
    except FieldVaultError as error:
        problems.append(error)
        yield Finding("key store", Level.PROBLEM, str(error), _remedy(config, error))


def key_store_answer(config: Path, store: KeyStore) -> Finding:
    """Whether the key store answers."""
    try:
        return Finding("key store", Level.OK, store.check())
    except FieldVaultError as error:
        return Finding("key store", Level.PROBLEM, str(error), _remedy(config, error))


def _remedy(config: Path, error: FieldVaultError) -> str:
    if isinstance(error, UnfinishedCopy):
        return how_to_finish(config)
    if isinstance(error, MovedAway):
        return "have the configuration name the copy; or, if nothing used it, fieldvault keystore reopen"
    if isinstance(error, ConfigurationError):
        return "mend the section [key_store], or the file or variable that it names"
    return _RESTORE_KEY_STORE


@dataclass(slots=True)
class KeyTally:
    """Collects what trying all keys brings to light; ``index_keys`` are those of tenants with several."""

    rotation: RotationPolicy
    kms: KMS
    tried: int = 0
    wrong: dict[type[KMSError], list[str]] = field(default_factory=dict)
    worn: list[str] = field(default_factory=list)
    worn_subjects: bool = False
    index_keys: list[list[KeyInfo]] = field(default_factory=list)
    stopped: str | None = None

    def take(self, verdicts: Iterable[Verdict]) -> None:
        """Count a tenant's keys."""
        now = datetime.now(UTC)
        index: list[KeyInfo] = []
        for key, problem in verdicts:
            self.tried += 1
            if key.purpose is Purpose.INDEX:
                index.append(key)
            if problem is not None:
                self.wrong.setdefault(kms_kind(problem), []).append(f"{named(key)}: {problem}")
            worn = self._worn(key, now)
            if worn is not None:
                self.worn.append(f"{named(key)}: {worn}")
                self.worn_subjects = self.worn_subjects or key.subject is not None
        if len(index) > 1:
            self.index_keys.append(index)

    def _worn(self, key: KeyInfo, now: datetime) -> str | None:
        if key.state is not KeyState.ACTIVE or key.purpose is not Purpose.DATA:
            return None
        if key.uses >= _NEAR * self.rotation.max_uses:
            return f"{key.uses} of {self.rotation.max_uses} uses"
        if self.rotation.max_age is not None and now - key.created_at >= _NEAR * self.rotation.max_age:
            return f"{(now - key.created_at).days} of {self.rotation.max_age.days} days old"
        return None

    def _way_out(self, kind: type[KMSError]) -> str:
        if kind is KMSDenied:
            return "mend [kms], or give its permission back: the keys themselves may be well"
        if isinstance(self.kms, LocalKMS):
            return "restore the root-key file, or the key store, that they belong to; rotating mends nothing"
        if kind is KMSKeyDisabled:
            return (
                "correct [kms], if it names another root key than wrapped them; "
                "else enable that root key, or restore it"
            )
        return (
            "restore the key store, or the root key, that they belong to, if [kms] names the right one; "
            "rotating mends nothing"
        )

    def findings(self) -> Iterator[Finding]:
        """Whether the keys open, and whether some are near their end."""
        if self.wrong:
            yield Finding(
                "keys",
                Level.PROBLEM,
                "; ".join(
                    f"{len(keys)} of {self.tried} keys {_SAID[kind]}" for kind, keys in self.wrong.items()
                ),
                "; ".join(self._way_out(kind) for kind in self.wrong),
                tuple(key for keys in self.wrong.values() for key in keys),
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
                "or rotate now: fieldvault rotate --all" + (" --subjects" if self.worn_subjects else ""),
                tuple(self.worn),
            )
        else:
            yield Finding("key use and age", Level.OK, "no active data key is near its end")


def erasure_bound(store: KeyStore, cache: CachePolicy) -> Finding:
    """How long after a shred a process may go on reading with what it cached."""
    try:
        longest = store.declare_lease(0)
    except FieldVaultError as error:
        return Finding("erasure bound", Level.PROBLEM, str(error), _RESTORE_KEY_STORE)
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

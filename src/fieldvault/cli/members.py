"""What ``doctor`` says of the KMS, and where there are several, of each of them by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fieldvault.cli.findings import Finding, Level
from fieldvault.cli.opening import members_unopened
from fieldvault.cli.verify import Proof, kms_kind, named
from fieldvault.errors import (
    ConfigurationError,
    FieldVaultError,
    KMSDenied,
    KMSError,
    KMSKeyDisabled,
    KMSUnavailable,
    kind_of,
)
from fieldvault.keys.protocols import KMS, Rewrapping
from fieldvault.kms.multi import MultiKMS

__all__ = ["WrapTally", "kms_answer", "unopened_kms"]

_MEND = "mend the KMS or its section [kms]; without it no process that starts now can read"


def kms_answer(kms: KMS) -> Iterator[Finding]:
    """Whether the KMS works; where one of several does not, which, and what to do about it."""
    try:
        yield Finding("KMS", Level.OK, kms.check())
    except FieldVaultError as error:
        yield from _failing(kms, error)


def unopened_kms(config: Path, error: FieldVaultError) -> Iterator[Finding]:
    """Why the KMS was not opened; where it is several, because of which."""
    errors = members_unopened(config)
    if errors:
        yield Finding("KMS", Level.PROBLEM, str(error), f"mend {', '.join(errors)}, as said beneath")
    elif isinstance(error, ConfigurationError):
        remedy = "mend the section [kms], or the file or variable that it names"
        yield Finding("KMS", Level.PROBLEM, str(error), remedy)
    else:
        yield Finding("KMS", Level.PROBLEM, str(error), _MEND)
    for name, problem in errors.items():
        yield _of_member(name, problem)


def _failing(kms: KMS, error: FieldVaultError) -> Iterator[Finding]:
    answers = kms.check_by_member() if isinstance(kms, MultiKMS) else {}
    errors = {name: answer for name, answer in answers.items() if isinstance(answer, FieldVaultError)}
    serving = [name for name in answers if name not in errors]
    remedy = _MEND
    if isinstance(kms, MultiKMS) and serving:
        remedy = f"mend {', '.join(errors)}, as said beneath" if errors else "call doctor again"
        remedy += f"; until then {', '.join(serving)} can unwrap"
        remedy += "" if kms.may_wrap(serving) else ", and no new key can be made"
    yield Finding("KMS", Level.PROBLEM, str(error), remedy)
    for name, problem in errors.items():
        yield _of_member(name, problem)


def _of_member(name: str, error: FieldVaultError) -> Finding:
    section = f"[kms.members.{name}]"
    if isinstance(error, ConfigurationError):
        remedy = (
            f"mend the section {section}, or the file or variable that it names; with offline = true in it "
            "the vault opens without this member"
        )
    elif isinstance(error, KMSUnavailable):
        remedy = f"bring {name} back, or mend its section {section}; the others are asked meanwhile"
    elif isinstance(error, KMSDenied):
        remedy = (
            f"give {name} its permission back, or mend the credentials in {section}; if it was taken away to "
            "stop the reading, take it away from the others too"
        )
    elif isinstance(error, KMSKeyDisabled):
        remedy = (
            f"enable the root key of {name}, or restore it; where it is gone for good, give {name} a new one "
            f"or take {section} out, and run fieldvault rewrap"
        )
    else:
        remedy = f"see that {section} still names the root key that it named before"
    return Finding(f"KMS member {name}", Level.PROBLEM, f"{kind_of(error)}: {error}", remedy)


@dataclass(slots=True)
class WrapTally:
    """Collects what asking each member of a ``MultiKMS`` for each key brings to light."""

    kms: KMS
    tried: int = 0
    met: list[tuple[str, Mapping[str, KMSError]]] = field(default_factory=list)
    lacking: dict[str, list[str]] = field(default_factory=dict)
    stopped: str | None = None

    def take(self, proofs: Iterable[Proof]) -> None:
        """Count a tenant's keys."""
        for key, errors, lacking in proofs:
            self.tried += 1
            if errors:
                self.met.append((named(key), errors))
            for name in lacking:
                self.lacking.setdefault(name, []).append(named(key))

    def findings(self) -> Iterator[Finding]:
        """Whether any one member is enough."""
        if not isinstance(self.kms, MultiKMS):
            yield Finding("wraps", Level.OK, "there is one KMS, and it was asked for every key")
            return
        wrapping_only = self._wrapping_only(self.kms)
        members = ", ".join(name for name in self.kms.members if name not in wrapping_only) or "nobody"
        wrong, ways_out = self._wrong(self.kms, wrapping_only)
        if wrong:
            yield Finding(
                "wraps",
                Level.PROBLEM,
                f"{len(wrong)} of {self.tried} keys are not unwrapped by each of {members}",
                "; ".join(ways_out),
                tuple(wrong),
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
        for name, keys in wrapping_only.items():
            yield Finding(
                f"wraps of {name}",
                Level.WARNING,
                f"it wraps here and does not unwrap, so what it wrapped of {keys} keys is not proven",
                f"call doctor --wraps where {name} may unwrap",
            )
        for name, why in self.kms.absent.items():
            yield self._of_absent(name, why)

    def _wrapping_only(self, kms: MultiKMS) -> Mapping[str, int]:
        """Members that prove themselves and refuse to unwrap, and for how many keys: a public key, say."""
        denied = Counter(
            name for _, errors in self.met for name, error in errors.items() if isinstance(error, KMSDenied)
        )
        answers = kms.check_by_member() if denied else {}
        return {name: keys for name, keys in denied.items() if isinstance(answers[name], str)}

    def _wrong(self, kms: MultiKMS, wrapping_only: Collection[str]) -> tuple[list[str], list[str]]:
        """The keys that a member does not unwrap, and what to do about it, by member and by what it met."""
        wrong: list[str] = []
        ways_out: Counter[tuple[str, type[KMSError]]] = Counter()
        for key, errors in self.met:
            mine = {
                name: error
                for name, error in errors.items()
                if not (name in wrapping_only and isinstance(error, KMSDenied))
            }
            ways_out.update((name, kms_kind(error)) for name, error in mine.items())
            if mine:
                wrong.append(f"{key}: " + "; ".join(f"{name}: {error}" for name, error in mine.items()))
        return wrong, [
            _way_out(name, kms.members[name], kind, keys) for (name, kind), keys in ways_out.items()
        ]

    def _of_absent(self, name: str, why: str) -> Finding:
        # Whether it could unwrap its part nobody can say; that there is none, each key says itself.
        without = self.lacking.get(name, ())
        if not without:
            return Finding(
                f"wraps of {name}",
                Level.WARNING,
                f"it is not at hand ({why}), so what it wrapped of {self.tried} keys is not proven",
                f"bring {name} back for a while, and call doctor --wraps again",
            )
        return Finding(
            f"wraps of {name}",
            Level.PROBLEM,
            f"{len(without)} of {self.tried} keys have no part for it to unwrap; it is not at hand ({why})",
            f"bring {name} back for a while, run fieldvault rewrap, and call doctor --wraps again",
            tuple(without),
        )


def _way_out(name: str, kms: KMS, kind: type[KMSError], keys: int) -> str:
    """What to do about a member that does not unwrap some keys."""
    if kind is KMSUnavailable:
        return f"bring {name} back, and call doctor --wraps again"
    if kind is KMSDenied:
        return f"give {name} its permission back"
    if kind is KMSKeyDisabled:
        return f"enable the root key of {name}, or give {name} a new one and run fieldvault rewrap"
    # One that cannot tell what is current passes for current.
    every = "" if isinstance(kms, Rewrapping) else " --every"
    return f"{name} has not wrapped {keys} of them as they are now: fieldvault rewrap{every}"

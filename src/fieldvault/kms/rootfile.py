"""The root-key file of the embedded KMS: its content, read and written (docs/format.md, 8)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fieldvault.errors import ConfigurationError, KMSDenied
from fieldvault.kms import privatefile
from fieldvault.kms.base64text import from_text, to_text
from fieldvault.kms.passphrase import Passphrase, acceptable
from fieldvault.secret import KEY_SIZE, Secret

__all__ = ["RootKey", "create", "locked", "read", "reread", "write"]

FORMAT = "fieldvault root keys 1"

_ID_SIZE = 16


@dataclass(frozen=True, slots=True)
class RootKey:
    """One version of the root key."""

    version: int
    created_at: datetime
    key: Secret

    def id(self) -> bytes:
        """16 bytes that commit to key and version: a file in which either was changed does not open."""
        return self.key.derive(b"fieldvault/1 root key id" + self.version.to_bytes(4, "big"), _ID_SIZE)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One version as the file has it, its key sealed if there is a passphrase."""

    version: int
    created_at: datetime
    key: bytes
    id: bytes | None


def read(path: Path, passphrase: str | None) -> tuple[Sequence[RootKey], Passphrase | None]:
    """The root keys of a file, oldest first, and what it takes to write them again.

    Raises:
        ConfigurationError: no such file, readable by others, not of this format, damaged, or a passphrase
            missing or too many.
        KMSDenied: the passphrase is wrong.
        KMSUnavailable: the file is there and cannot be read now.
    """
    parameters, entries = _parsed(path)
    if (parameters is None) != (passphrase is None):
        raise ConfigurationError(
            f"the root-key file {path} {'has no' if parameters is None else 'wants a'} passphrase"
        )
    opener = None if passphrase is None else Passphrase(passphrase, parameters)
    return [_opened(path, entry, opener) for entry in entries], opener


def reread(path: Path, passphrase: Passphrase | None) -> Sequence[RootKey]:
    """The root keys that a file read before has now, without deriving the passphrase's key again.

    Raises:
        ConfigurationError, KMSDenied, KMSUnavailable: as ``read``; denied also where the passphrase was
            changed.
    """
    parameters, entries = _parsed(path)
    if parameters != (None if passphrase is None else passphrase.parameters):
        raise KMSDenied(f"the passphrase of the root-key file {path} was changed; open it anew")
    return [_opened(path, entry, passphrase) for entry in entries]


def create(path: Path, keys: Sequence[RootKey], passphrase: Passphrase | None) -> None:
    """Write a new file; one that is there, or that another process makes at the same moment, stays as it is.

    Raises:
        ConfigurationError: there is one already, or the folder cannot be written.
    """
    privatefile.create(path, _document(keys, passphrase))


def write(path: Path, keys: Sequence[RootKey], passphrase: Passphrase | None) -> None:
    """Replace the file, all at once. The caller holds ``locked``.

    Raises:
        KMSUnavailable: it cannot be written; the old content stands.
    """
    privatefile.replace(path, _document(keys, passphrase))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one, thread or process, that changes the file. Readers need no lock."""
    with privatefile.locked(path):
        yield


def _opened(path: Path, entry: _Entry, passphrase: Passphrase | None) -> RootKey:
    material = entry.key if passphrase is None else passphrase.open(entry.key, entry.version)
    if len(material) == KEY_SIZE:
        key = RootKey(entry.version, entry.created_at, Secret(material))
        if entry.id in (None, key.id()):
            return key
    raise ConfigurationError(
        f"version {entry.version} in the root-key file {path} is damaged; restore the file from its backup"
    )


def _parsed(path: Path) -> tuple[dict[str, Any] | None, Sequence[_Entry]]:
    content = privatefile.read(path)
    try:
        document = json.loads(content)
        parameters = document["passphrase"]
        entries = [_entry(member) for member in document["keys"]]
        versions = [entry.version for entry in entries]
        ordered = bool(versions) and versions == sorted(set(versions))
        if document["format"] == FORMAT and ordered and (parameters is None or acceptable(parameters)):
            return parameters, entries
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ConfigurationError(f"{path} is not a root-key file ({FORMAT}); restore it from its backup")


def _entry(member: dict[str, Any]) -> _Entry:
    version, created_at = member["version"], datetime.fromisoformat(member["created_at"])
    if type(version) is not int or not 0 < version < 2**32 or created_at.utcoffset() != timedelta(0):
        raise ValueError
    known = member.get("id")
    return _Entry(version, created_at, from_text(member["key"]), None if known is None else from_text(known))


def _document(keys: Sequence[RootKey], passphrase: Passphrase | None) -> bytes:
    entries = [
        {
            "version": key.version,
            "created_at": key.created_at.astimezone(UTC).isoformat(),
            "id": to_text(key.id()),
            "key": to_text(key.key.reveal() if passphrase is None else passphrase.seal(key.key, key.version)),
        }
        for key in keys
    ]
    document = {
        "format": FORMAT,
        "passphrase": None if passphrase is None else passphrase.parameters,
        "keys": entries,
    }
    return json.dumps(document, indent=2).encode() + b"\n"

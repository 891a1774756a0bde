"""The root-key file of the embedded KMS: read, checked, written atomically, locked (docs/format.md, 8)."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from fieldvault.errors import ConfigurationError, KMSDenied, KMSUnavailable
from fieldvault.secret import KEY_SIZE, Secret

__all__ = ["Passphrase", "RootKey", "create", "locked", "read", "reread", "write"]

FORMAT = "fieldvault root keys 1"
_NONCE_SIZE = 24
_LARGEST_MEMORY = 2**30
_LARGEST_OPERATIONS = 64


_Entry = tuple[int, datetime, bytes]


@dataclass(frozen=True, slots=True)
class RootKey:
    """One version of the root key."""

    version: int
    created_at: datetime
    key: Secret


class Passphrase:
    """A key derived from a passphrase with Argon2id (RFC 9106), and the parameters of that."""

    __slots__ = ("_key", "parameters")

    def __init__(self, passphrase: str, parameters: dict[str, Any] | None = None) -> None:
        if not passphrase:
            raise ConfigurationError("the passphrase of a root-key file is not empty")
        self.parameters = parameters or {
            "kdf": "argon2id",
            "salt": _to_text(os.urandom(argon2id.SALTBYTES)),
            "operations": argon2id.OPSLIMIT_MODERATE,
            "memory": argon2id.MEMLIMIT_MODERATE,
        }
        self._key = argon2id.kdf(
            KEY_SIZE,
            passphrase.encode(),
            _from_text(self.parameters["salt"]),
            opslimit=self.parameters["operations"],
            memlimit=self.parameters["memory"],
        )

    def seal(self, key: RootKey) -> bytes:
        """The root key, encrypted for the file."""
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(
            key.key.reveal(), _bound_to(key.version), nonce, self._key
        )

    def open(self, sealed: bytes, version: int) -> bytes:
        """The root key of that version.

        Raises:
            KMSDenied: another passphrase, or the file was changed.
        """
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(
                sealed[_NONCE_SIZE:], _bound_to(version), sealed[:_NONCE_SIZE], self._key
            )
        except (CryptoError, ValueError, TypeError):
            pass
        raise KMSDenied("the passphrase does not open the root-key file, or the file was changed")

    def __repr__(self) -> str:
        return "<Passphrase>"


def _bound_to(version: int) -> bytes:
    return b"fieldvault/1 root key" + version.to_bytes(4, "big")


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_text(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def read(path: Path, passphrase: str | None) -> tuple[list[RootKey], Passphrase | None]:
    """The root keys of a file, oldest first, and what it takes to write them again.

    Raises: ConfigurationError: no such file, readable by others, not of this format, a passphrase missing or
    too many. KMSDenied: the passphrase is wrong. KMSUnavailable: the file is there and cannot be read now.
    """
    parameters, entries = _parsed(path)
    if (parameters is None) != (passphrase is None):
        raise ConfigurationError(
            f"the root-key file {path} {'has no' if parameters is None else 'wants a'} passphrase"
        )
    opener = None if passphrase is None else Passphrase(passphrase, parameters)
    return _opened(path, entries, opener), opener


def reread(path: Path, passphrase: Passphrase | None) -> list[RootKey]:
    """The root keys that a file read before has now, without deriving the passphrase's key again.

    Raises: ConfigurationError, KMSDenied, KMSUnavailable: as ``read``; denied also where the passphrase was
    changed.
    """
    parameters, entries = _parsed(path)
    if parameters != (None if passphrase is None else passphrase.parameters):
        raise KMSDenied(f"the passphrase of the root-key file {path} was changed; open it anew")
    return _opened(path, entries, passphrase)


def _opened(path: Path, entries: list[_Entry], passphrase: Passphrase | None) -> list[RootKey]:
    keys: list[RootKey] = []
    for version, made, sealed in entries:
        key = sealed if passphrase is None else passphrase.open(sealed, version)
        if len(key) != KEY_SIZE:
            raise ConfigurationError(
                f"{path} is not a root-key file ({FORMAT}): a key in it has a wrong size"
            )
        keys.append(RootKey(version, made, Secret(key)))
    return keys


def _parsed(path: Path) -> tuple[dict[str, Any] | None, list[_Entry]]:
    content, mode = _content(path)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"the root-key file {path} is open to others (mode {stat.S_IMODE(mode):04o}); make it yours "
            f"alone: chmod 600 {path}"
        )
    try:
        document = json.loads(content)
        parameters = document["passphrase"]
        entries = [_entry(member) for member in document["keys"]]
        versions = [version for version, _, _ in entries]
        ordered = bool(versions) and versions == sorted(set(versions))
        if document["format"] == FORMAT and ordered and (parameters is None or _acceptable(parameters)):
            return parameters, entries
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigurationError(f"{path} is not a root-key file ({FORMAT}); restore it from its backup")


def _entry(member: dict[str, Any]) -> _Entry:
    version = member["version"]
    if type(version) is not int or not 0 < version < 2**32:
        raise ValueError
    return version, datetime.fromisoformat(member["created_at"]), _from_text(member["key"])


def _acceptable(parameters: dict[str, Any]) -> bool:
    """Whether the derivation is one that opening the file can afford.

    Whoever wrote the file may not wish us well.
    """
    return (
        parameters["kdf"] == "argon2id"
        and len(_from_text(parameters["salt"])) == argon2id.SALTBYTES
        and type(parameters["operations"]) is int
        and argon2id.OPSLIMIT_MIN <= parameters["operations"] <= _LARGEST_OPERATIONS
        and type(parameters["memory"]) is int
        and argon2id.MEMLIMIT_MIN <= parameters["memory"] <= _LARGEST_MEMORY
    )


def _content(path: Path) -> tuple[bytes, int]:
    problem: str
    try:
        with path.open("rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        missing = True
        problem = (
            f"there is no root-key file {path}; restore it from its backup, "
            "or make one with LocalKMS.create or `fieldvault init`"
        )
    except OSError as error:
        missing = False
        problem = f"the root-key file {path} cannot be read: {error.strerror}"
    raise ConfigurationError(problem) if missing else KMSUnavailable(problem)


def _document(keys: list[RootKey], passphrase: Passphrase | None) -> bytes:
    entries = [
        {
            "version": key.version,
            "created_at": key.created_at.astimezone(UTC).isoformat(),
            "key": _to_text(key.key.reveal() if passphrase is None else passphrase.seal(key)),
        }
        for key in keys
    ]
    document = {
        "format": FORMAT,
        "passphrase": None if passphrase is None else passphrase.parameters,
        "keys": entries,
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _written(path: Path, content: bytes) -> Path:
    """A new file beside ``path``, mode 0600, with the content on the disk."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _sync_folder(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create(path: Path, keys: list[RootKey], passphrase: Passphrase | None) -> None:
    """Write a new file; one that is there, or that another process makes at the same moment, stays as it is.

    Raises:
        ConfigurationError: there is one already, or the folder cannot be written.
    """
    problem = None
    try:
        made = _written(path, _document(keys, passphrase))
        try:
            # A link fails where the name exists; a rename would replace it.
            path.hardlink_to(made)
        finally:
            made.unlink()
        _sync_folder(path)
    except FileExistsError:
        problem = f"{path} exists; it may hold the only copy of a root key, so it is not overwritten"
    except OSError as error:
        problem = f"the root-key file {path} cannot be written: {error.strerror}"
    if problem is not None:
        raise ConfigurationError(problem)


def write(path: Path, keys: list[RootKey], passphrase: Passphrase | None) -> None:
    """Replace the file, all at once.

    A reader and a crash see the old content or the new. The caller holds ``locked``.
    """
    made = _written(path, _document(keys, passphrase))
    try:
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    _sync_folder(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that changes the file. Readers need no lock."""
    while True:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had the lock may have put another file in this one's place.
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                yield
                return

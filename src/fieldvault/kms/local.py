"""``LocalKMS``: the embedded KMS, one file of root keys on this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fieldvault.context import encode_context
from fieldvault.errors import ConfigurationError, KMSError, KMSKeyDisabled
from fieldvault.forks import in_forked_children
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import rootfile
from fieldvault.kms.passphrase import Passphrase
from fieldvault.kms.rootfile import RootKey
from fieldvault.secret import KEY_SIZE, Secret
from fieldvault.settings import Section

__all__ = ["LocalKMS"]

_VERSION = b"\x01"
_PREFIX_SIZE = 5


class LocalKMS:
    """Wraps data keys with AES-256-SIV (RFC 5297) under root keys that a file of mode 0600 holds.

    The file is the root of everything: without it, and without its passphrase if it has one, nothing can be
    read again. Keep a copy of it apart from the database and its backups. It protects against whoever gets
    the database or its backups; it does not protect against whoever can read this process's memory or,
    without a passphrase, this file. The passphrase is stretched with Argon2id once, when the file is opened
    (256 MiB, about a second).

    Raises:
        ConfigurationError: no such file, one that others may read, not a root-key file, a damaged one, or a
            passphrase missing or too many.
        KMSDenied: the passphrase is wrong.
        KMSUnavailable: the file is there and cannot be read now, or there is no memory for the passphrase.
    """

    def __init__(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        # Where it is now: a process may change its folder, and a rotation replaces a file, not a link to it.
        self._path = Path(path).resolve()
        self._lock = threading.Lock()
        keys, self._passphrase = rootfile.read(self._path, passphrase)
        self._take(keys)
        in_forked_children(self, LocalKMS.renew_lock)

    @classmethod
    def create(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> LocalKMS:
        """Make a new root-key file, mode 0600, and open it; an existing file is never overwritten.

        Raises:
            ConfigurationError: there is a file of that name, or it cannot be written.
        """
        sealer = None if passphrase is None else Passphrase(passphrase)
        rootfile.create(Path(path), [_new_root_key(1)], sealer)
        return cls(path, passphrase)

    @classmethod
    def from_config(cls, section: Section) -> LocalKMS:
        """Open the file that a configuration names.

        ``path``; ``passphrase_env`` or ``passphrase_file`` for one with a passphrase.
        """
        path, passphrase = section.path("path"), section.secret("passphrase")
        section.finish()
        with section.blaming("path"):
            return cls(path, passphrase)

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key under the newest root key; 53 bytes (docs/format.md, 8).

        Raises:
            ConfigurationError: the key has another size.
        """
        if len(key) != KEY_SIZE:
            raise ConfigurationError(f"a KMS wraps keys of {KEY_SIZE} bytes, not of {len(key)}")
        newest, wrapper = self._newest
        prefix = _VERSION + newest.to_bytes(4, "big")
        return prefix + wrapper.encrypt(key, [prefix + encode_context(context)])

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context.

        Raises:
            KMSKeyDisabled: the file no longer has the root key that wrapped it.
            KMSError: changed, or wrapped under another context.
        """
        prefix = wrapped[:_PREFIX_SIZE]
        if len(prefix) < _PREFIX_SIZE or prefix[:1] != _VERSION:
            raise KMSError("not a key that the local KMS wrapped")
        wrapper = self._wrapper(int.from_bytes(prefix[1:], "big"))
        try:
            return wrapper.decrypt(wrapped[_PREFIX_SIZE:], [prefix + encode_context(context)])
        except InvalidTag:
            pass
        raise KMSError(
            "the wrapped key was changed, or wrapped for another key, tenant or purpose, or under "
            "another root-key file"
        )

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item's key, or the error that it met."""
        answers: list[bytes | KMSError] = []
        for item in items:
            try:
                answers.append(self.unwrap(item.wrapped, context=item.context))
            except KMSError as error:
                answers.append(error)
        return answers

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """Whether the newest root key that this process knows of wrapped it, and opens it."""
        if wrapped[:_PREFIX_SIZE] != _VERSION + self._newest[0].to_bytes(4, "big"):
            return False
        try:
            # Another file's root key may have the same version.
            self.unwrap(wrapped, context=context)
        except KMSError:
            return False
        return True

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The same key, wrapped under the newest root key; raises as ``unwrap``."""
        return self.wrap(self.unwrap(wrapped, context=context), context=context)

    def rotate_root_key(self) -> int:
        """Add a root key to the file and wrap under it from now on; its version.

        Other processes' additions are kept.

        Raises:
            ConfigurationError, KMSDenied, KMSUnavailable: the file cannot be read or written any more.
        """
        with self._lock, rootfile.locked(self._path):
            keys = rootfile.reread(self._path, self._passphrase)
            added = _new_root_key(keys[-1].version + 1)
            rootfile.write(self._path, [*keys, added], self._passphrase)
            self._take([*keys, added])
            return added.version

    def check(self) -> str:
        """Wrap and unwrap a random key, with the file as it is on the disk now.

        Raises:
            ConfigurationError, KMSDenied, KMSUnavailable: the file cannot be read any more.
        """
        self._reread()
        probe, context = os.urandom(KEY_SIZE), {"purpose": "check"}
        if self.unwrap(self.wrap(probe, context=context), context=context) != probe:
            raise KMSError("the local KMS does not unwrap what it wraps")
        versions = [str(version) for version in self._wrappers]
        passphrase = "no passphrase" if self._passphrase is None else "with a passphrase"
        which = "version" if len(versions) == 1 else "versions"
        return f"root-key file {self._path}, {which} {', '.join(versions)}, {passphrase}"

    def close(self) -> None:
        """Nothing is held open."""

    def __repr__(self) -> str:
        return f"LocalKMS({str(self._path)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a LocalKMS is not pickled or copied; open the root-key file in each process")

    def renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread of the parent, which is not there."""
        self._lock = threading.Lock()

    def _wrapper(self, version: int) -> AESSIV:
        wrapper = self._wrappers.get(version)
        if wrapper is None:
            # Another process may have rotated since this one opened the file.
            self._reread()
            wrapper = self._wrappers.get(version)
        if wrapper is None:
            raise KMSKeyDisabled(
                f"the root-key file {self._path} has no version {version}; restore the file that has it"
            )
        return wrapper

    def _reread(self) -> None:
        with self._lock:
            self._take(rootfile.reread(self._path, self._passphrase))

    def _take(self, keys: Sequence[RootKey]) -> None:
        self._wrappers = {
            key.version: AESSIV(key.key.derive(b"fieldvault/1 local AES-256-SIV", 64)) for key in keys
        }
        self._newest = keys[-1].version, self._wrappers[keys[-1].version]


def _new_root_key(version: int) -> RootKey:
    return RootKey(version, datetime.now(UTC), Secret(os.urandom(KEY_SIZE)))

"""A KMS of one file: an offline recovery key, which every machine wraps under and only the safe unwraps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import nacl.exceptions as vendor
from nacl.encoding import HexEncoder
from nacl.public import PrivateKey, PublicKey, SealedBox

from fieldvault.context import encode_context
from fieldvault.errors import ConfigurationError, FieldVaultError, KMSDenied, KMSError, KMSKeyDisabled
from fieldvault.keys.protocols import WrappedKey
from fieldvault.settings import Section

__all__ = ["MEANING", "RecoveryKMS"]

MEANING: Mapping[type[Exception], type[FieldVaultError]] = MappingProxyType(
    {
        vendor.CryptoError: KMSError,
        vendor.BadSignatureError: KMSError,
        vendor.InvalidkeyError: KMSError,
        vendor.CryptPrefixError: KMSError,
        # A box of an impossible size, or none at all: it was changed.
        vendor.ValueError: KMSError,
        vendor.TypeError: KMSError,
        vendor.AssertionError: KMSError,
        vendor.RuntimeError: KMSError,
        # The library was built without what this needs.
        vendor.UnavailableError: ConfigurationError,
    }
)
"""What each exception of the vendor's library is told as; the kit sees that none is missing."""

_VERSION = b"\x01"
_KEY_SIZE = 32
_ID_SIZE = 8


class RecoveryKMS:
    """Wraps data keys in sealed boxes (X25519, XSalsa20-Poly1305) to a public key.

    Where the private key is not, all that this can do is to wrap, and that is the point of it: as a member
    of a ``MultiKMS`` it gives every data key a way back that no machine of yours can be made to take. Whoever
    has the public key can wrap: a key that it opens is not for that reason yours.

    Raises:
        ConfigurationError: a file is missing or is no such key, or the two do not belong together.
    """

    def __init__(
        self, public_key: str | os.PathLike[str], private_key: str | os.PathLike[str] | None = None
    ) -> None:
        self._path = Path(public_key)
        public = PublicKey(_read(self._path))
        self._wrapper = SealedBox(public)
        self._prefix = _VERSION + bytes(public)[:_ID_SIZE]
        self._opener: SealedBox[PrivateKey] | None = None
        if private_key is not None:
            private = PrivateKey(_read(Path(private_key)))
            if private.public_key != public:
                raise ConfigurationError(f"{private_key} is not the private key of {public_key}")
            self._opener = SealedBox(private)

    @classmethod
    def create(cls, public_key: str | os.PathLike[str], private_key: str | os.PathLike[str]) -> RecoveryKMS:
        """Make a pair of keys in two new files; carry the private one, mode 0600, to the safe.

        Raises:
            ConfigurationError: a file of that name is there, or cannot be written.
        """
        private = PrivateKey.generate()
        _write(Path(private_key), private.encode(HexEncoder), 0o600)
        _write(Path(public_key), private.public_key.encode(HexEncoder), 0o644)
        return cls(public_key, private_key)

    @classmethod
    def from_config(cls, section: Section) -> RecoveryKMS:
        """Open what a configuration names: ``public_key``, and ``private_key`` on the day it is needed."""
        public = section.path("public_key")
        private = section.path("private_key") if "private_key" in section else None
        section.finish()
        with section.blaming("public_key" if private is None else "private_key"):
            return cls(public, private)

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key. A sealed box has no associated data, so the context goes inside."""
        if len(key) != _KEY_SIZE:
            raise ConfigurationError(f"a KMS wraps keys of {_KEY_SIZE} bytes, not of {len(key)}")
        return self._prefix + self._wrapper.encrypt(key + encode_context(context))

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context.

        Raises:
            KMSDenied: the private key is not here. It is no outage: nobody is to wait for it.
            KMSKeyDisabled: wrapped under another recovery key.
            KMSError: changed, or wrapped under another context.
        """
        if self._opener is None:
            raise KMSDenied(f"the private key of {self._path.name} is not on this machine")
        prefix, box = wrapped[: len(self._prefix)], wrapped[len(self._prefix) :]
        if prefix != self._prefix:
            if prefix[:1] == _VERSION and len(prefix) == len(self._prefix):
                raise KMSKeyDisabled(f"wrapped under the recovery key {prefix[1:].hex()}, which this is not")
            raise KMSError("not a key that a recovery key wrapped")
        told: type[FieldVaultError] = KMSError
        try:
            opened = self._opener.decrypt(box)
        except tuple(MEANING) as error:
            opened, told = b"", MEANING.get(type(error), KMSError)
        # Raised here, and not above, so that no error carries the vendor's with it.
        if not opened or opened[_KEY_SIZE:] != encode_context(context):
            raise told("the wrapped key was changed, or wrapped for another key, tenant or purpose")
        return opened[:_KEY_SIZE]

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item's key, or the error that it met."""
        answers: list[bytes | KMSError] = []
        for item in items:
            try:
                answers.append(self.unwrap(item.wrapped, context=item.context))
            except KMSError as error:
                answers.append(error)
        return answers

    def check(self) -> str:
        """Wrap, and where the private key is, unwrap a random key."""
        probe, context = os.urandom(_KEY_SIZE), {"purpose": "check"}
        wrapped = self.wrap(probe, context=context)
        if self._opener is None:
            return f"recovery key {self._path.name}, to wrap only: what it wraps cannot be proven here"
        if self.unwrap(wrapped, context=context) != probe:
            raise KMSError("the recovery key does not unwrap what it wraps")
        return f"recovery key {self._path.name}, with its private key"

    def close(self) -> None:
        """Nothing is held open."""

    def __repr__(self) -> str:
        return f"RecoveryKMS({str(self._path)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RecoveryKMS is not pickled or copied; open the files in each process")


def _read(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
        problem = "holds no key of 32 bytes"
    except OSError as error:
        key, problem = b"", f"cannot be read: {error.strerror}"
    except ValueError:
        key, problem = b"", "is no file of hexadecimal digits"
    if len(key) != _KEY_SIZE:
        raise ConfigurationError(f"{path} {problem}")
    return key


def _write(path: Path, key: bytes, mode: int) -> None:
    problem: str
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(key + b"\n")
    except OSError as error:
        problem = f"{path} cannot be made: {error.strerror}"
    else:
        return
    raise ConfigurationError(problem)

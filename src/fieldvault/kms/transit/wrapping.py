"""Wrapped keys as they are kept, the names of transit keys, and the encoding of a context."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from fieldvault.context import encode_context
from fieldvault.errors import ConfigurationError, KMSError, KMSUnavailable
from fieldvault.kms.base64text import from_text, to_text

__all__ = ["Ciphertext", "check_key", "check_mount", "context_text", "tenant_key"]

_SHARED, _DEDICATED = b"\x01", b"\x02"
_HEADER_SIZE = 5
_OVERHEAD = 12 + 16
_MAX_VERSION = 2**32 - 1
_FORM = re.compile(r"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]+=*)")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_UNSAFE = re.compile(rb"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """What transit made of a key: one form in bytes, so that no other bytes mean the same.

    One byte (1: under the shared transit key, 2: under the tenant's own), the version of the transit key in
    four bytes, big-endian, and the ciphertext: 65 bytes for a key of 32.
    """

    dedicated: bool
    version: int
    sealed: bytes

    @classmethod
    def parse(cls, wrapped: bytes) -> Ciphertext:
        """What is kept in a key store.

        Raises:
            KMSError: no transit key wrapped this.
        """
        kind, version = wrapped[:1], int.from_bytes(wrapped[1:_HEADER_SIZE], "big")
        if kind not in {_SHARED, _DEDICATED} or not version or len(wrapped) <= _HEADER_SIZE + _OVERHEAD:
            raise KMSError("not a key that a transit KMS wrapped")
        return cls(kind == _DEDICATED, version, wrapped[_HEADER_SIZE:])

    @classmethod
    def of_answer(cls, text: object, *, dedicated: bool) -> Ciphertext:
        """What the server answered, ``vault:v<version>:<base64>``.

        Raises:
            KMSUnavailable: it is nothing of that form.
        """
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if found is not None:
            with suppress(ValueError):
                read = cls(dedicated, int(found[1]), from_text(found[2]))
                if read.version <= _MAX_VERSION:
                    return read
        raise KMSUnavailable("the answer holds no transit ciphertext; see what stands between")

    def text(self) -> str:
        """As the server wants it."""
        return f"vault:v{self.version}:{to_text(self.sealed)}"

    def wrapped(self) -> bytes:
        """As a key store keeps it."""
        return (_DEDICATED if self.dedicated else _SHARED) + self.version.to_bytes(4, "big") + self.sealed


def tenant_key(key: str, tenant: str) -> str:
    """The name of a tenant's own transit key: no two tenants have the same.

    ``key``, a hyphen, and the tenant's UTF-8 in which every byte but ``a-z0-9`` is ``_`` and two hex digits.
    """
    return f"{key}-{_UNSAFE.sub(lambda found: b'_%02x' % found[0][0], tenant.encode()).decode('ascii')}"


def context_text(context: Mapping[str, str]) -> str:
    """A context, every name and value of it, as the ``context`` from which transit derives the key."""
    return to_text(encode_context(context))


def check_key(key: str) -> str:
    """``key`` as it is, if it may name a transit key.

    Raises:
        ConfigurationError: otherwise.
    """
    if not _NAME.fullmatch(key):
        raise ConfigurationError("the name of a transit key has letters, digits, _ and, within, - and .")
    return key


def check_mount(mount: str) -> str:
    """The path of a mount, without slashes around it.

    Raises:
        ConfigurationError: it is no path.
    """
    path = mount.strip("/")
    if not all(_NAME.fullmatch(part) for part in path.split("/")):
        raise ConfigurationError("a mount is a path like transit or team/transit")
    return path

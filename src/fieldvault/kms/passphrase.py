"""The passphrase of a root-key file: stretched with Argon2id, it seals the root keys (docs/format.md, 8)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from fieldvault.errors import ConfigurationError, KMSDenied, KMSUnavailable
from fieldvault.kms.base64text import from_text, to_text
from fieldvault.secret import KEY_SIZE, Secret

__all__ = ["Passphrase", "acceptable"]

_NONCE_SIZE = 24
_LARGEST_MEMORY = 2**30
_LARGEST_OPERATIONS = 64


class Passphrase:
    """A key derived from a passphrase with Argon2id (RFC 9106), and the parameters of that.

    Raises:
        ConfigurationError: an empty passphrase, or one that is no text.
        KMSUnavailable: the memory that the derivation takes is not to be had now.
    """

    __slots__ = ("_key", "parameters")

    def __init__(self, passphrase: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.parameters = dict(parameters) if parameters is not None else _new_parameters()
        self._key = _stretched(_encoded(passphrase), self.parameters)

    def seal(self, key: Secret, version: int) -> bytes:
        """A root key, encrypted for the file."""
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(
            key.reveal(), _bound_to(version), nonce, self._key
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Passphrase is not pickled or copied")


def acceptable(parameters: Mapping[str, Any]) -> bool:
    """Whether the derivation is one that opening the file can afford.

    Whoever wrote the file may not wish us well.
    """
    return (
        parameters["kdf"] == "argon2id"
        and len(from_text(parameters["salt"])) == argon2id.SALTBYTES
        and type(parameters["operations"]) is int
        and argon2id.OPSLIMIT_MIN <= parameters["operations"] <= _LARGEST_OPERATIONS
        and type(parameters["memory"]) is int
        and argon2id.MEMLIMIT_MIN <= parameters["memory"] <= _LARGEST_MEMORY
    )


def _new_parameters() -> dict[str, Any]:
    return {
        "kdf": "argon2id",
        "salt": to_text(os.urandom(argon2id.SALTBYTES)),
        "operations": argon2id.OPSLIMIT_MODERATE,
        "memory": argon2id.MEMLIMIT_MODERATE,
    }


def _encoded(passphrase: str) -> bytes:
    try:
        encoded = passphrase.encode()
    except UnicodeEncodeError:
        # Raised again below, where its object, the passphrase, is no longer in sight.
        encoded = None
    if encoded is None:
        raise ConfigurationError("the passphrase of a root-key file is text; this one is not UTF-8")
    if not encoded:
        raise ConfigurationError("the passphrase of a root-key file is not empty")
    return encoded


def _stretched(passphrase: bytes, parameters: Mapping[str, Any]) -> bytes:
    try:
        return argon2id.kdf(
            KEY_SIZE,
            passphrase,
            from_text(parameters["salt"]),
            opslimit=parameters["operations"],
            memlimit=parameters["memory"],
        )
    except CryptoError:
        pass
    raise KMSUnavailable(
        f"the passphrase of the root-key file takes {parameters['memory'] >> 20} MiB of memory, "
        "which are not to be had now"
    )


def _bound_to(version: int) -> bytes:
    return b"fieldvault/1 root key" + version.to_bytes(4, "big")

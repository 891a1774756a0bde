"""Root keys in a token: AES-256 keys of one label, a version each, that the token never gives out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import GCMParams, Mechanism

from fieldvault.errors import ConfigurationError, KMSError, KMSKeyDisabled
from fieldvault.secret import KEY_SIZE

__all__ = ["ID_SIZE", "NONCE_SIZE", "SEALED_SIZE", "RootKey", "generate", "listed", "newest", "version_of"]

ID_SIZE = 8
NONCE_SIZE = 12
SEALED_SIZE = KEY_SIZE + 16

_VERSION_SIZE = 4


@dataclass(frozen=True, slots=True)
class RootKey:
    """One version: its CKA_ID (8 bytes, the first four the version), its object, and what it may do."""

    key_id: bytes
    key: Any
    encrypts: bool
    decrypts: bool

    def seal(self, key: bytes, nonce: bytes, bound_to: bytes) -> bytes:
        """A data key under AES-256-GCM; 48 bytes.

        Raises:
            PKCS11Error: the token failed.
        """
        sealed: bytes = self.key.encrypt(
            key, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, bound_to, 128)
        )
        return sealed

    def open(self, sealed: bytes, nonce: bytes, bound_to: bytes) -> bytes:
        """The data key that was sealed.

        Raises:
            KMSKeyDisabled: the token no longer lets this version decrypt.
            KMSError: changed, or bound to something else.
            PKCS11Error: the token failed.
        """
        if not self.decrypts:
            raise KMSKeyDisabled(f"version {version_of(self.key_id)} of the root key may not decrypt")
        with suppress(PKCS11Error):
            return self._opened(sealed, nonce, bound_to)
        # Tokens answer a wrong tag with all kinds of codes, SoftHSM with the one for a broken token. One
        # that does its work meanwhile is not broken; it may have been.
        self.prove()
        with suppress(PKCS11Error):
            return self._opened(sealed, nonce, bound_to)
        raise KMSError("the wrapped key was changed, or wrapped for another key, tenant or purpose")

    def touch(self) -> None:
        """Have the token read something of it.

        Raises:
            PKCS11Error: it is not there, or the session is not.
        """
        _ = self.key[Attribute.ID]

    def prove(self) -> None:
        """Have the token work with this version, as far as it may.

        Raises:
            KMSError: it does not open what it seals.
            PKCS11Error: the token failed.
        """
        if not (self.encrypts and self.decrypts):
            self.touch()
            return
        probe, nonce = os.urandom(KEY_SIZE), os.urandom(NONCE_SIZE)
        sealed = self.seal(probe, nonce, b"check")
        if self._opened(sealed, nonce, b"check") != probe:
            raise KMSError("the PKCS#11 token does not unwrap what it wraps")

    def _opened(self, sealed: bytes, nonce: bytes, bound_to: bytes) -> bytes:
        opened: bytes = self.key.decrypt(
            sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, bound_to, 128)
        )
        return opened


def listed(session: Any, label: str) -> dict[bytes, RootKey]:
    """The versions of a root key that the session sees, by CKA_ID; private ones only once logged in.

    Raises:
        ConfigurationError: one of them could be read out of the token, or has no such id, or has another's.
        PKCS11Error: the token failed.
    """
    found: dict[bytes, RootKey] = {}
    # The search ends before anything else is asked in the session.
    for key in list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label})):
        key_id = key[Attribute.ID]
        if len(key_id) != ID_SIZE or key_id in found or key[Attribute.KEY_TYPE] != KeyType.AES:
            raise ConfigurationError(
                f"the token has a key {label!r} that is no version of a root key: each is an AES key whose "
                f"CKA_ID has {ID_SIZE} bytes and is its own"
            )
        if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
            raise ConfigurationError(
                f"version {version_of(key_id)} of the root key {label!r} can be read out of the token "
                f"(CKA_EXTRACTABLE, or not CKA_SENSITIVE): it is no root key"
            )
        found[key_id] = RootKey(key_id, key, bool(key[Attribute.ENCRYPT]), bool(key[Attribute.DECRYPT]))
    return found


def newest(keys: Mapping[bytes, RootKey], label: str) -> RootKey:
    """The version that wraps: the newest of those that may encrypt, and decrypt it again.

    Raises:
        KMSKeyDisabled: there is none.
    """
    usable = [key_id for key_id, key in keys.items() if key.encrypts and key.decrypts]
    if not usable:
        raise KMSKeyDisabled(
            f"of the {len(keys)} versions of the root key {label!r} that the token has none may encrypt and "
            "decrypt"
            if keys
            else f"the token has no root key {label!r}, or hides it from this user; see key_label, or have "
            "the token make it, once, with PKCS11KMS.create"
        )
    return keys[max(usable)]


def generate(session: Any, label: str, version: int) -> None:
    """Make a version within the token: never to be read out, wrapped or derived from.

    ``session`` may write. The other four bytes of the id are random: where two processes rotate at once, both
    versions live, and every process takes the same one for the newest.
    """
    session.generate_key(
        KeyType.AES,
        8 * KEY_SIZE,
        id=version.to_bytes(_VERSION_SIZE, "big") + os.urandom(ID_SIZE - _VERSION_SIZE),
        label=label,
        store=True,
        capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        template={
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
        },
    )


def version_of(key_id: bytes) -> int:
    """The version that an id begins with."""
    return int.from_bytes(key_id[:_VERSION_SIZE], "big")

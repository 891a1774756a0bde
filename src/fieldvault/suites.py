"""The cipher suites: AEADs of ``cryptography`` and PyNaCl behind one shape (docs/format.md, 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from fieldvault.envelope import NONCE_SIZES, TAG_SIZE
from fieldvault.errors import ConfigurationError
from fieldvault.secret import Secret

__all__ = [
    "AES_256_GCM",
    "AES_256_SIV",
    "SM4_GCM",
    "SUITES",
    "XCHACHA20_POLY1305",
    "Open",
    "Seal",
    "Suite",
    "suite_named",
    "suite_numbered",
]

Seal = Callable[[bytes, bytes, bytes], bytes]
"""``(nonce, payload, associated data)`` to the sealed part."""

Open = Callable[[bytes, bytes, bytes], bytes]
"""``(nonce, sealed part, associated data)`` to the payload.

Raises ``InvalidTag``, or ``ValueError`` for a nonce of a wrong size.
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """One authenticated cipher with the sizes (in bytes) that the format fixes for it."""

    number: int
    name: str
    key_size: int
    prepare: Callable[[bytes], tuple[Seal, Open]]
    deterministic: bool = False

    @property
    def nonce_size(self) -> int:
        """Bytes of random nonce that each message draws."""
        return NONCE_SIZES[self.number]

    def functions(self, key: Secret) -> tuple[Seal, Open]:
        """``seal`` and ``open`` under this suite's own key, derived from a data key.

        Raises:
            ConfigurationError: this build of the cryptographic library lacks the cipher.
        """
        try:
            return self.prepare(key.derive(b"fieldvault/1 suite " + self.name.encode(), self.key_size))
        except UnsupportedAlgorithm:
            pass
        raise ConfigurationError(
            f"this machine's cryptographic library has no {self.name}; choose another suite"
        )


def _aes_gcm(key: bytes) -> tuple[Seal, Open]:
    aead = AESGCM(key)
    # The bound methods have the very shape of Seal and Open: the hot path calls the library directly.
    return aead.encrypt, aead.decrypt


def _aes_siv(key: bytes) -> tuple[Seal, Open]:
    aead = AESSIV(key)

    def seal(_nonce: bytes, payload: bytes, associated: bytes) -> bytes:
        return aead.encrypt(payload, [associated])

    def open_(_nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
        return aead.decrypt(sealed, [associated])

    return seal, open_


def _xchacha20_poly1305(key: bytes) -> tuple[Seal, Open]:
    def seal(nonce: bytes, payload: bytes, associated: bytes) -> bytes:
        return crypto_aead_xchacha20poly1305_ietf_encrypt(payload, associated, nonce, key)

    def open_(nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, key)
        except CryptoError:
            pass
        raise InvalidTag

    return seal, open_


def _sm4_gcm(key: bytes) -> tuple[Seal, Open]:
    algorithm = algorithms.SM4(key)
    # An unsupported cipher shows itself only when a context is made: make one now, before data moves.
    Cipher(algorithm, modes.GCM(bytes(12))).encryptor()

    def seal(nonce: bytes, payload: bytes, associated: bytes) -> bytes:
        encryptor = Cipher(algorithm, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated)
        return encryptor.update(payload) + encryptor.finalize() + encryptor.tag

    def open_(nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
        decryptor = Cipher(algorithm, modes.GCM(nonce, sealed[-TAG_SIZE:])).decryptor()
        decryptor.authenticate_additional_data(associated)
        return decryptor.update(sealed[:-TAG_SIZE]) + decryptor.finalize()

    return seal, open_


AES_256_GCM = Suite(1, "AES-256-GCM", 32, _aes_gcm)
AES_256_SIV = Suite(2, "AES-256-SIV", 64, _aes_siv, deterministic=True)
XCHACHA20_POLY1305 = Suite(3, "XChaCha20-Poly1305", 32, _xchacha20_poly1305)
SM4_GCM = Suite(4, "SM4-GCM", 16, _sm4_gcm)

SUITES: tuple[Suite, ...] = (AES_256_GCM, AES_256_SIV, XCHACHA20_POLY1305, SM4_GCM)

_BY_NAME: Mapping[str, Suite] = MappingProxyType({suite.name: suite for suite in SUITES})
_BY_NUMBER: Mapping[int, Suite] = MappingProxyType({suite.number: suite for suite in SUITES})


def suite_named(name: str) -> Suite:
    """The suite of that name.

    Raises:
        ConfigurationError: there is none; the message lists the names.
    """
    suite = _BY_NAME.get(name)
    if suite is None:
        raise ConfigurationError(f"unknown cipher suite {name!r}; there are: {', '.join(_BY_NAME)}")
    return suite


def suite_numbered(number: int) -> Suite:
    """The suite of that number, which ``Envelope.parse`` has let through."""
    return _BY_NUMBER[number]

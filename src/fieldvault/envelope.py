"""The ciphertext's outer form: header, nonce, sealed part; binary and text (docs/format.md, 4)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import NoReturn

from fieldvault.errors import DecryptionError, MalformedCiphertext

__all__ = [
    "HEADER",
    "HEADER_SIZE",
    "KEY_ID_SIZE",
    "KEY_ID_START",
    "KINDS",
    "NONCES",
    "NONCE_SIZES",
    "PADDED",
    "SEALED",
    "TAG_SIZE",
    "TEXT_PREFIX",
    "VERSION",
    "Envelope",
    "from_text",
    "header",
    "to_text",
]

VERSION = 1
KEY_ID_SIZE = 16
KEY_ID_START = 3
HEADER_SIZE = KEY_ID_START + KEY_ID_SIZE
TAG_SIZE = 16
TEXT_PREFIX = "$fv1$"

# Suite number to nonce size. The outer form knows no more of a suite than this.
NONCE_SIZES = {1: 12, 2: 0, 3: 24, 4: 12}

# Where the parts of a ciphertext stand, the latter two by suite number; ready made, because the hot path cuts
# three parts out of every value that it opens.
HEADER = slice(HEADER_SIZE)
NONCES = {suite: slice(HEADER_SIZE, HEADER_SIZE + size) for suite, size in NONCE_SIZES.items()}
SEALED = {suite: slice(HEADER_SIZE + size, None) for suite, size in NONCE_SIZES.items()}

# Types of values, as the header names them; a padded value has the type with this bit.
KINDS = range(1, 14)
PADDED = 0x80

_TO_STANDARD_ALPHABET = str.maketrans("-_+/", "+/!!")


def header(suite: int, kind: int, key_id: bytes) -> bytes:
    """The 19 bytes in front of every ciphertext of one suite, type of value and key."""
    return bytes((VERSION, suite, kind)) + key_id


@dataclass(frozen=True, slots=True)
class Envelope:
    """A ciphertext taken apart; ``parse`` and ``serialize`` are exact inverses."""

    suite: int
    kind: int
    key_id: bytes
    nonce: bytes
    sealed: bytes

    @classmethod
    def parse(cls, blob: bytes) -> Envelope:
        """Take a ciphertext apart.

        Raises:
            MalformedCiphertext: unknown version, suite or type, or too short to be one.
        """
        if len(blob) < HEADER_SIZE:
            raise MalformedCiphertext("too short for a ciphertext")
        version, suite, kind = blob[:KEY_ID_START]
        if version != VERSION:
            # Without the byte: where a value was never encrypted, it is the value's first.
            raise MalformedCiphertext(
                "unknown ciphertext version: written by a newer release, or never encrypted"
            )
        nonce_size = NONCE_SIZES.get(suite)
        if nonce_size is None:
            raise MalformedCiphertext(f"unknown cipher suite number {suite}")
        if kind & ~PADDED not in KINDS:
            raise MalformedCiphertext(f"unknown type of value {kind}")
        start = HEADER_SIZE + nonce_size
        if len(blob) < start + TAG_SIZE:
            raise MalformedCiphertext("too short for a ciphertext of its suite")
        return cls(suite, kind, blob[KEY_ID_START:HEADER_SIZE], blob[HEADER_SIZE:start], blob[start:])

    def serialize(self) -> bytes:
        """The bytes that ``parse`` took apart."""
        return header(self.suite, self.kind, self.key_id) + self.nonce + self.sealed


def as_bytes(blob: object) -> bytes:
    """A ciphertext that came as ``bytes``, ``bytearray`` or ``memoryview``, as ``bytes``.

    Raises:
        MalformedCiphertext: it is of another class.
    """
    if isinstance(blob, bytearray | memoryview | bytes):
        return bytes(blob)
    raise MalformedCiphertext(f"a ciphertext is bytes, not {type(blob).__name__}")


def refuse(blob: bytes) -> NoReturn:
    """Say why a ciphertext did not open.

    Raises:
        MalformedCiphertext: it is none.
        DecryptionError: it is not authentic.
    """
    Envelope.parse(blob)
    raise DecryptionError


def to_text(blob: bytes) -> str:
    """A ciphertext in the form for text columns: ``$fv1$`` and unpadded base64url."""
    return TEXT_PREFIX + base64.urlsafe_b64encode(blob).rstrip(b"=").decode("ascii")


def from_text(text: str) -> bytes:
    """The ciphertext that ``to_text`` made into ``text``.

    Raises:
        MalformedCiphertext: no prefix, or not the canonical encoding.
    """
    blob = None
    if text.startswith(TEXT_PREFIX):
        body = text[len(TEXT_PREFIX) :].translate(_TO_STANDARD_ALPHABET)
        try:
            blob = binascii.a2b_base64(body + "=" * (-len(body) % 4), strict_mode=True)
        except ValueError:
            blob = None
    # Strict mode still ignores unused bits, so the way back is the check for the canonical form.
    if blob is None or to_text(blob) != text:
        raise MalformedCiphertext(f"not a ciphertext in text form ({TEXT_PREFIX} and base64url)")
    return blob

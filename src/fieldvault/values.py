"""Sealing and opening single values.

The hot path, written out flat because every step of it is paid for each value. A key's function is taken into
a variable before it is called: in a method call the interpreter would first look for it in the class.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag

from fieldvault.codecs import TEXT, decode, encode, pad
from fieldvault.context import check_name
from fieldvault.envelope import HEADER, PADDED, Envelope
from fieldvault.errors import DecryptionError, MalformedCiphertext, TenantMismatch
from fieldvault.keys.cache import ValueKey
from fieldvault.keys.records import KeySlot
from fieldvault.keys.ring import KeyRing
from fieldvault.suites import Suite

__all__ = ["OpenValue", "SealValue", "as_bytes", "associated_with", "opener", "refuse", "sealer"]

SealValue = Callable[[Any, str, str, str | None], bytes]
"""``(value, field, tenant, subject)`` to the ciphertext.

Raises ``UnsupportedValue`` for what cannot be encoded, ``ConfigurationError`` for a field, tenant or subject
that cannot be a name, ``KeyShredded``, ``KeySuspended``, ``KMSError`` or ``KeyStoreError`` where there is no
key to seal with.
"""

OpenValue = Callable[[bytes, str, str | None, str | None], Any]
"""``(ciphertext, field, tenant, subject)`` to the value, of the class that it had; without a subject, any
subject of the tenant is accepted, without a tenant any tenant: for callers that know whose the value is.

Raises ``MalformedCiphertext``, ``TenantMismatch`` for another tenant's key, ``DecryptionError`` for what was
changed or sealed for another field or subject, ``KeyNotFound``, ``KeyShredded``, ``KeySuspended``,
``KMSError`` or ``KeyStoreError`` where its key cannot be had.
"""


def sealer(ring: KeyRing, suite: Suite, padding: int | None = None) -> SealValue:
    """A function that seals values with a suite, padded to a multiple of ``padding`` bytes if asked.

    It looks at the ring's cache without a lock; only what is missing, stale or used up goes through the ring.
    """
    sealing = ring.cache.sealing
    clock = ring.clock
    random = os.urandom
    number = suite.number
    padded = 0 if padding is None else PADDED
    text = TEXT | padded
    text_keys = sealing[number, text]

    def seal(value: Any, field: str, tenant: str, subject: str | None) -> bytes:
        kind, keys = text, text_keys
        body: bytes | None = None
        if value.__class__ is str:
            try:  # noqa: SIM105 - suppress() costs more than the encoding
                body = value.encode()
            except UnicodeEncodeError:
                # The general encoder refuses it, outside of this handler: the error at hand holds the
                # plaintext.
                pass
        if body is None:
            kind, body = encode(value)
            kind |= padded
            keys = sealing[number, kind]
        if padding is not None:
            body = pad(body, padding)
        key = keys.get(tenant if subject is None else (tenant, subject))
        if key is None or clock() >= key.fresh_until or not next(key.uses, False):
            key = ring.for_sealing(KeySlot(tenant, subject), suite, kind)
        nonce = random(key.nonce_size)
        protect = key.seal
        contexts = key.contexts
        associated = contexts[field] if field in contexts else associated_with(key, field)
        return key.header + nonce + protect(nonce, body, associated)

    return seal


def opener(ring: KeyRing) -> OpenValue:
    """A function that opens values of every suite; it looks at the ring's cache without a lock."""
    cached = ring.cache.opening.get
    clock = ring.clock

    def open_(blob: bytes, field: str, tenant: str | None, subject: str | None) -> Any:
        if blob.__class__ is not bytes:
            blob = as_bytes(blob)
        key = cached(blob[HEADER])
        if key is None or clock() >= key.fresh_until:
            key = ring.for_opening(blob)
        if key.tenant != tenant and tenant is not None:
            raise TenantMismatch(f"the value belongs to another tenant than {tenant!r}")
        if subject is not None and key.subject != subject:
            raise DecryptionError
        unprotect = key.open
        contexts = key.contexts
        associated = contexts[field] if field in contexts else associated_with(key, field)
        payload: bytes | None = None
        try:
            payload = unprotect(blob[key.nonce], blob[key.sealed], associated)
            if key.is_text:
                return payload.decode()
        except (InvalidTag, ValueError):
            # What is authentic and no UTF-8 is refused by the general decoder, outside of this handler.
            pass
        if payload is None:
            refuse(blob)
        return decode(key.kind, payload)

    return open_


def associated_with(key: ValueKey, field: str) -> bytes:
    """The associated data of a field that a key meets for the first time; the field's name is checked."""
    return key.context(check_name("field", field))


def as_bytes(blob: object) -> bytes:
    """A ciphertext that came as ``bytes``, ``bytearray`` or ``memoryview``, as ``bytes``.

    Raises:
        MalformedCiphertext: it is of another class.
    """
    if isinstance(blob, bytearray | memoryview | bytes):
        return bytes(blob)
    raise MalformedCiphertext(f"a ciphertext is bytes, not {type(blob).__name__}")


def refuse(blob: bytes) -> NoReturn:
    """Say why a ciphertext did not open: too short to be one, or not authentic."""
    Envelope.parse(blob)
    raise DecryptionError

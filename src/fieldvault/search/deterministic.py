"""Deterministic ciphertexts: one for each value of a tenant's field, for the database to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fieldvault.codecs import encode, pad
from fieldvault.context import associated_data
from fieldvault.envelope import PADDED, header
from fieldvault.keys.cached import CachedKey
from fieldvault.suites import AES_256_SIV

__all__ = ["DeterministicField"]


@dataclass(frozen=True, slots=True)
class DeterministicField:
    """A field whose equal values have equal ciphertexts: AES-256-SIV (RFC 5297) under the index key.

    Not under the data key, whose rotation would part equal values. Whoever reads the database sees which
    rows of a tenant have equal values, and how many do (docs/search.md). No subject's key is ever used, so a
    subject's shred does not reach them.
    """

    field: str
    padding: int | None = None

    def content(self, value: object) -> bytes:
        """What a ciphertext is made of: the value's type and its encoding.

        Raises:
            UnsupportedValue: the value has no encoding.
        """
        kind, body = encode(value)
        if self.padding is not None:
            kind, body = kind | PADDED, pad(body, self.padding)
        return bytes((kind,)) + body

    def for_key(self, key: CachedKey, /) -> Callable[[bytes], bytes]:
        """What makes ciphertexts of contents under an index key."""
        seal, _ = key.functions(AES_256_SIV)
        key_id, tenant, field = key.record.key_id, key.record.tenant, self.field

        def make(content: bytes) -> bytes:
            head = header(AES_256_SIV.number, content[0], key_id)
            associated = associated_data(head, tenant=tenant, field=field, subject=None)
            return head + seal(b"", content[1:], associated)

        return make

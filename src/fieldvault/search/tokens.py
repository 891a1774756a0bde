"""Tokens: what a blind index stores in place of a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from fieldvault.context import check_name
from fieldvault.errors import ConfigurationError, UnsupportedValue
from fieldvault.keys.cached import CachedKey
from fieldvault.search.normalize import Normalizer, normalized, normalizer
from fieldvault.secret import KEY_SIZE, Secret

__all__ = ["MAX_BITS", "IndexSpec", "TokenMaker"]

MAX_BITS = 256

_INFO = b"fieldvault/1 blind index"


def _prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


class TokenMaker:
    """Makes the tokens of one index under one key: HMAC-SHA256 (RFC 2104), cut to the index's length.

    It may be called from many threads at once. Like key material it neither prints nor pickles.
    """

    __slots__ = ("_keyed", "_mask", "_size")

    def __init__(self, key: bytes, bits: int) -> None:
        # Keyed once: to take a copy costs less than half of taking up a key again.
        self._keyed = HMAC(key, SHA256())
        self._size = -(-bits // 8)
        self._mask = 0xFF & (0xFF << -bits % 8)

    def __call__(self, content: bytes, /) -> bytes:
        """The token of what ``IndexSpec.normalized`` gave."""
        keyed = self._keyed.copy()
        keyed.update(content)
        token = keyed.finalize()[: self._size]
        return token if self._mask == 0xFF else token[:-1] + bytes((token[-1] & self._mask,))

    def __repr__(self) -> str:
        return "<TokenMaker>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a TokenMaker is not pickled or copied")


@dataclass(frozen=True, slots=True, init=False)
class IndexSpec:
    """A blind index: what it indexes, and how long its tokens are.

    ``fields`` are the stable names of the indexed columns, several for a compound index; ``name`` is the
    index's own. Both go into the derivation of its key, and so never change while there are tokens.
    ``normalizers`` has one for each field, or its name. ``bits``, 1 to 256, is the length of a token.

    Equal values of one tenant have equal tokens: whoever reads the database sees which rows agree and how
    many do. Whoever has the index key can try values out. See docs/search.md before the first index.

    Raises:
        ConfigurationError: a name that cannot be, another number of normalizers than of fields, or a length
            out of range.
    """

    fields: tuple[str, ...]
    name: str
    normalizers: tuple[Normalizer, ...]
    bits: int = MAX_BITS
    _info: bytes = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        fields: Sequence[str],
        name: str,
        normalizers: Sequence[object],
        bits: int = MAX_BITS,
    ) -> None:
        if isinstance(fields, str) or isinstance(normalizers, str):
            raise ConfigurationError(
                'the fields and normalizers of an index are sequences: fields=["customers.email"]'
            )
        check_name("name of an index", name)
        if not fields:
            raise ConfigurationError(f"the index {name!r} wants at least one field")
        for each in fields:
            check_name("field", each)
        if len(normalizers) != len(fields):
            raise ConfigurationError(
                f"the index {name!r} has {len(fields)} fields and {len(normalizers)} normalizers: "
                f"give one for each field"
            )
        if type(bits) is not int or not 1 <= bits <= MAX_BITS:
            raise ConfigurationError(f"an index has 1 to {MAX_BITS} bits, not {bits!r}")
        info = b"".join(
            (
                _INFO,
                len(fields).to_bytes(4, "big"),
                *(_prefixed(each.encode()) for each in fields),
                _prefixed(name.encode()),
            )
        )
        for attribute, value in (
            ("fields", tuple(fields)),
            ("name", name),
            ("normalizers", tuple(map(normalizer, normalizers))),
            ("bits", bits),
            ("_info", info),
            ("_hash", hash((info, bits))),
        ):
            object.__setattr__(self, attribute, value)

    def __hash__(self) -> int:
        return self._hash

    @property
    def size(self) -> int:
        """The bytes of a stored token; the bits beyond ``bits``, at the end of its last byte, are zero."""
        return -(-self.bits // 8)

    @property
    def is_truncated(self) -> bool:
        """Whether other values may have the same token, so that what is found has to be compared again."""
        return self.bits < MAX_BITS

    def normalized(self, values: Sequence[object]) -> bytes | None:
        """What a token is made of: each value's text, its length in front.

        So no two sequences of texts share an encoding. ``None``, and so no token, where a value is ``None``
        or has no normalized text.

        Raises:
            UnsupportedValue: a value that its normalizer does not take; the message names field and class.
            ConfigurationError: another number of values than of fields.
        """
        if len(values) != len(self.fields):
            raise ConfigurationError(
                f"the index {self.name!r} has {len(self.fields)} fields, and was given {len(values)} values"
            )
        parts: list[bytes] = []
        for each, how, value in zip(self.fields, self.normalizers, values, strict=True):
            text = None if value is None else normalized(how, value, each)
            if text is None:
                return None
            try:
                parts.append(_prefixed(text.encode()))
            except UnicodeEncodeError:
                # Leaving the handler first keeps the plaintext, which that error has, out of __context__.
                break
        else:
            return b"".join(parts)
        raise UnsupportedValue(f"field {each!r}: str with a lone surrogate: not text that UTF-8 can hold")

    def for_key(self, key: CachedKey, /) -> TokenMaker:
        """``token_maker`` of an index key's material."""
        return self.token_maker(key.secret)

    def token_maker(self, key: Secret, /) -> TokenMaker:
        """What makes this index's tokens under an index key, by a key of its own (HKDF-SHA256, RFC 5869)."""
        return TokenMaker(key.derive(self._info, KEY_SIZE), self.bits)

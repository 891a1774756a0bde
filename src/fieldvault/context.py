"""What a ciphertext or a wrapped key is bound to, in encodings that no two contexts share."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence

from fieldvault.errors import ConfigurationError, UnsupportedValue

__all__ = [
    "MAX_NAME_SIZE",
    "Name",
    "as_name",
    "associated_data",
    "bound_to_row",
    "check_name",
    "check_names",
    "encode_context",
    "encode_row",
    "text_of",
]

MAX_NAME_SIZE = 255

Name = str | int | uuid.UUID
"""What names a tenant or a subject: text, or what becomes text by ``text_of``."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


def _optional(part: bytes | None) -> bytes:
    return b"\x00" if part is None else b"\x01" + _prefixed(part)


def check_name(kind: str, name: object) -> str:
    """``name`` as it is, if it may name a tenant, a subject or a field (docs/format.md, 1).

    Raises:
        ConfigurationError: otherwise; the message says ``kind`` and the rule.
    """
    if type(name) is not str:
        raise ConfigurationError(f"a {kind} is a str, not {type(name).__name__}")
    if not name:
        raise ConfigurationError(f"a {kind} is not empty; leave it out (None) where there is none")
    if _CONTROL.search(name):
        raise ConfigurationError(f"a {kind} has no control characters and no surrogates")
    if len(name.encode()) > MAX_NAME_SIZE:
        raise ConfigurationError(f"a {kind} has at most {MAX_NAME_SIZE} bytes of UTF-8")
    return name


def text_of(value: object) -> str | None:
    """The text that a tenant's or a subject's value becomes (docs/format.md, 5); ``None`` if it becomes none.

    Text as it is, integers in decimal, UUIDs lower-case with hyphens.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, uuid.UUID) else None


def as_name(kind: str, value: object) -> str:
    """The name of a tenant or a subject, as a row's column of this value names it.

    Raises:
        ConfigurationError: neither text, an integer nor a UUID, or text that cannot be a name.
    """
    text = text_of(value)
    if text is None:
        raise ConfigurationError(
            f"a {kind} is text, an integer or a UUID, not {type(value).__name__}: pass what its column holds"
            ", such as customer.id"
        )
    return check_name(kind, text)


def check_names(field: object, tenant: object, subject: object) -> None:
    """``check_name`` for all that a value is bound to; a subject may be ``None``."""
    check_name("field", field)
    check_name("tenant", tenant)
    if subject is not None:
        check_name("subject", subject)


def associated_data(
    header: bytes, *, tenant: str, field: str, subject: str | None, row: bytes | None = None
) -> bytes:
    """The associated data of a value.

    ``header`` (19 bytes), tenant, field, subject and, where bound, the row.
    """
    return b"".join(
        (
            header,
            _prefixed(tenant.encode()),
            _prefixed(field.encode()),
            _optional(None if subject is None else subject.encode()),
            _optional(row),
        )
    )


def bound_to_row(associated: bytes, row: bytes) -> bytes:
    """The associated data of a value without a row, as that of the same value in a row."""
    return associated[:-1] + _optional(row)


def encode_row(identity: Sequence[str]) -> bytes:
    """The row part of the associated data.

    The primary key's parts, as text, in the order of the key's columns.

    Raises:
        UnsupportedValue: a part is no text that UTF-8 can hold.
    """
    try:
        return b"".join(_prefixed(part.encode()) for part in identity)
    except UnicodeEncodeError:
        pass
    raise UnsupportedValue("a primary key with a lone surrogate: not text that UTF-8 can hold")


def encode_context(context: Mapping[str, str]) -> bytes:
    """A KMS encryption context as bytes.

    The number of entries, then names and values in ascending order of the names.
    """
    entries = sorted((name.encode(), value.encode()) for name, value in context.items())
    return len(entries).to_bytes(4, "big") + b"".join(
        _prefixed(name) + _prefixed(value) for name, value in entries
    )

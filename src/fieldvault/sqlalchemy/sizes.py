"""How much room a sealed value takes in its column (docs/format.md, 4 and 6)."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from fieldvault.codecs import check_padding, encode
from fieldvault.envelope import HEADER_SIZE, TAG_SIZE, TEXT_PREFIX
from fieldvault.errors import ConfigurationError
from fieldvault.sqlalchemy.coercion import coercion_of
from fieldvault.sqlalchemy.types import Encrypted
from fieldvault.suites import AES_256_GCM, AES_256_SIV, suite_named

__all__ = ["stored_size", "stored_size_of"]


def stored_size(
    length: int,
    *,
    suite: str = AES_256_GCM.name,
    storage: str = "binary",
    padding: int | None = None,
) -> int:
    """The exact size of the cell that holds a value of ``length`` encoded bytes.

    In bytes for ``"binary"`` storage; for ``"text"`` in characters, each of which is one byte. ``length`` is
    that of the value's encoding: for text its UTF-8, for the other types see docs/format.md, section 6. The
    size depends on nothing else: not on tenant, subject or field.

    Raises:
        ConfigurationError: a negative length, or a suite, storage or padding that ``Encrypted`` would refuse.
    """
    if type(length) is not int or length < 0:
        raise ConfigurationError(f"a length is a number of bytes, not {length!r}")
    if storage not in ("binary", "text"):
        raise ConfigurationError(f'storage is "binary" or "text", not {storage!r}')
    block = check_padding(padding)
    # The mark of the padding takes a byte: a value that fills its blocks gets another one.
    payload = length if block is None else (length // block + 1) * block
    sealed = HEADER_SIZE + suite_named(suite).nonce_size + payload + TAG_SIZE
    return sealed if storage == "binary" else len(TEXT_PREFIX) + -(-4 * sealed // 3)


def stored_size_of(value: Any, type_: Encrypted, *, suite: str = AES_256_GCM.name) -> int:
    """The exact size of the cell of a column of ``type_`` that holds ``value``; for ``None`` 0.

    In bytes, or in characters of one byte each where the column is one of text. ``suite`` is the vault's own,
    for columns that name none.

    Raises:
        UnsupportedValue: a value that the column does not take; the message names its class only.
        ConfigurationError: an unknown suite.
    """
    if value is None:
        return 0
    _, body = encode(coercion_of(type_.type_, "the column", DefaultDialect()).into(value))
    return stored_size(
        len(body),
        suite=_suite_of(type_, suite),
        storage=type_.storage,
        padding=type_.padding,
    )


def _suite_of(type_: Encrypted, default: str) -> str:
    if type_.deterministic:
        return AES_256_SIV.name
    return default if type_.suite is None else type_.suite

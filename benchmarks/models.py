"""The same model over different column types: plaintext, written by hand, fieldvault, sqlalchemy-utils."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from benchmarks.peers import library
from benchmarks.world import world
from fieldvault import Vault
from fieldvault.sqlalchemy import Encrypted, protect

__all__ = ["TENANT", "VARIANTS", "Model", "fieldvault_model"]

TENANT = "acme"

ColumnType = Callable[[], TypeEngine[Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """A declarative base and its one class, ``customers`` with three columns of the type in question."""

    base: type[DeclarativeBase]
    customer: type[Any]


@contextmanager
def _plaintext() -> Iterator[Model]:
    yield _model(String)


@contextmanager
def _hand_written() -> Iterator[Model]:
    yield _model(lambda: _HandWritten(AESGCM(AESGCM.generate_key(256))))


@contextmanager
def _sqlalchemy_utils() -> Iterator[Model]:
    encrypted = library("sqlalchemy_utils.types.encrypted.encrypted_type")
    key = os.urandom(32).hex()
    yield _model(lambda: encrypted.StringEncryptedType(String(), key, encrypted.AesGcmEngine))


@contextmanager
def _fieldvault() -> Iterator[Model]:
    with ExitStack() as stack:
        vault = stack.enter_context(stack.enter_context(world()).vault())
        stack.enter_context(vault.scope(tenant=TENANT))
        yield fieldvault_model(vault)


def fieldvault_model(vault: Vault) -> Model:
    """The model with ``Encrypted`` columns, bound to a vault; the ambient scope says whose the values are."""
    model = _model(lambda: Encrypted(String))
    protect(model.base, vault)
    return model


VARIANTS: Mapping[str, Callable[[], Any]] = {
    "plaintext": _plaintext,
    "hand-written": _hand_written,
    "fieldvault": _fieldvault,
    "sqlalchemy-utils": _sqlalchemy_utils,
}
"""By name; each is a context manager for its model, and may raise ``Missing``."""


def _model(column_type: ColumnType) -> Model:
    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[str]
        name: Mapped[str] = mapped_column(column_type())
        email: Mapped[str] = mapped_column(column_type())
        phone: Mapped[str] = mapped_column(column_type())

    return Model(Base, Customer)


class _Bytes(UserDefinedType[bytes]):
    """Bytes straight through; the stock ``LargeBinary`` would copy each value into a buffer object first."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "BLOB"


class _HandWritten(TypeDecorator[str]):
    """The ten lines that one writes without a library: a prebuilt ``AESGCM``, one key, nothing bound."""

    impl = _Bytes
    cache_ok = True

    def __init__(self, aead: AESGCM) -> None:
        super().__init__()
        self._aead = aead

    def process_bind_param(self, value: str | None, dialect: object) -> Any:  # noqa: ARG002
        if value is None:
            return None
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, value.encode(), None)

    def process_result_value(self, value: Any, dialect: object) -> str | None:  # noqa: ARG002
        if value is None:
            return None
        return self._aead.decrypt(value[:12], value[12:], None).decode()

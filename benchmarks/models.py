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
from fieldvault import KeyScope, Vault
from fieldvault.sqlalchemy import Encrypted, protect

__all__ = ["TENANT", "VARIANTS", "ColumnType", "Model", "fieldvault_model", "model_of", "utils_type"]

TENANT = "acme"

ColumnType = Callable[[], TypeEngine[Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """A declarative base and its one class, ``customers`` with three columns of the type in question."""

    base: type[DeclarativeBase]
    customer: type[Any]


@contextmanager
def _plaintext() -> Iterator[Model]:
    yield model_of(String)


@contextmanager
def _hand_written() -> Iterator[Model]:
    yield model_of(lambda: _HandWritten(AESGCM(AESGCM.generate_key(256))))


@contextmanager
def _sqlalchemy_utils() -> Iterator[Model]:
    yield model_of(utils_type("AesGcmEngine", os.urandom(32).hex()))


@contextmanager
def _fieldvault() -> Iterator[Model]:
    with ExitStack() as stack:
        vault = stack.enter_context(stack.enter_context(world()).vault())
        stack.enter_context(vault.scope(tenant=TENANT))
        yield fieldvault_model(vault)


def fieldvault_model(vault: Vault) -> Model:
    """The model with ``Encrypted`` columns, bound to a vault; the ambient scope says whose the values are."""
    model = model_of(lambda: Encrypted(String))
    protect(model.base, vault)
    return model


VARIANTS: Mapping[str, Callable[[], Any]] = {
    "plaintext": _plaintext,
    "hand-written": _hand_written,
    "fieldvault": _fieldvault,
    "sqlalchemy-utils": _sqlalchemy_utils,
}
"""By name; each is a context manager for its model, and may raise ``Missing``."""


def utils_type(engine: str, key: str) -> ColumnType:
    """sqlalchemy-utils' encrypted type over one of its engines.

    Raises:
        Missing: it is not installed.
    """
    encrypted = library("sqlalchemy_utils.types.encrypted.encrypted_type")
    # AesGcmEngine takes no padding, and minds none; the default one of AesEngine would eat asterisks.
    return lambda: encrypted.StringEncryptedType(String(), key, getattr(encrypted, engine), "pkcs5")


def model_of(column_type: ColumnType, scope: KeyScope | None = None) -> Model:
    """The model over a column type; ``scope`` says which of its columns name a row's tenant and subject."""

    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customers"
        __vault__ = scope
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

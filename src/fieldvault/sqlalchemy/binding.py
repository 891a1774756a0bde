"""What joins models to a vault: kept with the metadata and its tables, so that nothing is global."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Column, Integer, MetaData, Table, Uuid

from fieldvault.context import text_of
from fieldvault.errors import ConfigurationError, ScopeRequired, TenantMismatch
from fieldvault.scope import KeyScope
from fieldvault.vault import Vault

__all__ = [
    "Binding",
    "Owner",
    "RowScope",
    "binding_of",
    "canonical",
    "encrypted_columns",
    "name_of",
    "note_column",
    "stored_name",
]

_KEY = "fieldvault"

Owner = tuple[str, str | None]
"""Tenant and subject."""


@dataclass(frozen=True, slots=True, eq=False)
class RowScope:
    """Where a table's rows have their scope, by the model's ``__vault__``.

    A column of the table, or of another table of the model (joined inheritance); ``None`` where ``__vault__``
    leaves that part out.
    """

    tenant: Column[Any] | None = None
    subject: Column[Any] | None = None


class Binding:
    """The vault of a metadata's tables, and where their rows have their scope.

    Processors hold the binding and look the vault up at each use, so binding again reaches cached statements.
    """

    def __init__(self) -> None:
        self.current: Vault | None = None
        # Counts what was learned of tables and models, for whoever keeps what follows from it.
        self.version = 0
        self.columns: WeakKeyDictionary[Table, Sequence[Column[Any]]] = WeakKeyDictionary()
        # None: a model of the table leaves its rows to the ambient scope. Other tables are missing.
        self.scopes: WeakKeyDictionary[Table, RowScope | None] = WeakKeyDictionary()
        # Columns by the attributes of models; only of tables that have blind indexes.
        self.attributes: WeakKeyDictionary[Table, dict[str, Column[Any]]] = WeakKeyDictionary()
        self.index_columns: WeakKeyDictionary[Table, Sequence[Column[Any]]] = WeakKeyDictionary()
        # What blind_index.py made of those.
        self.indexes: WeakKeyDictionary[Table, Any] = WeakKeyDictionary()
        self.bases: WeakSet[Any] = WeakSet()

    @property
    def vault(self) -> Vault:
        """The vault.

        Raises:
            ConfigurationError: the models were not given one yet.
        """
        if self.current is None:
            raise ConfigurationError(
                "the models have no vault yet: call protect(Base, vault) before using them"
            )
        return self.current

    def scope_of_row(self, scope: RowScope | KeyScope | None, tenant: Any, subject: Any, table: str) -> Owner:
        """A row's tenant and subject as names, checked against the ambient scope.

        ``tenant`` and ``subject`` are what the row holds where ``scope`` says that it does.

        Raises:
            ScopeRequired: neither the row nor the ambient scope has what the model asks for.
            TenantMismatch: the row is another tenant's than the ambient scope.
        """
        ambient = self.vault.ambient.get()
        if scope is None or scope.tenant is None:
            owner = self.ambient_tenant(table)
        else:
            owner = name_of(tenant, f"the tenant of a row of {table}")
            if ambient.tenant not in (None, owner):
                raise TenantMismatch(
                    f"a row of {table} belongs to another tenant than the scope, {ambient.tenant!r}"
                )
        if scope is None:
            return owner, ambient.subject
        if scope.subject is None:
            return owner, None
        return owner, name_of(subject, f"the subject of a row of {table}")

    def ambient_scope(self, scope: RowScope | None, table: str) -> Owner:
        """Tenant and subject of a value whose row is not known: the ambient ones.

        Raises:
            ScopeRequired: the model takes them from its rows, and no scope names them.
        """
        ambient = self.vault.ambient.get()
        if scope is None:
            return self.ambient_tenant(table), ambient.subject
        if scope.tenant is not None and ambient.tenant is None:
            raise ScopeRequired(
                f"this statement does not say to which row of {table} a value belongs: "
                "work inside vault.scope(tenant=…), or change the loaded object and flush it"
            )
        if scope.subject is not None and ambient.subject is None:
            raise ScopeRequired(
                f"this statement does not say to which row of {table} a value belongs: "
                "work inside vault.scope(subject=…), or change the loaded object and flush it"
            )
        return self.ambient_tenant(table), None if scope.subject is None else ambient.subject

    def ambient_tenant(self, table: str, *, scoped: bool = False) -> str:
        """The tenant of the ambient scope, or the vault's default.

        ``scoped`` says that the model names where its rows have it, which does not help here.

        Raises:
            ScopeRequired: there is neither.
        """
        vault = self.vault
        tenant = vault.ambient.get().tenant
        if tenant is None:
            tenant = vault.default_tenant
        if tenant is None:
            raise ScopeRequired(
                f"no tenant is known for a row of {table}: work inside vault.scope(tenant=…)"
                + (
                    ""
                    if scoped
                    else ", or say in the model where its rows have it: __vault__ = KeyScope(tenant=…)"
                )
            )
        return tenant

    def __reduce__(self) -> tuple[type[Binding], tuple[()]]:
        # A pickled metadata is bound anew where it is unpickled: a vault does not travel.
        return Binding, ()


def binding_of(metadata: MetaData) -> Binding:
    """The binding of a metadata, made on first use."""
    binding: Binding = metadata.info.setdefault(_KEY, Binding())
    return binding


def encrypted_columns(table: Table) -> Sequence[Column[Any]]:
    """The encrypted columns of a table, in its order; empty for a table that has none."""
    # Not kept with the table, whose copies would take it along.
    binding: Binding | None = table.metadata.info.get(_KEY)
    return () if binding is None else binding.columns.get(table, ())


def note_column(table: Table, column: Column[Any]) -> Binding:
    """Remember an encrypted column of a table; the binding of the table's metadata."""
    binding = binding_of(table.metadata)
    others = [known for known in binding.columns.get(table, ()) if known.key != column.key]
    binding.columns[table] = (*others, column)
    binding.version += 1
    return binding


def canonical(column: Any, value: Any) -> Any:
    """A tenant or a subject as its row will have it once it is stored: writer and reader name one key.

    Raises:
        ConfigurationError: a value that the database would turn into another one.
    """
    type_ = column.type
    if isinstance(value, str):
        try:
            if isinstance(type_, Uuid):
                return str(uuid.UUID(value))
            refused = isinstance(type_, Integer)
        except ValueError:
            refused = True
        if refused:
            raise ConfigurationError(f"{column} names a scope and takes no such text: it is {type_}")
    return value


def stored_name(column: Any, name: str) -> Any:
    """The name of a tenant or a subject as its column has it: text, an integer or a UUID."""
    if isinstance(column.type, Integer):
        return int(name)
    return uuid.UUID(name) if isinstance(column.type, Uuid) and column.type.as_uuid else name


def name_of(value: Any, where: str) -> str:
    """A row's tenant or subject as text, by ``text_of``.

    Raises:
        ScopeRequired: the row has none (yet).
        ConfigurationError: a value of another class.
    """
    name = text_of(value)
    if name is not None:
        return name
    if value is None:
        raise ScopeRequired(
            f"{where} is empty, so the row has no keys yet: set it before the row is written "
            "(a key that the database makes comes too late: give the column a default in Python, such "
            "as uuid4)"
        )
    raise ConfigurationError(
        f"{where} names a scope and is text, an integer or a UUID, not {type(value).__name__}"
    )

"""``protect``: joins models to a vault."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Table, event
from sqlalchemy.orm import DeclarativeBase, Mapper

from fieldvault.errors import ConfigurationError
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy import flush
from fieldvault.sqlalchemy.binding import Binding, RowScope, binding_of, encrypted_columns
from fieldvault.sqlalchemy.results import check_rows
from fieldvault.sqlalchemy.statements import carry_rows
from fieldvault.vault import Vault

__all__ = ["protect"]


def protect(base: type[DeclarativeBase], vault: Vault) -> None:
    """Bind the models of a declarative base, those defined later too, to a vault; again: rebinds them.

    What it keeps is kept with the base's metadata. It adds listeners to SQLAlchemy's ``Engine`` class, which
    hold nothing and pass over statements of unprotected tables.

    Raises: ConfigurationError: ``__vault__`` of a model is no ``KeyScope``, or names an attribute that the
    model lacks.
    """
    if not isinstance(vault, Vault):
        raise ConfigurationError(f"protect(Base, vault) wants a Vault, not {type(vault).__name__}")
    metadata = getattr(base, "metadata", None)
    registry = getattr(base, "registry", None)
    if metadata is None or registry is None:
        raise ConfigurationError("protect(Base, vault) wants a declarative base")
    binding = binding_of(metadata)
    for mapper in registry.mappers:
        if issubclass(mapper.class_, base):
            _learn(mapper, mapper.class_)
    if base not in binding.bases:
        binding.bases.add(base)
        event.listen(base, "after_mapper_constructed", _learn, propagate=True)
        event.listen(base, "before_insert", flush.carry_insert, propagate=True)
        event.listen(base, "before_update", flush.carry_update, propagate=True)
        event.listen(base, "after_insert", flush.put_back, propagate=True)
        event.listen(base, "after_update", flush.put_back, propagate=True)
    if not event.contains(Engine, "before_execute", carry_rows):
        event.listen(Engine, "before_execute", carry_rows, retval=True)
        event.listen(Engine, "after_cursor_execute", check_rows)
    binding.current = vault


def _learn(mapper: Mapper[Any], class_: type) -> None:
    """Note for each table of a model where its rows have their scope."""
    scope = getattr(class_, "__vault__", None)
    if scope is None:
        return
    if not isinstance(scope, KeyScope):
        raise ConfigurationError(f"{class_.__name__}.__vault__ is a KeyScope, not {type(scope).__name__}")
    for name in (scope.tenant, scope.subject):
        if name is not None and name not in mapper.columns:
            raise ConfigurationError(
                f"{class_.__name__}.__vault__ names {name!r}, which is no mapped column of the model"
            )
    for table in mapper.tables:
        if isinstance(table, Table) and encrypted_columns(table):
            tenant, subject = _key_in(table, mapper, scope.tenant), _key_in(table, mapper, scope.subject)
            _binding(table).scopes[table] = RowScope(
                tenant=tenant,
                subject=subject,
                tenant_elsewhere=scope.tenant is not None and tenant is None,
                subject_elsewhere=scope.subject is not None and subject is None,
            )


def _binding(table: Table) -> Binding:
    return binding_of(table.metadata)


def _key_in(table: Table, mapper: Mapper[Any], name: str | None) -> str | None:
    """The key of the column of ``table`` that an attribute is mapped to, if one of its columns is."""
    if name is None:
        return None
    mapped = [
        column for attribute in mapper.column_attrs if attribute.key == name for column in attribute.columns
    ]
    return next((str(column.key) for column in mapped if getattr(column, "table", None) is table), None)

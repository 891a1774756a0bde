"""``protect``: joins models to a vault."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Engine, Table, event
from sqlalchemy.orm import DeclarativeBase, Mapper, Session

from fieldvault.errors import ConfigurationError
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy import flush
from fieldvault.sqlalchemy.before_flush import fetch_keys
from fieldvault.sqlalchemy.binding import RowScope, binding_of, encrypted_columns
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.bulk import carry_bulk
from fieldvault.sqlalchemy.claims import give_up, settle
from fieldvault.sqlalchemy.columns import check_table
from fieldvault.sqlalchemy.deterministic import is_deterministic
from fieldvault.sqlalchemy.identity import check_key
from fieldvault.sqlalchemy.results import check_rows
from fieldvault.sqlalchemy.statements import refuse_unsupported, seal_rows
from fieldvault.sqlalchemy.types import Encrypted
from fieldvault.sqlalchemy.uniqueness import name_the_field
from fieldvault.vault import Vault

__all__ = ["protect"]


def protect(base: type[DeclarativeBase], vault: Vault) -> None:
    """Bind the models of a declarative base, those defined later too, to a vault; again: rebinds them.

    What it keeps, the vault too, is kept with the base's metadata, which all bases of that metadata share. It
    adds listeners to SQLAlchemy's ``Engine`` and
    ``Session`` classes, which hold nothing and pass over what is not protected.

    Raises: ConfigurationError: ``__vault__`` of a model with encrypted columns is no ``KeyScope``, names an
    attribute that the model lacks or that is encrypted itself, or differs from that of another model of the
    same table.
    """
    if not isinstance(vault, Vault):
        raise ConfigurationError(f"protect(Base, vault) wants a Vault, not {type(vault).__name__}")
    metadata = getattr(base, "metadata", None)
    registry = getattr(base, "registry", None)
    if metadata is None or registry is None:
        raise ConfigurationError("protect(Base, vault) wants a declarative base")
    binding = binding_of(metadata)
    if base not in binding.bases:
        binding.bases.add(base)
        _listen(base)
    for mapper in registry.mappers:
        _adopt(mapper, mapper.class_)
    if not event.contains(Engine, "before_execute", seal_rows):
        event.listen(Engine, "before_execute", seal_rows, retval=True)
        event.listen(Engine, "after_execute", settle)
        event.listen(Engine, "before_cursor_execute", refuse_unsupported)
        event.listen(Engine, "after_cursor_execute", check_rows)
        event.listen(Engine, "handle_error", give_up)
        event.listen(Engine, "handle_error", name_the_field, retval=True)
        event.listen(Session, "before_flush", fetch_keys)
        event.listen(Session, "do_orm_execute", carry_bulk)
        event.listen(Session, "after_transaction_end", flush.put_all_back)
        event.listen(Mapper, "after_mapper_constructed", _adopt)
    binding.current = vault


def _listen(class_: type) -> None:
    event.listen(class_, "before_insert", flush.carry_insert, propagate=True)
    event.listen(class_, "before_update", flush.carry_update, propagate=True)
    # Before the application's own handlers, which see values then.
    event.listen(class_, "after_insert", flush.put_back, propagate=True, insert=True)
    event.listen(class_, "after_update", flush.put_back, propagate=True, insert=True)


def _adopt(mapper: Mapper[Any], class_: type) -> None:
    """Take in a model whose tables are protected; one mapped imperatively has no base to listen at."""
    bindings = {
        binding_of(table.metadata)
        for table in mapper.tables
        if isinstance(table, Table) and encrypted_columns(table)
    }
    protected = [binding for binding in bindings if binding.bases]
    if not protected:
        return
    for binding in protected:
        if not any(issubclass(class_, known) for known in binding.bases):
            binding.bases.add(class_)
            _listen(class_)
    _learn(mapper, class_)


def _learn(mapper: Mapper[Any], class_: type) -> None:
    """Note for each table of a model where its rows have their scope.

    It runs while classes are still being defined, so it asks nothing of the mapper that would configure it.
    """
    mapped = {column for column in mapper.columns if isinstance(column.type, Encrypted)}
    if not mapped:
        return
    scope = getattr(class_, "__vault__", None)
    if not isinstance(scope, KeyScope | None):
        raise ConfigurationError(f"{class_.__name__}.__vault__ is a KeyScope, not {type(scope).__name__}")
    for name in () if scope is None else (scope.tenant, scope.subject):
        if name is not None:
            _check_attribute(mapper, class_, name)
    for table in mapper.tables:
        if isinstance(table, Table):
            _learn_indexes(mapper, table)
        if isinstance(table, Table) and not mapped.isdisjoint(encrypted_columns(table)):
            check_key(table)
            check_table(table)
            _check_subjects(table, scope)
            _note(
                table,
                None
                if scope is None
                else RowScope(_column(table, mapper, scope.tenant), _column(table, mapper, scope.subject)),
            )


def _check_subjects(table: Table, scope: KeyScope | None) -> None:
    for column in encrypted_columns(table) if scope is not None and scope.subject is not None else ():
        if is_deterministic(column.type):
            raise ConfigurationError(
                f"{table.name}.{column.name} is deterministic and sealed under its tenant's index key, which "
                "no subject's shred destroys, and __vault__ names a subject; give a plain Encrypted column a "
                "BlindIndex instead"
            )


def _learn_indexes(mapper: Mapper[Any], table: Table) -> None:
    binding = binding_of(table.metadata)
    if table in binding.index_columns:
        names = binding.attributes.setdefault(table, {})
        names.update((key, column) for key, column in mapper.columns.items() if column.table is table)
        binding.indexes.pop(table, None)
        indexes_of(table)


def _check_attribute(mapper: Mapper[Any], class_: type, name: str) -> None:
    if name not in mapper.columns:
        raise ConfigurationError(
            f"{class_.__name__}.__vault__ names {name!r}, which is no mapped column of the model"
        )
    column = mapper.columns[name]
    if isinstance(column.type, Encrypted):
        raise ConfigurationError(f"{class_.__name__}.__vault__ names {name!r}, which is encrypted itself")
    # A row that moves to another scope is sealed anew, so the flush has to see where it came from.
    mapper.get_property_by_column(column).active_history = True  # type: ignore[attr-defined]
    if mapper.configured:
        getattr(class_, name).impl.active_history = True


def _note(table: Table, scope: RowScope | None) -> None:
    binding = binding_of(table.metadata)
    binding.version += 1
    known = binding.scopes.setdefault(table, scope)
    same = (
        known is scope
        if known is None or scope is None
        else known.tenant is scope.tenant and known.subject is scope.subject
    )
    if not same:
        raise ConfigurationError(
            f"two models of the table {table.name} have different __vault__: its rows have their scope in "
            f"one place"
        )


def _column(table: Table, mapper: Mapper[Any], name: str | None) -> Column[Any] | None:
    """The column that an attribute is mapped to: of ``table`` if it has one, else of another table."""
    if name is None:
        return None
    attribute = mapper.get_property_by_column(mapper.columns[name])
    columns: list[Column[Any]] = attribute.columns
    return next((column for column in columns if column.table is table), columns[0])

"""The unit of work: every object's encrypted values leave with that object's own scope.

``before_insert`` and ``before_update`` run before the flush reads an object's values, and know the object.
They put carriers where the flush looks for values; ``after_insert`` and ``after_update``, or the end of the
flush's transaction where it failed, put the values back.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from sqlalchemy import Column, Connection
from sqlalchemy.orm import Mapper, Session, SessionTransaction, attributes, object_session
from sqlalchemy.sql.elements import ClauseElement, Null

from fieldvault.errors import UnsupportedQuery
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import binding_of, canonical
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.columns import default_of
from fieldvault.sqlalchemy.identity import binds_rows, key_of, row_of
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["carry_insert", "carry_update", "encrypted_of", "put_all_back", "put_back", "set_default"]

_PENDING = "fieldvault: values of objects in flush"

_Carried = Iterable[tuple[dict[str, Any], str, Carrier]]
"""The values of an object, which of them, and the carrier in its place."""


def carry_insert(mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Listener of ``before_insert``."""
    encrypted = encrypted_of(mapper)
    if not encrypted:
        return
    scope = _scope_of(mapper)
    # A default that SQLAlchemy would call at the statement comes too late, to choose the keys or to be
    # sealed under them.
    for name in () if scope is None else (scope.tenant, scope.subject):
        if name is not None and getattr(target, name) is None:
            set_default(target, name, mapper.attrs[name].columns)
    for name in _keys_of_rows(mapper, encrypted):
        if getattr(target, name) is None:
            set_default(target, name, mapper.attrs[name].columns)
    for key, column in encrypted.items():
        if attributes.instance_dict(target).get(key) is None:
            set_default(target, key, [column])
    _carry(mapper, target, encrypted)


def carry_update(mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Listener of ``before_update``.

    A row that moves to another tenant or subject has all its values sealed anew, and one that gets another
    primary key those that are bound to it.
    """
    encrypted = encrypted_of(mapper)
    if not encrypted:
        return
    scope = _scope_of(mapper)
    state = attributes.instance_state(target)
    names = () if scope is None else (scope.tenant, scope.subject)
    if any(name is not None and state.attrs[name].history.has_changes() for name in names):
        changed = set(encrypted)
    else:
        changed = {key for key in encrypted if state.attrs[key].history.has_changes()}
        changed |= _indexed_with(encrypted, changed)
    if any(state.attrs[name].history.has_changes() for name in _keys_of_rows(mapper, encrypted)):
        changed |= {key for key, column in encrypted.items() if binds_rows(column)}
    for key in changed:
        if not state.attrs[key].history.has_changes():
            getattr(target, key)
            attributes.flag_modified(target, key)
    _carry(mapper, target, changed)


def put_back(mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Listener of ``after_insert`` and ``after_update``: the object has its values again."""
    session = object_session(target)
    if session is not None:
        _restore(session.info.get(_PENDING, {}).pop(id(target), ()))


def put_all_back(session: Session, transaction: SessionTransaction) -> None:
    """Listener of ``after_transaction_end``: a flush that failed has left its carriers behind."""
    pending = session.info.pop(_PENDING, None)
    if pending is not None:
        for carried in pending.values():
            _restore(carried)


def encrypted_of(mapper: Mapper[Any]) -> dict[str, Column[Any]]:
    """The encrypted columns of a model by attribute."""
    return {
        attribute.key: column
        for attribute in mapper.column_attrs
        for column in attribute.columns
        # A column_property of an expression is read, and never written.
        if isinstance(column, Column) and isinstance(column.type, Encrypted)
    }


def _indexed_with(encrypted: dict[str, Column[Any]], changed: set[str]) -> set[str]:
    """What stands in one blind index with something that has changed: its token is made of all."""
    keys = {column: key for key, column in encrypted.items()}
    together: set[str] = set()
    for table in {column.table for column in encrypted.values()}:
        for index in indexes_of(table):
            names = {keys[source] for source in index.sources if source in keys}
            if not names.isdisjoint(changed):
                together |= names
    return together


def _keys_of_rows(mapper: Mapper[Any], encrypted: dict[str, Column[Any]]) -> Iterable[str]:
    """The attributes that make up the primary keys to which some of the values are bound."""
    tables = {column.table for column in encrypted.values() if binds_rows(column)}
    for table in tables:
        for part in key_of(table):
            yield mapper.get_property_by_column(part).key


def _scope_of(mapper: Mapper[Any]) -> KeyScope | None:
    return getattr(mapper.class_, "__vault__", None)


def set_default(target: Any, name: str, columns: Iterable[Any]) -> None:
    """Give an attribute what Python would put into its column."""
    for column in columns:
        value = default_of(column, attributes.instance_dict(target))
        if value is not None:
            setattr(target, name, value)
            return


def _carry(mapper: Mapper[Any], target: Any, keys: Iterable[str]) -> None:
    values = attributes.instance_dict(target)
    # A carrier is there already where two bases of a model are protected, each with a listener.
    chosen = [
        key for key in keys if values.get(key) is not None and not isinstance(values[key], Null | Carrier)
    ]
    if not chosen:
        return
    for key in chosen:
        if isinstance(values[key], ClauseElement) or hasattr(values[key], "__clause_element__"):
            raise UnsupportedQuery(
                f"{mapper.class_.__name__}.{key} is encrypted, so the database cannot compute it; "
                f"assign a value"
            )
    scope = _scope_of(mapper)
    columns = encrypted_of(mapper)
    # Of several tables, where a model is mapped to a join, any one: they have one metadata.
    table = columns[chosen[0]].table
    tenant, subject = binding_of(table.metadata).scope_of_row(
        scope,
        _name_in(mapper, target, None if scope is None else scope.tenant),
        _name_in(mapper, target, None if scope is None else scope.subject),
        table.name,
    )
    session = cast(Session, object_session(target))
    pending = session.info.setdefault(_PENDING, {}).setdefault(id(target), [])
    for key in chosen:
        carrier = Carrier(
            values[key], tenant, subject, row_of(mapper, columns[key], partial(getattr, target))
        )
        pending.append((values, key, carrier))
        values[key] = carrier


def _name_in(mapper: Mapper[Any], target: Any, name: str | None) -> Any:
    return None if name is None else canonical(mapper.columns[name], getattr(target, name))


def _restore(carried: _Carried) -> None:
    for values, key, carrier in carried:
        if values.get(key) is carrier:
            values[key] = carrier.value

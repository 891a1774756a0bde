"""The unit of work: every object's encrypted values leave with that object's own scope.

All ``before_insert`` and ``before_update`` events of a flush run before its first bind, and know the object.
They put carriers where the flush looks for values; ``after_insert`` and ``after_update``, or the rollback of
a flush that failed, put the values back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import Connection, Table, event
from sqlalchemy.orm import Mapper, Session, SessionTransaction, attributes, object_session
from sqlalchemy.sql.elements import ClauseElement, Null

from fieldvault.errors import UnsupportedQuery
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import binding_of
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.statements import default_of
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["carry_insert", "carry_update", "put_back"]

_PENDING = "fieldvault: values of objects in flush"

_Pending = dict[int, list[tuple[dict[str, Any], str, Carrier]]]
"""By the identity of the object: its values, which of them, and the carrier in its place."""


def carry_insert(mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Listener of ``before_insert``."""
    scope = _key_scope(mapper)
    for name in (scope.tenant, scope.subject):
        # A default that SQLAlchemy would call at the statement comes too late to choose the keys.
        if name is not None and getattr(target, name) is None:
            value = next(
                (made for column in mapper.attrs[name].columns if (made := default_of(column)) is not None),
                None,
            )
            if value is not None:
                setattr(target, name, value)
    for key, column in _encrypted(mapper):
        if key not in attributes.instance_dict(target):
            value = default_of(column)
            if value is not None:
                setattr(target, key, value)
    _carry(mapper, target, [key for key, _ in _encrypted(mapper)])


def carry_update(mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Listener of ``before_update``.

    A row that moves to another tenant or subject has all its values sealed anew.
    """
    scope = _key_scope(mapper)
    state = attributes.instance_state(target)
    keys = [key for key, _ in _encrypted(mapper)]
    moved = any(
        name is not None and state.attrs[name].history.deleted for name in (scope.tenant, scope.subject)
    )
    if moved:
        for key in keys:
            if getattr(target, key) is not None:
                attributes.flag_modified(target, key)
    else:
        keys = [key for key in keys if state.attrs[key].history.has_changes()]
    _carry(mapper, target, keys)


def put_back(mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Listener of ``after_insert`` and ``after_update``: the object has its values again."""
    session = object_session(target)
    if session is not None:
        _restore(session.info.get(_PENDING, {}).pop(id(target), ()))


def _encrypted(mapper: Mapper[Any]) -> Iterator[tuple[str, Any]]:
    for attribute in mapper.column_attrs:
        for column in attribute.columns:
            if isinstance(column.type, Encrypted):
                yield attribute.key, column


def _key_scope(mapper: Mapper[Any]) -> KeyScope:
    scope = getattr(mapper.class_, "__vault__", None)
    return scope if isinstance(scope, KeyScope) else KeyScope()


def _carry(mapper: Mapper[Any], target: Any, keys: list[str]) -> None:
    values = attributes.instance_dict(target)
    table = cast(Table, mapper.local_table)
    binding = binding_of(table.metadata)
    chosen = [key for key in keys if values.get(key) is not None and values[key].__class__ is not Carrier]
    if not chosen:
        return
    for key in chosen:
        value = values[key]
        if hasattr(value, "__clause_element__") or (
            isinstance(value, ClauseElement) and not isinstance(value, Null)
        ):
            raise UnsupportedQuery(
                f"{mapper.class_.__name__}.{key} is encrypted, so the database cannot compute it; "
                f"assign a value"
            )
    scope = _key_scope(mapper)
    tenant, subject = binding.scope_of_row(
        binding.scopes.get(table),
        getattr(target, scope.tenant) if scope.tenant is not None else None,
        getattr(target, scope.subject) if scope.subject is not None else None,
        table.name,
    )
    pending = _pending(cast(Session, object_session(target))).setdefault(id(target), [])
    for key in chosen:
        carrier = Carrier(values[key], tenant, subject)
        pending.append((values, key, carrier))
        values[key] = carrier


def _pending(session: Session) -> _Pending:
    pending = session.info.get(_PENDING)
    if pending is None:
        pending = session.info[_PENDING] = {}
        event.listen(session, "after_soft_rollback", _flush_failed)
    return cast(_Pending, pending)


def _flush_failed(session: Session, transaction: SessionTransaction) -> None:
    pending = session.info.get(_PENDING, {})
    for carried in pending.values():
        _restore(carried)
    pending.clear()


def _restore(carried: Any) -> None:
    for values, key, carrier in carried:
        if values.get(key) is carrier:
            values[key] = carrier.value

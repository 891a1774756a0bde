"""From what a column type takes to what can be sealed, and back.

``Encrypted(Numeric)`` behaves as ``Numeric``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import types as sql
from sqlalchemy.engine import Dialect

from fieldvault.errors import ConfigurationError, UnsupportedValue

__all__ = ["Coercion", "check_type", "coercion_of", "inner_type"]

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Coercion:
    """``into`` makes a bound value sealable, or refuses it; ``out`` undoes it.

    ``out`` is ``None`` where nothing is to undo. Values of exactly the class ``as_is`` need no ``into``.
    """

    into: Convert
    out: Convert | None = None
    as_is: type | None = None


class _Refused(Exception):
    """A value is not of the column's type."""


def _exactly(cls: type, *accepted: type, convert: Convert | None = None) -> Convert:
    """Values of ``cls`` as they are, of its subclasses and of ``accepted`` converted; nothing else."""
    make = cls if convert is None else convert

    def into(value: Any) -> Any:
        if type(value) is cls:
            return value
        if isinstance(value, (cls, *accepted)):
            return make(value)
        raise _Refused

    return into


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    if type(value) is int and value in (0, 1):
        return value == 1
    raise _Refused


def _date(value: Any) -> date:
    if type(value) is date:
        return value
    if isinstance(value, datetime):
        return value.date()
    raise _Refused


def _decimal(value: Any) -> Decimal:
    # A float's shortest text is the number that was meant, as the stock type takes it too.
    return Decimal(repr(value) if isinstance(value, float) else value)


def _text(value: str) -> str:
    return str.__str__(value)


def _json(value: Any) -> Any:
    # Subclasses of dict and list are how applications see changes within a value (sqlalchemy.ext.mutable).
    if isinstance(value, dict):
        return value if type(value) is dict else dict(value)
    if isinstance(value, list | tuple):
        return value if type(value) is list else list(value)
    if isinstance(value, str):
        return _text(value)
    if type(value) in (int, float, bool):
        return value
    raise _Refused


def _numeric(type_: Any) -> Coercion:
    if type_.asdecimal:
        return Coercion(_exactly(Decimal, int, float, convert=_decimal))
    return Coercion(_exactly(float, int, Decimal))


def _uuid(type_: sql.Uuid[Any]) -> Coercion:
    return Coercion(_exactly(uuid.UUID) if type_.as_uuid else _exactly(str, convert=_text))


def _enum(type_: sql.Enum) -> Coercion:
    cls = type_.enum_class
    members = {} if cls is None else cls.__members__
    names: dict[Any, str] = {name: name for name in members or type_.enums}
    for member in members.values():
        # Also by what equals a member, as the stock type takes it; a name comes first.
        names.setdefault(member, member.name)

    def into(value: Any) -> str:
        name = names[value.name if cls is not None and isinstance(value, cls) else value]
        return _text(name)

    def out(name: Any) -> Any:
        member = members.get(name)
        if member is None:
            raise UnsupportedValue(
                f"the enumeration {type_.name or cls} lacks the member that was stored: keep old members"
            )
        return member

    return Coercion(into, None if cls is None else out)


# The first that fits decides: an Enum is a String to SQLAlchemy, a Float a Numeric.
_FAMILIES: tuple[tuple[type[sql.TypeEngine[Any]], Callable[[Any], Coercion]], ...] = (
    (sql.Interval, lambda _: Coercion(_exactly(timedelta))),
    (sql.Enum, _enum),
    (sql.String, lambda _: Coercion(_exactly(str, convert=_text), as_is=str)),
    (sql.Boolean, lambda _: Coercion(_boolean)),
    (sql.Integer, lambda _: Coercion(_exactly(int))),
    (sql.Float, _numeric),
    (sql.Numeric, _numeric),
    (sql.DateTime, lambda _: Coercion(_exactly(datetime))),
    (sql.Date, lambda _: Coercion(_date)),
    (sql.Time, lambda _: Coercion(_exactly(time))),
    (sql.Uuid, _uuid),
    (sql.JSON, lambda _: Coercion(_json)),
    (sql.LargeBinary, lambda _: Coercion(_exactly(bytes, bytearray, memoryview))),
)


def _family(type_: sql.TypeEngine[Any]) -> Coercion:
    for family, make in _FAMILIES:
        if isinstance(type_, family):
            return make(type_)
    raise ConfigurationError(
        f"Encrypted({type(type_).__name__}): there is no encoding for this type; "
        "there is one for text, bytes, numbers, dates and times, intervals, UUIDs, enumerations and JSON"
    )


def inner_type(type_: sql.TypeEngine[Any]) -> sql.TypeEngine[Any]:
    """What a type of the application's own wraps; any other type as it is."""
    decorated = isinstance(type_, sql.TypeDecorator) and not isinstance(type_, sql.Interval)
    return type_.impl_instance if decorated else type_  # type: ignore[attr-defined]


def check_type(type_: sql.TypeEngine[Any]) -> None:
    """Refuse a type that cannot be encrypted.

    Raises:
        ConfigurationError: no encoding for its values.
    """
    if isinstance(type_, sql.PickleType):
        raise ConfigurationError("Encrypted(PickleType): pickles run code when they are read; use JSON")
    _family(inner_type(type_))


def coercion_of(type_: sql.TypeEngine[Any], field: str, dialect: Dialect) -> Coercion:
    """How the values of a column of ``type_`` are sealed and given back.

    A ``TypeDecorator`` of the application's own does its part before sealing and after opening.
    """
    if isinstance(type_, sql.TypeDecorator) and not isinstance(type_, sql.Interval):
        decorator, inner = type_, _family(type_.impl_instance)
        undo, into, out = inner.out, inner.into, inner.out
        if _overrides(decorator, "process_result_value"):

            def out(value: Any) -> Any:
                return decorator.process_result_value(value if undo is None else undo(value), dialect)

        if _overrides(decorator, "process_bind_param"):

            def into(value: Any) -> Any:
                stored = decorator.process_bind_param(value, dialect)
                return None if stored is None else inner.into(stored)

        return Coercion(_naming(into, field, type_), out)
    plain = _family(type_)
    return Coercion(_naming(plain.into, field, type_), plain.out, plain.as_is)


def _overrides(type_: sql.TypeDecorator[Any], method: str) -> bool:
    """Whether a type of the application's own does this part itself; it may leave either to what it wraps."""
    return getattr(type(type_), method) is not getattr(sql.TypeDecorator, method)


def _naming(into: Convert, field: str, type_: sql.TypeEngine[Any]) -> Convert:
    """``into`` with an error that names field, type and the value's class, never the value."""

    def checked(value: Any) -> Any:
        try:
            return into(value)
        except Exception:  # noqa: BLE001 - whatever an application's type says of a value may quote it
            kind = type(value).__name__
        raise UnsupportedValue(f"{field} is Encrypted({type(type_).__name__}) and takes no {kind}")

    return checked

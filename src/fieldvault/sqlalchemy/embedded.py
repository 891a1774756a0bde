"""The values that stand in a statement itself, as ``values(…)`` and ``ordered_values(…)`` put them there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from sqlalchemy import Insert, Table, Update
from sqlalchemy.sql.elements import BindParameter, ClauseElement, Null
from sqlalchemy.types import NullType
from sqlalchemy.util import immutabledict

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["Embedded", "is_null", "type_of"]

Row = Mapping[str, Any]


class Embedded:
    """The values in a statement by column key, however they were written.

    Raises:
        UnsupportedQuery: an encrypted column gets what the database would compute, or what is typed so that
            it would pass unsealed.
    """

    def __init__(self, statement: Insert | Update, table: Any) -> None:
        self._statement = statement
        self._ordered = getattr(statement, "_ordered_values", None)
        self._read(self._ordered or (statement._values or {}).items(), table)

    @classmethod
    def of_row(cls, row: Mapping[Any, Any], table: Table) -> Self:
        """The same of one row of ``values([…])``."""
        made = cls.__new__(cls)
        made._read(row.items(), table, rows_apart=True)
        return made

    def _read(self, pairs: Iterable[tuple[Any, Any]], table: Any, *, rows_apart: bool = False) -> None:
        self._table = table
        self._given: dict[str, tuple[Any, Any]] = {}
        self.encrypted: dict[str, Encrypted] = {}
        for key, value in pairs:
            name = key if isinstance(key, str) else str(key.key)
            if name in self._given:
                raise UnsupportedQuery(f"the statement sets two columns called {name!r}; send two statements")
            self._given[name] = (key, value)
            type_ = type_of(key, table)
            if type_ is None and isinstance(getattr(_column_of(value), "type", None), Encrypted):
                raise UnsupportedQuery(
                    f"{value} is encrypted and opens where it is only, and {name} would be given its "
                    "ciphertext; load the value and assign that"
                )
            if type_ is not None:
                self.encrypted[name] = type_
                if rows_apart and _is_named(value):
                    raise UnsupportedQuery(
                        f"{type_.field} is encrypted, and in insert().values([…]) its values stand in the "
                        "list itself; pass rows to execute() instead"
                    )
                if not _is_value(value, type_):
                    raise UnsupportedQuery(
                        f"{type_.field} is encrypted, so the database cannot compute it; compute it in "
                        f"Python and pass the value, without a type of its own"
                    )

        taken = [value.key for _, value in self._given.values() if _is_named(value)]
        for name, type_ in self.encrypted.items():
            value = self._given[name][1]
            if _is_named(value) and taken.count(value.key) > 1:
                raise UnsupportedQuery(
                    f"{type_.field} is encrypted and shares the parameter {value.key!r} with another column; "
                    "give each a parameter of its own"
                )

    @property
    def is_empty(self) -> bool:
        """Whether the statement holds no values: its rows have them all."""
        return not self._given

    def values_with(self, row: Row) -> Row:
        """A whole row: these values, and those of a row of parameters."""
        if not self._given:
            return row
        return {**self.literals(), **self.supplied(row)}

    def literals(self) -> Row:
        """These values without a row."""
        return {name: _plain(value) for name, (_, value) in self._given.items()}

    def supplied(self, row: Row) -> Row:
        """What a row of parameters supplies, by column key."""
        named = self._named()
        return {**row, **{name: row[key] for name, key in named.items() if key in row}} if named else row

    def places(self, put: Row) -> Row:
        """``put``, by column key, as parameters."""
        named = self._named()
        return {named.get(name, name): value for name, value in put.items()} if named else put

    def by_name(self, put: Row) -> dict[Any, Any]:
        """``put``, by column key, under the keys that were written."""
        return {self._given[name][0] if name in self._given else name: value for name, value in put.items()}

    def replaced(self, put: Row) -> Any:
        """The statement with these values in it."""
        if not put:
            return self._statement
        changed = dict(self._given)
        for name, value in put.items():
            key, former = self._given.get(name, (None, None))
            changed[name] = (self._table.c[name] if key is None else key, _bind(value, former))
        return self._with(changed)

    def without_encrypted(self) -> Any:
        """The statement without those values that are to be carried by its rows."""
        kept = {
            name: pair
            for name, pair in self._given.items()
            if name not in self.encrypted or name in self._named() or _plain(pair[1]) is None
        }
        return self._statement if len(kept) == len(self._given) else self._with(kept)

    def _with(self, values: Mapping[str, tuple[Any, Any]]) -> Any:
        made: Any = self._statement._generate()
        if self._ordered:
            made._ordered_values = list(values.values())
        else:
            made._values = immutabledict(values.values())
        return made

    def _named(self) -> dict[str, str]:
        """The parameters that the application named itself, by column key."""
        return {name: value.key for name, (_, value) in self._given.items() if _is_named(value)}


def _column_of(value: Any) -> Any:
    made = getattr(value, "__clause_element__", None)
    return value if made is None else made()


def _is_named(value: Any) -> bool:
    """Whether the application named this parameter, and may give its value when the statement is executed."""
    return isinstance(value, BindParameter) and not value.unique


def is_null(value: Any) -> bool:
    """Whether NULL stands there for good, and no parameter that gets its value, or its type, elsewhere."""
    if isinstance(value, BindParameter):
        return bool(value.unique) and not value.required and value.callable is None and value.value is None
    return value is None or isinstance(value, Null)


def _is_value(value: Any, type_: Encrypted) -> bool:
    if isinstance(value, BindParameter):
        # A parameter with a type of its own keeps it, and would reach the database as it is.
        return value.type._isnull or value.type is type_
    return isinstance(value, Null) or not (
        isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")
    )


def type_of(key: Any, table: Any) -> Encrypted | None:
    """The type of a column that a statement writes, named as it names it, if that is encrypted."""
    column = key
    if isinstance(key, str):
        # By the key, or by the name in the database: SQLAlchemy writes a key that it does not know as is.
        column = table.c.get(key, next((each for each in table.c if each.name == key), None))
    type_ = getattr(column, "type", None)
    return type_ if isinstance(type_, Encrypted) else None


def _plain(value: Any) -> Any:
    if isinstance(value, BindParameter):
        return value.effective_value
    return None if isinstance(value, Null) else value


def _bind(value: Any, former: Any) -> Any:
    if isinstance(former, BindParameter):
        return former._with_value(value, maintain_key=True)  # type: ignore[no-untyped-call]
    return BindParameter(None, value, type_=NullType(), unique=True)

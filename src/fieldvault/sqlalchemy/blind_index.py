"""``BlindIndex``: the column that an encrypted column is searched by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from sqlalchemy import Column, LargeBinary, Table, event
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from fieldvault.errors import ConfigurationError, UnsupportedQuery
from fieldvault.search.normalize import normalizer
from fieldvault.search.tokens import MAX_BITS, IndexSpec
from fieldvault.sqlalchemy.binding import Binding, binding_of, encrypted_columns
from fieldvault.sqlalchemy.carrier import Sealed

__all__ = ["BlindIndex", "BoundIndex", "indexes_of"]


class BlindIndex(TypeDecorator[bytes]):
    """A column of tokens of one encrypted column, or of several, so that equal values can be found.

    ``of`` is the attribute, or the attributes, that it indexes. ``normalize`` says what counts as equal: a
    normalizer of ``fieldvault.search``, its name, or a function from a value to text or ``None``; for several
    attributes one for each. ``bits`` shortens the tokens, so that different values share one. ``name`` pins
    the name that tokens are bound to, by default ``table.column``: pin it before you rename either.

    The column is filled wherever the encrypted columns are written, and never by the application. ``==``,
    ``!=`` and ``in_`` of an encrypted column use it.

    It shows whoever reads the database which rows of a tenant have equal values, and how many do
    (docs/search.md).

    Raises:
        ConfigurationError: an argument that cannot work.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(
        self,
        of: str | Sequence[str],
        *,
        normalize: Any = "exact",
        bits: int = MAX_BITS,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.of = (of,) if isinstance(of, str) else tuple(of)
        each = isinstance(normalize, list | tuple)
        self.normalize = tuple(map(normalizer, normalize if each else (normalize,) * len(self.of)))
        self.bits = bits
        self.name = name
        # Refuses what can be refused before there is a table.
        self.spec = self._spec_for(self.of, "index" if name is None else name)

    def __repr__(self) -> str:
        of = self.of[0] if len(self.of) == 1 else self.of
        names = [each.name for each in self.normalize]
        parts = [repr(of), f"normalize={names[0] if len(names) == 1 else tuple(names)!r}"]
        if self.spec.is_truncated:
            parts.append(f"bits={self.bits}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        return f"BlindIndex({', '.join(parts)})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Of a size that every database can index."""
        return dialect.type_descriptor(
            LargeBinary().with_variant(VARBINARY(self.spec.size), "mysql", "mariadb")
        )

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:  # noqa: ARG002
        """Lets through what was made of values, and nothing else."""

        def process(value: Any) -> Any:
            if value is None:
                return None
            if value.__class__ is Sealed:
                return value[0]
            raise UnsupportedQuery(
                "the column of a blind index is filled from the columns that it indexes; write those"
            )

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:  # noqa: ARG002
        """The token, as ``bytes``."""
        return lambda value: None if value is None else bytes(value)

    def literal_processor(self, dialect: Dialect) -> NoReturn:  # noqa: ARG002
        """Refused: a token stands in the text of no statement."""
        raise UnsupportedQuery("a token of a blind index is never written as a literal")

    def _spec_for(self, fields: Sequence[str], name: str) -> IndexSpec:
        return IndexSpec(fields, name, self.normalize, self.bits)

    def _set_parent(self, parent: Any, outer: bool = False, **kw: Any) -> None:
        super()._set_parent(parent, outer=outer, **kw)
        if isinstance(parent, Column):
            event.listen(parent, "after_parent_attach", _note_index)


@dataclass(frozen=True, slots=True, eq=False)
class BoundIndex:
    """A blind index of a table: its column, and the encrypted columns that it indexes."""

    binding: Binding
    table: Table
    column: Column[Any]
    sources: tuple[Column[Any], ...]
    spec: IndexSpec

    @property
    def key(self) -> str:
        """The key of its column in rows."""
        return str(self.column.key)


def indexes_of(table: Table) -> Sequence[BoundIndex]:
    """The blind indexes of a table.

    Raises:
        ConfigurationError: one names what is no encrypted column of the table.
    """
    binding = binding_of(table.metadata)
    columns = binding.index_columns.get(table)
    if columns is None:
        return ()
    known: Sequence[BoundIndex] | None = binding.indexes.get(table)
    if known is None or len(known) != len(columns):
        known = binding.indexes[table] = tuple(_bound(binding, table, column) for column in columns)
    return known


def _bound(binding: Binding, table: Table, column: Column[Any]) -> BoundIndex:
    type_ = cast(BlindIndex, column.type)
    sources = tuple(_source(binding, table, column, name) for name in type_.of)
    fields = [source.type.field for source in sources]  # type: ignore[attr-defined]
    name = f"{table.fullname}.{column.name}" if type_.name is None else type_.name
    return BoundIndex(binding, table, column, sources, type_._spec_for(fields, name))


def _source(binding: Binding, table: Table, index: Column[Any], name: str) -> Column[Any]:
    # By the attribute, as a model has it, else by the column's key.
    found = binding.attributes.get(table, {}).get(name)
    if found is None:
        found = table.c.get(name)
    if found is None or not any(found is known for known in encrypted_columns(table)):
        raise ConfigurationError(
            f"{table.name}.{index.name} is a blind index of {name!r}, which is no encrypted column there"
        )
    return found


def _note_index(column: Column[Any], table: Table) -> None:
    binding = binding_of(table.metadata)
    others = [known for known in binding.index_columns.get(table, ()) if known.key != column.key]
    binding.index_columns[table] = (*others, column)
    binding.indexes.pop(table, None)

"""``BlindIndex``: the column that an encrypted column is searched by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sqlalchemy import Column, LargeBinary, event
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from fieldvault.errors import UnsupportedQuery
from fieldvault.search.normalize import normalizer
from fieldvault.search.tokens import MAX_BITS, IndexSpec
from fieldvault.sqlalchemy.bound_index import note_index
from fieldvault.sqlalchemy.carrier import Sealed
from fieldvault.sqlalchemy.matching import IndexComparator

__all__ = ["BlindIndex"]


class BlindIndex(TypeDecorator[bytes]):
    """A column of tokens of one encrypted column, or of several, so that equal values can be found.

    ``of`` is the attribute, or the attributes, that it indexes. ``normalize`` says what counts as equal: a
    normalizer of ``fieldvault.search``, its name, or a function from a value to text or ``None``; for several
    attributes one for each. ``bits`` shortens the tokens, so that different values share one. ``name`` pins
    the name that tokens are bound to, by default ``table.column``: pin it before you rename either.
    ``partial`` says of a function that it keeps a part of a value only, as ``last(4)`` does by its nature:
    such an index answers for itself, and not for the column.

    The column is filled wherever the encrypted columns are written, and never by the application. ``==``,
    ``!=`` and ``in_`` of an encrypted column use it; of the index itself, they take what is indexed: a value,
    or a tuple of values where there are several.

    It shows whoever reads the database which rows of a tenant have equal values, and how many do
    (docs/search.md).

    Raises:
        ConfigurationError: an argument that cannot work.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = IndexComparator

    def __init__(
        self,
        of: str | Sequence[str],
        *,
        normalize: Any = "exact",
        bits: int = MAX_BITS,
        name: str | None = None,
        partial: bool = False,
    ) -> None:
        super().__init__()
        self.of = (of,) if isinstance(of, str) else tuple(of)
        each = isinstance(normalize, list | tuple)
        self.normalize = tuple(map(normalizer, normalize if each else (normalize,) * len(self.of)))
        self.bits = bits
        self.name = name
        self.partial = partial
        # Refuses what can be refused before there is a table.
        self.spec = self.spec_for(self.of, "index" if name is None else name)

    def __repr__(self) -> str:
        of = self.of[0] if len(self.of) == 1 else self.of
        names = [each.name for each in self.normalize]
        parts = [repr(of), f"normalize={names[0] if len(names) == 1 else tuple(names)!r}"]
        if self.spec.is_truncated:
            parts.append(f"bits={self.bits}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        if self.partial:
            parts.append("partial=True")
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
            if isinstance(value, Sealed):
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

    def spec_for(self, fields: Sequence[str], name: str) -> IndexSpec:
        """What its tokens are made by, once fields and name are known."""
        return IndexSpec(fields, name, self.normalize, self.bits)

    def _set_parent(self, parent: Any, outer: bool = False, **kw: Any) -> None:
        super()._set_parent(parent, outer=outer, **kw)
        if isinstance(parent, Column):
            event.listen(parent, "after_parent_attach", note_index)

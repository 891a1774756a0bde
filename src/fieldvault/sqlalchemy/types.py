"""``Encrypted``: the column type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from sqlalchemy import Column, LargeBinary, Table, Text, event
from sqlalchemy.dialects.mysql import MEDIUMBLOB, MEDIUMTEXT
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine, to_instance

from fieldvault.codecs import check_padding
from fieldvault.context import check_name
from fieldvault.errors import ConfigurationError, UnsupportedQuery
from fieldvault.sqlalchemy.binding import Binding, note_column
from fieldvault.sqlalchemy.bound import BoundColumn
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.coercion import check_type
from fieldvault.sqlalchemy.columns import check_column
from fieldvault.sqlalchemy.comparing import EncryptedComparator
from fieldvault.sqlalchemy.deterministic import check_deterministic, indexable
from fieldvault.sqlalchemy.opening import result_processor
from fieldvault.sqlalchemy.sealing import SealColumn, bind_processor, column_sealer
from fieldvault.suites import suite_named

__all__ = ["Encrypted"]


class Encrypted(TypeDecorator[Any]):
    """A column whose values are sealed under their row's own keys before they reach the driver.

    ``type_`` is the column's type as it would be without encryption; values are taken and given back as that
    type does. ``field`` pins the name that values are bound to, by default ``table.column``: pin it before
    you rename either. ``suite`` names a cipher suite, by default the vault's own choice. ``storage`` is
    ``"binary"``, or ``"text"`` for a column of text. ``padding`` fills values up to a multiple of so many
    bytes (2 to 65536), so that lengths tell less. ``bind_row`` binds each value to its row, by the primary
    key: a ciphertext that was copied to another row of the same tenant and column is refused when it is
    loaded. The key then has to be known before the row is written, and stands beside the column in whatever
    reads it. ``deterministic`` seals equal values of a tenant alike, with AES-256-SIV under the tenant's
    index key, so that the database compares, joins, groups and keeps them unique within the tenant; it shows
    whoever reads the database which rows have equal values, so read docs/search.md first. ``erased`` is what
    a reader sees in place of a value whose key was shredded: a value, or ``RAISE``.

    NULL stays NULL, and whether there is a value can be seen. One instance may be shared by several columns.

    Raises:
        ConfigurationError: an argument that cannot work.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = EncryptedComparator

    def __init__(
        self,
        type_: TypeEngine[Any] | type[TypeEngine[Any]],
        *,
        field: str | None = None,
        suite: str | None = None,
        storage: str = "binary",
        padding: int | None = None,
        bind_row: bool = False,
        deterministic: bool = False,
        erased: Any = None,
    ) -> None:
        super().__init__()
        self.type_ = to_instance(type_)
        if isinstance(self.type_, Encrypted):
            raise ConfigurationError("Encrypted(Encrypted(…)): once is enough")
        check_type(self.type_)
        if field is not None:
            check_name("field", field)
        if suite is not None:
            suite_named(suite)
        if storage not in ("binary", "text"):
            raise ConfigurationError(f'storage is "binary" or "text", not {storage!r}')
        self.field = field
        self.suite = suite
        self.storage = storage
        self.padding = check_padding(padding)
        self.bind_row = bind_row
        if deterministic:
            check_deterministic(self.type_, suite, bind_row)
        self.deterministic = deterministic
        # Not part of the statement cache's key, which needs hashable parts: the field tells columns apart
        # there.
        self._erased = erased
        self.binding: Binding | None = None
        self._pinned = field is not None
        self.table: Table | None = None
        self.key = ""

    def __repr__(self) -> str:
        parts = [repr(self.type_)]
        if self._pinned:
            parts.append(f"field={self.field!r}")
        if self.suite is not None:
            parts.append(f"suite={self.suite!r}")
        if self.storage != "binary":
            parts.append(f"storage={self.storage!r}")
        if self.padding is not None:
            parts.append(f"padding={self.padding!r}")
        if self.bind_row:
            parts.append("bind_row=True")
        if self.deterministic:
            parts.append("deterministic=True")
        return f"Encrypted({', '.join(parts)})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Large enough for what ``type_`` holds: MariaDB's plain BLOB and TEXT end at 64 KiB.

        Where equal values are to be found, of a size that it can index, if ``type_`` has a length.
        """
        fixed = indexable(self.type_, self.padding, self.storage == "text") if self.deterministic else None
        if fixed is not None:
            large: Any = Text() if self.storage == "text" else LargeBinary()
            return dialect.type_descriptor(large.with_variant(fixed, "mysql", "mariadb"))
        if self.storage == "text":
            return dialect.type_descriptor(
                Text().with_variant(MEDIUMTEXT(charset="ascii"), "mysql", "mariadb")
            )
        return dialect.type_descriptor(LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"))

    def compare_values(self, x: Any, y: Any) -> bool:
        """As ``type_`` compares; for the unit of work's question whether a value changed."""
        if x.__class__ is Carrier:
            x = x.value
        if y.__class__ is Carrier:
            y = y.value
        return self.type_.compare_values(x, y)

    @property
    def _static_cache_key(self) -> Any:
        # Tables of two metadatas may have the same names, and other vaults.
        key = super()._static_cache_key
        return (*key, self.binding) if isinstance(key, tuple) else key

    @property
    def python_type(self) -> type[Any]:
        """As ``type_``."""
        return self.type_.python_type

    def with_variant(self, type_: Any, *dialect_names: str) -> NoReturn:  # noqa: ARG002
        """Refused: on one database the column would be in the clear."""
        raise ConfigurationError(
            "Encrypted(…) is the same on every database; give the variant to the type within"
        )

    # -- from declaration to column ---------------------------------------------------------------------

    def _set_parent(self, parent: Any, outer: bool = False, **kw: Any) -> None:
        super()._set_parent(parent, outer=outer, **kw)
        if isinstance(parent, Column):
            event.listen(parent, "after_parent_attach", _give_column_its_own_type)

    def bound_to(self, column: Column[Any], table: Table) -> Encrypted:
        """This type as one column's own: under its field name, joined to the binding of its metadata."""
        bound = Encrypted.__new__(Encrypted)
        bound.__dict__.update(self.__dict__)
        bound.__dict__.pop("_static_cache_key", None)
        bound.binding = note_column(table, column)
        bound.table = table
        bound.key = str(column.key)
        bound.field = self.field if self._pinned else check_name("field", f"{table.fullname}.{column.name}")
        return bound

    # -- from value to ciphertext and back --------------------------------------------------------------

    @property
    def bound(self) -> BoundColumn:
        """The column that this type was given to.

        Raises:
            ConfigurationError: it is no column's yet.
        """
        if self.binding is None or self.field is None or self.table is None:
            raise ConfigurationError("Encrypted works as the type of a table's column only")
        return BoundColumn(
            self.binding,
            self.table,
            self.key,
            self.field,
            self.type_,
            self.suite,
            self.padding,
            self.storage == "text",
            self.bind_row,
            self.deterministic,
            self._erased,
        )

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:  # noqa: ARG002
        """Lets through what was sealed for its row."""
        return bind_processor(self.bound)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:  # noqa: ARG002
        """Opens one value, or unpacks what was opened with its row at hand."""
        return result_processor(self.bound, dialect)

    def column_sealer(self, dialect: Dialect) -> SealColumn:
        """Seals values that go into the column; made once a dialect."""
        made: SealColumn = self._cached_custom_processor(
            dialect, "fieldvault_seal", lambda _: column_sealer(self.bound, dialect)
        )
        return made

    def literal_processor(self, dialect: Dialect) -> NoReturn:  # noqa: ARG002
        """Refused: a literal in the text of a statement would be plaintext."""
        raise UnsupportedQuery(
            f"{self.field} is encrypted and is never written as a literal; pass it as a parameter"
        )


def _give_column_its_own_type(column: Column[Any], table: Table) -> None:
    if isinstance(column.type, Encrypted):
        check_column(column, table)
        column.type = column.type.bound_to(column, table)

"""``Encrypted``: the column type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sqlalchemy import Column, LargeBinary, Table, Text, event
from sqlalchemy.dialects.mysql import MEDIUMBLOB, MEDIUMTEXT
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine, to_instance

from fieldvault.batches import Place, open_many
from fieldvault.codecs import check_padding
from fieldvault.context import check_name
from fieldvault.envelope import to_text
from fieldvault.erased import RAISE
from fieldvault.errors import (
    ConfigurationError,
    FieldVaultError,
    KeyShredded,
    UnsupportedQuery,
    UnsupportedValue,
)
from fieldvault.sqlalchemy.binding import Binding, Owner, RowScope, note_column
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.cells import Erased, OpenPage, Prefetch, as_blob, finished, reading_scope
from fieldvault.sqlalchemy.coercion import check_type, coercion_of
from fieldvault.sqlalchemy.columns import check_column
from fieldvault.sqlalchemy.comparing import PresenceComparator
from fieldvault.suites import suite_named
from fieldvault.values import OpenValue, SealValue, opener, sealer
from fieldvault.vault import Vault

__all__ = ["Encrypted"]


class Encrypted(TypeDecorator[Any]):
    """A column whose values are sealed under their row's own keys before they reach the driver.

    ``type_`` is the column's type as it would be without encryption; values are taken and given back as that
    type does. ``field`` pins the name that values are bound to, by default ``table.column``: pin it before
    you rename either. ``suite`` names a cipher suite, by default the vault's own choice. ``storage`` is
    ``"binary"``, or ``"text"`` for a column of text. ``padding`` fills values up to a multiple of so many
    bytes (2 to 65536), so that lengths tell less. ``erased`` is what a reader sees in place of a value whose
    key was shredded: a value, or ``RAISE``.

    NULL stays NULL, and whether there is a value can be seen. One instance may be shared by several columns.

    Raises:
        ConfigurationError: an argument that cannot work.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = PresenceComparator

    def __init__(
        self,
        type_: TypeEngine[Any] | type[TypeEngine[Any]],
        *,
        field: str | None = None,
        suite: str | None = None,
        storage: str = "binary",
        padding: int | None = None,
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
        # Not part of the statement cache's key, which needs hashable parts: the field tells columns apart
        # there.
        self._erased = erased
        self.binding: Binding | None = None
        self._pinned = field is not None
        self.table: Table | None = None

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
        return f"Encrypted({', '.join(parts)})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Large enough for what ``type_`` holds: MariaDB's plain BLOB and TEXT end at 64 KiB."""
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
        bound.field = self.field if self._pinned else check_name("field", f"{table.fullname}.{column.name}")
        return bound

    # -- from value to ciphertext and back --------------------------------------------------------------

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Seals what is bound: under its row's scope where the row is known, else under the ambient scope."""
        binding, field, _ = self._joined()
        coercion = coercion_of(self.type_, field, dialect)
        into, as_is = coercion.into, coercion.as_is
        textual = self.storage == "text"
        vault: Vault | None = None
        seal: SealValue

        def process(value: Any) -> Any:
            nonlocal vault, seal
            if value is None:
                return None
            current = binding.current
            if current is None or current is not vault:
                current = binding.vault
                seal = self._sealer(current)
                vault = current
            try:
                if value.__class__ is Carrier:
                    tenant, subject, value = value.tenant, value.subject, value.value
                else:
                    tenant, subject = self.ambient_owner()
                if value.__class__ is not as_is:
                    value = into(value)
                    if value is None:
                        return None
                sealed = seal(value, field, tenant, subject)
                return to_text(sealed) if textual else sealed
            except UnsupportedValue as error:
                message = str(error)
                refusal: FieldVaultError = UnsupportedValue(
                    message if message.startswith(field) else f"{field}: {message}"
                )
            except FieldVaultError as error:
                refusal = error
            # A traceback that prints locals shows no plaintext: neither this frame nor those below have one.
            value = None
            raise refusal.with_traceback(None)

        return process

    def ambient_owner(self) -> Owner:
        """Tenant and subject of a value whose row is not known: the ambient ones.

        Raises:
            ScopeRequired: the model takes them from its rows, and no scope names them.
        """
        binding, _, table = self._joined()
        return binding.ambient_scope(binding.scopes.get(table), table.name)

    def page_opener(self, dialect: Dialect) -> OpenPage:
        """A function that opens a page of one column's cells, each into a tuple for the result processor.

        Rows are read this way: it costs less than value after value, and it knows what the rows say.
        """
        binding, field, table = self._joined()
        out = coercion_of(self.type_, field, dialect).out
        textual = self.storage == "text"

        def open_page(cells: Sequence[Any], places: Sequence[Place] | None, prefetch: Prefetch) -> list[Any]:
            tenant, subject = reading_scope(binding, table, binding.scopes.get(table))
            opened = open_many(
                binding.vault.ring,
                [None if cell is None else as_blob(cell, textual) for cell in cells] if textual else cells,
                field,
                tenant,
                subject,
                places=places,
                erased=self._stand_in,
                prefetch=prefetch,
            )
            if out is None and Erased not in map(type, opened):
                return [(value,) for value in opened]
            return [(finished(value, out),) for value in opened]

        return open_page

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:  # noqa: ARG002
        """Opens one value, or unpacks what ``page_opener`` has opened with its row at hand."""
        binding, field, table = self._joined()
        out = coercion_of(self.type_, field, dialect).out
        stand_in = self._stand_in
        textual = self.storage == "text"
        vault: Vault | None = None
        open_: OpenValue
        scope: RowScope | None

        def process(blob: Any) -> Any:
            nonlocal vault, open_, scope
            if blob is None:
                return None
            if blob.__class__ is tuple:
                # No driver gives a tuple for a cell of bytes or text: a page has been opened already.
                return blob[0]
            current = binding.current
            if current is None or current is not vault:
                current = binding.vault
                open_, scope = opener(current.ring), binding.scopes.get(table)
                vault = current
            tenant, subject = reading_scope(binding, table, scope)
            try:
                value = open_(as_blob(blob, textual), field, tenant, subject)
            except KeyShredded as shredded:
                return finished(stand_in(shredded), None)
            return value if out is None else out(value)

        return process

    def _stand_in(self, shredded: KeyShredded) -> Erased:
        if self._erased is RAISE:
            raise shredded
        return Erased(self._erased)

    def literal_processor(self, dialect: Dialect) -> NoReturn:  # noqa: ARG002
        """Refused: a literal in the text of a statement would be plaintext."""
        raise UnsupportedQuery(
            f"{self.field} is encrypted and is never written as a literal; pass it as a parameter"
        )

    def _sealer(self, vault: Vault) -> SealValue:
        return sealer(
            vault.ring, vault.suite if self.suite is None else suite_named(self.suite), self.padding
        )

    def _joined(self) -> tuple[Binding, str, Table]:
        if self.binding is None or self.field is None or self.table is None:
            raise ConfigurationError("Encrypted works as the type of a table's column only")
        return self.binding, self.field, self.table


def _give_column_its_own_type(column: Column[Any], table: Table) -> None:
    if isinstance(column.type, Encrypted):
        check_column(column, table)
        column.type = column.type.bound_to(column, table)

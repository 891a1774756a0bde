"""Cells of encrypted columns on their way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from fieldvault.batches import Place
from fieldvault.envelope import from_text
from fieldvault.errors import MalformedCiphertext
from fieldvault.sqlalchemy.binding import Binding, RowScope

__all__ = ["Erased", "OpenPage", "Prefetch", "as_blob", "finished", "reading_scope"]

Prefetch = Callable[[], None]
"""Fetches the keys of everything that a page holds, for a page opener that misses one."""

OpenPage = Callable[[Sequence[Any], Sequence[Place] | None, Prefetch], list[Any]]
"""``(cells, what their rows say, prefetch)`` to the values, each in a tuple of one."""


def reading_scope(binding: Binding, table: Table, scope: RowScope | None) -> Place:
    """The tenant and the subject that a value has to belong to; ``None`` where its row says it, or nobody."""
    ambient = binding.vault.ambient.get()
    tenant, subject = ambient.tenant, ambient.subject
    if scope is not None and scope.subject is None:
        subject = None
    if tenant is None and (scope is None or scope.tenant is None):
        tenant = binding.ambient_tenant(table.name)
    return tenant, subject


@dataclass(frozen=True, slots=True)
class Erased:
    """Stands for a value whose key was shredded, until the column's own stand-in takes its place."""

    stand_in: Any


def finished(value: Any, out: Callable[[Any], Any] | None) -> Any:
    """What the application gets: a value in its column's own form, or what stands in for it."""
    if value.__class__ is Erased:
        # Rows that share one dictionary would share what the application then writes into it.
        return deepcopy(value.stand_in) if isinstance(value.stand_in, dict | list) else value.stand_in
    return value if value is None or out is None else out(value)


def as_blob(cell: Any, textual: bool) -> bytes:
    """The ciphertext in a cell.

    Raises:
        MalformedCiphertext: something else is there, such as plaintext from before the column was encrypted.
    """
    if cell.__class__ is bytes and not textual:
        return cell
    if textual and isinstance(cell, str):
        return from_text(cell)
    if not textual and isinstance(cell, bytearray | memoryview):
        return bytes(cell)
    form = "text" if textual else "binary"
    raise MalformedCiphertext(f"what is stored is {type(cell).__name__} and no ciphertext in {form} form")

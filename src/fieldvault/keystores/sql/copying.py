"""What ``SQLKeyStore`` writes while it is the unfinished copy of another store (see ``Portable``).

The mark of such a store is its generation, which is below 0: whoever comes to use a key reads that number
first, or raises it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, tuple_, update

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import Fence, KeyRecord
from fieldvault.keystores.merging import behind_fence, destroyed, merged
from fieldvault.keystores.sql.reading import UNFINISHED, missing_tenants
from fieldvault.keystores.sql.rows import batches, fence_row, key_row, record_of
from fieldvault.keystores.sql.schema import NO_SUBJECT, changes, fences, keys, meta, tenants
from fieldvault.keystores.sql.writing import raise_lease

__all__ = ["begin", "finish", "take_over"]

_CHANGEABLE = ("state", "wrapped", "uses", "active")


def begin(connection: Connection) -> bool:
    """See ``Portable.begin_copy``."""
    generation = _locked_generation(connection)
    if generation == UNFINISHED:
        return True
    if generation != 0 or any(
        connection.scalar(select(func.count()).select_from(table)) for table in (keys, fences)
    ):
        return False
    _set_generation(connection, UNFINISHED)
    return True


def take_over(connection: Connection, records: Sequence[KeyRecord], fenced: Sequence[Fence]) -> int:
    """See ``Portable.take_over``."""
    _require_unfinished(connection)
    for names in batches(sorted({key.tenant for key in records} | {fence.tenant for fence in fenced})):
        missing = missing_tenants(connection, set(names))
        if missing:
            connection.execute(insert(tenants), [{"tenant": tenant} for tenant in sorted(missing)])
    return _take_fences(connection, fenced) + _take_records(connection, records)


def finish(connection: Connection, *, generation: int, milliseconds: int) -> None:
    """See ``Portable.finish_copy``."""
    _require_unfinished(connection)
    # A store that has begun at 0 is told apart from one that has never been written to.
    reached = max(generation, 1)
    _set_generation(connection, reached)
    everything = {
        "generation": reached,
        "tenant": NO_SUBJECT,
        "subject": NO_SUBJECT,
        "whole_tenant": True,
    }
    connection.execute(insert(changes).values(everything))
    raise_lease(connection, milliseconds)


def _locked_generation(connection: Connection) -> int:
    # Held to the end: two copies into one store go on one after the other, step by step.
    query = select(meta.c.value).where(meta.c.name == "generation").with_for_update()
    generation: int = connection.execute(query).scalar_one()
    return generation


def _require_unfinished(connection: Connection) -> None:
    if _locked_generation(connection) != UNFINISHED:
        raise KeyStoreError("the key store is no unfinished copy; it takes nothing over")


def _set_generation(connection: Connection, value: int) -> None:
    connection.execute(update(meta).where(meta.c.name == "generation").values(value=value))


def _take_fences(connection: Connection, coming: Sequence[Fence]) -> int:
    rows = {(row["tenant"], row["subject"]): row for row in map(fence_row, coming)}
    for part in batches(sorted(rows), 1_000):
        for place in _fenced(connection, part):
            del rows[place]
    if rows:
        connection.execute(insert(fences), list(rows.values()))
    # Keys that came before their fence, in an earlier pass.
    alive: list[KeyRecord] = []
    for part in batches(sorted(rows), 1_000):
        own = tuple_(keys.c.tenant, keys.c.subject).in_(part)
        alive += map(record_of, connection.execute(select(keys).where(own, keys.c.wrapped.is_not(None))))
    _change(connection, [destroyed(record) for record in alive])
    return len(rows)


def _fenced(connection: Connection, places: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    columns = (fences.c.tenant, fences.c.subject)
    return {
        (row.tenant, row.subject)
        for row in connection.execute(select(*columns).where(tuple_(*columns).in_(places)))
    }


def _take_records(connection: Connection, coming: Sequence[KeyRecord]) -> int:
    places = sorted({(record.tenant, record.subject or NO_SUBJECT) for record in coming})
    fenced = {
        (tenant, subject or None)
        for part in batches(places, 1_000)
        for tenant, subject in _fenced(connection, part)
    }
    there: Mapping[bytes, KeyRecord] = {
        bytes(row.key_id): record_of(row)
        for part in batches([record.key_id for record in coming])
        for row in connection.execute(select(keys).where(keys.c.key_id.in_(part)))
    }
    kept = [merged(there.get(record.key_id), behind_fence(record, fenced)) for record in coming]
    new = [record for record in kept if record.key_id not in there]
    other = [record for record in kept if record.key_id in there and record != there[record.key_id]]
    _change(connection, other)
    if new:
        connection.execute(insert(keys), [key_row(record) for record in new])
    return len(new) + len(other)


def _change(connection: Connection, records: Sequence[KeyRecord]) -> None:
    if not records:
        return
    # No slot may have two active keys, not even between two statements.
    for part in batches([record.key_id for record in records]):
        connection.execute(update(keys).where(keys.c.key_id.in_(part)).values(active=None))
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in _CHANGEABLE}
    statement = update(keys).where(keys.c.key_id == bindparam("which")).values(values)
    rows = [(record.key_id, key_row(record)) for record in records]
    connection.execute(
        statement,
        [{"which": key_id, **{f"new_{name}": row[name] for name in _CHANGEABLE}} for key_id, row in rows],
    )

"""What ``SQLKeyStore`` writes as the copy of another store, and once it was copied itself (``Portable``).

The mark of a store that serves nobody is its generation, which is below 0: whoever comes to use a key reads
that number first, or raises it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, tuple_, update

from fieldvault.errors import UnfinishedCopy
from fieldvault.keys.records import Fence, KeyRecord
from fieldvault.keystores.merging import behind_fence, check_slots, destroyed, locked_out, merged, one_each
from fieldvault.keystores.sql.reading import MOVED, UNFINISHED, missing_tenants, number
from fieldvault.keystores.sql.rows import batches, fence_row, key_row, record_of
from fieldvault.keystores.sql.schema import NO_SUBJECT, changes, fences, keys, meta, tenants
from fieldvault.keystores.sql.writing import raise_lease

__all__ = ["begin", "finish", "give_up", "move_away", "move_back", "take_over"]

_TOKEN_BITS = 60

_CHANGEABLE = ("state", "wrapped", "uses", "active")


def begin(connection: Connection) -> int | None:
    """See ``Portable.begin_copy``."""
    generation = _locked_generation(connection)
    if not _unfinished(generation) and (
        generation != 0
        or any(connection.scalar(select(func.count()).select_from(table)) for table in (keys, fences))
    ):
        return None
    token = secrets.randbits(_TOKEN_BITS)
    _set_generation(connection, UNFINISHED + token)
    return token


def take_over(
    connection: Connection, records: Sequence[KeyRecord], fenced: Sequence[Fence], *, token: int
) -> int:
    """See ``Portable.take_over``."""
    _require_copier(connection, token)
    for names in batches(sorted({key.tenant for key in records} | {fence.tenant for fence in fenced})):
        missing = missing_tenants(connection, set(names))
        if missing:
            connection.execute(insert(tenants), [{"tenant": tenant} for tenant in sorted(missing)])
    return _take_fences(connection, fenced) + _take_records(connection, records)


def finish(connection: Connection, *, token: int, generation: int, milliseconds: int) -> None:
    """See ``Portable.finish_copy``."""
    _require_copier(connection, token)
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


def give_up(connection: Connection) -> bool:
    """See ``Portable.give_up_copy``."""
    if not _unfinished(_locked_generation(connection)):
        return False
    for table in (keys, fences, tenants):
        connection.execute(delete(table))
    _set_generation(connection, 0)
    return True


def move_away(connection: Connection, *, token: int) -> int:
    """See ``Portable.move_away``."""
    generation = _locked_generation(connection)
    if _unfinished(generation):
        raise UnfinishedCopy
    _set(connection, "moved_by", token)
    if generation < 0:
        return generation - MOVED
    _set_generation(connection, MOVED + generation)
    return generation


def move_back(connection: Connection, *, token: int | None) -> bool:
    """See ``Portable.move_back``."""
    generation = _locked_generation(connection)
    if not MOVED <= generation < 0 or token not in (None, number(connection, "moved_by")):
        return False
    _set_generation(connection, generation - MOVED)
    return True


def _locked_generation(connection: Connection) -> int:
    # Held to the end: two copies into one store go on one after the other, step by step, and whoever found
    # the store serving is done.
    query = select(meta.c.value).where(meta.c.name == "generation").with_for_update()
    generation: int = connection.execute(query).scalar_one()
    return generation


def _unfinished(generation: int) -> bool:
    return generation < MOVED


def _require_copier(connection: Connection, token: int) -> None:
    if _locked_generation(connection) != UNFINISHED + token:
        raise locked_out()


def _set_generation(connection: Connection, value: int) -> None:
    _set(connection, "generation", value)


def _set(connection: Connection, name: str, value: int) -> None:
    connection.execute(update(meta).where(meta.c.name == name).values(value=value))


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
    coming = list(one_each(coming).values())
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
    check_slots(kept)
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

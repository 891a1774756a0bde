"""What ``SQLKeyStore`` reads: statements that each see one moment of the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, func, or_, select, true, tuple_, union
from sqlalchemy.sql.elements import ColumnElement

from fieldvault.errors import MovedAway, UnfinishedCopy
from fieldvault.keys.records import Change, Fence, KeyRecord, KeyState, Snapshot
from fieldvault.keystores.sql.rows import batches, change_of, fence_of, in_scope, record_of
from fieldvault.keystores.sql.schema import NO_SUBJECT, changes, fences, keys, meta, tenants

__all__ = [
    "MOVED",
    "PAGE",
    "UNFINISHED",
    "changes_since",
    "count",
    "fence_over",
    "generation",
    "live_or_newest",
    "missing_tenants",
    "number",
    "page_of_fences",
    "page_of_keys",
    "page_of_tenants",
    "records_of_scope",
    "require_served",
    "snapshot",
]

PAGE = 1_000

UNFINISHED = -(2**62)
"""To this the token of its copier is added, below 2^60: the generation of a store that is still being copied.

Raising it as often as it may be does not bring it to 0, nor to the next mark.
"""

MOVED = -(2**60)
"""To this its own generation is added, as long as a store is moved away."""

_LIVE = (KeyState.ACTIVE.value, KeyState.SUSPENDED.value)


def number(connection: Connection, name: str) -> int:
    """One of the store's own numbers: its generation, its longest lease."""
    return connection.scalar(select(meta.c.value).where(meta.c.name == name)) or 0


def generation(connection: Connection) -> int:
    """The fence generation.

    Raises:
        UnfinishedCopy, MovedAway: the store serves nobody.
    """
    return _served(number(connection, "generation"))


def require_served(connection: Connection) -> None:
    """Have the store serve until the end of this transaction: whoever wants to end that waits for it.

    Raises:
        UnfinishedCopy, MovedAway: it serves nobody.
    """
    query = select(meta.c.value).where(meta.c.name == "generation").with_for_update(read=True)
    _served(connection.execute(query).scalar_one())


def _served(value: int) -> int:
    if value < MOVED:
        raise UnfinishedCopy
    if value < 0:
        raise MovedAway
    return value


def changes_since(connection: Connection, since: int) -> Sequence[Change] | None:
    """See ``KeyStore.changes``."""
    query = select(changes).where(changes.c.generation > since).order_by(changes.c.generation)
    told = [change_of(row) for row in connection.execute(query)]
    # No tenant's name is empty: such a row says that everything before it happened in another store.
    return None if any(not change.tenant for change in told) else told


def count(connection: Connection) -> int:
    """How many keys there are, in a store that serves."""
    generation(connection)
    return connection.scalar(select(func.count()).select_from(keys)) or 0


def snapshot(connection: Connection, conditions: Iterable[ColumnElement[bool]]) -> Snapshot:
    """The keys that meet a condition, their parents, and the generation: one statement a condition."""
    seen: int | None = None
    records: dict[bytes, KeyRecord] = {}
    for condition in conditions:
        for row in connection.execute(_with_generation(condition)):
            # The lowest of several reads: whoever caches these keys must not believe to have seen more.
            seen = row.value if seen is None else min(seen, row.value)
            if row.key_id is not None:
                record = record_of(row)
                records[record.key_id] = record
    return Snapshot(generation(connection) if seen is None else _served(seen), records)


def _with_generation(condition: ColumnElement[bool]) -> Select[Any]:
    wanted = select(keys).where(condition)
    chosen = wanted.with_only_columns(keys.c.parent).where(keys.c.parent.is_not(None)).subquery("chosen")
    parent = keys.alias("parent")
    parents = select(parent).where(parent.c.key_id.in_(select(chosen.c.parent)))
    found = union(wanted, parents).subquery("found")
    return (
        select(meta.c.value, found)
        .select_from(meta.outerjoin(found, true()))
        .where(meta.c.name == "generation")
    )


def live_or_newest() -> ColumnElement[bool]:
    """The keys of a slot that say how it stands: active, suspended, or the newest."""
    other = keys.alias("other")
    newest = (
        select(func.max(other.c.version))
        .where(
            other.c.tenant == keys.c.tenant,
            other.c.subject == keys.c.subject,
            other.c.purpose == keys.c.purpose,
        )
        .scalar_subquery()
    )
    return or_(keys.c.state.in_(_LIVE), keys.c.version == newest)


def fence_over(connection: Connection, tenant: str, subject: str | None) -> Row[Any] | None:
    """The fence of a scope, or else of its tenant."""
    query = select(fences).where(
        fences.c.tenant == tenant, fences.c.subject.in_({NO_SUBJECT, subject or NO_SUBJECT})
    )
    return connection.execute(query.order_by(fences.c.subject.desc())).first()


def records_of_scope(connection: Connection, tenant: str, subject: str | None) -> list[KeyRecord]:
    """A scope's keys by purpose and version."""
    query = select(keys).where(in_scope(tenant, subject)).order_by(keys.c.purpose, keys.c.version)
    return [record_of(row) for row in connection.execute(query)]


def page_of_keys(connection: Connection, tenant: str, after: KeyRecord | None) -> list[KeyRecord]:
    """The next keys of a tenant and its subjects, by subject, purpose and version."""
    order = (keys.c.subject, keys.c.purpose, keys.c.version)
    query = select(keys).where(keys.c.tenant == tenant).order_by(*order).limit(PAGE)
    if after is not None:
        place = (after.subject or NO_SUBJECT, after.purpose.value, after.version)
        query = query.where(tuple_(*order) > place)
    return [record_of(row) for row in connection.execute(query)]


def page_of_tenants(connection: Connection, after: str | None) -> Sequence[str]:
    """The next tenants that have a key or a fence; of some a row is left that was refused both."""
    lasting = or_(
        exists().where(keys.c.tenant == tenants.c.tenant), exists().where(fences.c.tenant == tenants.c.tenant)
    )
    query = select(tenants.c.tenant).where(lasting).order_by(tenants.c.tenant).limit(PAGE)
    return connection.scalars(query if after is None else query.where(tenants.c.tenant > after)).all()


def page_of_fences(connection: Connection, after: Fence | None) -> Sequence[Fence]:
    """The next fences, by tenant and subject."""
    order = (fences.c.tenant, fences.c.subject)
    query = select(fences).order_by(*order).limit(PAGE)
    if after is not None:
        query = query.where(tuple_(*order) > (after.tenant, after.subject or NO_SUBJECT))
    return [fence_of(row) for row in connection.execute(query)]


def missing_tenants(connection: Connection, names: AbstractSet[str]) -> set[str]:
    """Those of these tenants that the store has never heard of."""
    missing = set(names)
    for part in batches(sorted(names)):
        missing.difference_update(
            connection.scalars(select(tenants.c.tenant).where(tenants.c.tenant.in_(part)))
        )
    return missing

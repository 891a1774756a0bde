"""What ``SQLKeyStore`` writes: each function is the work of one transaction.

Locks are taken in one order everywhere, tenants, then keys, then the generation, and what is decided is
decided on rows that are locked. Where two transactions meet all the same, a unique constraint refuses one of
them or the database undoes one, and it runs again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import Connection, and_, insert, select, tuple_, update

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import Change, Fence, KeySlot, KeyState, Purpose
from fieldvault.keystores.sql.reading import generation, missing_tenants, number, require_served
from fieldvault.keystores.sql.rows import batches, fence_row, in_scope, in_slots, key_row, record_of
from fieldvault.keystores.sql.schema import NO_SUBJECT, changes, fences, keys, meta, tenants

__all__ = ["add_active", "enter", "raise_lease", "reserve", "rewrap", "shred", "transition"]


def enter(connection: Connection, names: AbstractSet[str]) -> None:
    """Have a row for each tenant: what creators of keys and shredders lock."""
    # Asked again, within this transaction: another process may have entered some of them meanwhile.
    missing = missing_tenants(connection, names)
    if missing:
        connection.execute(insert(tenants), [{"tenant": tenant} for tenant in sorted(missing)])


def add_active(connection: Connection, additions: Sequence[Addition]) -> AbstractSet[bytes]:
    """See ``KeyStore.add_active``."""
    # Shared by creators, exclusive for a shred: whichever commits first, the other sees it.
    for names in batches(sorted({addition.record.tenant for addition in additions})):
        locked = select(tenants).where(tenants.c.tenant.in_(names)).order_by(tenants.c.tenant)
        connection.execute(locked.with_for_update(read=True)).all()
    _lock_active(connection, {each.replaces for each in additions if each.replaces is not None})
    for part in batches(additions):
        _refuse_fenced(connection, {(each.record.tenant, each.record.subject) for each in part})
    chosen: list[Addition] = []
    for part in batches(additions):
        active, newest = _filled(connection, [each.record.slot for each in part])
        chosen += [
            each
            for each in part
            if active.get(each.record.slot) == each.replaces
            and newest.get(each.record.slot, 0) < each.record.version
        ]
    replaced = [each for each in chosen if each.replaces is not None]
    for part in batches(replaced):
        retired = {"state": KeyState.RETIRED.value, "active": None}
        ids = [each.replaces for each in part]
        connection.execute(update(keys).where(keys.c.key_id.in_(ids)).values(retired))
    if chosen:
        connection.execute(insert(keys), [key_row(each.record) for each in chosen])
    if not replaced:
        # Where a key is replaced, the note below is what a store that serves nobody refuses.
        require_served(connection)
    _note(connection, [Change(each.record.tenant, each.record.subject) for each in replaced])
    return {each.record.key_id for each in chosen}


def _lock_active(connection: Connection, key_ids: AbstractSet[bytes]) -> None:
    """Have those of these keys that are active stay so until the end of this transaction."""
    for part in batches(sorted(key_ids)):
        query = select(keys.c.key_id).where(keys.c.key_id.in_(part), keys.c.active == 1)
        connection.execute(query.order_by(keys.c.key_id).with_for_update()).all()


def _refuse_fenced(connection: Connection, scopes: AbstractSet[tuple[str, str | None]]) -> None:
    places = {(tenant, NO_SUBJECT) for tenant, _ in scopes}
    places |= {(tenant, subject) for tenant, subject in scopes if subject is not None}
    fenced = connection.execute(
        select(fences.c.tenant, fences.c.subject)
        .where(tuple_(fences.c.tenant, fences.c.subject).in_(sorted(places)))
        .order_by(fences.c.tenant, fences.c.subject)
        .limit(1)
    ).first()
    if fenced is not None:
        raise KeyShredded.of_scope(fenced.tenant, fenced.subject or None)


def _filled(
    connection: Connection, slots: Sequence[KeySlot]
) -> tuple[Mapping[KeySlot, bytes], Mapping[KeySlot, int]]:
    """The active key and the newest version of each of these slots that has one."""
    active: dict[KeySlot, bytes] = {}
    newest: dict[KeySlot, int] = {}
    columns = (keys.c.tenant, keys.c.subject, keys.c.purpose, keys.c.version, keys.c.key_id, keys.c.active)
    for row in connection.execute(select(*columns).where(in_slots(slots))):
        slot = KeySlot(row.tenant, row.subject or None, Purpose(row.purpose))
        newest[slot] = max(newest.get(slot, 0), row.version)
        if row.active:
            active[slot] = row.key_id
    return active, newest


def transition(connection: Connection, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
    """See ``KeyStore.transition``."""
    locked = select(keys).where(keys.c.key_id == key_id, keys.c.state == expect.value).with_for_update()
    row = connection.execute(locked).first()
    if row is None:
        require_served(connection)
        return False
    slot = record_of(row).slot
    if to is KeyState.ACTIVE and slot in _filled(connection, [slot])[0]:
        return False
    values: dict[str, Any] = {"state": to.value, "active": 1 if to is KeyState.ACTIVE else None}
    if to is KeyState.DESTROYED:
        values["wrapped"] = None
    connection.execute(update(keys).where(keys.c.key_id == key_id).values(values))
    _note(connection, [Change(slot.tenant, slot.subject, whole_tenant=slot.subject is None)])
    return True


def reserve(
    connection: Connection, key_ids: Sequence[bytes], uses: int, *, limit: int
) -> Mapping[bytes, int]:
    """See ``KeyStore.reserve``."""
    granted: dict[bytes, int] = {}
    # In one order everywhere, so that two processes that reserve the same keys wait, and do not lock each
    # other out.
    for part in batches(sorted(set(key_ids))):
        free = and_(keys.c.key_id.in_(part), keys.c.active == 1, keys.c.uses + uses <= limit)
        rows = connection.execute(
            select(keys.c.key_id, keys.c.uses).where(free).order_by(keys.c.key_id).with_for_update()
        ).all()
        totals = {bytes(row.key_id): row.uses + uses for row in rows}
        if totals:
            connection.execute(update(keys).where(keys.c.key_id.in_(totals)).values(uses=keys.c.uses + uses))
        granted |= totals
    require_served(connection)
    return granted


def rewrap(connection: Connection, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
    """See ``KeyStore.rewrap``."""
    unchanged = and_(keys.c.key_id == key_id, keys.c.wrapped == expect)
    done = connection.execute(update(keys).where(unchanged).values(wrapped=wrapped)).rowcount == 1
    require_served(connection)
    return done


def shred(connection: Connection, fence: Fence) -> Sequence[bytes]:
    """See ``KeyStore.shred``; one transaction: the fence and the wiping happen together or not at all."""
    connection.execute(select(tenants).where(tenants.c.tenant == fence.tenant).with_for_update()).all()
    place = and_(fences.c.tenant == fence.tenant, fences.c.subject == (fence.subject or NO_SUBJECT))
    fenced = connection.scalar(select(fences.c.tenant).where(place)) is not None
    if not fenced:
        connection.execute(insert(fences).values(fence_row(fence)))
    scope = in_scope(fence.tenant, fence.subject)
    wiped = connection.execute(
        update(keys)
        .where(scope, keys.c.state != KeyState.DESTROYED.value)
        .values(state=KeyState.DESTROYED.value, wrapped=None, active=None)
    )
    if not fenced or wiped.rowcount:
        _note(connection, [Change(fence.tenant, fence.subject, whole_tenant=fence.subject is None)])
    else:
        require_served(connection)
    own = select(keys.c.key_id).where(scope).order_by(keys.c.purpose, keys.c.version)
    return [bytes(key_id) for key_id in connection.scalars(own)]


def raise_lease(connection: Connection, milliseconds: int) -> int:
    """Note a lease, if it is longer than any before; the longest."""
    shorter = and_(meta.c.name == "lease_milliseconds", meta.c.value < milliseconds)
    connection.execute(update(meta).where(shorter).values(value=milliseconds))
    return number(connection, "lease_milliseconds")


def _note(connection: Connection, touched: Sequence[Change]) -> None:
    """Raise the generation once for each scope touched.

    The row's lock, held to the end, makes the numbers appear in order.
    """
    if not touched:
        return
    connection.execute(
        update(meta).where(meta.c.name == "generation").values(value=meta.c.value + len(touched))
    )
    first = generation(connection) - len(touched) + 1
    rows = [
        {
            "generation": reached,
            "tenant": change.tenant,
            "subject": change.subject or NO_SUBJECT,
            "whole_tenant": change.whole_tenant,
        }
        for reached, change in enumerate(touched, start=first)
    ]
    connection.execute(insert(changes), rows)

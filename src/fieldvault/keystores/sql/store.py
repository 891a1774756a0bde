"""``SQLKeyStore``: the key store protocol in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    func,
    insert,
    or_,
    select,
    true,
    tuple_,
    union,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import (
    Change,
    Fence,
    KeyRecord,
    KeySlot,
    KeyState,
    Purpose,
    Snapshot,
    check_transition,
)
from fieldvault.keystores.sql.schema import NO_SUBJECT, STEPS, changes, fences, keys, meta, tenants, upgrade
from fieldvault.keystores.sql.transactions import Transactions, anchored, open_engine
from fieldvault.settings import Section

__all__ = ["SQLKeyStore"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PAGE = 1_000
_BATCH = 5_000
_LIVE = (KeyState.ACTIVE.value, KeyState.SUSPENDED.value)


class SQLKeyStore:
    """Keeps keys in five tables, ``fieldvault_*``, of a SQLite, PostgreSQL or MariaDB database.

    ``database`` is a URL, or an engine to share. Tables that are missing are made, older ones brought up to
    date. It works under each database's default isolation level: what must not interleave takes row locks,
    and unique constraints decide races. On SQLite deleted content is overwritten (``secure_delete``).
    PostgreSQL and MariaDB keep old row versions until they vacuum or purge, and every database's backups and
    logs keep more: what is wiped here is out of reach there only once its root key is destroyed.

    Raises:
        ConfigurationError: a URL that cannot work.
        KeyStoreError: the database cannot be reached, or a newer release has been here.
    """

    def __init__(self, database: str | Engine) -> None:
        engine = open_engine(database) if isinstance(database, str) else database
        self._owned = isinstance(database, str)
        self._transactions = Transactions(engine)
        self._transactions.define(lambda connection: upgrade(connection, STEPS))

    @classmethod
    def from_config(cls, section: Section) -> SQLKeyStore:
        """Open the database that a configuration names.

        ``url``, or ``url_env`` or ``url_file`` where it holds a password. The path in a SQLite URL is relative to the configuration's folder.
        """
        url = section.secret("url")
        url = section.text("url") if url is None else url
        section.finish()
        return cls(anchored(url, section.folder))

    # -- reading --------------------------------------------------------------------------------------------

    def generation(self) -> int:
        """See ``KeyStore.generation``."""
        return self._transactions.read(lambda connection: _meta(connection, "generation"))

    def changes(self, since: int) -> Sequence[Change] | None:
        """See ``KeyStore.changes``."""
        query = select(changes).where(changes.c.generation > since)
        rows = self._transactions.read(lambda connection: connection.execute(query).all())
        return [Change(row.tenant, row.subject or None, row.whole_tenant) for row in rows]

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        """See ``KeyStore.fetch``."""
        return self._snapshot(
            [keys.c.key_id.in_(key_ids[start : start + _BATCH]) for start in range(0, len(key_ids), _BATCH)]
        )

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        """See ``KeyStore.current``."""
        newest = keys.alias("newest")
        latest = (
            select(func.max(newest.c.version))
            .where(
                newest.c.tenant == keys.c.tenant,
                newest.c.subject == keys.c.subject,
                newest.c.purpose == keys.c.purpose,
            )
            .scalar_subquery()
        )
        wanted = or_(keys.c.state.in_(_LIVE), keys.c.version == latest)
        return self._snapshot(
            [and_(_in_slots(slots[start : start + _BATCH]), wanted) for start in range(0, len(slots), _BATCH)]
        )

    def fence(self, tenant: str, subject: str | None) -> Fence | None:
        """See ``KeyStore.fence``."""
        row = self._transactions.read(lambda connection: _fence(connection, tenant, subject))
        if row is None:
            return None
        return Fence(row.tenant, row.subject or None, row.actor, row.reason, _EPOCH + row.at * _MICROSECOND)

    def keys(self, tenant: str, subject: str | None) -> Sequence[KeyRecord]:
        """See ``KeyStore.keys``."""
        query = select(keys).where(_in_scope(tenant, subject)).order_by(keys.c.purpose, keys.c.version)
        return [_record(row) for row in self._rows(query)]

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        """See ``KeyStore.all_keys``."""
        place = tuple_(keys.c.subject, keys.c.purpose, keys.c.version)
        query = (
            select(keys)
            .where(keys.c.tenant == tenant)
            .order_by(keys.c.subject, keys.c.purpose, keys.c.version)
            .limit(_PAGE)
        )
        after: tuple[str, str, int] | None = None
        while True:
            page = self._rows(query if after is None else query.where(place > after))
            yield from map(_record, page)
            if len(page) < _PAGE:
                return
            after = (page[-1].subject, page[-1].purpose, page[-1].version)

    def tenants(self) -> Iterator[str]:
        """See ``KeyStore.tenants``."""
        after: str | None = None
        while True:
            query = select(tenants.c.tenant).order_by(tenants.c.tenant).limit(_PAGE)
            page = self._read_tenants(query if after is None else query.where(tenants.c.tenant > after))
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]

    def check(self) -> str:
        """See ``KeyStore.check``."""
        count = self._transactions.read(
            lambda connection: connection.scalar(select(func.count()).select_from(keys))
        )
        return f"{self._transactions.engine.url.render_as_string(hide_password=True)}, {count} keys"

    # -- writing --------------------------------------------------------------------------------------------

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        """See ``KeyStore.add_active``."""
        self._enter({addition.record.tenant for addition in additions})
        return self._transactions.write(lambda connection: _add_active(connection, additions))

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        """See ``KeyStore.transition``."""
        check_transition(expect, to)

        def work(connection: Connection) -> bool:
            row = connection.execute(
                select(keys).where(keys.c.key_id == key_id, keys.c.state == expect).with_for_update()
            ).first()
            if row is None:
                return False
            slot = _record(row).slot
            if to is KeyState.ACTIVE and connection.scalar(
                select(keys.c.key_id).where(_in_slots([slot]), keys.c.active == 1)
            ):
                return False
            values: dict[str, Any] = {"state": to.value, "active": 1 if to is KeyState.ACTIVE else None}
            if to is KeyState.DESTROYED:
                values["wrapped"] = None
            connection.execute(update(keys).where(keys.c.key_id == key_id).values(values))
            _note(connection, [Change(slot.tenant, slot.subject, whole_tenant=slot.subject is None)])
            return True

        done = self._transactions.write(work)
        if done and to is KeyState.DESTROYED:
            self._transactions.truncate_log()
        return done

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        """See ``KeyStore.reserve``."""

        def work(connection: Connection) -> dict[bytes, int]:
            free = and_(
                keys.c.key_id.in_(key_ids), keys.c.state == KeyState.ACTIVE, keys.c.uses + uses <= limit
            )
            # In one order everywhere, so that two processes that reserve the same keys wait, and do not lock
            # each other out.
            rows = connection.execute(
                select(keys.c.key_id, keys.c.uses).where(free).order_by(keys.c.key_id).with_for_update()
            ).all()
            granted = {row.key_id: row.uses + uses for row in rows}
            connection.execute(update(keys).where(keys.c.key_id.in_(granted)).values(uses=keys.c.uses + uses))
            return granted

        return self._transactions.write(work)

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        """See ``KeyStore.rewrap``."""
        statement = (
            update(keys).where(keys.c.key_id == key_id, keys.c.wrapped == expect).values(wrapped=wrapped)
        )
        return self._transactions.write(lambda connection: connection.execute(statement).rowcount == 1)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        """See ``KeyStore.shred``.

        One transaction here: the fence and the wiping happen together or not at all.
        """
        self._enter({fence.tenant})
        scope = _in_scope(fence.tenant, fence.subject)

        def work(connection: Connection) -> list[bytes]:
            connection.execute(
                select(tenants).where(tenants.c.tenant == fence.tenant).with_for_update()
            ).all()
            subject = fence.subject or NO_SUBJECT
            fenced = connection.scalar(
                select(fences.c.at).where(fences.c.tenant == fence.tenant, fences.c.subject == subject)
            )
            if fenced is None:
                moment = (fence.at - _EPOCH) // _MICROSECOND
                connection.execute(
                    insert(fences).values(
                        tenant=fence.tenant,
                        subject=subject,
                        actor=fence.actor,
                        reason=fence.reason,
                        at=moment,
                    )
                )
            wiped = connection.execute(
                update(keys)
                .where(scope, keys.c.state != KeyState.DESTROYED)
                .values(state=KeyState.DESTROYED.value, wrapped=None, active=None)
            )
            if fenced is None or wiped.rowcount:
                _note(connection, [Change(fence.tenant, fence.subject, whole_tenant=fence.subject is None)])
            return list(
                connection.scalars(
                    select(keys.c.key_id).where(scope).order_by(keys.c.purpose, keys.c.version)
                )
            )

        destroyed = self._transactions.write(work)
        self._transactions.truncate_log()
        return destroyed

    def declare_lease(self, seconds: float) -> float:
        """See ``KeyStore.declare_lease``."""
        milliseconds = round(seconds * 1000)

        def work(connection: Connection) -> int:
            mine = meta.c.name == "lease_milliseconds"
            connection.execute(
                update(meta).where(mine, meta.c.value < milliseconds).values(value=milliseconds)
            )
            return _meta(connection, "lease_milliseconds")

        longest = self._transactions.read(lambda connection: _meta(connection, "lease_milliseconds"))
        return max(longest, self._transactions.write(work) if longest < milliseconds else 0) / 1000

    def close(self) -> None:
        """See ``KeyStore.close``; an engine that was passed in stays open."""
        if self._owned:
            self._transactions.engine.dispose()

    # -- inside ---------------------------------------------------------------------------------------------

    def _snapshot(self, conditions: Sequence[ColumnElement[bool]]) -> Snapshot:
        """The records that meet a condition, their parents, and the generation: one statement a condition."""

        def work(connection: Connection) -> Snapshot:
            generation: int | None = None
            records: dict[bytes, KeyRecord] = {}
            for condition in conditions:
                child = keys.alias("child")
                wanted = select(keys).where(condition)
                chosen = (
                    wanted.with_only_columns(keys.c.parent)
                    .where(keys.c.parent.is_not(None))
                    .subquery("chosen")
                )
                parents = select(child).where(child.c.key_id.in_(select(chosen.c.parent)))
                found = union(wanted, parents).subquery("found")
                query = (
                    select(meta.c.value, found)
                    .select_from(meta.outerjoin(found, true()))
                    .where(meta.c.name == "generation")
                )
                for row in connection.execute(query):
                    # The lowest of several reads: whoever caches these keys must not believe to have seen
                    # more.
                    generation = row.value if generation is None else min(generation, row.value)
                    if row.key_id is not None:
                        records[row.key_id] = _record(row)
            return Snapshot(_meta(connection, "generation") if generation is None else generation, records)

        return self._transactions.read(work)

    def _rows(self, query: Any) -> Sequence[Any]:
        return self._transactions.read(lambda connection: connection.execute(query).all())

    def _read_tenants(self, query: Any) -> list[str]:
        return self._transactions.read(lambda connection: list(connection.scalars(query)))

    def _enter(self, names: AbstractSet[str]) -> None:
        """Have a row for each tenant: what creators of keys and shredders lock."""
        known = self._read_tenants(select(tenants.c.tenant).where(tenants.c.tenant.in_(names)))
        for tenant in sorted(names - set(known)):
            self._transactions.write(partial(_enter, tenant=tenant))


def _enter(connection: Connection, tenant: str) -> None:
    if connection.scalar(select(tenants.c.tenant).where(tenants.c.tenant == tenant)) is None:
        connection.execute(insert(tenants).values(tenant=tenant))


def _add_active(connection: Connection, additions: Sequence[Addition]) -> set[bytes]:
    names = sorted({addition.record.tenant for addition in additions})
    # Shared by creators, exclusive for a shred: whichever commits first, the other sees it.
    connection.execute(
        select(tenants)
        .where(tenants.c.tenant.in_(names))
        .order_by(tenants.c.tenant)
        .with_for_update(read=True)
    ).all()
    for record, _ in additions:
        if _fence(connection, record.tenant, record.subject) is not None:
            raise KeyShredded.of_scope(record.tenant, record.subject)
    filled = connection.execute(
        select(
            keys.c.tenant, keys.c.subject, keys.c.purpose, keys.c.version, keys.c.key_id, keys.c.active
        ).where(_in_slots([addition.record.slot for addition in additions]))
    ).all()
    active: dict[KeySlot, bytes] = {}
    newest: dict[KeySlot, int] = {}
    for row in filled:
        slot = KeySlot(row.tenant, row.subject or None, Purpose(row.purpose))
        newest[slot] = max(newest.get(slot, 0), row.version)
        if row.active:
            active[slot] = row.key_id
    chosen = [
        (record, replaces)
        for record, replaces in additions
        if active.get(record.slot) == replaces and newest.get(record.slot, 0) < record.version
    ]
    replaced = [replaces for _, replaces in chosen if replaces is not None]
    if replaced:
        retired = (
            update(keys).where(keys.c.key_id.in_(replaced)).values(state=KeyState.RETIRED.value, active=None)
        )
        connection.execute(retired)
        _note(
            connection,
            [Change(record.tenant, record.subject) for record, replaces in chosen if replaces is not None],
        )
    if chosen:
        connection.execute(insert(keys), [_row(record) for record, _ in chosen])
    return {record.key_id for record, _ in chosen}


def _note(connection: Connection, touched: Sequence[Change]) -> None:
    """Raise the generation once for each scope touched.

    The row's lock, held to the end, makes the numbers appear in order.
    """
    connection.execute(
        update(meta).where(meta.c.name == "generation").values(value=meta.c.value + len(touched))
    )
    first = _meta(connection, "generation") - len(touched) + 1
    connection.execute(
        insert(changes),
        [
            {
                "generation": first + index,
                "tenant": each.tenant,
                "subject": each.subject or NO_SUBJECT,
                "whole_tenant": each.whole_tenant,
            }
            for index, each in enumerate(touched)
        ],
    )


def _meta(connection: Connection, name: str) -> int:
    return connection.scalar(select(meta.c.value).where(meta.c.name == name)) or 0


def _fence(connection: Connection, tenant: str, subject: str | None) -> Any:
    query = select(fences).where(
        fences.c.tenant == tenant, fences.c.subject.in_({NO_SUBJECT, subject or NO_SUBJECT})
    )
    return connection.execute(query.order_by(fences.c.subject)).first()


def _in_scope(tenant: str, subject: str | None) -> ColumnElement[bool]:
    return and_(keys.c.tenant == tenant, keys.c.subject == (subject or NO_SUBJECT))


def _in_slots(slots: Sequence[KeySlot]) -> ColumnElement[bool]:
    places = sorted({(slot.tenant, slot.subject or NO_SUBJECT, slot.purpose.value) for slot in slots})
    if len(places) == 1:
        tenant, subject, purpose = places[0]
        return and_(keys.c.tenant == tenant, keys.c.subject == subject, keys.c.purpose == purpose)
    return tuple_(keys.c.tenant, keys.c.subject, keys.c.purpose).in_(places)


def _row(record: KeyRecord) -> dict[str, Any]:
    return {
        "key_id": record.key_id,
        "tenant": record.tenant,
        "subject": record.subject or NO_SUBJECT,
        "purpose": record.purpose.value,
        "version": record.version,
        "state": record.state.value,
        "created_at": (record.created_at - _EPOCH) // _MICROSECOND,
        "parent": record.parent,
        "wrapped": record.wrapped,
        "uses": record.uses,
        "active": 1 if record.state is KeyState.ACTIVE else None,
    }


def _record(row: Any) -> KeyRecord:
    return KeyRecord(
        key_id=bytes(row.key_id),
        tenant=row.tenant,
        subject=row.subject or None,
        purpose=Purpose(row.purpose),
        version=row.version,
        state=KeyState(row.state),
        created_at=_EPOCH + row.created_at * _MICROSECOND,
        uses=row.uses,
        wrapped=None if row.wrapped is None else bytes(row.wrapped),
        parent=None if row.parent is None else bytes(row.parent),
    )

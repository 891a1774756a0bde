"""Records as rows: what the columns hold, and the conditions that find a scope or a slot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import and_, or_, tuple_
from sqlalchemy.sql.elements import ColumnElement

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import Change, Fence, KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores.sql.schema import NO_SUBJECT, keys

__all__ = [
    "batches",
    "change_of",
    "fence_of",
    "fence_row",
    "in_scope",
    "in_slots",
    "key_row",
    "record_of",
]

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BATCH = 5_000
_GROUPS = 100


def batches(items: Sequence[T], size: int = _BATCH) -> Iterator[Sequence[T]]:
    """``items`` in parts whose parameters fit into one statement of any of the databases."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_scope(tenant: str, subject: str | None) -> ColumnElement[bool]:
    """The keys of one scope."""
    return and_(keys.c.tenant == tenant, keys.c.subject == (subject or NO_SUBJECT))


def in_slots(slots: Collection[KeySlot]) -> ColumnElement[bool]:
    """The keys of these slots.

    A page has many subjects of one tenant, or many tenants: lists of one column, which every database answers
    from an index. Over a list of triples, the way that is left for odd pages, PostgreSQL takes ten times as
    long.
    """
    subjects: dict[tuple[str, str], set[str]] = {}
    for slot in slots:
        subjects.setdefault((slot.tenant, slot.purpose.value), set()).add(slot.subject or NO_SUBJECT)
    groups = [
        and_(keys.c.tenant == tenant, keys.c.purpose == purpose, keys.c.subject.in_(sorted(several)))
        for (tenant, purpose), several in subjects.items()
        if len(several) > 1
    ]
    tenants: dict[tuple[str, str], set[str]] = {}
    for (tenant, purpose), several in subjects.items():
        if len(several) == 1:
            tenants.setdefault((min(several), purpose), set()).add(tenant)
    groups += [
        and_(keys.c.subject == subject, keys.c.purpose == purpose, keys.c.tenant.in_(sorted(several)))
        for (subject, purpose), several in tenants.items()
    ]
    if len(groups) <= _GROUPS:
        return or_(*groups)
    places = sorted({(slot.tenant, slot.subject or NO_SUBJECT, slot.purpose.value) for slot in slots})
    return tuple_(keys.c.tenant, keys.c.subject, keys.c.purpose).in_(places)


def key_row(record: KeyRecord) -> dict[str, Any]:
    """The row of a key."""
    return {
        "key_id": record.key_id,
        "tenant": record.tenant,
        "subject": record.subject or NO_SUBJECT,
        "purpose": record.purpose.value,
        "version": record.version,
        "state": record.state.value,
        "created_at": _microseconds(record.created_at),
        "parent": record.parent,
        "wrapped": record.wrapped,
        "uses": record.uses,
        "active": 1 if record.state is KeyState.ACTIVE else None,
    }


def record_of(row: Any) -> KeyRecord:
    """The key of a row.

    Raises:
        KeyStoreError: it holds what this package never wrote.
    """
    try:
        return KeyRecord(
            key_id=bytes(row.key_id),
            tenant=row.tenant,
            subject=row.subject or None,
            purpose=Purpose(row.purpose),
            version=row.version,
            state=KeyState(row.state),
            created_at=_moment(row.created_at),
            uses=row.uses,
            wrapped=None if row.wrapped is None else bytes(row.wrapped),
            parent=None if row.parent is None else bytes(row.parent),
        )
    except (ValueError, OverflowError):
        pass
    raise KeyStoreError(f"the key store's record of the key {bytes(row.key_id).hex()} is damaged")


def fence_row(fence: Fence) -> dict[str, Any]:
    """The row of a fence."""
    return {
        "tenant": fence.tenant,
        "subject": fence.subject or NO_SUBJECT,
        "actor": fence.actor,
        "reason": fence.reason,
        "at": _microseconds(fence.at),
    }


def fence_of(row: Any) -> Fence:
    """The fence of a row."""
    return Fence(row.tenant, row.subject or None, row.actor, row.reason, _moment(row.at))


def change_of(row: Any) -> Change:
    """The change of a row."""
    return Change(row.tenant, row.subject or None, row.whole_tenant)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND

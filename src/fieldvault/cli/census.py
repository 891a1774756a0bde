"""Looks over the tenants and keys of a key store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice

from fieldvault.errors import KeyNotFound
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import KeyInfo, KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.lifecycle.rotating import leading

__all__ = ["Census", "Tenant", "each_tenant", "require_tenant"]

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant at a glance.

    ``data_key`` is its active data key; its suspended or its newest one where none is active; ``None`` where
    it only ever had other keys.
    """

    name: str
    shredded: bool
    data_key: KeyInfo | None


def each_tenant(store: KeyStore, named: Iterable[str] | None = None) -> Iterator[Tenant]:
    """Every tenant that ever had a key, or those that are named, read in batches."""
    names = store.tenants() if named is None else iter(named)
    while batch := list(islice(names, _BATCH)):
        slots = [KeySlot(name, None, purpose) for name in batch for purpose in Purpose]
        found: dict[str, list[KeyRecord]] = {name: [] for name in batch}
        for record in store.current(slots).records.values():
            found[record.tenant].append(record)
        for name, records in found.items():
            active = any(record.state is KeyState.ACTIVE for record in records)
            yield Tenant(
                name,
                # A shred destroys a tenant's own keys, so the fence need be read only where none is active.
                shredded=not active and store.fence(name, None) is not None,
                data_key=leading(records),
            )


def require_tenant(store: KeyStore, tenant: str) -> None:
    """Refuse a tenant that the key store never heard of, a mistyped one most likely.

    Raises:
        KeyNotFound: there is no such tenant.
    """
    if next(store.all_keys(tenant), None) is None and store.fence(tenant, None) is None:
        raise KeyNotFound(f"there is no tenant {tenant!r} in the key store")


@dataclass(slots=True)
class Census:
    """The figures of a key store, counted tenant by tenant.

    A subject counts as shredded once all its keys are destroyed. Keys of a shredded tenant's subjects count
    as destroyed: nothing opens them any more. ``index_keys`` has those of the tenants that have
    several.
    """

    tenants: int = 0
    shredded_tenants: int = 0
    subjects: int = 0
    shredded_subjects: int = 0
    keys: Counter[KeyState] = field(default_factory=Counter)
    oldest_active: datetime | None = None
    index_keys: list[list[KeyInfo]] = field(default_factory=list)

    def count(self, store: KeyStore, tenant: str) -> None:
        """Add a tenant, its subjects and all their keys."""
        shredded = store.fence(tenant, None) is not None
        self.tenants += 1
        self.shredded_tenants += shredded
        for subject, records in groupby(store.all_keys(tenant), lambda record: record.subject):
            states: set[KeyState] = set()
            index: list[KeyInfo] = []
            for record in records:
                if record.purpose is Purpose.INDEX:
                    index.append(record.info())
                state = KeyState.DESTROYED if shredded else record.state
                states.add(state)
                self.keys[state] += 1
                if state is KeyState.ACTIVE:
                    self.oldest_active = min(record.created_at, self.oldest_active or record.created_at)
            if len(index) > 1:
                self.index_keys.append(index)
            if subject is not None:
                self.subjects += 1
                self.shredded_subjects += states == {KeyState.DESTROYED}

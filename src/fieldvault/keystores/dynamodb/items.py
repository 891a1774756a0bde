"""Records as items: where each one lives, and what its attributes hold.

One table, partition key ``pk`` and sort key ``sk``, both text. Parts of either are joined by U+001F, which no
name has in it (docs/format.md, 1).

=========================  =======================  ======================================================
``pk``                     ``sk``                   what
=========================  =======================  ======================================================
``meta``                   ``head``                 the generation, and what holds for the whole store
``meta``                   ``lease``                the longest lease
``changes``                generation, 20 digits    the scope that was touched
``tenants``                tenant                   that there is such a tenant
``key``, key id            ``key``                  a key's record
``slots``, tenant          subject, purpose         a slot: its keys, which is active, which are suspended
``fences``, tenant         subject                  a fence
=========================  =======================  ======================================================

The subject of a tenant's own keys is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from fieldvault.context import check_name
from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import Change, Fence, KeyRecord, KeySlot, KeyState, Purpose

__all__ = [
    "HEAD",
    "LEASE",
    "SEPARATOR",
    "Address",
    "Item",
    "Slot",
    "change_item",
    "change_of",
    "damaged",
    "fence_address",
    "fence_item",
    "fence_of",
    "key_address",
    "key_item",
    "record_of",
    "scope_name",
    "slot_address",
    "slot_item",
    "slot_of",
    "tenant_address",
]

Item = Mapping[str, Any]

SEPARATOR = "\x1f"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Address(NamedTuple):
    """The primary key of an item."""

    pk: str
    sk: str

    @property
    def key(self) -> dict[str, Any]:
        """As the service wants it."""
        return {"pk": {"S": self.pk}, "sk": {"S": self.sk}}

    @classmethod
    def of(cls, item: Item) -> Address:
        """Where an item lives."""
        return cls(item["pk"]["S"], item["sk"]["S"])


HEAD = Address("meta", "head")
LEASE = Address("meta", "lease")


def key_address(key_id: bytes) -> Address:
    """Where the record of a key lives."""
    return Address(f"key{SEPARATOR}{key_id.hex()}", "key")


def slot_address(slot: KeySlot) -> Address:
    """Where a slot lives: beside the tenant's other slots, those of one subject together."""
    subject = "" if slot.subject is None else check_name("subject", str(slot.subject))
    tenant = check_name("tenant", slot.tenant)
    return Address(f"slots{SEPARATOR}{tenant}", f"{subject}{SEPARATOR}{slot.purpose.value}")


def fence_address(tenant: str, subject: str | None) -> Address:
    """Where the fence of a scope lives, if there is one."""
    # A sort key is not empty.
    return Address(f"fences{SEPARATOR}{check_name('tenant', tenant)}", f"{SEPARATOR}{_subject_text(subject)}")


def tenant_address(tenant: str) -> Address:
    """Where it is noted that there is such a tenant."""
    return Address("tenants", check_name("tenant", tenant))


def scope_name(tenant: str, subject: str | None) -> str:
    """A scope in one text."""
    return f"{tenant}{SEPARATOR}{_subject_text(subject)}"


def _subject_text(subject: str | None) -> str:
    return "" if subject is None else check_name("subject", str(subject))


@dataclass(frozen=True, slots=True)
class Slot:
    """What the store notes of a slot: the keys that ever filled it, and how it stands."""

    keys: frozenset[bytes] = frozenset()
    active: bytes | None = None
    suspended: frozenset[bytes] = frozenset()
    newest: bytes | None = None
    version: int = 0
    fenced: bool = False

    @property
    def telling(self) -> frozenset[bytes]:
        """The keys that say how it stands: active, suspended, newest."""
        return self.suspended | {each for each in (self.active, self.newest) if each is not None}


def slot_of(item: Item | None) -> Slot:
    """The slot of an item; an empty one where there is none."""
    if item is None:
        return Slot()
    return Slot(
        frozenset(bytes(each) for each in item.get("keys", {}).get("BS", ())),
        _bytes(item, "active"),
        frozenset(bytes(each) for each in item.get("suspended", {}).get("BS", ())),
        _bytes(item, "newest"),
        int(item["version"]["N"]) if "version" in item else 0,
        "fenced" in item,
    )


def slot_item(slot: KeySlot, state: Slot) -> Item:
    """The item of a slot."""
    item: dict[str, Any] = {**slot_address(slot).key, "version": {"N": str(state.version)}}
    for name, members in (("keys", state.keys), ("suspended", state.suspended)):
        if members:
            item[name] = {"BS": sorted(members)}
    for name, key_id in (("active", state.active), ("newest", state.newest)):
        if key_id is not None:
            item[name] = {"B": key_id}
    if state.fenced:
        item["fenced"] = {"BOOL": True}
    return item


def key_item(record: KeyRecord) -> Item:
    """The item of a key."""
    item = {
        **key_address(record.key_id).key,
        "tenant": {"S": record.tenant},
        "purpose": {"S": record.purpose.value},
        "version": {"N": str(record.version)},
        "state": {"S": record.state.value},
        "created_at": {"N": str(_microseconds(record.created_at))},
        "uses": {"N": str(record.uses)},
    }
    if record.subject is not None:
        item["subject"] = {"S": record.subject}
    for name, value in (("wrapped", record.wrapped), ("parent", record.parent)):
        if value is not None:
            item[name] = {"B": value}
    return item


def record_of(item: Item) -> KeyRecord:
    """The key of an item.

    Raises:
        KeyStoreError: it holds what this package never wrote.
    """
    try:
        return KeyRecord(
            key_id=bytes.fromhex(Address.of(item).pk.partition(SEPARATOR)[2]),
            tenant=item["tenant"]["S"],
            subject=item["subject"]["S"] if "subject" in item else None,
            purpose=Purpose(item["purpose"]["S"]),
            version=int(item["version"]["N"]),
            state=KeyState(item["state"]["S"]),
            created_at=_moment(int(item["created_at"]["N"])),
            uses=int(item["uses"]["N"]),
            wrapped=_bytes(item, "wrapped"),
            parent=_bytes(item, "parent"),
        )
    except (KeyError, ValueError, OverflowError):
        pass
    raise damaged(Address.of(item))


def fence_item(fence: Fence) -> Item:
    """The item of a fence."""
    return {
        **fence_address(fence.tenant, fence.subject).key,
        "actor": {"S": fence.actor},
        "reason": {"S": fence.reason},
        "at": {"N": str(_microseconds(fence.at))},
    }


def fence_of(item: Item) -> Fence:
    """The fence of an item."""
    address = Address.of(item)
    return Fence(
        address.pk.partition(SEPARATOR)[2],
        address.sk.partition(SEPARATOR)[2] or None,
        item["actor"]["S"],
        item["reason"]["S"],
        _moment(int(item["at"]["N"])),
    )


def change_item(generation: int, change: Change) -> Item:
    """The item of a change."""
    item = {
        **Address("changes", f"{generation:020}").key,
        "tenant": {"S": change.tenant},
        "whole_tenant": {"BOOL": change.whole_tenant},
    }
    if change.subject is not None:
        item["subject"] = {"S": change.subject}
    return item


def change_of(item: Item) -> Change:
    """The change of an item."""
    subject = item["subject"]["S"] if "subject" in item else None
    return Change(item["tenant"]["S"], subject, item["whole_tenant"]["BOOL"])


def damaged(address: Address) -> KeyStoreError:
    """The error for an item that is not as this package writes it, or not there."""
    return KeyStoreError(f"the key store's item {address.pk!r}, {address.sk!r} is damaged")


def _bytes(item: Item, name: str) -> bytes | None:
    return bytes(item[name]["B"]) if name in item else None


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND

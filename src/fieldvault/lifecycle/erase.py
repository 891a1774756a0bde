"""Erasure: the keys of a tenant or a subject destroyed, and the receipt that says what that means when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fieldvault.context import check_name
from fieldvault.errors import ConfigurationError, KeyNotFound, KeyStoreError
from fieldvault.keys.policy import MAX_SECONDS
from fieldvault.keys.records import Change, Fence, KeyState
from fieldvault.keys.ring import KeyRing

__all__ = ["ErasureReceipt", "shred"]

_LONGEST_REASON = 1000
_UNKEEPABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What a shred did: whose keys, which, who asked and why, and when the last process stops reading.

    ``fenced_at`` and ``unreadable_after`` are aware UTC times by this machine's clock. Until
    ``unreadable_after`` another process that cached a key may go on reading with it; the figure is the
    longest lease and grace that any process declared to this key store. ``key_ids`` are the keys of the scope
    itself; a tenant's shred makes the keys of its subjects unreadable as well, without naming them.

    It does not claim that copies are gone: a backup of the key store still holds the wrapped keys, and
    whoever has one *and* the root key can read on.
    """

    tenant: str
    subject: str | None
    actor: str
    reason: str
    fenced_at: datetime
    unreadable_after: datetime
    key_ids: tuple[bytes, ...]

    def as_dict(self) -> dict[str, Any]:
        """The receipt in JSON's types: key ids in lower-case hex, times in ISO 8601."""
        return {
            "tenant": self.tenant,
            "subject": self.subject,
            "actor": self.actor,
            "reason": self.reason,
            "fenced_at": self.fenced_at.isoformat(),
            "unreadable_after": self.unreadable_after.isoformat(),
            "key_ids": [key_id.hex() for key_id in self.key_ids],
        }


def shred(ring: KeyRing, tenant: str, subject: str | None, *, actor: str, reason: str) -> ErasureReceipt:
    """Fence a scope and destroy its keys, for good; asked again, it completes what was interrupted.

    Raises:
        ConfigurationError: a name that cannot be, or no actor or reason.
        KeyNotFound: the key store never heard of the tenant.
        KeyStoreError: the key store failed; ask again.
    """
    check_name("tenant", tenant)
    if subject is not None:
        check_name("subject", subject)
    check_name("actor", actor)
    _check_reason(reason)
    store = ring.store
    if store.fence(tenant, None) is None and not store.keys(tenant, None):
        raise KeyNotFound(f"there is no tenant {tenant!r} in the key store")
    now = datetime.now(UTC)
    destroyed = store.shred(Fence(tenant, subject, actor, reason, now))
    ring.cache.drop([Change(tenant, subject, whole_tenant=subject is None)])
    ring.lease.renew()
    survivors = [
        record
        for record in store.keys(tenant, subject)
        if record.state is not KeyState.DESTROYED or record.wrapped
    ]
    fence = store.fence(tenant, subject)
    if survivors or fence is None:
        raise KeyStoreError(
            f"the key store kept {len(survivors)} keys of a shredded scope, or lost its fence: it does "
            f"not keep its promises"
        )
    # No policy can declare more; a figure beyond it was written by somebody else.
    longest = timedelta(seconds=min(store.declare_lease(0), 2 * MAX_SECONDS))
    return ErasureReceipt(
        tenant=tenant,
        subject=subject,
        actor=fence.actor,
        reason=fence.reason,
        fenced_at=fence.at,
        unreadable_after=datetime.now(UTC) + longest,
        key_ids=tuple(destroyed),
    )


def _check_reason(reason: object) -> None:
    """Every key store has to be able to keep it: databases hold neither NUL nor surrogates."""
    if not isinstance(reason, str) or not reason.strip() or len(reason) > _LONGEST_REASON:
        raise ConfigurationError(f"a shred wants a reason, of 1 to {_LONGEST_REASON} characters")
    if _UNKEEPABLE.search(reason):
        raise ConfigurationError("the reason of a shred has no NUL characters and no surrogates")

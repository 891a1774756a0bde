"""Rotating a tenant's index key, while its blind indexes and deterministic columns are in use.

Three steps, each safe to repeat: ``rotate`` gives a new key, which is searched for at once and, once every
process knows it, written under; rows are rebuilt (``fieldvault.sqlalchemy.rebuild``); ``drop`` destroys the
former keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from fieldvault.errors import KeyNotFound, NotYet
from fieldvault.keys.indexing import SETTLING, settled_at
from fieldvault.keys.records import KeyInfo, KeySlot, KeyState, Purpose
from fieldvault.keys.ring import KeyRing
from fieldvault.lifecycle.states import change

__all__ = ["IndexRotation", "drop", "rotate", "rotation", "rotation_among"]


@dataclass(frozen=True, slots=True)
class IndexRotation:
    """How far the rotation of a tenant's index key has come.

    ``active`` is the key in force, ``former`` those before it that rows may be under, newest first. They are
    searched for, unless their state is suspended. From ``settled_at`` on, an aware UTC time, every process
    writes under the active one, and rows may be rebuilt.
    """

    active: KeyInfo
    former: tuple[KeyInfo, ...]
    settled_at: datetime

    @property
    def is_settled(self) -> bool:
        """Whether nobody writes under a former key any more."""
        return not self.former or datetime.now(UTC) >= self.settled_at


def rotation(ring: KeyRing, tenant: str) -> IndexRotation:
    """How far the rotation of a tenant's index key has come; without ``former`` there is none.

    Raises:
        KeyNotFound: the tenant has no index key.
        KeyStoreError: the key store failed.
    """
    keys = [record.info() for record in ring.store.keys(tenant, None)]
    found = rotation_among(keys, ring.store.declare_lease(0))
    if found is None:
        raise KeyNotFound(f"tenant {tenant!r} has no active index key")
    return found


def rotation_among(keys: Iterable[KeyInfo], longest_lease: float) -> IndexRotation | None:
    """How far the rotation of the index key among a tenant's own keys is; ``None`` where none is active.

    ``longest_lease``: the longest lease and grace, in seconds, that any process declared.
    """
    index = sorted(
        (key for key in keys if key.purpose is Purpose.INDEX), key=attrgetter("version"), reverse=True
    )
    active = next((key for key in index if key.state is KeyState.ACTIVE), None)
    if active is None:
        return None
    return IndexRotation(
        active,
        tuple(key for key in index if _is_former(key, active)),
        # Writers begin when their clock says so; so the last one does as much later as clocks are apart.
        settled_at(active, longest_lease) + SETTLING,
    )


def rotate(ring: KeyRing, tenant: str) -> IndexRotation:
    """Give a tenant a new index key.

    Raises:
        KeyNotFound: the tenant has no index key to rotate.
        NotYet: it is being rotated already.
        KeyShredded: the tenant was shredded.
        KMSError, KeyStoreError: a backend failed; either key may be the active one, look at ``rotation``.
    """
    if rotation(ring, tenant).former:
        raise NotYet(
            f"the index key of tenant {tenant!r} is being rotated already: rebuild the rows and drop the "
            "former key first"
        )
    ring.rotate(KeySlot(tenant, None, Purpose.INDEX))
    return rotation(ring, tenant)


def drop(ring: KeyRing, tenant: str) -> Sequence[KeyInfo]:
    """Destroy a tenant's former index keys, for good; the keys that were.

    What a row still has under them is not found any more, and a deterministic value under them never read
    again: every database that uses this key store has to have been rebuilt.

    Raises:
        KeyNotFound: the tenant has no index key.
        NotYet: processes may still write under a former key.
        KeyStoreError: the key store failed; ask again.
    """
    state = rotation(ring, tenant)
    if not state.is_settled:
        raise NotYet(
            f"until {state.settled_at:%Y-%m-%d %H:%M:%S} UTC processes may write under the former index key "
            f"of tenant {tenant!r}; rebuild after that, then drop it"
        )
    return [change(ring, key.key_id, key.state, KeyState.DESTROYED) for key in state.former]


def _is_former(key: KeyInfo, active: KeyInfo) -> bool:
    """Whether rows may still be under a key; one that was suspended during a rotation is such a key, too."""
    return key.state is KeyState.RETIRED or (key.state is KeyState.SUSPENDED and key.version < active.version)

"""Rotating many data keys, one after the other: a tenant's own, and those of all its subjects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

from fieldvault.errors import KeyShredded, KeySuspended
from fieldvault.keys.records import KeyInfo, KeyRecord, KeyState, Purpose
from fieldvault.keys.ring import KeyRing

__all__ = ["Outcome", "Rotated", "leading", "rotate_key", "rotate_subjects"]


class Outcome(StrEnum):
    """What became of a data key."""

    ROTATED = "rotated"
    NEWER = "newer"
    SUSPENDED = "suspended"
    SHREDDED = "shredded"
    OVERTAKEN = "overtaken"


class Rotated(NamedTuple):
    """What became of a key; ``key`` is the one that took its place, or else the key itself.

    ``NEWER``: it is young enough. ``OVERTAKEN``: another process changed it meanwhile, and was left its way.
    """

    key: KeyInfo
    outcome: Outcome


def leading(records: Iterable[KeyRecord]) -> KeyInfo | None:
    """Of one scope's data keys the active one; the suspended or the newest one where none is active."""
    order = (KeyState.ACTIVE, KeyState.SUSPENDED)
    data = [record for record in records if record.purpose is Purpose.DATA]
    data.sort(key=lambda record: (record.state not in order[:1], record.state not in order, -record.version))
    return data[0].info() if data else None


def rotate_key(ring: KeyRing, key: KeyInfo, *, before: datetime | None = None) -> Rotated:
    """Give a scope a new data key in place of its leading one, if that is active, and was made ``before``.

    A suspended key is left as it is: a new one would let its scope seal again, which whoever suspended it did
    not want.

    Raises:
        KMSError, KeyStoreError: a backend failed; either key may be the active one.
    """
    if key.state is KeyState.SUSPENDED:
        return Rotated(key, Outcome.SUSPENDED)
    if key.state is KeyState.DESTROYED:
        return Rotated(key, Outcome.SHREDDED)
    if before is not None and key.created_at >= before:
        return Rotated(key, Outcome.NEWER)
    try:
        made = ring.replace(key)
    except KeyShredded:
        return Rotated(key, Outcome.SHREDDED)
    except KeySuspended:
        return Rotated(key, Outcome.SUSPENDED)
    return Rotated(key, Outcome.OVERTAKEN) if made is None else Rotated(made.info(), Outcome.ROTATED)


def rotate_subjects(ring: KeyRing, tenant: str, *, before: datetime | None = None) -> Iterator[Rotated]:
    """``rotate_key`` for each subject of a tenant.

    They are listed in pages, and each is one step. So it may be interrupted anywhere; what is done stays
    done, and called again with the time of the first call as ``before`` it does what is left.

    Raises:
        KMSError, KeyStoreError: a backend failed; the subjects behind this one are as they were.
    """
    # The next subject is read before this one is rotated, so no listing meets a key that was made by it.
    for subject, listed in groupby(ring.store.all_keys(tenant), lambda record: record.subject):
        key = None if subject is None else leading(listed)
        if key is not None:
            yield rotate_key(ring, key, before=before)

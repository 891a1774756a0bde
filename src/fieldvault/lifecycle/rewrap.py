"""Rewrapping: the same data keys under another root key; no row is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple

from fieldvault.errors import KMSError
from fieldvault.keys.material import key_context, unwrap_records
from fieldvault.keys.protocols import KMS, KeyStore, Rewrapping
from fieldvault.keys.records import KeyInfo, KeyRecord, KeyState
from fieldvault.kms.multi import MultiKMS

__all__ = ["Outcome", "Rewrapped", "rewrap"]


class Outcome(StrEnum):
    """What became of a key."""

    REWRAPPED = "rewrapped"
    CURRENT = "current"
    DUE = "due"
    OVERTAKEN = "overtaken"
    INCOMPLETE = "incomplete"


class Rewrapped(NamedTuple):
    """A key, and what became of it.

    ``CURRENT``: wrapped by the present root key already. ``DUE``: a dry run would rewrap it. ``OVERTAKEN``:
    another process rewrapped or destroyed it meanwhile, and was left its way. ``INCOMPLETE``: it is wrapped
    as far as it went, and the members of a ``MultiKMS`` in ``missed`` took no part in it, or did not prove
    what they wrapped, for these reasons; what they had wrapped before is still there.
    """

    key: KeyInfo
    outcome: Outcome
    missed: Mapping[str, KMSError]


def rewrap(
    kms: KMS, store: KeyStore, tenant: str, *, dry_run: bool = False, every: bool = False
) -> Iterator[Rewrapped]:
    """Bring each wrapped key of a tenant under the KMS's present root key, one after the other.

    All its own keys that are not destroyed, whatever they are for; its subjects' keys are wrapped under one
    of those, and stay as they are. Before the new form takes the place of the old one it is unwrapped, of
    several KMSs by each that wrapped it, and the key compared with its key id; it takes that place only if
    nobody changed the old one meanwhile. So it may be interrupted at any point, run twice, or at once with
    others and with the application: every key can be unwrapped at all times, by whoever knows the old and
    the new root key.

    ``every`` rewraps keys, too, that the KMS calls current. A KMS that cannot tell has all rewrapped.

    Raises:
        KMSError: a key cannot be unwrapped, or wrapped, or was not the one that its record names; it stays
            as it is.
        KeyStoreError: the key store failed.
    """
    for record in store.keys(tenant, None):
        if record.state is KeyState.DESTROYED or record.wrapped is None:
            continue
        missed: Mapping[str, KMSError] = {}
        if not every and _is_current(kms, record, record.wrapped):
            outcome = Outcome.CURRENT
        elif dry_run:
            outcome = Outcome.DUE
        else:
            wrapped, missed = _proven(kms, record, record.wrapped, every=every)
            swapped = store.rewrap(record.key_id, expect=record.wrapped, wrapped=wrapped)
            done = Outcome.INCOMPLETE if missed else Outcome.REWRAPPED
            outcome = done if swapped else Outcome.OVERTAKEN
        yield Rewrapped(record.info(), outcome, missed)


def _is_current(kms: KMS, record: KeyRecord, wrapped: bytes) -> bool:
    context = key_context(record.slot, record.key_id)
    return isinstance(kms, Rewrapping) and kms.is_current(wrapped, context=context)


def _proven(
    kms: KMS, record: KeyRecord, wrapped: bytes, *, every: bool
) -> tuple[bytes, Mapping[str, KMSError]]:
    """The key wrapped anew, and unwrapped again; and which members of several took no part."""
    context = key_context(record.slot, record.key_id)
    missed: Mapping[str, KMSError] = {}
    if isinstance(kms, MultiKMS):
        again, missed = kms.rewrap_by_member(wrapped, context=context, every=every)
    elif isinstance(kms, Rewrapping):
        again = kms.rewrap(wrapped, context=context)
    else:
        again = kms.wrap(kms.unwrap(wrapped, context=context), context=context)
    proof = unwrap_records(kms, [replace(record, wrapped=again)])[record.key_id]
    if isinstance(proof, KMSError):
        raise proof
    return again, missed

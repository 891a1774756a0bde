"""Opening many values of one field.

What a single value pays for each time, the clock and the look-up of its key, is paid here once for a run of
values under one key. Where all are alike, of one key and one type, the run is a chain of ``map`` without a
line of Python a value; anything else, and whatever goes wrong there, takes the loop, written out flat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from math import inf
from operator import itemgetter
from typing import Any

from cryptography.exceptions import InvalidTag

from fieldvault.codecs import decode
from fieldvault.context import bound_to_row
from fieldvault.envelope import HEADER, as_bytes, refuse
from fieldvault.errors import DecryptionError, FieldVaultError, KeyShredded, TenantMismatch
from fieldvault.keys.cached import ValueKey
from fieldvault.keys.ring import KeyRing

__all__ = ["open_many"]

_header_of = itemgetter(HEADER)


def open_many(
    ring: KeyRing,
    blobs: Sequence[bytes | None],
    field: str,
    tenant: str | None,
    subject: str | None,
    *,
    tenants: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
    rows: Sequence[bytes] | None = None,
    erased: Callable[[KeyShredded], Any] | None = None,
    prefetch: Callable[[], None] | None = None,
) -> list[Any]:
    """The values of ciphertexts, ``None`` for ``None``; keys that are missing are fetched together.

    ``tenant`` and ``subject`` are what the caller knows, ``None`` where it knows nothing; ``tenants`` and
    ``subjects`` what the row of each ciphertext says, and ``rows`` the rows that they are bound to, as
    ``encode_row`` gives them. ``erased`` answers for a value whose key was shredded;
    without it the error is raised. ``prefetch`` fetches more than the keys of these ciphertexts when one is
    missing, if the caller has more to open.

    Values are handed out only if the lease still ran when the last of them was opened: a process that was
    stopped in between asks again.

    Raises:
        MalformedCiphertext, TenantMismatch, DecryptionError, KeyNotFound, KeySuspended, KMSError,
            KeyStoreError: as for one value, for the first that meets it.
    """
    alike = None
    if rows is None:
        alike = _open_alike(ring, blobs, field, tenant, subject, tenants, subjects)
    if alike is not None:
        return alike
    refusal: FieldVaultError | None = None
    opened: list[Any] = []
    fresh_until = -inf
    try:
        opened, fresh_until = _open_run(
            ring, blobs, field, tenant, subject, tenants, subjects, rows, erased, prefetch
        )
    except FieldVaultError as error:
        refusal = error
    if refusal is not None:
        # The frames below have in their locals what was opened before.
        raise refusal.with_traceback(None)
    if len(blobs) < 2 or ring.clock() < fresh_until:
        return opened
    half = len(blobs) // 2
    return [
        value
        for part in (slice(half), slice(half, None))
        for value in open_many(
            ring,
            blobs[part],
            field,
            tenant,
            subject,
            tenants=None if tenants is None else tenants[part],
            subjects=None if subjects is None else subjects[part],
            rows=None if rows is None else rows[part],
            erased=erased,
            prefetch=prefetch,
        )
    ]


def _open_alike(
    ring: KeyRing,
    blobs: Sequence[bytes | None],
    field: str,
    tenant: str | None,
    subject: str | None,
    tenants: Sequence[str] | None,
    subjects: Sequence[str] | None,
) -> list[Any] | None:
    """The values of ciphertexts of one key and type, at hand and whole; ``None`` for whatever is not that."""
    full: Sequence[Any] = [blob for blob in blobs if blob is not None] if None in blobs else blobs
    first: Any
    last: Any
    first, last = (full[0], full[-1]) if full else (None, None)
    key = ring.cache.opening.get(first[HEADER]) if first.__class__ is bytes is last.__class__ else None
    if (
        key is None
        or not last.startswith(key.header)
        or ring.clock() >= key.fresh_until
        or tenant not in (None, key.tenant)
        or subject not in (None, key.subject)
        or not (tenants is None or tenants.count(key.tenant) == len(blobs))
        or not (subjects is None or subjects.count(key.subject) == len(blobs))
    ):
        return None
    opened = _open_under(key, full, field)
    if opened is None:
        return None
    # The reading counts one hit, as everywhere.
    is_fresh = ring.hot_clock.read() < key.fresh_until
    if len(opened) > 1 or not is_fresh:
        ring.meter.served(len(opened) - 1 if is_fresh else -1)
    if not is_fresh:
        return None
    if full is blobs:
        return opened
    values = iter(opened)
    return [None if blob is None else next(values) for blob in blobs]


def _open_under(key: ValueKey, blobs: Sequence[bytes], field: str) -> list[Any] | None:
    """The values of ciphertexts that all have this key's header; ``None`` if one has not, or is refused."""
    associated = key.contexts[field] if field in key.contexts else key.context(field)
    nonces, sealed = map(itemgetter(key.nonce), blobs), map(itemgetter(key.sealed), blobs)
    finish = bytes.decode if key.is_text else partial(decode, key.kind)
    try:
        if b"".join(map(_header_of, blobs)) == key.header * len(blobs):
            return list(map(finish, map(key.open, nonces, sealed, repeat(associated))))
    except (FieldVaultError, InvalidTag, ValueError, TypeError):
        # The loop meets it again, and says of which value and why.
        pass
    return None


def _fetch(ring: KeyRing, blobs: Sequence[bytes | None], prefetch: Callable[[], None] | None) -> None:
    if prefetch is None:
        ring.prefetch(blobs=[as_bytes(each) for each in blobs if each is not None])
    else:
        prefetch()


def _open_run(
    ring: KeyRing,
    blobs: Sequence[bytes | None],
    field: str,
    tenant: str | None,
    subject: str | None,
    tenants: Sequence[str] | None,
    subjects: Sequence[str] | None,
    rows: Sequence[bytes] | None,
    erased: Callable[[KeyShredded], Any] | None,
    prefetch: Callable[[], None] | None,
) -> tuple[list[Any], float]:
    """The values, and until when the keys that opened them may be used."""
    cached, now, fresh_until = ring.cache.opening.get, ring.clock(), inf
    late, empty = 0, 0
    key: Any = None
    opened: list[Any] = []
    append = opened.append
    nobody: repeat[None] = repeat(None)
    for blob, row_tenant, row_subject, row in zip(
        blobs,
        nobody if tenants is None else tenants,
        nobody if subjects is None else subjects,
        nobody if rows is None else rows,
        strict=False,
    ):
        if blob is None:
            empty += 1
            append(None)
            continue
        if blob.__class__ is not bytes:
            blob = as_bytes(blob)  # noqa: PLW2901 - the same ciphertext
        if key is None or not blob.startswith(key.header):
            # None until the new key is known to be had: what is kept of the last one goes with it.
            key, found = None, cached(blob[HEADER])
            if found is None or now >= found.fresh_until:
                if not late:
                    _fetch(ring, blobs, prefetch)
                late += 1
                try:
                    found = ring.for_opening(blob)
                except KeyShredded as shredded:
                    if erased is None:
                        raise
                    append(erased(shredded))
                    continue
            if found.tenant != tenant and tenant is not None:
                raise TenantMismatch(f"the value belongs to another tenant than {tenant!r}")
            if subject is not None and found.subject != subject:
                raise DecryptionError
            fresh_until = min(fresh_until, found.fresh_until)
            key, contexts, unprotect = found, found.contexts, found.open
            unbound = contexts[field] if field in contexts else key.context(field)
        if row_tenant is not None and row_tenant != key.tenant:
            raise TenantMismatch("a value in a row belongs to another tenant than the row")
        if row_subject is not None and row_subject != key.subject:
            raise DecryptionError
        associated = unbound if row is None else bound_to_row(unbound, row)  # type: ignore[possibly-undefined]
        payload: bytes | None = None
        try:
            payload = unprotect(blob[key.nonce], blob[key.sealed], associated)  # type: ignore[possibly-undefined]
            if key.is_text:
                append(payload.decode())
                continue
        except (InvalidTag, ValueError):
            # What is authentic and no UTF-8 is refused by the general decoder, outside of this handler.
            pass
        if payload is None:
            refuse(blob)
        append(decode(key.kind, payload))
    ring.meter.served(len(opened) - late - empty)
    return opened, fresh_until

"""Sealing many values of one field; see ``opening`` for why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from math import inf
from operator import length_hint
from typing import Any

from fieldvault.codecs import TEXT, encode, pad
from fieldvault.context import bound_to_row
from fieldvault.envelope import PADDED
from fieldvault.keys.cached import ValueKey
from fieldvault.keys.records import KeySlot
from fieldvault.keys.ring import KeyRing
from fieldvault.suites import Suite

__all__ = ["Owner", "seal_many"]

Owner = tuple[str, str | None]
"""Tenant and subject."""


def seal_many(
    ring: KeyRing,
    suite: Suite,
    padding: int | None,
    values: Sequence[Any],
    field: str,
    owners: Sequence[Owner] | Owner,
    rows: Sequence[bytes] | None = None,
) -> list[bytes | None]:
    """The ciphertexts of values, ``None`` for ``None``, each under its own owner or all under one.

    ``rows`` are the rows that the values are bound to, as ``encode_row`` gives them.

    They are handed out only if the lease still ran when the last of them was sealed: a process that was
    stopped in between asks again, so that nothing is written under a key that was shredded meanwhile.

    Raises:
        UnsupportedValue, ConfigurationError, KeyShredded, KeySuspended, KMSError, KeyStoreError: as for one
            value.
    """
    alike = None if rows is not None else _seal_alike(ring, suite, padding, values, field, owners)
    if alike is not None:
        return alike
    sealed, fresh_until = _seal_run(ring, suite, padding, values, field, owners, rows)
    if len(values) < 2 or ring.clock() < fresh_until:
        return sealed
    half = len(values) // 2
    return [
        cell
        for part in (slice(half), slice(half, None))
        for cell in seal_many(
            ring,
            suite,
            padding,
            values[part],
            field,
            owners if isinstance(owners, tuple) else owners[part],
            None if rows is None else rows[part],
        )
    ]


def _seal_run(
    ring: KeyRing,
    suite: Suite,
    padding: int | None,
    values: Sequence[Any],
    field: str,
    owners: Sequence[Owner] | Owner,
    rows: Sequence[bytes] | None,
) -> tuple[list[bytes | None], float]:
    """The ciphertexts, and until when the keys that sealed them may be used."""
    keys = ring.cache.sealing
    random, padded = os.urandom, 0 if padding is None else PADDED
    sealed: list[bytes | None] = []
    append = sealed.append
    each_owner = repeat(owners) if isinstance(owners, tuple) else owners
    each_row: Iterable[bytes | None] = repeat(None) if rows is None else rows
    key: ValueKey | None = None
    kind, last_kind = 0, -1
    last_owner: Owner | None = None
    fresh_until, uncounted = inf, 0
    for value, owner, row in zip(values, each_owner, each_row, strict=False):
        if value is None:
            uncounted += 1
            append(None)
            continue
        body = None
        if type(value) is str:
            kind = TEXT | padded
            try:  # noqa: SIM105 - suppress() costs more than the encoding
                body = value.encode()
            except UnicodeEncodeError:
                pass
        if body is None:
            kind, body = encode(value)
            kind |= padded
        if padding is not None:
            body = pad(body, padding)
        if owner is not last_owner or kind != last_kind:
            tenant, subject = owner
            last_owner, last_kind = owner, kind
            key = keys[suite.number, kind].get(tenant if subject is None else (tenant, subject))
            if key is not None and ring.clock() >= key.fresh_until:
                key = None
        if key is None or not next(key.uses, False):
            uncounted += 1
            key = ring.for_sealing(KeySlot(*owner), suite, kind)
        fresh_until = min(fresh_until, key.fresh_until)
        contexts = key.contexts
        associated = contexts[field] if field in contexts else key.context(field)
        if row is not None:
            associated = bound_to_row(associated, row)
        nonce = random(key.nonce_size)
        protect = key.seal
        append(key.header + nonce + protect(nonce, body, associated))
    ring.meter.served(len(sealed) - uncounted)
    return sealed, fresh_until


def _seal_alike(
    ring: KeyRing,
    suite: Suite,
    padding: int | None,
    values: Sequence[Any],
    field: str,
    owners: Sequence[Owner] | Owner,
) -> list[bytes | None] | None:
    """The ciphertexts of texts under one key that is at hand; ``None`` for whatever is not that."""
    if not values or set(map(type, values)) != {str}:
        return None
    owner: Any = owners if isinstance(owners, tuple) else owners[0]
    if owner is not owners and owners.count(owner) != len(values):
        return None
    tenant, subject = owner
    kind = TEXT if padding is None else TEXT | PADDED
    key = ring.cache.sealing[suite.number, kind].get(tenant if subject is None else (tenant, subject))
    if key is None or ring.clock() >= key.fresh_until:
        return None
    try:
        bodies = list(map(str.encode, values))
    except UnicodeEncodeError:
        # The loop finds it again, and refuses it where the error at hand holds no plaintext.
        return None
    if padding is not None:
        bodies = [pad(body, padding) for body in bodies]
    # Looked at first, so that no block is drawn empty in vain; drawn, because others draw at the same time.
    if length_hint(key.uses) < len(values) or len(list(islice(key.uses, len(values)))) < len(values):
        return None
    associated = key.contexts[field] if field in key.contexts else key.context(field)
    nonces = list(map(os.urandom, repeat(key.nonce_size, len(values))))
    sealed = map(key.seal, nonces, bodies, repeat(associated))
    cells: list[bytes | None] = list(map(b"".join, zip(repeat(key.header), nonces, sealed, strict=False)))
    # The reading counts one hit, as everywhere.
    is_fresh = ring.hot_clock.read() < key.fresh_until
    if len(cells) > 1 or not is_fresh:
        ring.meter.served(len(cells) - 1 if is_fresh else -1)
    return cells if is_fresh else None

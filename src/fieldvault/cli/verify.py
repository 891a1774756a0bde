"""Proves that the keys of a tenant can be unwrapped and are the keys that their records name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.material import LocalWrapper, unwrap_records
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.records import KeyInfo, KeyRecord, KeyState
from fieldvault.secret import Secret

__all__ = ["Verdict", "verified"]

_NO_MATERIAL = "its wrapped key is missing"


class Verdict(NamedTuple):
    """A key, and what is wrong with it, if anything."""

    key: KeyInfo
    problem: str | None


def verified(kms: KMS, store: KeyStore, tenant: str) -> Iterator[Verdict]:
    """Each key of a tenant that is not destroyed, subjects' keys among them, unwrapped and its id checked.

    Retired and suspended keys are tried as well: what they sealed is still to be read. Subjects' keys whose
    wrap key is destroyed are passed over, they are shredded with it. One call of the KMS a tenant.

    Raises:
        KMSUnavailable: the KMS cannot be reached; says nothing about the keys.
        KMSError: the KMS refuses the call as a whole.
        KeyStoreError: the key store failed.
    """
    own = {record.key_id: record for record in store.keys(tenant, None)}
    secrets = _unwrapped(kms, own.values())
    for record in own.values():
        if record.state is not KeyState.DESTROYED:
            secret = secrets.get(record.key_id)
            problem = None if isinstance(secret, Secret) else str(secret or _NO_MATERIAL)
            yield Verdict(record.info(), problem)
    for record in store.all_keys(tenant):
        if record.subject is None or record.parent is None:
            continue
        if record.parent not in own:
            # A wrap key younger than the reading above, if it is there at all.
            late = store.fetch([record.parent]).records
            own.update(late)
            secrets.update(_unwrapped(kms, late.values()))
        wrap_key = own.get(record.parent)
        shredded = wrap_key is not None and wrap_key.state is KeyState.DESTROYED
        if record.state is not KeyState.DESTROYED and not shredded:
            yield Verdict(record.info(), _subject_problem(record, secrets.get(record.parent)))


def _unwrapped(kms: KMS, records: Iterable[KeyRecord]) -> dict[bytes, Secret | KMSError]:
    usable = [
        record for record in records if record.state is not KeyState.DESTROYED and record.wrapped is not None
    ]
    secrets = unwrap_records(kms, usable) if usable else {}
    for secret in secrets.values():
        if isinstance(secret, KMSUnavailable):
            raise secret
    return secrets


def _subject_problem(record: KeyRecord, wrap_key: Secret | KMSError | None) -> str | None:
    if record.wrapped is None or record.parent is None:
        return _NO_MATERIAL
    if not isinstance(wrap_key, Secret):
        return f"the tenant's key {record.parent.hex()} that wraps it is missing or does not unwrap"
    try:
        LocalWrapper(wrap_key, record.parent).open(record)
    except KMSError as error:
        return str(error)
    return None

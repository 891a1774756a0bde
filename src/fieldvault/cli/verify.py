"""Proves that the keys of a tenant can be unwrapped and are the keys that their records name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.material import LocalWrapper, checked, key_context, unwrap_records
from fieldvault.keys.protocols import KMS, KeyStore, WrappedKey
from fieldvault.keys.records import KeyInfo, KeyRecord, KeyState
from fieldvault.kms.multi import MultiKMS
from fieldvault.secret import Secret

__all__ = ["Proof", "Verdict", "kms_kind", "named", "proven_by_member", "verified"]

_NO_MATERIAL = "its wrapped key is missing"


class Verdict(NamedTuple):
    """A key, and what is wrong with it, if anything."""

    key: KeyInfo
    problem: KMSError | None


class Proof(NamedTuple):
    """A key, what members of a ``MultiKMS`` met that do not unwrap it, and which absent ones hold no part."""

    key: KeyInfo
    errors: Mapping[str, KMSError]
    lacking: Sequence[str]


def kms_kind(error: KMSError) -> type[KMSError]:
    """Which of the four it is, for what to do about it."""
    kinds: tuple[type[KMSError], ...] = (KMSUnavailable, KMSDenied, KMSKeyDisabled)
    return next((kind for kind in kinds if isinstance(error, kind)), KMSError)


def named(key: KeyInfo) -> str:
    """A key, for a person."""
    whose = key.tenant if key.subject is None else f"{key.subject} of {key.tenant}"
    return f"{whose}, {key.purpose} v{key.version}, {key.key_id.hex()}"


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
            problem = None if isinstance(secret, Secret) else secret or KMSError(_NO_MATERIAL)
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


def proven_by_member(kms: MultiKMS, store: KeyStore, tenant: str) -> Iterator[Proof]:
    """Each wrapped key of a tenant, and which members do not unwrap it into the key that its record names.

    Raises:
        KeyStoreError: the key store failed.
    """
    records = [record for record in store.keys(tenant, None) if record.wrapped is not None]
    items = [WrappedKey(record.wrapped or b"", key_context(record.slot, record.key_id)) for record in records]
    answers = kms.unwrap_by_member(items)
    for index, record in enumerate(records):
        met = {name: _wrong(record, of_member[index]) for name, of_member in answers.items()}
        yield Proof(
            record.info(),
            {name: error for name, error in met.items() if error is not None},
            kms.without_part(items[index].wrapped),
        )


def _wrong(record: KeyRecord, answer: bytes | KMSError) -> KMSError | None:
    if isinstance(answer, KMSError):
        return answer
    try:
        checked(record, answer)
    except KMSError as error:
        return error
    return None


def _unwrapped(kms: KMS, records: Iterable[KeyRecord]) -> dict[bytes, Secret | KMSError]:
    usable = [
        record for record in records if record.state is not KeyState.DESTROYED and record.wrapped is not None
    ]
    secrets = unwrap_records(kms, usable) if usable else {}
    for secret in secrets.values():
        if isinstance(secret, KMSUnavailable):
            raise secret
    return secrets


def _subject_problem(record: KeyRecord, wrap_key: Secret | KMSError | None) -> KMSError | None:
    if record.wrapped is None or record.parent is None:
        return KMSError(_NO_MATERIAL)
    if wrap_key is None:
        return KMSError(f"the tenant's key {record.parent.hex()} that wraps it is missing")
    if isinstance(wrap_key, KMSError):
        kind = kms_kind(wrap_key)
        return kind(f"the tenant's key {record.parent.hex()} that wraps it does not unwrap")
    try:
        LocalWrapper(wrap_key, record.parent).open(record)
    except KMSError as error:
        return error
    return None

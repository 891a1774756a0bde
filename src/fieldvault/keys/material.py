"""Data keys: made, named, wrapped, unwrapped and checked (docs/format.md, 2 and 7)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fieldvault.context import encode_context
from fieldvault.envelope import KEY_ID_SIZE
from fieldvault.errors import KMSError
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState
from fieldvault.secret import KEY_SIZE, Secret

__all__ = ["LocalWrapper", "key_context", "key_id_of", "new_record", "unwrap_records"]

_LOCAL_WRAP_VERSION = b"\x01"


def key_id_of(key: Secret) -> bytes:
    """The 16-byte id that names ``key`` and commits to it."""
    return key.derive(b"fieldvault/1 key id", KEY_ID_SIZE)


def key_context(slot: KeySlot, key_id: bytes) -> dict[str, str]:
    """The encryption context under which a key of this slot is wrapped."""
    context = {"key_id": key_id.hex(), "purpose": slot.purpose.value, "tenant": slot.tenant}
    if slot.subject is not None:
        context["subject"] = slot.subject
    return context


class LocalWrapper:
    """Wraps subjects' keys under a tenant's wrap key: AES-256-SIV (RFC 5297), no call to the KMS."""

    __slots__ = ("_siv", "key_id")

    def __init__(self, wrap_key: Secret, key_id: bytes) -> None:
        self.key_id = key_id
        self._siv = AESSIV(wrap_key.derive(b"fieldvault/1 wrap AES-256-SIV", 64))

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key."""
        return _LOCAL_WRAP_VERSION + self._siv.encrypt(key, [encode_context(context)])

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context.

        Raises:
            KMSError: it was not wrapped by this key under this context.
        """
        if wrapped[:1] == _LOCAL_WRAP_VERSION:
            try:
                return self._siv.decrypt(wrapped[1:], [encode_context(context)])
            except InvalidTag:
                pass
        raise KMSError(
            f"the wrapped key {context['key_id']} was changed, or moved from another key, tenant or subject"
        )

    def open(self, record: KeyRecord) -> Secret:
        """The key of a subject's record, its id checked.

        Raises:
            KMSError: as ``unwrap``, or the record names another key.
        """
        return checked(
            record, self.unwrap(record.wrapped or b"", context=key_context(record.slot, record.key_id))
        )


def new_record(
    slot: KeySlot, version: int, wrapper: KMS | LocalWrapper, *, uses: int
) -> tuple[KeyRecord, Secret]:
    """A fresh random data key for ``slot`` and its active record, not stored yet.

    ``uses`` messages are reserved for its maker.
    """
    key = Secret(os.urandom(KEY_SIZE))
    key_id = key_id_of(key)
    record = KeyRecord(
        key_id=key_id,
        tenant=slot.tenant,
        subject=slot.subject,
        purpose=slot.purpose,
        version=version,
        state=KeyState.ACTIVE,
        created_at=datetime.now(UTC),
        uses=uses,
        wrapped=wrapper.wrap(key.reveal(), context=key_context(slot, key_id)),
        parent=wrapper.key_id if isinstance(wrapper, LocalWrapper) else None,
    )
    return record, key


def checked(record: KeyRecord, key: object) -> Secret:
    """``key`` as a secret, once it is one and its id is the record's.

    Raises:
        KMSError: the KMS answered with another key.
    """
    if isinstance(key, bytes) and len(key) == KEY_SIZE:
        secret = Secret(key)
        if key_id_of(secret) == record.key_id:
            return secret
        del secret
    # It may be another tenant's key, and tracebacks keep what stands in a frame.
    del key
    raise KMSError(
        f"unwrapping the key {record.key_id.hex()} gave another key: the KMS or the key store holds a "
        f"wrong one"
    )


def unwrap_records(kms: KMS, records: Sequence[KeyRecord]) -> dict[bytes, Secret | KMSError]:
    """Each tenant-level record's key, or the error it met, by key id: one call of the KMS for all of them.

    The errors come, and are raised, without their tracebacks: the frames of a batch hold its other keys.

    Raises:
        KMSError: what hit the call as a whole.
    """
    items = [WrappedKey(record.wrapped or b"", key_context(record.slot, record.key_id)) for record in records]
    problem: KMSError
    try:
        answers = kms.unwrap_many(items)
        if len(answers) == len(items):
            return {
                record.key_id: _outcome(record, answer)
                for record, answer in zip(records, answers, strict=True)
            }
        problem = KMSError(f"the KMS answered {len(answers)} of {len(items)} items")
        del answers
    except KMSError as error:
        problem = error
    raise _bare(problem)


def _outcome(record: KeyRecord, answer: object) -> Secret | KMSError:
    try:
        return _bare(answer) if isinstance(answer, KMSError) else checked(record, answer)
    except KMSError as wrong:
        return _bare(wrong)


def _bare(error: KMSError) -> KMSError:
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)

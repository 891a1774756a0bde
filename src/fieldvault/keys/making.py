"""Making keys: a slot's first, and the one that takes over from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fieldvault.errors import FieldVaultError, KeyShredded
from fieldvault.keys.cache import CachedKey
from fieldvault.keys.lease import Lease
from fieldvault.keys.material import LocalWrapper, new_record
from fieldvault.keys.protocols import KMS, Addition, KeyStore
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose, Snapshot
from fieldvault.keys.unwrapping import Outcome, Unwrapper
from fieldvault.secret import Secret

__all__ = ["KeyMaker"]

FindActive = Callable[[Iterable[KeySlot]], dict[KeySlot, Outcome]]


class KeyMaker:
    """Makes keys, wraps them and has the key store decide whose becomes active.

    ``active`` finds the wrap keys that subjects' keys are wrapped under. The maker of a key has a block of
    messages reserved from the start.
    """

    def __init__(
        self,
        kms: KMS,
        store: KeyStore,
        lease: Lease,
        unwrapper: Unwrapper,
        *,
        block: int,
        active: FindActive,
    ) -> None:
        self._kms = kms
        self._store = store
        self._lease = lease
        self._unwrapper = unwrapper
        self._block = block
        self._active = active

    def first(self, slots: Sequence[KeySlot], snapshot: Snapshot) -> dict[KeySlot, Outcome]:
        """First keys for slots without one, or the errors that they met.

        A slot that another process was first in is missing from the answer: read again.
        """
        outcome: dict[KeySlot, Outcome] = {}
        wrappers = self._wrappers(slots)
        made: dict[Addition, Secret] = {}
        for slot in slots:
            try:
                record, secret = self._make(slot, snapshot, wrappers)
            except FieldVaultError as error:
                outcome[slot] = error
            else:
                made[Addition(record, None)] = secret
        for addition in self._add(list(made), outcome):
            key = self._unwrapper.keep(addition.record, made[addition], snapshot, reserved=self._block)
            if key is not None:
                outcome[addition.record.slot] = key
        return outcome

    def successor(self, slot: KeySlot, former: bytes | None, snapshot: Snapshot) -> KeyRecord | None:
        """The key that takes over from ``former``, active; None if another process was first.

        Raises:
            KeyShredded, KeySuspended: the scope, or the key that wraps it, is not to be had.
            KMSError, KeyStoreError: a backend failed.
        """
        record, secret = self._make(slot, snapshot, self._wrappers([slot]))
        if not self._store.add_active([Addition(record, former)]):
            return None
        # This very step touched the scope, so only what is read after it can vouch for the key.
        reading = self._lease.begin()
        after = self._store.current([slot])
        self._lease.observe(after.generation, reading)
        stored = after.records.get(record.key_id)
        if stored is not None and stored.state is KeyState.ACTIVE:
            self._unwrapper.keep(stored, secret, after, reserved=self._block)
        return record

    def _wrappers(self, slots: Iterable[KeySlot]) -> dict[str, LocalWrapper | Exception]:
        """What wraps the keys of subjects, by tenant."""
        found = self._active(
            {KeySlot(slot.tenant, None, Purpose.WRAP) for slot in slots if slot.subject is not None}
        )
        return {
            slot.tenant: LocalWrapper(key.secret, key.record.key_id) if isinstance(key, CachedKey) else key
            for slot, key in found.items()
        }

    def _make(
        self, slot: KeySlot, snapshot: Snapshot, wrappers: dict[str, LocalWrapper | Exception]
    ) -> tuple[KeyRecord, Secret]:
        wrapper = self._kms if slot.subject is None else wrappers[slot.tenant]
        if isinstance(wrapper, Exception):
            raise wrapper
        versions = [record.version for record in snapshot.records.values() if record.slot == slot]
        return new_record(slot, max(versions, default=0) + 1, wrapper, uses=self._block)

    def _add(self, additions: list[Addition], outcome: dict[KeySlot, Outcome]) -> Iterable[Addition]:
        """Those additions that became active; a fenced scope's refusal goes to ``outcome``."""
        if not additions:
            return []
        try:
            accepted = self._store.add_active(additions)
        except KeyShredded as error:
            if len(additions) == 1:
                outcome[additions[0].record.slot] = error
                return []
        else:
            return [addition for addition in additions if addition.record.key_id in accepted]
        # One fenced scope refuses the whole step; alone, each stands for itself.
        return [added for addition in additions for added in self._add([addition], outcome)]

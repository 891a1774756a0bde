"""Making keys: a slot's first, and the one that takes over from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fieldvault.errors import FieldVaultError, KeyShredded
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.lease import Lease
from fieldvault.keys.material import LocalWrapper, new_record
from fieldvault.keys.protocols import KMS, Addition, KeyStore
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose, Snapshot
from fieldvault.keys.unwrapping import Outcome, Unwrapper
from fieldvault.secret import Secret

__all__ = ["KeyMaker"]

_ABREAST = 16
"""Keys that the KMS is asked to wrap at a time."""

FindActive = Callable[[Iterable[KeySlot]], dict[KeySlot, Outcome]]


class _Made(NamedTuple):
    """A key that is not stored yet, and the wrap key above it, if any."""

    record: KeyRecord
    secret: Secret
    above: CachedKey | None


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
        above = self._above(slots)
        made: dict[Addition, _Made] = {}
        for slot, new in self._make_all(slots, snapshot, above):
            if isinstance(new, FieldVaultError):
                outcome[slot] = new
            else:
                made[Addition(new.record, None)] = new
        for addition in self._add(list(made), outcome):
            key = self._keep(made[addition], snapshot)
            if key is not None:
                outcome[addition.record.slot] = key
        return outcome

    def successor(self, slot: KeySlot, former: bytes | None, snapshot: Snapshot) -> KeyRecord | None:
        """The key that takes over from ``former``, active; None if another process was first.

        Raises:
            KeyShredded, KeySuspended: the scope, or the key that wraps it, is not to be had.
            KMSError, KeyStoreError: a backend failed.
        """
        made = self._make(slot, snapshot, self._above([slot]))
        if not self._store.add_active([Addition(made.record, former)]):
            return None
        # This very step touched the scope, so only what is read after it can vouch for the key.
        reading = self._lease.begin()
        after = self._store.current([slot])
        self._lease.observe(after.generation, reading)
        stored = after.records.get(made.record.key_id)
        if stored is not None and stored.state is KeyState.ACTIVE:
            self._keep(made, after)
        return made.record

    def _above(self, slots: Iterable[KeySlot]) -> dict[str, Outcome]:
        """The wrap keys for the keys of subjects, by tenant."""
        wanted = {KeySlot(slot.tenant, None, Purpose.WRAP) for slot in slots if slot.subject is not None}
        return {slot.tenant: key for slot, key in self._active(wanted).items()}

    def _make_all(
        self, slots: Sequence[KeySlot], snapshot: Snapshot, above: Mapping[str, Outcome]
    ) -> Iterator[tuple[KeySlot, _Made | FieldVaultError]]:
        """A new key for each slot; several at a time where the KMS wraps them, which it does one by one."""

        def make(slot: KeySlot) -> _Made | FieldVaultError:
            try:
                self._refuse_fenced(slot, snapshot)
                return self._make(slot, snapshot, above)
            except FieldVaultError as error:
                return error

        asked = sum(slot.subject is None for slot in slots)
        if asked < 2:
            yield from ((slot, make(slot)) for slot in slots)
            return
        with ThreadPoolExecutor(min(asked, _ABREAST), thread_name_prefix="fieldvault making") as threads:
            yield from zip(slots, threads.map(make, slots), strict=True)

    def _refuse_fenced(self, slot: KeySlot, snapshot: Snapshot) -> None:
        # The key store would refuse it, but not before the KMS has been told the tenant's name, and has made
        # a root key for it anew where each tenant has one.
        ended = any(
            record.slot == slot and record.state is KeyState.DESTROYED for record in snapshot.records.values()
        )
        fence = self._store.fence(slot.tenant, slot.subject) if ended else None
        if fence is not None:
            raise KeyShredded.of_scope(fence.tenant, fence.subject)

    def _make(self, slot: KeySlot, snapshot: Snapshot, above: Mapping[str, Outcome]) -> _Made:
        wrapper: KMS | LocalWrapper = self._kms
        wrap_key: CachedKey | None = None
        if slot.subject is not None:
            found = above[slot.tenant]
            if isinstance(found, Exception):
                raise found
            wrap_key = found
            wrapper = LocalWrapper(found.secret, found.record.key_id)
        versions = [record.version for record in snapshot.records.values() if record.slot == slot]
        record, secret = new_record(slot, max(versions, default=0) + 1, wrapper, uses=self._block)
        return _Made(record, secret, wrap_key)

    def _keep(self, made: _Made, snapshot: Snapshot) -> CachedKey | None:
        return self._unwrapper.keep(
            made.record, made.secret, snapshot, above=made.above, reserved=self._block
        )

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
        # One fenced scope refuses the whole step. By halves: few are fenced among many.
        middle = len(additions) // 2
        return [*self._add(additions[:middle], outcome), *self._add(additions[middle:], outcome)]

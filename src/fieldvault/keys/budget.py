"""The budget of a data key: how many messages it may seal, and for how long."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from fieldvault.keys.cache import KeyCache
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.policy import RotationPolicy
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import KeyRecord

__all__ = ["Budget"]


class Budget:
    """Draws messages from blocks that are reserved in the key store, durably, before any of them is sealed.

    So no crash, fork or second process makes a key seal more than ``max_uses`` messages (NIST SP 800-38D,
    8.3). It counts on a key store whose older copies are not put back: a restored one has forgotten
    reservations.
    """

    def __init__(self, store: KeyStore, cache: KeyCache, rotation: RotationPolicy) -> None:
        self._store = store
        self._cache = cache
        self._rotation = rotation
        self._flight: SingleFlight[bytes, bool] = SingleFlight()

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        self._flight.reset()

    def draw(self, key: CachedKey) -> bool:
        """Take one message of the key, reserving a block if need be.

        False if it is used up, too old or no longer active, so that another key has to be found.

        Raises:
            KeyStoreError: nothing could be reserved.
        """
        if self.is_aged(key.record):
            return False
        key_id = key.record.key_id
        while not next(key.uses, False):
            reserved = self._flight.run([key_id], lambda _: self._reserve([key]))[key_id]
            if isinstance(reserved, Exception):
                raise reserved
            if not reserved:
                return False
        return True

    def stock(self, keys: Iterable[CachedKey]) -> None:
        """Reserve blocks for those keys that have none left, all in one step, as far as they may have one.

        What fails here is met again by whoever draws.
        """
        empty = {
            key.record.key_id: key
            for key in keys
            if not operator.length_hint(key.uses) and not self.is_aged(key.record)
        }
        self._flight.run(empty, lambda mine: self._reserve([empty[key_id] for key_id in mine]))

    def may_wait(self, key: CachedKey) -> bool:
        """Whether the next message might have to ask the key store."""
        return self.is_aged(key.record) or operator.length_hint(key.uses) < 2

    def is_aged(self, record: KeyRecord) -> bool:
        """Whether the key is too old to seal."""
        oldest = self._rotation.max_age
        return oldest is not None and datetime.now(UTC) - record.created_at >= oldest

    def _reserve(self, keys: Sequence[CachedKey]) -> dict[bytes, bool]:
        """Whether each key has messages left, or was granted a block of them."""
        # Another caller's flight may have landed since this one found a block empty: a second block would
        # throw the first away.
        empty = {key.record.key_id: key for key in keys if not operator.length_hint(key.uses)}
        outcome = {key.record.key_id: key.record.key_id not in empty for key in keys}
        if empty:
            granted = self._store.reserve(list(empty), self._rotation.block, limit=self._rotation.max_uses)
            for key_id in granted:
                self._cache.grant(empty[key_id], self._rotation.block)
                outcome[key_id] = True
        return outcome

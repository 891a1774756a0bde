"""Key stores that lose pages, order, uses and fences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, TypeVar

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyRecord, KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore
from tests.testing.sample_store import PAGE

__all__ = ["BROKEN_ACCOUNTS"]

T = TypeVar("T")


def _by_offset(read: Callable[[], Iterator[T]]) -> Iterator[T]:
    start, page = 0, [*read()][:PAGE]
    while page:
        yield from page
        start += PAGE
        page = [*read()][start : start + PAGE]


class PagesByOffset(MemoryKeyStore):
    """What is made meanwhile shifts the pages: some come twice."""

    caught_by = ("test_all_keys_of_a_tenant_come_once", "test_all_tenants_come_once")

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        everything = super().all_keys
        return _by_offset(lambda: everything(tenant))

    def tenants(self) -> Iterator[str]:
        return _by_offset(super().tenants)


class PagesTenantsByOffset(MemoryKeyStore):
    """The tenants alone."""

    caught_by = ("test_all_tenants_come_once",)

    def tenants(self) -> Iterator[str]:
        return _by_offset(super().tenants)


class LosesAFullPage(MemoryKeyStore):
    """A last page that is full is lost."""

    caught_by = ("test_all_keys_of_a_tenant_come_once", "test_all_tenants_come_once")

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        return self._cut([*super().all_keys(tenant)])

    def tenants(self) -> Iterator[str]:
        return self._cut([*super().tenants()])

    @staticmethod
    def _cut(listed: list[T]) -> Iterator[T]:
        return iter(listed if len(listed) % PAGE else listed[:-PAGE])


class ListsInDisorder(MemoryKeyStore):
    """The keys of a subject come together, and otherwise as they please."""

    caught_by = ("test_all_keys_of_a_tenant_come_once",)

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        listed = super().all_keys(tenant)
        return iter(sorted(listed, key=lambda key: (key.subject is not None, (key.subject or "")[::-1])))


class MixesPurposes(MemoryKeyStore):
    """The keys of a subject come by version, whatever they are for."""

    caught_by = ("test_all_keys_of_a_tenant_come_once",)

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        listed = super().all_keys(tenant)
        return iter(sorted(listed, key=lambda key: (key.subject or "", key.version, key.purpose[::-1])))


class FencesDataKeysOnly(MemoryKeyStore):
    """A shredded tenant gets new keys for its indexes, and to wrap with."""

    caught_by = ("test_no_key_is_made_behind_a_fence", "test_nothing_undoes_a_shred")

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        for each in additions:
            if each.record.purpose is Purpose.DATA and self.fence(each.record.tenant, each.record.subject):
                raise KeyShredded("fenced")
        fences, self._fences = self._fences, {}
        try:
            return super().add_active(additions)
        finally:
            self._fences = fences


class TransitionForgetsUses(MemoryKeyStore):
    """A key that was suspended and reinstated has all its uses again."""

    caught_by = ("test_uses_are_kept_whatever_becomes_of_a_key",)

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        done = super().transition(key_id, expect=expect, to=to)
        if done:
            self._keys[key_id] = replace(self._keys[key_id], uses=0)
        return done


class RotationForgetsUses(MemoryKeyStore):
    """A retired key was never used."""

    caught_by = ("test_uses_are_kept_whatever_becomes_of_a_key",)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        done = super().add_active(additions)
        for each in additions:
            if each.record.key_id in done and each.replaces is not None:
                self._keys[each.replaces] = replace(self._keys[each.replaces], uses=0)
        return done


class RewrapForgetsUses(MemoryKeyStore):
    """Under another root key the budget begins anew."""

    caught_by = ("test_uses_are_kept_whatever_becomes_of_a_key",)

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        done = super().rewrap(key_id, expect=expect, wrapped=wrapped)
        if done:
            self._keys[key_id] = replace(self._keys[key_id], uses=0)
        return done


class RewrapRefusesTheSuspended(MemoryKeyStore):
    """A suspended key is lost with the old root key."""

    caught_by = ("test_keys_that_are_not_active_are_rewrapped_too",)

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        there = self._keys.get(key_id)
        if there is not None and there.state is KeyState.SUSPENDED:
            return False
        return super().rewrap(key_id, expect=expect, wrapped=wrapped)


class CountsRepeatedKeysTwice(MemoryKeyStore):
    """A key that is named twice is charged twice."""

    caught_by = ("test_uses_are_reserved_durably",)

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        granted: dict[bytes, int] = {}
        for key_id in key_ids:
            granted.update(super().reserve([key_id], uses, limit=limit))
        return granted


BROKEN_ACCOUNTS: list[Any] = [
    each for each in dict(vars()).values() if isinstance(each, type) and "caught_by" in vars(each)
]

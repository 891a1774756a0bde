"""Key stores that break one promise each, and the tests of the kit that have to see it."""
# ruff: noqa: ARG002 - what they do not look at is what is wrong with them

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import pytest

from fieldvault.errors import FieldVaultError, KeyStoreError
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import Fence, KeyRecord, KeySlot, KeyState, Snapshot
from fieldvault.keystores import MemoryKeyStore
from fieldvault.testing.vendors import Meaning
from tests.testing.sample_store import (
    PAGE,
    PASSWORD,
    PATIENCE,
    RemoteStore,
    SampleStoreConformance,
    Trouble,
)

__all__ = ["BROKEN_STORES"]


# -- first keys and rotations -------------------------------------------------------------------------------


class LastComerWins(MemoryKeyStore):
    """Looks whether there is a key, then writes: both of two writers become active."""

    caught_by = ("test_of_many_that_make_a_first_key_at_once_one_wins",)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        free = [each for each in additions if each.replaces or not self._in(each.record.slot)]
        time.sleep(0.002)
        for each in free:
            if each.replaces is None:
                self._put(each.record)
        others = [each for each in free if each.replaces is not None]
        return super().add_active(others) | {each.record.key_id for each in free if each.replaces is None}


class RotatesTwice(MemoryKeyStore):
    """Whoever rotates takes the place of whichever key is active by now."""

    caught_by = (
        "test_of_many_that_rotate_at_once_one_wins",
        "test_a_key_takes_over_from_no_other_than_the_active_one",
    )

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        turned = []
        for each in additions:
            filling = self._in(each.record.slot)
            active = [record for record in filling if record.state is KeyState.ACTIVE]
            if each.replaces and active:
                newest = replace(each.record, version=max(record.version for record in filling) + 1)
                turned.append(Addition(newest, active[0].key_id))
            else:
                turned.append(each)
        return super().add_active(turned)


class TakesErrorsForDuplicates(MemoryKeyStore):
    """Says of a key that became active that another was first."""

    caught_by = ("test_the_first_key_of_a_slot_becomes_active",)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        return super().add_active(additions) and set()


class Collates(MemoryKeyStore):
    """Takes names for the same that its collation takes for the same."""

    caught_by = ("test_names_are_equal_only_byte_for_byte",)

    def _in(self, slot: KeySlot) -> list[KeyRecord]:
        alike = [each for each in self._slots if each.tenant.casefold() == slot.tenant.casefold()]
        return [record for each in alike if each.subject == slot.subject for record in super()._in(each)]


class ReusesVersions(MemoryKeyStore):
    """Counts the versions of a slot by what is alive in it."""

    caught_by = ("test_versions_of_a_slot_only_grow",)

    def _in(self, slot: KeySlot) -> list[KeyRecord]:
        return [record for record in super()._in(slot) if record.state is not KeyState.DESTROYED]


# -- states -------------------------------------------------------------------------------------------------


class ExpectsNothing(MemoryKeyStore):
    """Changes a state, whatever it was."""

    caught_by = (
        "test_a_transition_expects_a_state",
        "test_of_many_that_change_a_state_at_once_one_does",
    )

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        there = self._keys.get(key_id)
        if there is not None and there.state is not expect:
            self._keys[key_id] = replace(there, state=expect)
        return super().transition(key_id, expect=expect, to=to)


class AllowsEverything(MemoryKeyStore):
    """Lets a key go wherever somebody wants it."""

    caught_by = ("test_a_key_goes_nowhere_else",)

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        try:
            return super().transition(key_id, expect=expect, to=to)
        except FieldVaultError:
            self._keys[key_id] = replace(self._keys[key_id], state=to)
            return True


class DestroysByName(MemoryKeyStore):
    """A destroyed key keeps its material."""

    caught_by = ("test_a_key_goes_where_its_life_leads",)

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        before = self._keys.get(key_id)
        done = super().transition(key_id, expect=expect, to=to)
        if done and before is not None:
            self._keys[key_id] = replace(self._keys[key_id], wrapped=before.wrapped)
        return done


class ReinstatesBesides(MemoryKeyStore):
    """A slot may have two active keys, if one of them was suspended."""

    caught_by = (
        "test_a_slot_has_one_active_key",
        "test_of_many_keys_reinstated_at_once_one_becomes_active",
    )

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        there = self._keys.get(key_id)
        if to is KeyState.ACTIVE and there is not None and there.state is expect:
            self._keys[key_id] = replace(there, state=to)
            return True
        return super().transition(key_id, expect=expect, to=to)


class RotationUndoes(MemoryKeyStore):
    """A rotation retires the key that it replaces, though somebody suspended or destroyed it meanwhile."""

    caught_by = ("test_a_key_does_not_take_over_from_one_that_left_its_place",)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        for each in additions:
            if each.replaces in self._keys:
                self._keys[each.replaces] = replace(self._keys[each.replaces], state=KeyState.ACTIVE)
        return super().add_active(additions)


# -- uses and wrapped forms ---------------------------------------------------------------------------------


class CountsWithoutLock(MemoryKeyStore):
    """Reads the uses, and writes what it adds up to."""

    caught_by = ("test_many_that_reserve_at_once_never_pass_the_limit",)

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        granted = {}
        for key_id in key_ids:
            there = self._keys.get(key_id)
            time.sleep(0.0002)
            if there is not None and there.state is KeyState.ACTIVE and there.uses + uses <= limit:
                self._keys[key_id] = replace(there, uses=there.uses + uses)
                granted[key_id] = there.uses + uses
        return granted


class GrantsOneTooMany(MemoryKeyStore):
    """The bound is not quite one."""

    caught_by = ("test_the_last_use_is_granted_and_not_one_more",)

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        return super().reserve(key_ids, uses, limit=limit + 1)


class GrantsTheRetired(MemoryKeyStore):
    """A key that seals nothing any more has uses."""

    caught_by = ("test_only_active_keys_have_uses",)

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        return {key_id: self._keys[key_id].uses + uses for key_id in key_ids if key_id in self._keys}


class RewrapsOver(MemoryKeyStore):
    """The later of two rewraps wins."""

    caught_by = (
        "test_a_key_is_rewrapped_where_it_is_as_expected",
        "test_of_many_that_rewrap_at_once_one_does",
        "test_a_destroyed_key_is_never_wrapped_again",
    )

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        there = self._keys.get(key_id)
        return super().rewrap(key_id, expect=(there and there.wrapped) or expect, wrapped=wrapped) or (
            there is not None and there.wrapped is None
        )


# -- fences -------------------------------------------------------------------------------------------------


class FencesNobody(MemoryKeyStore):
    """Keys are made behind a fence."""

    caught_by = ("test_no_key_is_made_behind_a_fence", "test_a_scope_without_keys_is_fenced")

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        fences, self._fences = self._fences, {}
        try:
            return super().add_active(additions)
        finally:
            self._fences = fences


class FencesLast(MemoryKeyStore):
    """Wipes the keys first: what is made between the two stays."""

    caught_by = ("test_no_key_slips_past_a_shred",)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        destroyed = []
        for record in self.keys(fence.tenant, fence.subject):
            self._keys[record.key_id] = replace(record, state=KeyState.DESTROYED, wrapped=None)
            destroyed.append(record.key_id)
        time.sleep(0.005)
        self._fences.setdefault((fence.tenant, fence.subject), fence)
        return destroyed


class FencesAnew(MemoryKeyStore):
    """Each shred sets the fence again, and who asked first is forgotten."""

    caught_by = (
        "test_a_shred_can_be_repeated",
        "test_of_many_that_shred_at_once_one_sets_the_fence",
    )

    _turns = 0

    def shred(self, fence: Fence) -> Sequence[bytes]:
        with self._lock:
            self._fences.pop((fence.tenant, fence.subject), None)
            self._turns += 1
        answer = super().shred(fence)
        return answer if self._turns == 1 else []


class ForgetsWhy(MemoryKeyStore):
    """A fence is cut to what its column holds."""

    caught_by = ("test_a_fence_is_kept_as_it_was_set",)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        return super().shred(replace(fence, reason=fence.reason[:255]))


class WipesHalf(MemoryKeyStore):
    """Retired keys stay when a tenant is shredded."""

    caught_by = ("test_a_shredded_tenant_has_no_material_left",)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        kept = {key_id: each for key_id, each in self._keys.items() if each.state is KeyState.SUSPENDED}
        answer = super().shred(fence)
        self._keys.update(kept)
        return answer


class WipesTooMuch(MemoryKeyStore):
    """The shred of a subject takes the tenant along."""

    caught_by = ("test_a_shred_touches_no_other_scope", "test_a_fence_of_a_subject_leaves_the_others_room")

    def shred(self, fence: Fence) -> Sequence[bytes]:
        return super().shred(replace(fence, subject=None))


# -- reading, listing, staleness ----------------------------------------------------------------------------


class ReadsOnePage(MemoryKeyStore):
    """Lists the first page, and no other."""

    caught_by = (
        "test_all_keys_of_a_tenant_come_once",
        "test_all_tenants_come_once",
        "test_thousands_of_fences_are_taken_over_and_listed",
    )

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        return iter([*super().all_keys(tenant)][:PAGE])

    def tenants(self) -> Iterator[str]:
        return iter([*super().tenants()][:PAGE])

    def fences(self) -> Iterator[Fence]:
        return iter([*super().fences()][:PAGE])


class OverlapsPages(MemoryKeyStore):
    """The last of a page is the first of the next."""

    caught_by = ("test_all_keys_of_a_tenant_come_once", "test_all_tenants_come_once")

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        return self._overlapping([*super().all_keys(tenant)])

    def tenants(self) -> Iterator[str]:
        return self._overlapping([*super().tenants()])

    @staticmethod
    def _overlapping(listed: list[object]) -> Iterator:  # type: ignore[type-arg]  # of either
        return iter(listed[:PAGE] + listed[PAGE - 1 :])


class FetchesOnePage(MemoryKeyStore):
    """Of thousands of keys it looks up as many as a statement takes."""

    caught_by = ("test_thousands_of_keys_are_fetched_at_once",)

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        return super().fetch(key_ids[:PAGE])


class ReadsOnePageOfSlots(MemoryKeyStore):
    """Of thousands of slots too."""

    caught_by = ("test_current_shows_thousands_of_slots",)

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        return super().current(slots[:PAGE])


class LeavesParents(MemoryKeyStore):
    """A subject's key comes without what opens it."""

    caught_by = ("test_fetching_brings_parents_along", "test_current_shows_how_a_slot_stands")

    def _snapshot(self, records: Iterable[KeyRecord]) -> Snapshot:
        return Snapshot(self.generation(), {record.key_id: record for record in records})


class ForgetsTimes(MemoryKeyStore):
    """Times to the second."""

    caught_by = ("test_a_record_comes_back_exactly",)

    def _put(self, record: KeyRecord) -> None:
        super()._put(replace(record, created_at=record.created_at.replace(microsecond=0)))


class ShowsActiveOnly(MemoryKeyStore):
    """Where no key is active it shows none, and nobody knows the next version."""

    caught_by = ("test_current_shows_the_newest_key_in_any_state",)

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        seen = super().current(slots)
        live = {key: each for key, each in seen.records.items() if each.state is KeyState.ACTIVE}
        return replace(seen, records=live)


class KeepsQuiet(MemoryKeyStore):
    """A state changes, and no cache is told."""

    caught_by = ("test_another_state_makes_stale",)

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        told = [*self._changes]
        done = super().transition(key_id, expect=expect, to=to)
        self._changes = told
        return done


class ShredsQuietly(MemoryKeyStore):
    """A tenant is shredded, and no cache is told."""

    caught_by = ("test_a_shred_makes_stale", "test_changes_are_told_since_any_generation")

    def shred(self, fence: Fence) -> Sequence[bytes]:
        told = [*self._changes]
        answer = super().shred(fence)
        self._changes = told
        return answer


class RunsAhead(MemoryKeyStore):
    """The generation is read after the records that it stands for."""

    caught_by = ("test_a_snapshot_is_never_older_than_its_generation",)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        time.sleep(0.0005)
        return super().add_active(additions)

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        seen = super().current(slots)
        time.sleep(0.002)
        return replace(seen, generation=self.generation())


class ForgetsLeases(MemoryKeyStore):
    """The last lease, and not the longest."""

    caught_by = ("test_the_longest_lease_is_remembered",)

    def declare_lease(self, seconds: float) -> float:
        self._lease = seconds
        return seconds


# -- copies -------------------------------------------------------------------------------------------------


class BringsBack(MemoryKeyStore):
    """A copy takes records as they come, the destroyed among them alive."""

    caught_by = ("test_a_destroyed_key_never_comes_back", "test_nothing_is_alive_behind_a_fence")

    def take_over(self, records: Sequence[KeyRecord], fences: Sequence[Fence], *, token: int) -> int:
        changed = super().take_over(records, fences, token=token)
        for record in records:
            self._keys[record.key_id] = record
        return changed


class ServesTooSoon(MemoryKeyStore):
    """A copy that is not finished answers."""

    caught_by = ("test_an_unfinished_copy_serves_nobody",)

    def _require_served(self) -> None:
        return


# -- outages, forks, secrets --------------------------------------------------------------------------------


class TakesOutagesForAbsence(RemoteStore):
    """What it could not read is not there."""

    caught_by = ("test_in_an_outage_each_call_is_an_error_and_nothing_happens",)

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        return Snapshot(0, {}) if self.trouble else super().fetch(key_ids)


class TakesOutagesForDuplicates(RemoteStore):
    """What it could not write is there already."""

    caught_by = ("test_in_an_outage_each_call_is_an_error_and_nothing_happens",)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        return set() if self.trouble else super().add_active(additions)


class WritesAllTheSame(RemoteStore):
    """Says that it failed, and has done it."""

    caught_by = ("test_in_an_outage_each_call_is_an_error_and_nothing_happens",)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        MemoryKeyStore.shred(self, fence)
        return super().shred(fence)


class RaisesWhatTheVendorRaises(RemoteStore):
    """It has no error of its own."""

    caught_by = (
        "test_in_an_outage_each_call_is_an_error_and_nothing_happens",
        "test_a_slow_storage_is_not_waited_for_without_end",
    )

    def reach(self) -> None:
        if self.trouble:
            raise Trouble


class TellsDenialsAsOutages(RemoteStore):
    """A permission that was taken away is waited for."""

    caught_by = ("test_a_refused_caller_is_told_so_and_served_once_allowed",)

    def reach(self) -> None:
        if self.trouble:
            raise KeyStoreError("try again")


class NeverRecovers(RemoteStore):
    """One outage, and the object is of no use."""

    caught_by = ("test_in_an_outage_each_call_is_an_error_and_nothing_happens",)

    _down = False

    def reach(self) -> None:
        self._down |= bool(self.trouble)
        if self._down:
            raise KeyStoreError("still")


class WaitsForEver(RemoteStore):
    """Nobody answers, and it goes on waiting."""

    caught_by = ("test_a_slow_storage_is_not_waited_for_without_end",)

    def reach(self) -> None:
        if self.trouble:
            time.sleep(PATIENCE * 1.2)
        super().reach()


class QuotesItsPassword(RemoteStore):
    """An error says where it was to connect, and as whom."""

    caught_by = ("test_in_an_outage_each_call_is_an_error_and_nothing_happens",)

    def reach(self) -> None:
        if self.trouble:
            raise KeyStoreError(f"no route to store://vault:{PASSWORD}@server")


class ShowsItself(RemoteStore):
    """So does its representation."""

    caught_by = ("test_nothing_that_is_shown_holds_a_secret",)

    def __repr__(self) -> str:
        return f"RemoteStore('store://vault:{PASSWORD}@server')"


class DoesNotFork(RemoteStore):
    """Its connection is of no use to a child."""

    caught_by = ("test_a_forked_child_is_served_and_so_is_its_parent",)

    def __init__(self) -> None:
        super().__init__()
        self._opened_in = os.getpid()

    def reach(self) -> None:
        if os.getpid() != self._opened_in:
            raise KeyStoreError("bad file descriptor")
        super().reach()


# -- the vendor's errors ------------------------------------------------------------------------------------


class MissesOne(SampleStoreConformance):
    """One of the library's errors reaches whoever calls."""

    caught_by = ("test_every_error_of_the_vendor_is_mapped",)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        return dict.fromkeys((Trouble, "StorageFull"), KeyStoreError).get


class KnowsEverything(SampleStoreConformance):
    """Whatever anybody raises, it has caught."""

    caught_by = ("test_an_error_that_nobody_heard_of_is_not_mapped",)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        return lambda _error: KeyStoreError


BROKEN_STORES: list[Any] = [
    each for each in dict(vars()).values() if isinstance(each, type) and "caught_by" in vars(each)
]

"""Erasure: the fence first, the material gone, and nothing that comes back."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, islice

import pytest

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import Fence, KeySlot, KeyState, Purpose
from fieldvault.testing.samples import acme, add, fence, first_key, record, successor, together, wrap_key


class ErasurePromises:
    """Shredding, and fences."""

    def test_a_shredded_tenant_has_no_material_left(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Its own keys of every purpose, version and state; the records stay."""
        old = first_key(store, acme())
        keys = [old, successor(store, old), wrap_key(store), first_key(store, acme(purpose=Purpose.INDEX))]
        store.transition(old.key_id, expect=KeyState.RETIRED, to=KeyState.SUSPENDED)
        assert set(store.shred(fence())) == {key.key_id for key in keys}
        found = elsewhere.fetch([key.key_id for key in keys]).records.values()
        assert {(key.state, key.wrapped) for key in found} == {(KeyState.DESTROYED, None)}
        assert len(found) == 4

    def test_a_shredded_tenant_takes_its_subjects_along(self, store: KeyStore) -> None:
        """The wrap key above their keys is gone, and so is the way to any of them."""
        parent = wrap_key(store)
        child = first_key(store, acme("ann"), parent=parent.key_id)
        assert store.shred(fence()) == [parent.key_id]
        assert store.fetch([child.key_id]).records[parent.key_id].wrapped is None

    def test_a_shred_touches_no_other_scope(self, store: KeyStore) -> None:
        """Other tenants, the tenant of a shredded subject and its other subjects go on."""
        parent, other = wrap_key(store), first_key(store, KeySlot("globex", "ann"))
        ann, bob = (first_key(store, acme(name), parent=parent.key_id) for name in ("ann", "bob"))
        assert store.shred(fence(subject="ann")) == [ann.key_id]
        left = store.fetch([ann.key_id, bob.key_id, other.key_id, parent.key_id]).records
        assert {key.key_id for key in left.values() if key.wrapped} == {
            bob.key_id,
            other.key_id,
            parent.key_id,
        }

    def test_a_fence_is_kept_as_it_was_set(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Who, why and when, in any script; before there is one there is none."""
        assert store.fence("acme", None) is None
        moment = datetime(2024, 5, 1, 12, 30, 1, 2, tzinfo=UTC)
        set_ = Fence(
            "acme",
            None,
            "\u5f20\u4f1f",
            "\u5ba2\u6237\u8981\u6c42\u5220\u9664 \U0001f5d1 " + "x" * 900,
            moment,
        )
        store.shred(set_)
        assert elsewhere.fence("acme", None) == set_
        assert elsewhere.fence("ACME", None) is None

    def test_a_fence_of_a_tenant_is_over_its_subjects(self, store: KeyStore) -> None:
        """A subject's own fence is over nobody else."""
        own = fence(subject="ann")
        store.shred(own)
        assert (store.fence("acme", "ann"), store.fence("acme", "bob"), store.fence("acme", None)) == (
            own,
            None,
            None,
        )
        whole = fence()
        store.shred(whole)
        assert store.fence("acme", "bob") == store.fence("acme", None) == whole
        assert store.fence("acme", "ann") == own

    def test_a_shred_can_be_repeated(self, store: KeyStore) -> None:
        """The same keys are named again, and the first fence stays."""
        key, first = first_key(store, acme()), fence()
        assert store.shred(first) == store.shred(fence(reason="once more")) == [key.key_id]
        assert store.fence("acme", None) == first

    def test_a_subject_is_shredded_within_a_shredded_tenant(self, store: KeyStore) -> None:
        """Each keeps its own fence."""
        key = first_key(store, acme("ann"), parent=wrap_key(store).key_id)
        store.shred(fence())
        assert store.shred(fence(subject="ann")) == [key.key_id]
        assert store.fetch([key.key_id]).records[key.key_id].wrapped is None

    def test_a_scope_without_keys_is_fenced(self, store: KeyStore) -> None:
        """It never gets any, and a tenant of that name is known from now on."""
        assert list(store.shred(fence("nobody"))) == []
        with pytest.raises(KeyShredded):
            add(store, record(KeySlot("nobody")))
        assert list(store.tenants()) == ["nobody"]

    @pytest.mark.parametrize("fenced", [None, "ann"])
    def test_no_key_is_made_behind_a_fence(self, store: KeyStore, fenced: str | None) -> None:
        """Not the first, not the next, not for another purpose, and nothing else of the same step."""
        key = first_key(store, acme("ann"))
        store.shred(fence(subject=fenced))
        bystander = record(KeySlot("globex"))
        for addition in (
            Addition(record(acme("ann"), 2), None),
            Addition(record(acme("ann"), 2), key.key_id),
            *(Addition(record(acme("ann", purpose), 2), None) for purpose in Purpose),
        ):
            with pytest.raises(KeyShredded):
                store.add_active([Addition(bystander, None), addition])
        assert store.fetch([bystander.key_id]).records == {}
        assert [each.key_id for each in store.all_keys("acme")] == [key.key_id]

    def test_a_fence_of_a_subject_leaves_the_others_room(self, store: KeyStore) -> None:
        """The tenant and its other subjects get new keys; so does a tenant with a name that looks alike."""
        first_key(store, acme("ann"))
        store.shred(fence(subject="ann"))
        for slot in (acme(), acme("ann "), acme("Ann"), KeySlot("ACME", "ann")):
            first_key(store, slot)

    def test_no_key_slips_past_a_shred(self, store: KeyStore, handles: Sequence[KeyStore]) -> None:
        """Of keys made at the same moment, each is refused or wiped."""

        def make(handle: KeyStore, slot: KeySlot) -> None:
            key = record(slot)
            try:
                add(handle, key)
                add(handle, record(slot, 2), key)
            except KeyShredded:
                pass

        def shred(slot: KeySlot) -> None:
            store.shred(fence(slot.tenant, slot.subject))

        for turn in range(8):
            tenant, subject = f"tenant {turn}", "ann" if turn % 2 else None
            slot = KeySlot(tenant, subject)
            makers = [partial(make, each, slot) for each in islice(cycle(handles), 5)]
            together([*makers, partial(shred, slot)])
            assert [key for key in store.keys(tenant, subject) if key.wrapped] == []

    def test_of_many_that_shred_at_once_one_sets_the_fence(
        self, store: KeyStore, handles: Sequence[KeyStore]
    ) -> None:
        """All of them are told the same keys."""
        key = first_key(store, acme())
        fences = [fence(reason=f"reason {number}") for number in range(6)]
        racing = zip(cycle(handles), fences, strict=False)
        answers = together([partial(each.shred, set_) for each, set_ in racing])
        assert [list(answer) for answer in answers] == [[key.key_id]] * 6
        assert store.fence("acme", None) in fences

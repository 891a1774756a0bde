"""A key store is copied while it is in use, and the copy is proven before it serves anyone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import TypeVar

import pytest

from fieldvault import Vault
from fieldvault.errors import ConfigurationError, KeyShredded, KeyStoreError, MovedAway
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import Fence, KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.lifecycle.copying import TargetInUse, copy_key_store
from fieldvault.lifecycle.inventory import take_inventory
from fieldvault.testing.samples import acme, fence, first_key, record, successor, wrap_key
from tests.killing import killed_at

Store = TypeVar("Store", bound=KeyStore)


def lived_in(store: Store) -> Store:
    """The store with everything in it that there can be."""
    for tenant in ("acme", "globex", "茶庄"):
        old = first_key(store, KeySlot(tenant))
        store.reserve([old.key_id], 65_536, limit=2**32)
        retired = successor(store, old)
        successor(store, retired)
        store.transition(old.key_id, expect=KeyState.RETIRED, to=KeyState.DESTROYED)
        store.transition(retired.key_id, expect=KeyState.RETIRED, to=KeyState.SUSPENDED)
        parent = wrap_key(store, tenant)
        for subject in ("ann", "bob"):
            first_key(store, KeySlot(tenant, subject), parent=parent.key_id)
        first_key(store, KeySlot(tenant, None, Purpose.INDEX))
    store.shred(fence("acme", "ann"))
    store.shred(fence("acme", "nobody"))
    store.shred(fence("globex"))
    store.declare_lease(90.5)
    return store


def records(store: KeyStore) -> dict[bytes, KeyRecord]:
    """Everything in the store, by key id."""
    return {key.key_id: key for tenant in store.tenants() for key in store.all_keys(tenant)}


@pytest.fixture
def source() -> MemoryKeyStore:
    """A store with a history."""
    store = MemoryKeyStore()
    lived_in(store)
    return store


def test_everything_is_copied_between_all_kinds_of_stores(
    sqlite_url: str, postgresql_url: str, mariadb_url: str
) -> None:
    """From one to the next: the last has what the first had, and no generation is a past."""
    first = lived_in(MemoryKeyStore())
    stores: list[MemoryKeyStore | SQLKeyStore] = [first]
    stores += [*map(SQLKeyStore, (sqlite_url, postgresql_url, mariadb_url)), MemoryKeyStore()]
    for source, target in pairwise(stores):
        reached = source.generation()
        copied = copy_key_store(source, target, finish=True)
        assert copied.finished
        assert copied.proven
        assert copied.source == copied.target
        assert copied.written == len(records(first)) + 3
        assert target.generation() > reached
        assert target.changes(reached) is None
        assert target.declare_lease(0) == 90.5
        assert records(target) == records(first)
        assert target.fence("acme", "nobody") == first.fence("acme", "nobody")
    last = take_inventory(stores[-1], step=lambda: None)
    # The keys of a shredded tenant's subjects stay as they were: nothing opens them any more.
    assert [last.keys[state] for state in KeyState] == [11, 0, 2, 8]
    assert last.fences == 3
    for store in stores:
        store.close()


def test_what_was_sealed_before_opens_after(tmp_path: Path) -> None:
    """Values of tenants and subjects; what was shredded stays so, and an unfinished copy opens nothing."""
    kms, source, target = LocalKMS.create(tmp_path / "root.keys"), MemoryKeyStore(), MemoryKeyStore()
    with Vault(kms=kms, key_store=source) as vault:
        sealed = [
            vault.encrypt("x", field="a.b", tenant="acme", subject=subject)
            for subject in (None, "ann", "bob")
        ]
        vault.shred("acme", "bob", actor="officer", reason="asked to be forgotten")
    copy_key_store(source, target, finish=False)
    with Vault(kms=kms, key_store=target) as vault, pytest.raises(KeyStoreError, match="unfinished copy"):
        vault.encrypt("y", field="a.b", tenant="globex")
    copy_key_store(source, target, finish=True)
    with Vault(kms=kms, key_store=target) as vault:
        for blob, subject in zip(sealed[:2], (None, "ann"), strict=True):
            assert vault.decrypt(blob, field="a.b", tenant="acme", subject=subject) == "x"
        for use in (
            lambda: vault.decrypt(sealed[2], field="a.b", tenant="acme", subject="bob"),
            lambda: vault.encrypt("x", field="a.b", tenant="acme", subject="bob"),
        ):
            with pytest.raises(KeyShredded):
                use()


Change = Callable[[KeyStore, KeyRecord], object]

CHANGES: dict[str, Change] = {
    "shred of the tenant": lambda store, _: store.shred(fence()),
    "shred of the subject": lambda store, _: store.shred(fence(subject="bob")),
    "shred of a stranger": lambda store, _: store.shred(fence("nobody", "ann")),
    "rotation": successor,
    "suspension": lambda store, key: store.transition(
        key.key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED
    ),
    "destruction": lambda store, key: store.transition(
        key.key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED
    ),
    "uses": lambda store, key: store.reserve([key.key_id], 5, limit=2**32),
    "rewrap": lambda store, key: store.rewrap(key.key_id, expect=key.wrapped or b"", wrapped=b"again"),
    "first key": lambda store, _: first_key(store, KeySlot("a new tenant")),
    "first key of a subject": lambda store, _: first_key(store, acme("carl")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_during_the_copy_is_copied(change: str) -> None:
    """Though the tenant was read already."""
    source, target = MemoryKeyStore(), MemoryKeyStore()
    key = first_key(source, acme())
    first_key(source, acme("bob"))
    first_key(source, KeySlot("globex"))
    pending = [lambda: CHANGES[change](source, key)]

    def step() -> None:
        if pending:
            pending.pop()()

    copied = copy_key_store(source, target, finish=True, step=step)
    assert copied.finished
    assert records(target) == records(source)
    assert set(target.fences()) == set(source.fences())


@pytest.mark.parametrize("change", CHANGES)
def test_whoever_was_not_stopped_is_refused(change: str, source: MemoryKeyStore) -> None:
    """From the last pass on: what would be in no copy does not happen, nor after it."""
    target, steps, refused = MemoryKeyStore(), count(), []
    (key,) = (each for each in source.keys("茶庄", None) if each.version == 3)
    tenants = len(list(source.tenants()))

    def late() -> None:
        with pytest.raises(MovedAway) as told:
            CHANGES[change](source, key)
        refused.append(told)

    def step() -> None:
        # Two passes; then the source is moved away, and passed over, read, and read again.
        if next(steps) in (2 * tenants, 3 * tenants, 5 * tenants):
            late()

    assert copy_key_store(source, target, finish=True, step=step).finished
    late()
    assert len(refused) == 4
    assert records(target) == records(source)
    with pytest.raises(MovedAway):
        source.generation()


@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_during_the_proof_is_not_passed_over(change: str, source: MemoryKeyStore) -> None:
    """The copy stays closed, and the tenant is named; the next call copies it."""
    target, steps = MemoryKeyStore(), count()
    source.shred(fence("three"))
    (key,) = (each for each in source.keys("茶庄", None) if each.version == 3)
    tenants = len(list(source.tenants()))

    def step() -> None:
        # Two passes and the first look at the source; then the copy is looked at.
        if next(steps) == 3 * tenants:
            CHANGES[change](source, key)

    copied = copy_key_store(source, target, finish=False, step=step)
    assert not copied.proven
    assert len(copied.unsteady) == 1
    assert copied.differing == copied.unsteady
    with pytest.raises(KeyStoreError):
        target.generation()
    assert copy_key_store(source, target, finish=True).finished
    assert records(target) == records(source)


def test_a_source_that_never_stands_still_is_given_up(source: MemoryKeyStore) -> None:
    """After five passes; nothing of it is wrong, but nothing is proven before it is moved away."""
    target = MemoryKeyStore()
    (key,) = (each for each in source.keys("茶庄", None) if each.version == 3)
    steps: list[object] = []

    def step() -> None:
        steps.append(source.reserve([key.key_id], 1, limit=2**32))

    copied = copy_key_store(source, target, finish=False, step=step)
    assert not copied.proven
    assert copied.unsteady == ["茶庄"]
    assert len(steps) == (5 + 3) * 3

    def refused() -> None:
        with suppress(MovedAway):
            step()

    assert copy_key_store(source, target, finish=True, step=refused).finished
    assert records(target) == records(source)


class _Torn(MemoryKeyStore):
    """Lists the keys of a slot from before and after a rotation, as a listing in pages may."""

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        for key in super().all_keys(tenant):
            torn = key.state is KeyState.RETIRED
            yield replace(key, state=KeyState.ACTIVE) if torn else key


def test_a_listing_that_saw_both_sides_of_a_rotation_is_looked_at_again() -> None:
    """A slot has one active key at any moment."""
    source, target = _Torn(), MemoryKeyStore()
    successor(source, first_key(source, acme()))
    assert copy_key_store(source, target, finish=True).finished
    assert [key.state for key in target.all_keys("acme")] == [KeyState.RETIRED, KeyState.ACTIVE]


def test_a_shred_that_was_interrupted_is_completed_in_the_copy(source: MemoryKeyStore) -> None:
    """The fence is there, the material not yet gone: it does not come along."""
    first_key(source, KeySlot("half gone"))
    half = fence("half gone")
    source._fences["half gone", None] = half
    target = MemoryKeyStore()
    assert copy_key_store(source, target, finish=True).finished
    assert [(key.state, key.wrapped) for key in target.keys("half gone", None)] == [
        (KeyState.DESTROYED, None)
    ]


class _Bad(MemoryKeyStore):
    """Loses or bends what it takes over."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def take_over(self, records: Sequence[KeyRecord], fences: Sequence[Fence], *, token: int) -> int:
        return super().take_over(
            [key for each in records if (key := self._bent(each)) is not None],
            [each for each in fences if not (self.fault == "fence" and each.tenant == "globex")],
            token=token,
        )

    def _bent(self, key: KeyRecord) -> KeyRecord | None:
        if key.slot != KeySlot("globex", "bob"):
            return key
        if self.fault == "state":
            return replace(key, state=KeyState.RETIRED)
        if self.fault == "wrapped form":
            return replace(key, wrapped=(key.wrapped or b"")[:-1])
        if self.fault == "uses":
            return replace(key, uses=1)
        if self.fault == "parent":
            return replace(key, parent=None)
        return None if self.fault == "key" else key


@pytest.mark.parametrize("fault", ["key", "state", "wrapped form", "uses", "parent", "fence"])
def test_a_copy_that_lost_or_bent_something_is_not_opened(source: MemoryKeyStore, fault: str) -> None:
    """The tenant is named."""
    target = _Bad(fault)
    copied = copy_key_store(source, target, finish=True)
    assert copied.differing == ["globex"]
    assert copied.unsteady == []
    assert not copied.finished
    assert copied.source.digest != copied.target.digest
    with pytest.raises(KeyStoreError):
        target.generation()
    # The source serves on; or stays as it was, if a call before this one was killed on its way.
    source.generation()
    source.move_away(token=1)
    assert not copy_key_store(source, target, finish=True).finished
    with pytest.raises(MovedAway):
        source.generation()


def test_material_behind_a_fence_in_the_copy_is_no_proof(source: MemoryKeyStore) -> None:
    """What the source destroyed must be gone from the copy, and not only be fenced."""
    target = MemoryKeyStore()
    copy_key_store(source, target, finish=False)
    (key,) = source.keys("acme", "ann")
    revived = replace(key, state=KeyState.RETIRED, wrapped=b"back")

    def revive() -> None:
        target._keys[key.key_id] = revived

    copied = copy_key_store(source, target, finish=True, step=revive)
    assert copied.differing == ["acme"]
    assert not copied.finished


@pytest.mark.parametrize("at", range(0, 15, 2))
def test_an_interrupted_copy_is_gone_on_with(source: MemoryKeyStore, at: int) -> None:
    """Wherever it was interrupted; it serves nobody until then."""
    target, steps = MemoryKeyStore(), count()

    def step() -> None:
        if next(steps) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_key_store(source, target, finish=True, step=step)
    with pytest.raises(KeyStoreError):
        target.current([acme()])
    assert copy_key_store(source, target, finish=True).finished
    assert records(target) == records(source)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_copy_killed_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    """Between two SQLite files; nothing of the source is harmed."""
    source = SQLKeyStore(f"sqlite:///{tmp_path / 'source.db'}")
    lived_in(source)
    url = f"sqlite:///{tmp_path / 'target.db'}"

    def copy() -> None:
        target = SQLKeyStore(url)
        copy_key_store(source, target, finish=True)
        target.close()

    ended = []
    for line in count(5, 330):
        killed = killed_at(line, ["fieldvault/lifecycle/", "fieldvault/keystores/sql/copying.py"], copy)
        target = SQLKeyStore(url)
        copied = copy_key_store(source, target, finish=True)
        assert copied.finished
        assert records(target) == records(source)
        ended.append(copied.written)
        source.move_back()
        target.close()
        for left in tmp_path.glob("target.db*"):
            left.unlink()
        if not killed:
            break
    assert ended[0] > ended[-1] == 0
    source.close()


def test_a_finished_copy_is_said_to_be_so(source: MemoryKeyStore) -> None:
    """A script may repeat the command; nothing is written."""
    target = MemoryKeyStore()
    copy_key_store(source, target, finish=True)
    again = copy_key_store(source, target, finish=False)
    assert again.finished
    assert again.written == 0


def test_a_store_that_was_moved_away_is_not_copied_to_a_third(source: MemoryKeyStore) -> None:
    """What the one that it was moved to has seen since would come back."""
    target, third = MemoryKeyStore(), MemoryKeyStore()
    copy_key_store(source, target, finish=True)
    for finish in (False, True):
        with pytest.raises(MovedAway):
            copy_key_store(source, third, finish=finish)
    first_key(third, acme())
    source.move_back()
    assert copy_key_store(source, MemoryKeyStore(), finish=True).finished


def test_a_store_that_was_moved_back_is_moved_away_again(source: MemoryKeyStore) -> None:
    """To the copy that was finished before, as long as both hold the same."""
    target = MemoryKeyStore()
    copy_key_store(source, target, finish=True)
    source.move_back()
    assert copy_key_store(source, target, finish=False).finished
    generation = source.generation()
    assert copy_key_store(source, target, finish=True).finished
    with pytest.raises(MovedAway):
        source.generation()
    source.move_back()
    source.reserve([key.key_id for key in source.keys("茶庄", None)], 1, limit=2**32)
    with pytest.raises(TargetInUse):
        copy_key_store(source, target, finish=True)
    assert source.generation() == generation


def test_a_copy_that_is_in_use_is_left_alone(source: MemoryKeyStore) -> None:
    """As is a store that has keys, the source itself among them."""
    used, other = MemoryKeyStore(), MemoryKeyStore()
    copy_key_store(source, used, finish=True)
    first_key(used, KeySlot("a new tenant"))
    first_key(other, acme())
    for target in (used, other, source):
        before = records(target)
        for finish in (False, True):
            with pytest.raises(TargetInUse, match="copy to an empty one"):
                copy_key_store(source, target, finish=finish)
        assert records(target) == before
        if target is not source:
            assert target.generation() >= 0


def test_a_store_is_not_copied_to_itself(source: MemoryKeyStore) -> None:
    """It serves on."""
    for finish in (False, True):
        with pytest.raises(TargetInUse):
            copy_key_store(source, source, finish=finish)
        source.generation()


class _Watched(MemoryKeyStore):
    """Has something done just before a method is called for the n-th time."""

    def __init__(self, method: str, nth: int, work: Callable[[], object]) -> None:
        super().__init__()
        self.method, self.work, self.calls = method, work, count(1)
        self.nth = nth

    def __getattribute__(self, name: str) -> object:
        found: object = super().__getattribute__(name)
        if name != "method" and name == self.method and next(self.calls) == self.nth:
            self.work()
        return found


# In the first pass, in the last one and in the proof, when the source is closed already, and at the end.
@pytest.mark.parametrize(
    ("method", "nth"), [("take_over", 1), ("take_over", 9), ("fences", 2), ("finish_copy", 1)]
)
def test_of_two_copies_at_once_the_later_one_goes_on(source: MemoryKeyStore, method: str, nth: int) -> None:
    """The earlier one writes nothing any more, and neither opens the copy nor the source."""
    (key,) = (each for each in source.keys("茶庄", None) if each.version == 3)
    copied = []

    def overtake() -> None:
        source.move_back()
        source.transition(key.key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED)
        copied.append(copy_key_store(source, target, finish=True))

    target = _Watched(method, nth, overtake)
    with suppress(KeyStoreError):
        assert not copy_key_store(source, target, finish=True).finished
    assert copied[0].finished
    assert records(target) == records(source)
    assert records(target)[key.key_id].state is KeyState.SUSPENDED
    with pytest.raises(MovedAway):
        source.generation()


@pytest.mark.parametrize("strange", ["key", "fence"])
def test_the_unfinished_copy_of_another_store_is_left_alone(source: MemoryKeyStore, strange: str) -> None:
    """The keys of two stores are not mixed."""
    other, target = MemoryKeyStore(), MemoryKeyStore()
    if strange == "key":
        first_key(other, KeySlot("globex"))
    else:
        other.shred(fence("globex", "ann"))
    copy_key_store(other, target, finish=False)
    before = records(target), list(target.fences())
    with pytest.raises(TargetInUse, match="unfinished copy of another one"):
        copy_key_store(source, target, finish=True)
    assert (records(target), list(target.fences())) == before


def test_an_empty_store_has_nothing_to_copy() -> None:
    """A mistyped path most likely; the target is not touched."""
    target = MemoryKeyStore()
    with pytest.raises(ConfigurationError, match="nothing to copy"):
        copy_key_store(MemoryKeyStore(), target, finish=True)
    first_key(target, acme())


class _Plain:
    """A key store with nothing but what the protocol of key stores wants."""

    def __init__(self) -> None:
        store = MemoryKeyStore()
        for name in KeyStore.__dict__:
            if not name.startswith("_"):
                setattr(self, name, getattr(store, name))


def test_a_store_that_cannot_be_copied_is_told_so(source: MemoryKeyStore) -> None:
    """A third party's may not be able to, neither as the one nor as the other."""
    plain: KeyStore = _Plain()  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="_Plain cannot be copied to"):
        copy_key_store(source, plain, finish=True)
    with pytest.raises(ConfigurationError, match="_Plain cannot be copied from"):
        copy_key_store(plain, source, finish=True)


def test_a_large_slot_is_never_split_over_two_steps() -> None:
    """The records of a scope come in one, whatever their number."""
    source, target = MemoryKeyStore(), MemoryKeyStore()
    key = first_key(source, acme())
    for _ in range(700):
        key = successor(source, key)
    for number in range(700):
        first_key(source, acme(f"subject {number}"))
    assert record(acme()).slot == key.slot
    assert copy_key_store(source, target, finish=True).finished
    assert records(target) == records(source)

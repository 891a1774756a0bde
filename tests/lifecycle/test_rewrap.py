"""Rewrapping: the same keys under another root key, while everything goes on."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from fieldvault import CachePolicy, Vault
from fieldvault.errors import KeyShredded, KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.records import Fence, KeySlot, KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.kms import PKCS11KMS, LocalKMS, MultiKMS
from fieldvault.kms.multi.container import Container
from fieldvault.lifecycle.rewrap import Outcome, rewrap
from fieldvault.testing.fakes import FaultyKMS
from tests.keys.parties import Rig, WatchedStore
from tests.killing import killed_at
from tests.servers.softhsm import PIN, TOKEN, SoftHSM

FIELD = "customers.email"
KEYS = 6
"""Keys of the tenant itself: four for data, one to wrap with, one for its indexes."""


@pytest.fixture
def blobs(rig: Rig) -> dict[str | None, bytes]:
    """Values of a tenant with keys of every purpose and state, by subject."""
    party = rig.party()
    sealed = {subject: party.seal("x", subject=subject) for subject in (None, "ann")}
    party.vault.ring.prefetch(slots=[KeySlot("acme", None, Purpose.INDEX)])
    party.vault.rotate("acme")
    held = party.vault.rotate("acme")
    party.vault.rotate("acme")
    party.vault.suspend(held.key_id)
    return sealed


def outcomes(kms: KMS, store: KeyStore, **options: bool) -> Counter[str]:
    """What became of the tenant's keys."""
    return Counter(each.outcome.value for each in rewrap(kms, store, "acme", **options))


def wrapped(store: KeyStore) -> dict[bytes, bytes | None]:
    """The wrapped form of every key."""
    return {record.key_id: record.wrapped for record in store.all_keys("acme")}


def opens(rig: Rig, blobs: dict[str | None, bytes]) -> bool:
    """Whether a process that begins now reads all."""
    party = rig.party()
    return all(party.open(blob, subject=subject) == "x" for subject, blob in blobs.items())


# -- what is rewrapped -----------------------------------------------------------------------------------


def test_keys_of_every_purpose_and_state_come_under_the_new_root_key(
    rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes]
) -> None:
    """What retired and suspended keys sealed is still to be read; a subject's key is not the KMS's."""
    before = wrapped(rig.store)
    assert outcomes(local_kms, rig.store) == {"current": KEYS}
    local_kms.rotate_root_key()
    assert outcomes(local_kms, rig.store) == {"rewrapped": KEYS}
    assert outcomes(local_kms, rig.store) == {"current": KEYS}
    after = wrapped(rig.store)
    for record in rig.store.all_keys("acme"):
        assert (after[record.key_id] != before[record.key_id]) is (record.subject is None)
        assert record.subject is not None or (record.wrapped is not None and record.wrapped[4] == 2)
    assert opens(rig, blobs)


def test_a_dry_run_changes_nothing(rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes]) -> None:
    """It says what there is to do."""
    assert blobs
    local_kms.rotate_root_key()
    before = wrapped(rig.store)
    assert outcomes(local_kms, rig.store, dry_run=True) == {"due": KEYS}
    assert wrapped(rig.store) == before


def test_every_key_is_rewrapped_where_that_is_asked_or_the_kms_cannot_tell(
    rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes]
) -> None:
    """Some wrapped forms do not say which root key made them."""
    assert outcomes(local_kms, rig.store, every=True) == {"rewrapped": KEYS}
    assert outcomes(FaultyKMS(local_kms), rig.store) == {"rewrapped": KEYS}
    assert opens(rig, blobs)


def test_what_was_shredded_stays_so(rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes]) -> None:
    """There is nothing to rewrap."""
    assert blobs
    rig.party().vault.shred("acme", actor="officer", reason="left")
    assert outcomes(local_kms, rig.store, every=True) == {}


# -- proofs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_a_key_that_does_not_come_back_as_itself_is_left_as_it_is(
    rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes], times: int
) -> None:
    """Whether the old form was unwrapped into another key, or the new one is."""
    kms, before = FaultyKMS(local_kms), wrapped(rig.store)
    answers = count(1)
    kms.lie(when=lambda _: next(answers) == times)
    with pytest.raises(KMSError, match="another key"):
        list(rewrap(kms, rig.store, "acme"))
    assert wrapped(rig.store) == before
    assert opens(rig, blobs)


@pytest.mark.parametrize("error", [KMSUnavailable, KMSDenied])
def test_a_kms_that_fails_leaves_the_rest_as_it_is(
    rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes], error: type[KMSError]
) -> None:
    """And another run does it."""
    kms = FaultyKMS(local_kms)
    local_kms.rotate_root_key()
    kms.fail(error("out"), when=lambda context: context["purpose"] == "index")
    with pytest.raises(error):
        list(rewrap(kms, rig.store, "acme"))
    assert opens(rig, blobs)
    done = outcomes(local_kms, rig.store)
    assert done["rewrapped"] + done["current"] == KEYS
    assert opens(rig, blobs)


# -- others at the same time -----------------------------------------------------------------------------


def test_a_key_that_is_shredded_meanwhile_stays_destroyed(
    rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes]
) -> None:
    """A rewrap brings nothing back."""
    local_kms.rotate_root_key()
    store = WatchedStore(rig.store)
    fence = Fence("acme", None, "officer", "left", datetime.now(UTC))
    store.once(store.before, "rewrap", lambda: rig.store.shred(fence))
    assert outcomes(local_kms, store) == {"overtaken": KEYS}
    assert {record.state for record in rig.store.keys("acme", None)} == {KeyState.DESTROYED}
    assert {record.wrapped for record in rig.store.keys("acme", None)} == {None}
    with pytest.raises(KeyShredded):
        rig.party().open(blobs[None])


def test_a_key_that_another_run_rewraps_meanwhile_is_left_to_it(
    rig: Rig, local_kms: LocalKMS, blobs: dict[str | None, bytes]
) -> None:
    """Both come to their end."""
    local_kms.rotate_root_key()
    store = WatchedStore(rig.store)
    store.once(store.before, "rewrap", lambda: outcomes(local_kms, rig.store))
    assert outcomes(local_kms, store) == {"overtaken": KEYS}
    assert outcomes(local_kms, rig.store) == {"current": KEYS}
    assert opens(rig, blobs)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_at_any_line_loses_nothing_and_the_next_run_does_the_rest(tmp_path: Path) -> None:
    """Each key is under the old root key or under the new one, at every moment."""
    kms = LocalKMS.create(tmp_path / "root.keys")
    # Without a pool, so that nothing is carried into the children.
    store = SQLKeyStore(create_engine(f"sqlite:///{tmp_path / 'keys.db'}", poolclass=NullPool))
    with Vault(kms=kms, key_store=store) as vault:
        blobs = {name: vault.encrypt("x", field=FIELD, tenant="acme", subject=name) for name in (None, "ann")}
    done: list[int] = []
    for line in count(1):
        kms.rotate_root_key()
        run = partial(outcomes, kms, store)
        if not killed_at(line, ["fieldvault/lifecycle/rewrap.py"], run):
            break
        if line % 10 == 0:
            with closing(Vault(kms=kms, key_store=store)) as vault:
                for name, blob in blobs.items():
                    assert vault.decrypt(blob, field=FIELD, tenant="acme", subject=name) == "x"
        due = outcomes(kms, store, dry_run=True)
        done.append(due["current"])
        assert +outcomes(kms, store) == +Counter(rewrapped=due["due"], current=due["current"])
    assert set(done) == {0, 1, 2}
    assert outcomes(kms, store) == {"current": 2}


# -- several KMSs ----------------------------------------------------------------------------------------


@pytest.fixture
def east(tmp_path: Path) -> FaultyKMS:
    """One that cannot tell what is current."""
    return FaultyKMS(LocalKMS.create(tmp_path / "east.keys"))


@pytest.fixture
def west(tmp_path: Path) -> LocalKMS:
    """One that can."""
    return LocalKMS.create(tmp_path / "west.keys")


@pytest.fixture
def key_of_both(east: FaultyKMS, west: LocalKMS) -> KeyStore:
    """A key store with one key, under both."""
    store = MemoryKeyStore()
    with Vault(kms=MultiKMS({"west": west, "east": east}), key_store=store) as vault:
        vault.encrypt("x", field=FIELD, tenant="acme")
    return store


def part(store: KeyStore, member: str) -> bytes:
    """What a member wrapped of the one key."""
    (record,) = store.keys("acme", None)
    return Container.parse(record.wrapped or b"").parts[member]


def test_a_member_that_is_out_is_told_and_the_next_run_has_it_take_part(
    east: FaultyKMS, west: LocalKMS, key_of_both: KeyStore
) -> None:
    """Whoever then destroys its old root key would have one member less than it seems."""

    class Told(FaultyKMS):
        def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
            return west.is_current(wrapped, context=context)

        def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
            return self.wrap(self.unwrap(wrapped, context=context), context=context)

    out = Told(west)
    multi = MultiKMS({"east": east, "west": out}, cooldown=0)
    old = {name: part(key_of_both, name) for name in ("east", "west")}
    west.rotate_root_key()
    out.fail(KMSUnavailable("no route"))
    for every in (False, True):
        (done,) = rewrap(multi, key_of_both, "acme", every=every)
        assert done.outcome is Outcome.INCOMPLETE
        assert {name: str(error) for name, error in done.missed.items()} == {"west": "no route"}
        assert part(key_of_both, "west") == old["west"]
    out.heal()
    (done,) = rewrap(multi, key_of_both, "acme")
    assert (done.outcome, done.missed) == (Outcome.REWRAPPED, {})
    assert part(key_of_both, "west") != old["west"]
    assert outcomes(multi, key_of_both) == {"current": 1}


def test_one_that_cannot_tell_what_is_current_wraps_with_the_others(
    east: FaultyKMS, west: LocalKMS, key_of_both: KeyStore
) -> None:
    """Its root key may be a new one, too. By itself it gives no cause to rewrap."""
    multi = MultiKMS({"west": west, "east": east}, cooldown=0)
    assert outcomes(multi, key_of_both) == {"current": 1}
    west.rotate_root_key()
    east.fail(KMSUnavailable("no route"), when=lambda context: context["purpose"] == "data", times=1)
    (done,) = rewrap(multi, key_of_both, "acme")
    assert (done.outcome, list(done.missed)) == (Outcome.INCOMPLETE, ["east"])
    west.rotate_root_key()
    east.calls.clear()
    assert outcomes(multi, key_of_both) == {"rewrapped": 1}
    assert "wrap" in [call.method for call in east.calls]


def test_a_good_part_gives_way_to_no_other_key(
    west: LocalKMS, east: FaultyKMS, key_of_both: KeyStore
) -> None:
    """A member that wraps something else is told, and what it wrapped before stays."""

    class Junk(FaultyKMS):
        def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
            return super().wrap(key[::-1], context=context)

    old = part(key_of_both, "east")
    multi = MultiKMS({"west": west, "east": Junk(east)})
    (done,) = rewrap(multi, key_of_both, "acme", every=True)
    assert done.outcome is Outcome.INCOMPLETE
    assert str(done.missed["east"]).startswith("answered with another key")
    assert part(key_of_both, "east") == old
    with Vault(kms=MultiKMS({"east": east}), key_store=key_of_both) as vault:
        vault.ring.prefetch(slots=[KeySlot("acme")])
    alone = MultiKMS({"west": west, "east": Junk(east)}, alone="east")
    with pytest.raises(KMSError, match="another key"):
        list(rewrap(alone, key_of_both, "acme"))
    assert part(key_of_both, "east") == old


def test_a_container_that_nobody_opens_is_not_called_current(
    west: LocalKMS, east: FaultyKMS, key_of_both: KeyStore
) -> None:
    """Each part by itself is as it was, and the seal over them is not."""
    multi = MultiKMS({"west": west, "east": east})
    (record,) = key_of_both.keys("acme", None)
    good = record.wrapped or b""
    broken = good[:12] + bytes([good[12] ^ 1]) + good[13:]
    key_of_both.rewrap(record.key_id, expect=good, wrapped=broken)
    assert outcomes(multi, key_of_both, dry_run=True) == {"due": 1}
    with pytest.raises(KMSError, match="no member unwraps the key"):
        list(rewrap(multi, key_of_both, "acme"))


# -- from one KMS to another -----------------------------------------------------------------------------


class Shop:
    """An application that reads what it wrote, and writes more, over and over, on cold keys."""

    def __init__(self, kms: KMS, store: KeyStore, written: dict[str, bytes]) -> None:
        # Nothing stays cached: each turn asks the KMS. The lease is one that a busy machine can keep.
        self.vault = Vault(kms=kms, key_store=store, cache=CachePolicy(ttl=0.001, lease=2, grace=0))
        self.turns = 0
        self._written = written
        self._stop = threading.Event()
        self._turned = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def let_turn(self) -> None:
        """Wait until it has gone round once more."""
        with self._turned:
            seen = self.turns
            assert self._turned.wait_for(lambda: self.turns > seen + 1 or self._error is not None, 30)

    def close(self) -> None:
        """Stop, and raise what it met."""
        self._stop.set()
        self._thread.join(30)
        self.vault.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
                with self._turned:
                    self.turns += 1
                    self._turned.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised by close
            self._error = error
            with self._turned:
                self._turned.notify_all()

    def _turn(self) -> None:
        tenant = f"tenant {len(self._written)}"
        self._written[tenant] = self.vault.encrypt(tenant, field=FIELD, tenant=tenant)
        for name, blob in list(self._written.items())[-4:] + list(self._written.items())[:2]:
            assert self.vault.decrypt(blob, field=FIELD, tenant=name) == name


@pytest.fixture
def token(softhsm: SoftHSM) -> Callable[[], KMS]:
    """A function that opens a new root key in a token."""
    label, module = softhsm.key_label(), softhsm.module
    PKCS11KMS.create(module=module, token_label=TOKEN, key_label=label, pin=PIN).close()
    return partial(PKCS11KMS, module=module, token_label=TOKEN, key_label=label, pin=PIN)


def test_a_vault_moves_from_one_kms_to_another_while_it_is_used(
    tmp_path: Path, token: Callable[[], KMS]
) -> None:
    """Step by step (docs/kms/multi.md), each rolled out while processes of the step before still run."""
    path = tmp_path / "root.keys"
    LocalKMS.create(path).close()
    store, written = MemoryKeyStore(), dict[str, bytes]()
    steps: list[Callable[[], KMS]] = [
        lambda: LocalKMS(path),
        lambda: MultiKMS({"file": LocalKMS(path), "token": token()}, alone="file"),
        lambda: MultiKMS({"token": token(), "file": LocalKMS(path)}),
        lambda: MultiKMS({"token": token(), "file": LocalKMS(path)}, alone="token"),
        token,
    ]
    running = Shop(steps[0](), store, written)
    running.let_turn()
    for step in steps[1:]:
        following = Shop(step(), store, written)
        try:
            running.let_turn()
            following.let_turn()
        finally:
            running.close()
        running = following
        with closing(step()) as kms:
            for tenant in list(store.tenants()):
                list(rewrap(kms, store, tenant))
        running.let_turn()
    running.close()
    path.unlink()
    with Vault(kms=token(), key_store=store) as vault:
        assert len(written) > 10
        for tenant, blob in written.items():
            assert vault.decrypt(blob, field=FIELD, tenant=tenant) == tenant

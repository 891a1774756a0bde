"""Backends that hang, on real threads and a real clock: a key in use is waited for once, and no more."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from fieldvault import CachePolicy, RetryPolicy, Vault
from fieldvault.errors import (
    FieldVaultError,
    KeyShredded,
    KeyStoreError,
    KeyStoreRefused,
    KMSDenied,
    KMSError,
    KMSUnavailable,
)
from fieldvault.keys.clock import boot_clock
from fieldvault.keys.protocols import WrappedKey
from fieldvault.keys.records import KeySlot
from fieldvault.testing.fakes import FaultyKMS
from tests.keys.parties import Party, Rig, WatchedStore

HANG = 0.4
"""Seconds until a backend that hangs fails."""

LONG = HANG / 2
"""Seconds that no request takes that waits for nobody."""

ONCE = RetryPolicy(deadline=0, failures=10_000)


class Hanging:
    """What every call of a backend meets while it is on: nothing for a while, then an outage."""

    def __init__(self, problem: FieldVaultError) -> None:
        self._problem = problem
        self.is_on = False
        self.failed = 0

    def meet(self) -> None:
        """Hang, and fail."""
        if self.is_on:
            time.sleep(HANG)
            self.failed += 1
            raise type(self._problem)(str(self._problem))


class HangingKMS(FaultyKMS):
    """A KMS that hangs."""

    hanging: Hanging

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """See ``KMS.unwrap_many``."""
        self.hanging.meet()
        return super().unwrap_many(items)


class Waits(NamedTuple):
    """How long the requests took that took long, and when the last one was served."""

    long: list[float]
    served_at: float


def requests(work: Callable[[], object], until: Callable[[], bool], *, limit: float = 20.0) -> Waits:
    """Do it again and again, until something is so or it fails."""
    long: list[float] = []
    served_at = -1.0
    end = time.monotonic() + limit
    while not until():
        began = time.monotonic()
        assert began < end, "it never came to that"
        try:
            work()
        except FieldVaultError:
            return Waits(long, served_at)
        served_at = time.monotonic()
        if served_at - began > LONG:
            long.append(served_at - began)
        time.sleep(0.002)
    return Waits(long, served_at)


def with_hanging_kms(rig: Rig, policy: CachePolicy) -> tuple[Party, Hanging]:
    """A vault on the real clock whose KMS can be made to hang."""
    kms, store = HangingKMS(rig.kms), WatchedStore(rig.store)
    kms.hanging = Hanging(KMSUnavailable("no answer"))
    return Party(Vault(kms=kms, key_store=store, cache=policy, retries=ONCE), kms, store), kms.hanging


def with_hanging_store(rig: Rig, policy: CachePolicy) -> tuple[Party, Hanging]:
    """A vault on the real clock whose key store can be made to hang."""
    party = rig.party(policy, ahead=0.2, reprove=False, retries=ONCE, clock=boot_clock())
    hanging = Hanging(KeyStoreError("no answer"))
    for name in ("generation", "changes", "fetch", "current"):
        party.store.before[name] = hanging.meet
    return party, hanging


def settled(party: Party) -> None:
    """Wait until nothing is asked in the background any more."""
    while threads := party.vault.ring.refresher.threads:
        threads[0].join(10)
        assert not threads[0].is_alive(), "the background hangs"


# -- the KMS ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [None, "alice"])
def test_a_kms_that_hangs_is_waited_for_once(memory_rig: Rig, subject: str | None) -> None:
    """Then it is asked in the background, as long as the outage lasts, and the key serves."""
    party, hanging = with_hanging_kms(memory_rig, CachePolicy(ttl=60, lease=0.3, grace=60))
    blob = party.seal("x", subject=subject)
    hanging.is_on = True
    waits = requests(lambda: party.open(blob, subject=subject), lambda: hanging.failed >= 4)
    assert len(waits.long) <= 1, waits.long
    hanging.is_on = False
    party.kms.fail(KMSDenied("revoked meanwhile"))
    settled(party)
    began = time.monotonic()
    requests(lambda: party.open(blob, subject=subject), lambda: False)
    assert time.monotonic() - began < 3, "and the refusal is noticed soon after it"
    with pytest.raises(KMSDenied):
        party.open(blob, subject=subject)


def test_an_age_that_ends_while_the_kms_hangs_is_no_second_wait(memory_rig: Rig) -> None:
    """And the grace ends when it ends."""
    ttl, grace = 1.2, 1.2
    party, hanging = with_hanging_kms(memory_rig, CachePolicy(ttl=ttl, lease=0.3, grace=grace))
    began = time.monotonic()
    blob = party.seal("x")
    loaded = time.monotonic()
    hanging.is_on = True
    waits = requests(lambda: party.open(blob), lambda: False)
    assert len(waits.long) <= 1, waits.long
    assert waits.served_at < loaded + ttl + grace + LONG
    assert waits.served_at > began + ttl + HANG
    hanging.is_on = False
    settled(party)
    assert party.open(blob) == "x"


# -- the key store ------------------------------------------------------------------------------------------


def test_a_key_store_that_hangs_is_waited_for_once(memory_rig: Rig) -> None:
    """Then it is asked in the background; the grace ends when it ends, while it hangs."""
    lease, grace = 0.3, 1.8
    party, hanging = with_hanging_store(memory_rig, CachePolicy(ttl=60, lease=lease, grace=grace))
    blob = party.seal("x")
    index = party.vault.ring.index_keys("acme")
    read_at = time.monotonic()
    hanging.is_on = True

    def work() -> None:
        assert party.open(blob) == "x"
        assert party.vault.ring.index_keys("acme") is index

    waits = requests(work, lambda: False)
    assert len(waits.long) <= 1, waits.long
    assert read_at + lease + grace / 2 < waits.served_at < read_at + lease + grace + LONG
    hanging.is_on = False
    settled(party)
    assert party.open(blob) == "x"


def test_a_shred_is_told_as_soon_as_the_key_store_can(memory_rig: Rig) -> None:
    """By the answer of the try that is under way."""
    party, hanging = with_hanging_store(memory_rig, CachePolicy(ttl=60, lease=0.3, grace=60))
    blob = party.seal("x")
    hanging.is_on = True
    requests(lambda: party.open(blob), lambda: hanging.failed >= 2)
    hanging.is_on = False
    memory_rig.party().vault.shred("acme", actor="tests", reason="asked")
    waits = requests(lambda: party.open(blob), lambda: False)
    assert len(waits.long) == 0
    with pytest.raises(KeyShredded):
        party.open(blob)


def test_a_key_store_that_hangs_keeps_nobody_from_asking_the_kms(memory_rig: Rig) -> None:
    """Proofs go on in the background while the lease is waited for."""
    policy = CachePolicy(ttl=1000, lease=100, grace=60)
    party = memory_rig.party(policy, ahead=0.2, reprove=True, retries=ONCE)
    blob = party.seal("x")
    reached, released = threading.Event(), threading.Event()

    def hang() -> None:
        reached.set()
        assert released.wait(10)

    party.store.once(party.store.before, "generation", hang)
    memory_rig.clock.advance(80)
    with party.kms.hold() as hold:
        assert party.open(blob) == "x"
        assert reached.wait(10)
        assert hold.reached.wait(10)
    released.set()
    settled(party)


# -- what is known of an outage, on a clock that is moved by hand --------------------------------------------

POLICY = CachePolicy(ttl=10_000, lease=30, grace=60)


def found_out(rig: Rig) -> tuple[Party, bytes]:
    """A vault that has just found its key store out, past the lease."""
    party = rig.party(POLICY, ahead=0.2)
    blob = party.seal("x")
    rig.clock.advance(31)
    party.store.down = True
    assert party.open(blob) == "x"
    party.store.calls.clear()
    return party, blob


def test_a_lease_that_merely_ran_out_is_asked_for_first(rig: Rig) -> None:
    """No outage is known: a shred is seen by the first request."""
    party = rig.party(POLICY, ahead=0.2)
    blob = party.seal("x")
    rig.party().vault.shred("acme", actor="tests", reason="asked")
    rig.clock.advance(31)
    with pytest.raises(KeyShredded):
        party.open(blob)


def test_a_process_that_stood_still_past_the_grace_serves_nothing_before_it_has_asked(rig: Rig) -> None:
    """Though it knew of an outage when it was stopped."""
    party, blob = found_out(rig)
    rig.party().vault.shred("acme", actor="tests", reason="asked")
    rig.clock.advance(59)
    with pytest.raises(KeyStoreError):
        party.open(blob)
    party.store.down = False
    with pytest.raises(KeyShredded):
        party.open(blob)


def test_an_outage_found_longer_ago_than_a_lease_is_not_known_any_more(rig: Rig) -> None:
    """A process that rested, or stood still, asks first."""
    party, blob = found_out(rig)
    party.store.down = False
    rig.party().vault.shred("acme", actor="tests", reason="asked")
    rig.clock.advance(30)
    with pytest.raises(KeyShredded):
        party.open(blob)


def test_where_no_thread_is_to_be_had_requests_ask_now_and_then(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a lease, and so a shred is noticed."""
    party, blob = found_out(rig)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(29):
            rig.clock.advance(1)
            assert party.open(blob) == "x"
        assert party.store.calls == []
        party.store.down = False
        rig.party().vault.shred("acme", actor="tests", reason="asked")
        rig.clock.advance(1)
        with pytest.raises(KeyShredded):
            party.open(blob)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_relies_on_no_try_of_its_parents(memory_rig: Rig) -> None:
    """Which never comes back there."""
    party, blob = found_out(memory_rig)
    reached, released = threading.Event(), threading.Event()

    def hang() -> None:
        reached.set()
        assert released.wait(10)

    party.store.down = False
    party.store.once(party.store.before, "generation", hang)
    memory_rig.clock.advance(1)
    assert party.open(blob) == "x"
    assert reached.wait(10)
    memory_rig.clock.advance(35)
    assert party.open(blob) == "x", "it is being asked"
    child = os.fork()
    if child == 0:
        works = False
        try:
            askers: list[threading.Thread] = []
            party.store.before["generation"] = lambda: askers.append(threading.current_thread())
            memory_rig.clock.advance(1)
            works = party.open(blob) == "x" and askers == [threading.current_thread()]
        finally:
            os._exit(0 if works else 1)
    assert os.waitpid(child, 0)[1] == 0
    released.set()
    settled(party)


def test_coroutines_need_no_thread_while_the_key_store_is_asked_behind_them(memory_rig: Rig) -> None:
    """Nor do they without an outage; past the knowledge of one they do."""
    party, blob = found_out(memory_rig)
    ring = party.vault.ring
    memory_rig.clock.advance(2)
    assert not ring.opening_may_wait(blob)
    assert not ring.sealing_may_wait(KeySlot("acme"))
    memory_rig.clock.advance(30)
    assert ring.opening_may_wait(blob)


def test_a_refusal_ends_the_grace(memory_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by the try in the background, and requests hear it."""
    party, blob = found_out(memory_rig)
    party.store.down = False

    def refuse() -> None:
        raise KeyStoreRefused("no permission")

    monkeypatch.setitem(party.store.before, "generation", refuse)
    memory_rig.clock.advance(1)
    party.open(blob)
    settled(party)
    memory_rig.clock.advance(1)
    with pytest.raises(KeyStoreRefused):
        party.open(blob)


def test_without_refreshing_a_request_asks_each_time(rig: Rig) -> None:
    """Nothing is done in the background then."""
    party = rig.party(POLICY)
    blob = party.seal("x")
    rig.clock.advance(31)
    party.store.down = True
    party.store.calls.clear()
    for _ in range(5):
        assert party.open(blob) == "x"
        rig.clock.advance(1)
    assert party.store.calls == ["generation"] * 5

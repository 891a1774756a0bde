"""Refreshing ahead: a hot key never stalls a request, and what fails behind it changes nothing too soon."""

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from fieldvault import CachePolicy, RetryPolicy
from fieldvault.errors import KeyShredded, KeyStoreError, KMSDenied, KMSUnavailable
from fieldvault.keys.records import KeySlot
from tests.keys.parties import FIELD, Party, Rig, Running, in_threads

POLICY = CachePolicy(ttl=300, lease=100, grace=60)
ONCE = RetryPolicy(deadline=0, failures=10_000)
SUBJECTS = pytest.mark.parametrize("subject", [None, "alice"])


def ahead(rig: Rig, policy: CachePolicy = POLICY) -> Party:
    """A vault that refreshes in the last fifth: keys from 240 s on, the lease from 80 s on."""
    return rig.party(policy, ahead=0.2, retries=ONCE)


def settled(party: Party) -> None:
    """Wait until nothing is refreshed any more."""
    while threads := party.vault.ring.refresher.threads:
        threads[0].join(10)
        assert not threads[0].is_alive(), "the refresh hangs"


def aged(rig: Rig, party: Party, seconds: float, keep: bytes | None = None) -> None:
    """Let time pass with a lease that is kept young, and the key of ``keep`` in use."""
    while seconds > 0:
        rig.clock.advance(min(70, seconds))
        seconds -= 70
        party.vault.ring.lease.renew()
        if keep is not None and seconds > 0:
            party.open(keep)


@pytest.fixture
def old(rig: Rig) -> Iterator[tuple[Party, bytes]]:
    """Yield a vault with a key that is due and in use, and a ciphertext of it; nothing was asked since."""
    party = ahead(rig)
    blob = party.seal("x")
    aged(rig, party, 240, blob)
    settled(party)
    party.kms.calls.clear()
    party.store.calls.clear()
    yield party, blob
    settled(party)


def test_a_hot_key_never_waits_for_the_kms(rig: Rig, old: tuple[Party, bytes]) -> None:
    """The KMS hangs, behind every use; when it answers, the key serves for a whole age again."""
    party, blob = old
    with party.kms.hold() as hold:
        for _ in range(50):
            assert Running(partial(party.open, blob)).result(5) == "x"
            assert Running(partial(party.seal, "y")).result(5)
        assert hold.reached.wait(10)
        assert party.kms_calls() == ["unwrap_many"]
    settled(party)
    assert party.vault.stats().refreshed == 1
    for _ in range(3):
        aged(rig, party, 70)
        assert party.open(blob) == "x"
    assert party.kms_calls() == []


def test_before_its_time_nothing_is_refreshed(rig: Rig) -> None:
    """Nor is anything asked that is not needed."""
    party = ahead(rig)
    blob = party.seal("x")
    aged(rig, party, 239, blob)
    party.store.calls.clear()
    assert party.open(blob) == "x"
    settled(party)
    assert (party.kms_calls(), party.store.calls) == (["wrap"], [])


def test_without_the_policy_nothing_is_refreshed(rig: Rig) -> None:
    """At the end of its age the key is unwrapped for a request."""
    party = rig.party(POLICY)
    blob = party.seal("x")
    aged(rig, party, 299, blob)
    party.open(blob)
    assert party.vault.ring.refresher.threads == []
    assert party.kms_calls() == ["wrap"]


def test_a_key_is_refreshed_in_place(old: tuple[Party, bytes]) -> None:
    """What was made of it stays: the derived keys, and the block of messages."""
    party, blob = old
    made = party.vault.ring.cache.opening[blob[:19]]
    uses = made.uses
    party.open(blob)
    settled(party)
    assert party.vault.ring.cache.opening[blob[:19]] is made
    assert made.uses is uses
    assert made.key.expires == made.key.loaded_at + 300
    party.store.calls.clear()
    party.seal("y")
    assert party.store.calls == []


def test_all_that_is_due_and_in_use_goes_in_one_batch(memory_rig: Rig) -> None:
    """A thousand tenants: one read and one call; those that nobody uses any more are left out."""
    tenants = [f"tenant {index}" for index in range(1000)]
    memory_rig.party().vault.prefetch(tenants)
    party = ahead(memory_rig)
    party.vault.prefetch(tenants)
    blobs = {tenant: party.seal("x", tenant) for tenant in tenants}
    aged(memory_rig, party, 170)
    for tenant in tenants[:990]:
        party.open(blobs[tenant], tenant)
    aged(memory_rig, party, 70)
    settled(party)
    party.kms.calls.clear()
    party.store.calls.clear()
    party.open(blobs["tenant 0"], "tenant 0")
    settled(party)
    assert [len(call.contexts) for call in party.kms.calls] == [990]
    assert party.store.calls == ["fetch"]
    assert party.vault.stats().refreshed == 990


def test_a_subjects_key_is_refreshed_through_its_tenants(rig: Rig) -> None:
    """One call for the wrap key, and every subject's key is as young as it."""
    party = ahead(rig)
    blobs = {subject: party.seal("x", subject=subject) for subject in ("alice", "bob")}
    for _ in range(4):
        aged(rig, party, 60)
        for subject, blob in blobs.items():
            party.open(blob, subject=subject)
    settled(party)
    assert party.kms_calls() == ["wrap", "unwrap_many"]
    with party.kms.hold():
        for _ in range(3):
            aged(rig, party, 70)
            for subject, blob in blobs.items():
                assert Running(partial(party.open, blob, subject=subject)).result(5) == "x"


def test_index_keys_are_refreshed_as_well(rig: Rig) -> None:
    """Though no value is sealed with them."""
    party = ahead(rig)
    party.vault.ring.index_keys("acme")
    aged(rig, party, 240)
    party.kms.calls.clear()
    with party.kms.hold() as hold:
        Running(partial(party.vault.ring.index_keys, "acme")).result(5)
        assert hold.reached.wait(10)
    settled(party)
    aged(rig, party, 70)
    party.vault.ring.index_keys("acme")
    assert party.kms_calls() == ["unwrap_many"]


@SUBJECTS
def test_an_outage_behind_a_key_changes_nothing_until_its_time_is_over(rig: Rig, subject: str | None) -> None:
    """It is tried again at half of what is left, then by a request, and then the grace decides."""
    party = ahead(rig)
    blob = party.seal("x", subject=subject)
    aged(rig, party, 240)
    party.kms.fail(KMSUnavailable("out"))
    party.kms.calls.clear()
    asked = []
    for _ in range(60):
        assert party.open(blob, subject=subject) == "x"
        settled(party)
        asked.append(len(party.kms_calls()))
        rig.clock.advance(1)
        party.vault.ring.lease.renew()
    assert [second for second, calls in enumerate(asked) if calls] == [0, 30, 45, 53, 57, 59]
    assert party.open(blob, subject=subject) == "x"
    assert party.kms_calls() == ["unwrap_many"], "the grace: a request asks, and is served the expired key"
    aged(rig, party, 60)
    with pytest.raises(KMSUnavailable):
        party.open(blob, subject=subject)


def test_what_recovers_in_time_never_reached_a_request(rig: Rig, old: tuple[Party, bytes]) -> None:
    """The second try brings a whole age."""
    party, blob = old
    party.kms.fail(KMSUnavailable("out"), times=1)
    party.open(blob)
    settled(party)
    rig.clock.advance(30)
    party.vault.ring.lease.renew()
    party.open(blob)
    settled(party)
    assert party.kms_calls() == ["unwrap_many"] * 2
    with party.kms.hold():
        aged(rig, party, 200)
        assert Running(partial(party.open, blob)).result(5) == "x"


@SUBJECTS
def test_a_refusal_behind_a_key_is_told_at_once(rig: Rig, subject: str | None) -> None:
    """What is known is known: it does not serve on until its age is over."""
    party = ahead(rig)
    blob = party.seal("x", subject=subject)
    aged(rig, party, 240)
    party.kms.fail(KMSDenied("no"))
    assert party.open(blob, subject=subject) == "x"
    settled(party)
    with pytest.raises(KMSDenied):
        party.open(blob, subject=subject)


def test_a_key_that_is_shredded_while_it_is_refreshed_is_gone(rig: Rig, old: tuple[Party, bytes]) -> None:
    """The KMS's answer of before does not bring it back."""
    party, blob = old
    with party.kms.hold() as hold:
        party.open(blob)
        assert hold.reached.wait(10)
        rig.party().vault.shred("acme", actor="tests", reason="asked")
        party.vault.ring.lease.renew()
    settled(party)
    with pytest.raises(KeyShredded):
        party.open(blob)
    assert party.vault.stats().keys == 0


def test_whoever_needs_the_key_joins_the_refresh(rig: Rig, old: tuple[Party, bytes]) -> None:
    """When its age ends before the KMS has answered: one call, not two."""
    party, blob = old
    with party.kms.hold() as hold:
        party.open(blob)
        assert hold.reached.wait(10)
        aged(rig, party, 61)
        waiting = Running(lambda: in_threads(8, lambda _: party.open(blob)))
        assert not waiting.is_done
    assert waiting.result() == ["x"] * 8
    assert party.kms_calls() == ["unwrap_many"]


# -- the lease ----------------------------------------------------------------------------------------------


def test_a_hot_key_never_waits_for_the_lease(rig: Rig) -> None:
    """The key store hangs, behind every use; then a new lease runs from the moment that it was asked."""
    party = ahead(rig)
    blob = party.seal("x")
    rig.clock.advance(80)
    reached, released = threading.Event(), threading.Event()

    def hang() -> None:
        reached.set()
        assert released.wait(10)

    party.store.once(party.store.before, "generation", hang)
    for _ in range(10):
        assert Running(partial(party.open, blob)).result(5) == "x"
        rig.clock.advance(1)
    assert reached.wait(10)
    released.set()
    settled(party)
    assert party.vault.stats().lease_age == 10
    rig.clock.advance(69)
    party.store.calls.clear()
    assert party.open(blob) == "x"
    assert party.store.calls == []


def test_an_unreachable_key_store_behind_a_key_changes_nothing(rig: Rig) -> None:
    """Until the lease is over, and then lease and grace are as ever."""
    party = ahead(rig)
    blob = party.seal("x")
    rig.clock.advance(80)
    party.store.down = True
    for _ in range(20):
        assert party.open(blob) == "x"
        settled(party)
        rig.clock.advance(1)
    party.store.down = False
    rig.party().vault.shred("acme", actor="tests", reason="asked")
    with pytest.raises(KeyShredded):
        party.open(blob)


def test_a_shred_is_seen_no_later_for_it(rig: Rig) -> None:
    """Seen by the refresh, and within the lease where nobody was asked."""
    party = ahead(rig)
    blob = party.seal("x")
    rig.clock.advance(80)
    rig.party().vault.shred("acme", actor="tests", reason="asked")
    assert party.open(blob) == "x"
    settled(party)
    with pytest.raises(KeyShredded):
        party.open(blob)


# -- the thread ---------------------------------------------------------------------------------------------


def refreshers() -> list[threading.Thread]:
    """The threads that refresh now."""
    return [thread for thread in threading.enumerate() if thread.name == "fieldvault refresh"]


def test_the_thread_is_one_and_ends_with_its_work(rig: Rig, old: tuple[Party, bytes]) -> None:
    """However many ask; it keeps no process from exiting."""
    party, blob = old
    assert refreshers() == []
    with party.kms.hold() as hold:
        in_threads(16, lambda _: party.open(blob))
        assert hold.reached.wait(10)
        (thread,) = refreshers()
        assert thread.daemon
        rig.clock.advance(31)
        assert party.open(blob) == "x", "due again, and the thread is still at it"
        assert refreshers() == [thread]
    settled(party)
    assert refreshers() == []


def test_a_closed_vault_refreshes_nothing_and_keeps_nothing(
    old: tuple[Party, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what was under way."""
    party, blob = old
    monkeypatch.setattr("fieldvault.keys.refreshing._LAST_WORDS", 0.05)
    with party.kms.hold() as hold:
        party.open(blob)
        assert hold.reached.wait(10)
        party.vault.close()
    settled(party)
    assert len(party.vault.ring.cache) == 0
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    party.vault.ring.refresher._due[blob[3:19]] = None
    party.vault.ring.refresher.begin()
    assert started == []


def test_a_vault_that_is_gone_leaves_no_thread(rig: Rig, old: tuple[Party, bytes]) -> None:
    """Nothing of it is kept alive once the work is done."""
    party, blob = ahead(rig), old[1]
    party.open(blob)
    aged(rig, party, 240)
    party.open(blob)
    settled(party)
    reference = weakref.ref(party.vault)
    del party
    gc.collect()
    assert reference() is None


def test_where_no_thread_is_to_be_had_the_request_goes_on(
    old: tuple[Party, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that comes later finds one."""
    party, blob = old

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert party.open(blob) == "x"
    assert party.kms_calls() == []
    party.vault.ring.refresher.begin()
    settled(party)
    assert party.kms_calls() == ["unwrap_many"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_refreshes_for_itself(rig: Rig, old: tuple[Party, bytes]) -> None:
    """The parent's thread is not there; its work is not waited for."""
    party, blob = old
    with party.kms.hold() as hold:
        party.open(blob)
        assert hold.reached.wait(10)
        child = os.fork()
        if child == 0:
            works = False
            try:
                party.kms.heal()
                party.kms.calls.clear()
                rig.clock.advance(31)
                works = party.open(blob) == "x"
                settled(party)
                works = works and party.kms_calls() == ["unwrap_many"]
            finally:
                os._exit(0 if works else 1)
    assert os.waitpid(child, 0)[1] == 0


class Panic(BaseException):
    """What a library throws that means everybody: a time-out of greenlets, the panic of an extension."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("part", ["lease", "keys"])
def test_an_interruption_ends_one_thread_and_no_more(memory_rig: Rig, part: str) -> None:
    """What is due next gets another one."""
    party = ahead(memory_rig)
    blob = party.seal("x")

    def panic() -> None:
        raise Panic

    if part == "lease":
        memory_rig.clock.advance(80)
    else:
        aged(memory_rig, party, 240, blob)
    settled(party)
    party.store.once(party.store.before, "generation" if part == "lease" else "fetch", panic)
    party.store.calls.clear()
    party.open(blob)
    settled(party)
    assert len(party.store.calls) == 1
    memory_rig.clock.advance(10 if part == "lease" else 30)
    if part == "keys":
        party.vault.ring.lease.renew()
    party.open(blob)
    settled(party)
    if part == "lease":
        assert party.vault.stats().lease_age == 0
    else:
        assert party.vault.stats().refreshed == 1


@pytest.mark.parametrize("failing", ["generation", "fetch"])
def test_what_fails_behind_a_key_takes_nothing_else_with_it(memory_rig: Rig, failing: str) -> None:
    """A permission that is due is proved, though lease or key were not renewed in the same moment."""
    party = memory_rig.party(CachePolicy(ttl=100, lease=100, grace=60), ahead=0.2, reprove=True, retries=ONCE)
    blob = party.seal("x")

    def out() -> None:
        raise KeyStoreError("out")

    party.store.before[failing] = out
    memory_rig.clock.advance(80)
    party.kms.calls.clear()
    party.open(blob)
    settled(party)
    assert failing in party.store.calls
    assert party.kms_calls()[0] == "unwrap_many"
    permission = party.vault.ring.cache.opening[blob[:19]].key.permission
    assert permission.asked_at == memory_rig.clock()


def test_coroutines_find_a_key_that_is_due_at_hand(memory_rig: Rig) -> None:
    """No thread for the value, and none of the loop's is taken for the refresh."""
    party = ahead(memory_rig)
    blob = party.seal("x")
    aged(memory_rig, party, 240, blob)
    settled(party)
    with party.kms.hold():
        assert not party.vault.ring.opening_may_wait(blob)
        assert not party.vault.ring.sealing_may_wait(KeySlot("acme"))
        opening = party.vault.adecrypt(blob, field=FIELD, tenant="acme")
        with pytest.raises(StopIteration) as stopped:
            opening.send(None)
        assert stopped.value.value == "x"
    settled(party)

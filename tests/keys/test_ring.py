"""The ring: herds, and what holds up nobody."""

import time
from functools import partial

import pytest

from fieldvault import CachePolicy
from fieldvault.errors import KeyStoreError, KMSUnavailable
from fieldvault.keys.policy import RotationPolicy
from fieldvault.keys.records import KeySlot
from tests.keys.parties import Rig, Running, in_threads

SUBJECTS = pytest.mark.parametrize("subject", [None, "alice"])


@SUBJECTS
def test_sixty_four_threads_that_open_under_one_cold_key_make_one_kms_call(
    rig: Rig, subject: str | None
) -> None:
    """And one read of the key store."""
    blob = rig.party().seal("x", subject=subject)
    party = rig.party()
    hold = party.kms.hold()
    opening = Running(lambda: in_threads(64, lambda _: party.open(blob)))
    assert hold.reached.wait(10)
    time.sleep(0.1)
    hold.release()
    assert opening.result() == ["x"] * 64
    assert party.kms_calls() == ["unwrap_many"]
    assert party.store.calls == ["fetch"]


@SUBJECTS
def test_sixty_four_threads_that_seal_under_one_cold_key_make_one_kms_call(
    rig: Rig, subject: str | None
) -> None:
    """The active key is read and unwrapped once."""
    rig.party().seal("x", subject=subject)
    party = rig.party()
    blobs = in_threads(64, lambda index: party.seal(index, subject=subject))
    assert party.kms_calls() == ["unwrap_many"]
    assert len({blob[3:19] for blob in blobs}) == 1
    assert [party.open(blob) for blob in blobs] == list(range(64))


@SUBJECTS
def test_sixty_four_threads_that_meet_a_new_scope_make_one_key(rig: Rig, subject: str | None) -> None:
    """One KMS call, one key."""
    party = rig.party()
    blobs = in_threads(64, lambda index: party.seal(index, subject=subject))
    assert party.kms_calls() == ["wrap"]
    assert len({blob[3:19] for blob in blobs}) == 1
    assert len(rig.store.keys("acme", subject)) == 1


def test_sealing_and_opening_under_one_cold_key_share_the_kms_call(rig: Rig) -> None:
    """Found by its slot here and by its id there, it is one key."""
    blob = rig.party().seal("x")
    party = rig.party()
    hold = party.kms.hold()
    work = Running(lambda: in_threads(16, lambda index: party.open(blob) if index % 2 else party.seal("y")))
    assert hold.reached.wait(10)
    time.sleep(0.1)
    hold.release()
    assert not [answer for answer in work.result() if isinstance(answer, Exception)]
    assert party.kms_calls() == ["unwrap_many"]


def test_a_key_that_was_unwrapped_while_its_record_was_read_is_not_unwrapped_again(rig: Rig) -> None:
    """By its id first, by its slot right after."""
    blob = rig.party().seal("x")
    party = rig.party()
    party.store.once(party.store.after, "current", lambda: party.open(blob))
    party.seal("y")
    assert party.kms_calls() == ["unwrap_many"]


@pytest.mark.usefixtures("impatient")
def test_a_herd_whose_kms_is_out_hears_of_it_from_one_call(memory_rig: Rig) -> None:
    """Each thread raises an error of its own."""
    blob = memory_rig.party().seal("x")
    party = memory_rig.party()
    hold = party.kms.hold(times=1)
    party.kms.fail(KMSUnavailable("out"))
    work = Running(lambda: in_threads(32, lambda _: party.open(blob)))
    assert hold.reached.wait(10)
    time.sleep(0.1)
    hold.release()
    errors = work.result()
    assert {type(error) for error in errors} == {KMSUnavailable}
    assert len({id(error) for error in errors}) == 32


def test_a_blocked_kms_holds_up_nobody_whose_keys_are_there(rig: Rig) -> None:
    """A cold tenant, and an aged key of the very tenant, wait for the KMS; warm keys seal and open."""
    policy = CachePolicy(ttl=300, lease=30, grace=60)
    party, other = rig.party(policy), rig.party(policy)
    cold = other.seal("x", "globex")
    old = party.seal("old")
    party.vault.rotate("acme")
    rig.clock.advance(200)
    party.vault.rotate("acme")
    warm = {subject: party.seal("warm", subject=subject) for subject in (None, "alice")}
    rig.clock.advance(20)
    party.open(old)
    rig.clock.advance(290)
    party.seal("warm")
    party.seal("warm", subject="alice")
    with party.kms.hold(
        when=lambda context: context["tenant"] == "globex" or context["key_id"] == old[3:19].hex()
    ) as hold:
        blocked = [Running(lambda: party.open(cold, "globex")), Running(lambda: party.seal("y", "globex"))]
        assert hold.reached.wait(10)
        rig.clock.advance(15)
        blocked.append(Running(lambda: party.open(old)))
        for _ in range(3):
            for subject, blob in warm.items():
                assert Running(partial(party.open, blob)).result(5) == "warm"
                assert Running(partial(party.seal, "y", subject=subject)).result(5)
            # Past the lease as well: the generation is read beside the blocked calls.
            rig.clock.advance(30)
        assert not any(call.is_done for call in blocked)
    for call in blocked:
        call.result()


def test_a_key_that_others_keep_pushing_out_of_a_small_cache_still_serves(rig: Rig) -> None:
    """Many threads, one place: slow, and right."""
    party = rig.party(CachePolicy(max_keys=1))
    blobs = [rig.party().seal(index, f"tenant {index}") for index in range(8)]

    def work(index: int) -> list[int]:
        return [party.open(blobs[index], f"tenant {index}") for _ in range(10)]

    assert in_threads(8, work) == [[index] * 10 for index in range(8)]
    assert len(party.vault.ring.cache) == 1


def test_a_key_pushed_out_while_it_was_loaded_serves_no_longer_than_its_lease(memory_rig: Rig) -> None:
    """No revocation reaches it: past the lease it is loaded again."""
    blob = memory_rig.party().seal("x")
    party = memory_rig.party(CachePolicy(max_keys=1))
    ring = party.vault.ring
    loaded = ring.loader.by_id([blob[3:19]])[blob[3:19]]
    assert not isinstance(loaded, Exception)
    party.seal("pushes it out", "globex")
    assert loaded.evicted
    from fieldvault.suites import AES_256_GCM

    made = ring.cache.value_key(loaded, AES_256_GCM, 1)
    assert ring._freshen(made)
    memory_rig.clock.advance(30)
    ring.lease.renew()
    assert not ring._freshen(made)


def test_a_key_whose_state_never_settles_is_given_up_on(
    memory_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a number of rounds, for reading and for writing."""
    party = memory_rig.party()
    blob = party.seal("x")
    monkeypatch.setattr(party.vault.ring, "_freshen", lambda _: False)
    memory_rig.clock.advance(30)
    with pytest.raises(KeyStoreError, match="changes faster"):
        party.open(blob)
    with pytest.raises(KeyStoreError, match="changes faster"):
        party.seal("y")


def test_prefetched_keys_cost_nothing_later(rig: Rig) -> None:
    """Slots and ciphertexts alike."""
    blob = rig.party().seal("x")
    party = rig.party()
    party.vault.ring.prefetch(slots=[KeySlot("acme"), KeySlot("globex")], blobs=[blob])
    party.store.calls.clear()
    party.kms.calls.clear()
    party.open(blob)
    party.vault.ring.prefetch(slots=[KeySlot("globex")], blobs=[blob])
    party.seal("y", "globex")
    assert (party.store.calls, party.kms.calls) == ([], [])


def test_what_may_wait_is_known_beforehand(memory_rig: Rig) -> None:
    """For event loops: cold, stale, used up, aged keys wait; warm ones do not."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=100, block=3))
    ring, slot = party.vault.ring, KeySlot("acme")
    assert ring.sealing_may_wait(slot)
    blob = party.seal("x")
    assert not ring.sealing_may_wait(slot)
    assert not ring.opening_may_wait(blob)
    party.seal("x")
    assert ring.sealing_may_wait(slot), "the block is nearly used up"
    memory_rig.clock.advance(30)
    assert ring.opening_may_wait(blob)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_vault_that_is_gone_is_forgotten_by_forks(memory_rig: Rig) -> None:
    """The hook for children keeps nothing alive."""
    import gc
    import os
    import weakref

    party = memory_rig.party()
    party.seal("x")
    reference = weakref.ref(party.vault.ring)
    del party
    gc.collect()
    assert reference() is None
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_where_nothing_forks_nothing_is_registered(memory_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every system has the hook."""
    import os

    monkeypatch.delattr(os, "register_at_fork")
    party = memory_rig.party()
    assert party.open(party.seal("x")) == "x"

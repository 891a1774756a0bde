"""Index keys: made once, cached under the lease, and never taken for keys of values."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fieldvault import CachePolicy, errors
from fieldvault.context import associated_data
from fieldvault.envelope import header
from fieldvault.keys import indexing
from fieldvault.keys.indexing import IndexKeys
from fieldvault.keys.records import KeySlot, KeyState, Purpose
from fieldvault.search.tokens import IndexSpec
from fieldvault.testing.fakes import ManualClock
from tests.keys.parties import FIELD, Party, Rig, Running, in_threads

SLOT = KeySlot("acme", None, Purpose.INDEX)
EMAIL = IndexSpec([FIELD], "email", ["email"])
CONTENT = EMAIL.normalized(["ann@example.com"]) or b""


def keys_of(party: Party, tenant: str = "acme") -> IndexKeys:
    """Return a tenant's index keys as this party has them."""
    return party.vault.ring.index_keys(tenant)


def token(party: Party, tenant: str = "acme") -> bytes:
    """Return the token that this party writes."""
    return keys_of(party, tenant).token(EMAIL, CONTENT)


def tokens(party: Party, tenant: str = "acme") -> list[bytes]:
    """Return the tokens that this party searches for."""
    return keys_of(party, tenant).tokens(EMAIL, CONTENT)


def versions(party: Party) -> list[int]:
    """Return the versions of the usable keys, in their order."""
    return [key.record.version for key in keys_of(party).usable]


def rotate(party: Party) -> bytes:
    """Give the tenant a new index key, and return its id."""
    return party.vault.ring.rotate(SLOT).key_id


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after which the new keys of rotations are old enough to be written under."""
    return partial(monkeypatch.setattr, indexing, "SETTLING", -timedelta(days=1))


@pytest.fixture
def settled_from_the_start(settled: Callable[[], None]) -> None:
    """Have them be so in the whole test."""
    settled()


def test_the_first_use_makes_the_key_in_one_call_of_the_kms(rig: Rig) -> None:
    """It is the tenant's, for indexes, and active."""
    party = rig.party()
    keys = keys_of(party)
    assert party.kms_calls() == ["wrap"]
    assert party.store.counted() == {"generation": 1, "keys": 1, "current": 1, "add_active": 1}
    assert keys.usable == (keys.active,)
    assert keys.active.record.slot == SLOT
    assert keys.active.record.state is KeyState.ACTIVE
    assert [record.key_id for record in rig.store.keys("acme", None)] == [keys.active.record.key_id]


def test_another_process_finds_the_key_in_one_call_of_the_kms(rig: Rig) -> None:
    """And makes the same tokens."""
    written = token(rig.party())
    party = rig.party()
    assert token(party) == written
    assert party.kms_calls() == ["unwrap_many"]
    assert party.store.counted() == {"generation": 1, "keys": 1, "fetch": 1}


def test_while_it_is_warm_nobody_is_asked(rig: Rig) -> None:
    """Not even after many tokens; past the lease the key store is asked for its generation alone."""
    party = rig.party(CachePolicy(lease=30, ttl=300))
    token(party)
    party.store.calls.clear()
    party.kms.calls.clear()
    for _ in range(100):
        token(party)
        tokens(party)
    assert (party.store.calls, party.kms.calls) == ([], [])
    rig.clock.advance(30)
    token(party)
    token(party)
    assert (party.store.calls, party.kms.calls) == (["generation"], [])


def test_after_its_age_a_key_is_unwrapped_again(rig: Rig) -> None:
    """The KMS has its say once in a ``ttl``."""
    party = rig.party(CachePolicy(ttl=300, lease=30))
    written = token(party)
    party.kms_calls()
    rig.clock.advance(299)
    assert token(party) == written
    assert party.kms_calls() == []
    rig.clock.advance(1)
    assert token(party) == written
    assert party.kms_calls() == ["unwrap_many"]


def test_a_new_key_is_searched_at_once_and_written_under_once_every_process_knows_it(
    rig: Rig, settled: Callable[[], None]
) -> None:
    """Until then the one before it is, although that is retired: also by a process that begins meanwhile."""
    party = rig.party(CachePolicy(ttl=1000))
    first = token(party)
    rotate(party)
    for each in (party, rig.party()):
        assert token(each) == first
        assert keys_of(each).writing.record.state is KeyState.RETIRED
        assert tokens(each)[1:] == [first]
    longest = CachePolicy().lease + CachePolicy().grace
    settles_at = keys_of(party).settles_at - rig.clock()
    assert longest < settles_at <= longest + indexing.SETTLING.total_seconds()
    settled()
    rig.clock.advance(settles_at - 0.1)
    assert token(party) == first
    rig.clock.advance(0.2)
    assert token(party) == tokens(party)[0] != first
    assert keys_of(party).writing is keys_of(party).active


def test_in_an_outage_what_is_written_under_stays(memory_rig: Rig, settled: Callable[[], None]) -> None:
    """The phase cannot be known anew, and the grace serves the one that was known."""
    party = memory_rig.party()
    first = token(party)
    rotate(party)
    assert token(party) == first
    memory_rig.clock.advance(CachePolicy().lease)
    settled()
    party.store.down = True
    assert token(party) == first


@pytest.mark.usefixtures("settled_from_the_start")
def test_after_a_rotation_new_tokens_are_written_and_both_are_searched(rig: Rig) -> None:
    """The active key's first, then the retired ones', newest first."""
    party = rig.party()
    first = token(party)
    rotate(party)
    second = token(party)
    rotate(party)
    third = token(party)
    assert len({first, second, third}) == 3
    assert tokens(party) == [third, second, first]
    assert versions(party) == [3, 2, 1]
    assert keys_of(party).active.record.state is KeyState.ACTIVE


def test_keys_of_several_versions_come_in_one_call_of_the_kms(rig: Rig) -> None:
    """However often the tenant has rotated."""
    first = rig.party()
    token(first)
    for _ in range(3):
        rotate(first)
    party = rig.party()
    assert tokens(party) == tokens(first)
    assert party.kms_calls() == ["unwrap_many"]
    assert party.store.counted() == {"generation": 1, "keys": 1, "fetch": 1, "declare_lease": 1}


def test_another_process_takes_up_a_rotation_within_the_lease(rig: Rig) -> None:
    """Not before it has to look, and not a moment after the lease."""
    policy = CachePolicy(lease=30)
    party, other = rig.party(policy), rig.party(policy)
    old = token(other)
    rotate(party)
    rig.clock.advance(29.9)
    assert tokens(other) == [old]
    rig.clock.advance(0.2)
    assert tokens(other) == tokens(party)
    assert tokens(other)[1:] == [old]


def test_a_rotation_between_the_list_of_keys_and_their_records_is_noticed(rig: Rig) -> None:
    """What was listed before it is not what is served."""
    party = rig.party()
    token(party)
    late = rig.party()
    late.store.once(late.store.after, "keys", partial(rotate, party))
    assert tokens(late) == tokens(party)
    assert versions(late) == [2, 1]


def test_a_key_reinstated_between_the_list_and_the_records_is_searched(rig: Rig) -> None:
    """It is in no list that was read before, and no record tells of it."""
    party = rig.party()
    old = keys_of(party).active.record.key_id
    rotate(party)
    # Past `suspend`, which refuses a former index key: the store itself takes it.
    assert rig.store.transition(old, expect=KeyState.RETIRED, to=KeyState.SUSPENDED)
    late = rig.party()
    late.store.once(late.store.after, "keys", partial(party.vault.reinstate, old))
    assert versions(late) == [2, 1]


def test_a_rotation_of_the_data_key_changes_no_token(rig: Rig) -> None:
    """Index keys have a lifetime of their own."""
    party, other = rig.party(), rig.party()
    party.seal("x")
    before = token(party)
    for _ in range(3):
        party.vault.rotate("acme")
    assert tokens(party) == tokens(other) == [before]


def test_tenants_have_keys_of_their_own(rig: Rig) -> None:
    """Equal values of two tenants have unlike tokens."""
    party = rig.party()
    assert token(party) != token(party, "globex")


@pytest.mark.parametrize("tenant", ["", "a\nb", 7])
def test_what_cannot_be_a_tenant_is_refused(memory_rig: Rig, tenant: str) -> None:
    """Before anything is asked."""
    party = memory_rig.party()
    with pytest.raises(errors.ConfigurationError, match="tenant"):
        keys_of(party, tenant)
    assert party.store.calls == []


def test_of_a_shredded_tenant_nothing_is_searched(rig: Rig) -> None:
    """At once where it was shredded, within the lease elsewhere; what was derived is let go."""
    party, other, stranger = rig.party(), rig.party(CachePolicy(lease=30)), rig.party()
    token(party)
    token(other)
    party.vault.shred("acme", actor="test", reason="left")
    assert "acme" not in party.vault.ring.cache.indexing
    for each in (party, stranger):
        with pytest.raises(errors.KeyShredded, match="acme"):
            keys_of(each)
    rig.clock.advance(30.1)
    with pytest.raises(errors.KeyShredded, match="acme"):
        keys_of(other)
    assert "acme" not in other.vault.ring.cache.indexing


def test_the_shred_of_a_subject_leaves_the_tenants_tokens(rig: Rig) -> None:
    """They are the tenant's."""
    party = rig.party()
    party.seal("x", subject="ann")
    before = token(party)
    party.vault.shred("acme", "ann", actor="test", reason="asked")
    assert token(party) == before


def test_a_suspended_active_key_stops_writing_and_searching(rig: Rig) -> None:
    """Until it is reinstated, or another takes over; then it is left out."""
    party, other = rig.party(), rig.party(CachePolicy(lease=30))
    first = token(party)
    token(other)
    key_id = keys_of(party).active.record.key_id
    party.vault.suspend(key_id)
    rig.clock.advance(30.1)
    for each in (party, other):
        with pytest.raises(errors.KeySuspended, match="reinstate"):
            keys_of(each)
    party.vault.reinstate(key_id)
    assert tokens(party) == [first]
    party.vault.suspend(key_id)
    rotate(party)
    assert versions(party) == versions(other) == [2]
    party.vault.reinstate(key_id)
    rig.clock.advance(30.1)
    assert versions(party) == versions(other) == [2, 1]
    assert tokens(other)[1] == first


def test_a_destroyed_retired_key_is_left_out(rig: Rig) -> None:
    """It is not asked for."""
    party = rig.party()
    old = keys_of(party).active.record.key_id
    rotate(party)
    rig.store.transition(old, expect=KeyState.RETIRED, to=KeyState.DESTROYED)
    assert versions(rig.party()) == [2]


def test_a_key_destroyed_between_the_list_and_the_records_is_left_out(rig: Rig) -> None:
    """That it is gone is no error of the search: its tokens are nothing to look for."""
    party = rig.party()
    old = keys_of(party).active.record.key_id
    rotate(party)
    late = rig.party()
    destroy = partial(rig.store.transition, old, expect=KeyState.RETIRED, to=KeyState.DESTROYED)
    late.store.once(late.store.after, "keys", destroy)
    assert versions(late) == [2]


def test_threads_that_need_the_first_key_at_once_make_one(rig: Rig) -> None:
    """One of them does; one call of the KMS, one key, one token."""
    party = rig.party()
    assert len(set(in_threads(32, lambda _: token(party)))) == 1
    assert party.kms_calls() == ["wrap"]
    assert len(rig.store.keys("acme", None)) == 1


def test_threads_that_need_a_cold_key_at_once_ask_once(rig: Rig) -> None:
    """All of them get it."""
    written = token(rig.party())
    party = rig.party()
    assert set(in_threads(32, lambda _: token(party))) == {written}
    assert party.kms_calls() == ["unwrap_many"]
    assert Counter(party.store.calls)["keys"] == 1


def test_who_loses_the_race_for_the_first_key_takes_the_winners(rig: Rig) -> None:
    """Between its look and its try, another process was first, and has even rotated."""
    party, other = rig.party(), rig.party()

    def overtake() -> None:
        token(other)
        rotate(other)

    party.store.once(party.store.before, "add_active", overtake)
    assert tokens(party) == tokens(other)
    assert versions(party) == [2, 1]


def test_in_an_outage_of_the_key_store_cached_keys_serve_within_the_grace(rig: Rig) -> None:
    """Past the lease and past the age of the keys; then no more."""
    party = rig.party(CachePolicy(ttl=60, lease=30, grace=100))
    token(party)
    rotate(party)
    before = tokens(party)
    rig.clock.advance(20)
    party.store.down = True
    for _ in range(10):
        rig.clock.advance(10)
        assert tokens(party) == before
    rig.clock.advance(30)
    with pytest.raises(errors.KeyStoreError, match="out"):
        tokens(party)
    party.store.down = False
    assert tokens(party) == before


def test_without_a_cached_key_an_outage_of_the_key_store_is_an_error(rig: Rig) -> None:
    """And not a first key."""
    party = rig.party()
    party.seal("x")
    party.store.down = True
    with pytest.raises(errors.KeyStoreError, match="out"):
        token(party)


@pytest.mark.usefixtures("impatient")
def test_in_an_outage_of_the_kms_cached_keys_serve_within_the_grace(rig: Rig) -> None:
    """Then it is an outage, never a wrong key; a denial is one at once."""
    party = rig.party(CachePolicy(ttl=60, lease=30, grace=100))
    before = token(party)
    party.kms.fail(errors.KMSUnavailable("out"))
    for _ in range(15):
        rig.clock.advance(10)
        assert token(party) == before
    rig.clock.advance(20)
    with pytest.raises(errors.KMSUnavailable):
        token(party)
    party.kms.heal()
    assert token(party) == before
    party.kms.fail(errors.KMSDenied("no"))
    rig.clock.advance(60)
    with pytest.raises(errors.KMSDenied):
        token(party)


def test_a_retired_key_that_cannot_be_unwrapped_stops_the_search(rig: Rig) -> None:
    """Rather than to find half of the rows."""
    party = rig.party()
    old = keys_of(party).active.record.key_id.hex()
    rotate(party)
    late = rig.party()
    late.kms.fail_items(errors.KMSError("damaged"), when=lambda context: context["key_id"] == old)
    with pytest.raises(errors.KMSError, match="damaged"):
        tokens(late)


def test_in_a_cache_with_too_few_places_index_keys_serve(rig: Rig) -> None:
    """Slowly, and no longer than they may: nothing of them is kept for the hot path."""
    party = rig.party()
    token(party)
    rotate(party)
    small = rig.party(CachePolicy(max_keys=1))
    for _ in range(3):
        assert tokens(small) == tokens(party)
    assert small.vault.ring.cache.indexing == {}
    party.vault.shred("acme", actor="test", reason="left")
    rig.clock.advance(30)
    with pytest.raises(errors.KeyShredded):
        tokens(small)


def test_keys_pushed_out_while_they_were_loaded_serve_no_longer_than_their_lease(memory_rig: Rig) -> None:
    """No revocation reaches them: past the lease they are loaded again."""
    party = memory_rig.party(CachePolicy(max_keys=1, lease=30))
    keys = keys_of(party)
    token(party, "globex")
    assert keys.active.evicted
    assert party.vault.ring._indexing._freshen(keys)
    memory_rig.clock.advance(30)
    party.vault.ring.lease.renew()
    assert not party.vault.ring._indexing._freshen(keys)


def test_keys_in_use_stay_where_others_have_to_make_room(memory_rig: Rig) -> None:
    """Those go that nobody has used since they last came up."""
    party = memory_rig.party(CachePolicy(max_keys=3, lease=30))
    for tenant in ("a", "b", "c", "d"):
        token(party, tenant)
    memory_rig.clock.advance(30)
    token(party, "b")
    token(party, "e")
    assert set(party.vault.ring.cache.indexing) == {"b", "d", "e"}


def test_a_key_that_has_to_make_room_takes_what_was_derived_from_it_along(memory_rig: Rig) -> None:
    """Nothing outlives the cache's bound."""
    party = memory_rig.party(CachePolicy(max_keys=2))
    for number in range(20):
        token(party, f"tenant {number}")
    assert set(party.vault.ring.cache.indexing) == {"tenant 18", "tenant 19"}
    party.vault.ring.cache.drop(None)
    assert party.vault.ring.cache.indexing == {}


def test_keys_that_never_settle_are_given_up_on(memory_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a number of rounds."""
    party = memory_rig.party()
    monkeypatch.setattr(party.vault.ring._indexing, "_freshen", lambda _: False)
    with pytest.raises(errors.KeyStoreError, match="change faster"):
        token(party)


def test_what_may_wait_is_known_beforehand(memory_rig: Rig) -> None:
    """For event loops: cold and stale keys wait, warm ones do not."""
    party = memory_rig.party(CachePolicy(ttl=45, lease=30))
    ring = party.vault.ring
    assert ring.indexing_may_wait("acme")
    token(party)
    assert not ring.indexing_may_wait("acme")
    memory_rig.clock.advance(30)
    assert ring.indexing_may_wait("acme")
    ring.lease.renew()
    assert not ring.indexing_may_wait("acme"), "somebody else renewed the lease"
    memory_rig.clock.advance(20)
    assert ring.indexing_may_wait("acme")
    token(party)
    assert not ring.indexing_may_wait("acme")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_the_same_tokens(sqlite_rig: Rig) -> None:
    """It asks for the list anew, and has a flight of its own."""
    party = sqlite_rig.party()
    before = token(party)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, tokens(party)[0] if party.vault.ring.cache.indexing == {} else b"kept")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == before
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_forked_in_the_midst_of_a_load_does_not_wait_for_it(memory_rig: Rig) -> None:
    """The thread that loads does not exist there."""
    written = token(memory_rig.party())
    party = memory_rig.party()
    with party.kms.hold() as hold:
        loading = Running(partial(token, party))
        assert hold.reached.wait(10)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            party.kms.heal()
            os.write(writing, token(party))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == written
    assert os.waitpid(child, 0)[1] == 0
    assert loading.result() == written


def test_what_a_flight_brought_that_has_just_landed_is_not_loaded_again(rig: Rig) -> None:
    """By a caller who looked before it had."""
    party = rig.party()
    keys = keys_of(party)
    party.store.calls.clear()
    assert party.vault.ring._indexing._load("acme") is keys
    assert party.store.calls == []


def test_no_ciphertext_opens_under_an_index_key(rig: Rig) -> None:
    """Not one that was sealed under it rightly, by somebody who has it; warm or cold."""
    from fieldvault.suites import AES_256_GCM

    party = rig.party()
    key = keys_of(party).active
    head = header(AES_256_GCM.number, 1, key.record.key_id)
    nonce = os.urandom(12)
    aes = AESGCM(key.secret.derive(b"fieldvault/1 suite AES-256-GCM", 32))
    context = associated_data(head, tenant="acme", field=FIELD, subject=None)
    blob = head + nonce + aes.encrypt(nonce, b"forged", context)
    for each in (party, rig.party()):
        for _ in range(2):
            with pytest.raises(errors.DecryptionError):
                each.open(blob)
        each.vault.ring.prefetch(blobs=[blob])
        with pytest.raises(errors.DecryptionError):
            each.open(blob)
        with pytest.raises(errors.DecryptionError):
            each.vault.decrypt_many([blob], field=FIELD, tenant="acme")


def test_index_keys_neither_print_nor_pickle(memory_rig: Rig) -> None:
    """Their ids show, and nothing else."""
    import copy
    import pickle

    party = memory_rig.party()
    token(party)
    keys = keys_of(party)
    assert repr(keys) == f"<IndexKeys {keys.active.record.key_id.hex()}>"
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(keys)


def test_the_clock_of_the_lease_decides(memory_rig: Rig) -> None:
    """A process that stood still serves nothing before it has looked."""
    clock = ManualClock()
    party = Rig(memory_rig.kms, memory_rig.store, clock).party(CachePolicy(lease=30))
    token(party)
    memory_rig.party().vault.shred("acme", actor="test", reason="left")
    clock.advance(10_000)
    with pytest.raises(errors.KeyShredded):
        token(party)

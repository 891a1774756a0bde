"""The cache: its bound, what is evicted when, and what outlives an eviction."""

import operator
import threading
from math import inf

import pytest

from fieldvault.codecs import TEXT
from fieldvault.envelope import KINDS
from fieldvault.keys.cache import KeyCache, touched_by
from fieldvault.keys.cached import CachedKey, ValueKey
from fieldvault.keys.material import new_record
from fieldvault.keys.records import Change, KeySlot, Purpose
from fieldvault.kms import LocalKMS
from fieldvault.suites import AES_256_GCM, SUITES


@pytest.fixture
def cache() -> KeyCache:
    """Return a cache of three keys."""
    return KeyCache(3)


class Keys:
    """Makes cached keys."""

    def __init__(self, kms: LocalKMS) -> None:
        self._kms = kms

    def __call__(self, tenant: str, subject: str | None = None, purpose: Purpose = Purpose.DATA) -> CachedKey:
        """Return a new key of a slot."""
        record, secret = new_record(KeySlot(tenant, subject, purpose), 1, self._kms, uses=0)
        return CachedKey(record, secret, loaded_at=0, expires=10, vouched_until=5)


@pytest.fixture
def key_of(local_kms: LocalKMS) -> Keys:
    """Return a maker of keys."""
    return Keys(local_kms)


def used(cache: KeyCache, key: CachedKey) -> ValueKey:
    """Offer a key to the hot paths."""
    return cache.value_key(key, AES_256_GCM, TEXT)


def test_the_cache_never_holds_more_than_its_bound(cache: KeyCache, key_of: Keys) -> None:
    """Not even while everything in it is in use; and the hot paths' tables shrink along."""
    for index in range(20):
        key = key_of(f"tenant {index}")
        cache.put(key)
        used(cache, key)
        assert len(cache) == min(index + 1, 3)
        assert len(cache.opening) == len(cache)
        assert len(cache.sealing[1, TEXT]) == len(cache)


def test_a_new_key_is_never_the_one_that_goes(cache: KeyCache, key_of: Keys) -> None:
    """Whoever just paid for it has it."""
    for index in range(20):
        key = key_of(f"tenant {index}")
        cache.put(key)
        assert cache.get(key.record.key_id) is key
        assert not key.evicted


def test_a_cache_of_one_key_works(key_of: Keys) -> None:
    """The smallest bound there is."""
    cache = KeyCache(1)
    first, second = key_of("a"), key_of("b")
    cache.put(first)
    cache.put(second)
    assert (first.evicted, second.evicted, len(cache)) == (True, False, 1)


def test_what_was_used_since_it_last_came_up_stays(cache: KeyCache, key_of: Keys) -> None:
    """The oldest key goes that nobody used."""
    a, b, c, d, e = (key_of(name) for name in "abcde")
    for key in (a, b, c, d):
        cache.put(key)
    # Making room for d, every key came up once and is now marked as unused.
    b.touched = True
    cache.put(e)
    assert [key.evicted for key in (a, b, c, d, e)] == [True, False, True, False, False]


def test_a_key_that_made_room_may_finish_but_is_offered_to_nobody(cache: KeyCache, key_of: Keys) -> None:
    """What was made of it leaves the hot paths' tables, or never enters them."""
    key = key_of("a")
    cache.put(key)
    made = used(cache, key)
    made.fresh_until = inf
    for name in "bcd":
        cache.put(key_of(name))
    assert key.evicted
    assert made.fresh_until == -inf
    assert key.expires == 10
    assert used(cache, key) is made
    assert made.header not in cache.opening
    assert "a" not in cache.sealing[1, TEXT]


def test_only_touched_scopes_are_revoked(key_of: Keys) -> None:
    """A subject's change leaves its tenant alone, a tenant's own change its subjects."""
    cache = KeyCache(10)
    keys = {scope: key_of(*scope) for scope in (("a", None), ("a", "x"), ("a", "y"), ("b", None), ("b", "x"))}
    for key in keys.values():
        cache.put(key)
    cache.drop([])
    cache.drop([Change("a", "x")])
    assert [scope for scope, key in keys.items() if key.evicted] == [("a", "x")]
    cache.drop([Change("a", None)])
    assert [scope for scope, key in keys.items() if key.evicted] == [("a", None), ("a", "x")]
    cache.drop([Change("a", None, whole_tenant=True)])
    assert [scope for scope, key in keys.items() if not key.evicted] == [("b", None), ("b", "x")]
    assert keys["a", "y"].expires == -inf
    cache.drop(None)
    assert len(cache) == 0
    assert cache.active(KeySlot("b")) is None


def test_a_refused_key_takes_with_it_what_it_wraps(cache: KeyCache, key_of: Keys) -> None:
    """Nobody could unwrap those again."""
    wrap, other = key_of("a", None, Purpose.WRAP), key_of("b")
    record, secret = new_record(KeySlot("a", "x"), 1, key_of._kms, uses=0)
    from dataclasses import replace

    child = CachedKey(
        replace(record, parent=wrap.record.key_id), secret, loaded_at=0, expires=10, vouched_until=5
    )
    for key in (wrap, other, child):
        cache.put(key)
    cache.discard(b"unknown")
    assert len(cache) == 3
    cache.discard(wrap.record.key_id)
    assert [wrap.evicted, other.evicted, child.evicted] == [True, False, True]
    assert child.expires == -inf


def test_reserved_messages_outlive_an_eviction(cache: KeyCache, key_of: Keys) -> None:
    """A block is lost with its process, not each time that a key makes room or grows old."""
    first = key_of("a")
    cache.put(first)
    cache.grant(first, 10)
    made = used(cache, first)
    assert next(made.uses)
    for name in "bcd":
        cache.put(key_of(name))
    again = CachedKey(first.record, first.secret, loaded_at=0, expires=10, vouched_until=5)
    cache.put(again)
    assert operator.length_hint(again.uses) == 9
    younger = CachedKey(first.record, first.secret, loaded_at=0, expires=10, vouched_until=5)
    cache.put(younger)
    assert operator.length_hint(younger.uses) == 9
    assert next(first.uses)
    assert operator.length_hint(younger.uses) == 8, "the same messages, counted once"


def test_a_block_granted_to_a_key_that_made_room_is_kept_too(cache: KeyCache, key_of: Keys) -> None:
    """It was on its way when the key went."""
    key = key_of("a")
    cache.put(key)
    cache.drop(None)
    cache.grant(key, 5)
    again = CachedKey(key.record, key.secret, loaded_at=0, expires=10, vouched_until=5)
    cache.put(again)
    assert operator.length_hint(again.uses) == 5


def test_what_is_remembered_of_evicted_keys_is_bounded(cache: KeyCache, key_of: Keys) -> None:
    """The oldest unused block is forgotten: lost messages, and nothing else."""
    keys = [key_of(str(index)) for index in range(10)]
    for key in keys:
        cache.put(key)
        cache.grant(key, 5)
    assert len(cache._unused) == 3


def test_a_grant_reaches_what_was_made_of_the_key(cache: KeyCache, key_of: Keys) -> None:
    """All suites and types of a key share one block."""
    key = key_of("a")
    cache.put(key)
    text, number = used(cache, key), cache.value_key(key, AES_256_GCM, 4)
    cache.grant(key, 2)
    assert [next(text.uses, False), next(number.uses, False), next(text.uses, False)] == [True, True, False]


def test_a_forked_child_has_no_claim_on_reserved_messages(cache: KeyCache, key_of: Keys) -> None:
    """The parent seals with them; a message counted twice is a nonce drawn twice."""
    kept, gone = key_of("a"), key_of("b")
    for key in (kept, gone):
        cache.put(key)
        cache.grant(key, 10)
    made = used(cache, kept)
    cache.discard(gone.record.key_id)
    cache.after_fork()
    assert next(made.uses, False) is False
    cache.put(CachedKey(gone.record, gone.secret, loaded_at=0, expires=10, vouched_until=5))
    back = cache.get(gone.record.key_id)
    assert back is not None
    assert next(back.uses, False) is False


def test_a_child_forked_in_the_midst_of_a_change_begins_empty(cache: KeyCache, key_of: Keys) -> None:
    """The thread that was changing the cache does not exist there: half a change is none."""
    key = key_of("a")
    cache.put(key)
    made = used(cache, key)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cache.lock:
            locked.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(10)
    cache.after_fork()
    done.set()
    thread.join()
    assert len(cache) == 0
    assert made.header not in cache.opening
    assert cache.active(KeySlot("a")) is None
    assert not cache.sealing[1, TEXT]
    cache.put(key_of("a"))


def test_nothing_prints_key_material(cache: KeyCache, key_of: Keys) -> None:
    """A log or a traceback with locals shows ids."""
    key = key_of("a")
    cache.put(key)
    shown = repr([key, used(cache, key), key.secret])
    assert key.record.key_id.hex() in shown
    assert key.secret.reveal().hex() not in shown
    assert repr(key.secret.reveal()) not in shown


def test_unknown_changes_touch_everything(key_of: Keys) -> None:
    """A key store that no longer knows what changed."""
    record = key_of("a").record
    assert touched_by(None)(record)
    assert not touched_by([])(record)


def test_forged_headers_cannot_fill_a_key_with_suites_and_types(cache: KeyCache, key_of: Keys) -> None:
    """A header is read before anything is authenticated, so what it may leave behind is bounded."""
    key = key_of("acme")
    cache.put(key)
    for suite in SUITES:
        for kind in KINDS:
            made = cache.value_key(key, suite, kind)
            assert made.kind == kind
    assert len(key.value_keys) == len(cache.opening) == 16

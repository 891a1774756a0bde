"""Figures: exact ones; and an observer that is told, and that breaks nothing."""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fieldvault import CachePolicy, RetryPolicy, RotationPolicy
from fieldvault.errors import DecryptionError, KeyStoreError, KMSDenied, KMSUnavailable
from fieldvault.keys.observing import Call, observed_store
from fieldvault.keys.protocols import KeyStore, Portable
from fieldvault.keys.stats import CallStats, Stats
from fieldvault.keystores import MemoryKeyStore
from tests.keys.parties import FIELD, Party, Rig, Running, in_threads

ONCE = RetryPolicy(deadline=0)


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.misses: list[int] = []
        self.states: list[str] = []

    def on_call(self, call: Call, /) -> None:
        """Note it."""
        self.calls.append(call)

    def on_miss(self, keys: int, /) -> None:
        """Note it."""
        self.misses.append(keys)

    def on_breaker(self, state: str, /) -> None:
        """Note it."""
        self.states.append(state)


def hits_and_misses(party: Party) -> tuple[int, int]:
    """The figures of now."""
    stats = party.vault.stats()
    return stats.hits, stats.misses


def test_a_fresh_vault_has_done_nothing(rig: Rig) -> None:
    """Its first question to the key store is not one for keys."""
    assert rig.party().vault.stats() == Stats(
        hits=0,
        misses=0,
        refreshed=0,
        kms=CallStats(),
        key_store=CallStats(),
        keys=0,
        lease_age=None,
        breaker="closed",
        refused=0,
        observer_errors=0,
    )


def test_hits_and_misses_are_exact(rig: Rig) -> None:
    """One by one, of both ways, over leases and ages."""
    other, party = rig.party(), rig.party(CachePolicy(ttl=300, lease=30))
    blob = other.seal("x")
    party.open(blob)
    assert hits_and_misses(party) == (0, 1)
    for _ in range(9):
        party.open(blob)
    assert hits_and_misses(party) == (9, 1)
    party.seal("y")
    assert hits_and_misses(party) == (10, 1)
    for _ in range(4):
        party.seal("y")
        party.seal(5)
    assert hits_and_misses(party) == (18, 1)
    rig.clock.advance(30)
    party.open(blob)
    assert hits_and_misses(party) == (19, 1), "a new lease, and the key was there"
    rig.clock.advance(270)
    party.open(blob)
    assert hits_and_misses(party) == (19, 2), "its age was over"
    party.seal("z", subject="alice")
    assert hits_and_misses(party) == (19, 4), "a subject's key, and the one that wraps it"
    party.vault.encrypt(None, field=FIELD, tenant="acme")
    assert hits_and_misses(party) == (19, 4)


def test_pages_count_each_of_their_values(rig: Rig) -> None:
    """Of one key or many, with gaps; keys that a page fetches are misses, and its values hits."""
    other, party = rig.party(), rig.party()
    page = [other.seal(index) for index in range(10)]
    party.vault.decrypt_many(page, field=FIELD, tenant="acme")
    assert hits_and_misses(party) == (10, 1)
    party.vault.decrypt_many([*page[:3], None, *page[3:]], field=FIELD, tenant="acme")
    assert hits_and_misses(party) == (20, 1)
    texts = [f"{index}" for index in range(7)]
    party.vault.encrypt_many(texts, field=FIELD, tenant="acme")
    assert hits_and_misses(party) == (27, 1)
    party.vault.encrypt_many([*texts, None, 3], field=FIELD, tenant="acme")
    assert hits_and_misses(party) == (35, 1)
    subjects = [other.seal("s", subject=name) for name in ("alice", "bob", "alice")]
    party.vault.decrypt_many([*subjects, *page[:2]], field=FIELD, tenant="acme")
    assert hits_and_misses(party) == (40, 3)
    party.vault.decrypt_many(page[:1], field=FIELD, tenant="acme")
    party.vault.encrypt_many(["one"], field=FIELD, tenant="acme")
    assert hits_and_misses(party) == (42, 3)


def test_a_herd_is_one_miss(rig: Rig) -> None:
    """Threads, and tasks."""
    blob = rig.party().seal("x")
    party = rig.party()
    hold = party.kms.hold()
    work = Running(lambda: in_threads(16, lambda _: party.open(blob)))
    assert hold.reached.wait(10)
    hold.release()
    work.result()
    assert party.vault.stats().misses == 1
    party = rig.party()

    async def herd() -> None:
        await asyncio.gather(*(party.vault.adecrypt(blob, field=FIELD, tenant="acme") for _ in range(16)))

    asyncio.run(herd())
    assert hits_and_misses(party) == (16, 1)


def test_hits_are_not_lost_among_threads(memory_rig: Rig) -> None:
    """Every one is counted, of values and of pages."""
    party = memory_rig.party()
    blob = party.seal("x")

    def work(_: int) -> None:
        for _ in range(500):
            party.open(blob)
            party.seal("y")
            party.vault.decrypt_many([blob] * 3, field=FIELD, tenant="acme")

    in_threads(8, work)
    assert hits_and_misses(party) == (8 * 500 * 5, 1)


def test_calls_are_counted_by_operation_and_error(memory_rig: Rig) -> None:
    """Each try of each backend."""
    party = memory_rig.party(retries=ONCE)
    other = memory_rig.party()
    blobs = {tenant: other.seal("x", tenant) for tenant in "abc"}
    party.kms.fail(KMSUnavailable("out"), times=1)
    with pytest.raises(KMSUnavailable):
        party.open(blobs["a"], "a")
    party.kms.fail_items(KMSDenied("no"), when=lambda context: context["tenant"] == "b")
    party.vault.ring.prefetch(blobs=blobs.values())
    party.store.down = True
    with pytest.raises(KeyStoreError):
        party.seal("y", "d")
    stats = party.vault.stats()
    assert stats.kms == CallStats(
        calls=2,
        items=4,
        seconds=stats.kms.seconds,
        longest=stats.kms.longest,
        operations={"unwrap_many": 2},
        errors={"KMSUnavailable": 1},
        item_errors={"KMSDenied": 1},
    )
    assert stats.key_store == CallStats(
        calls=3,
        items=5,
        seconds=stats.key_store.seconds,
        longest=stats.key_store.longest,
        operations={"fetch": 2, "current": 1},
        errors={"KeyStoreError": 1},
    )
    assert 0 < stats.kms.longest < stats.kms.seconds < 10
    assert 0 < stats.key_store.longest < stats.key_store.seconds < 10
    assert (stats.keys, stats.misses) == (2, 5)


def test_lease_age_and_keys_are_those_of_now(memory_rig: Rig) -> None:
    """By the vault's clock."""
    party = memory_rig.party(CachePolicy(lease=30))
    party.seal("x")
    memory_rig.clock.advance(12)
    assert (party.vault.stats().lease_age, party.vault.stats().keys) == (12, 1)
    memory_rig.clock.advance(20)
    party.seal("x")
    assert party.vault.stats().lease_age == 0
    party.vault.ring.cache.drop(None)
    assert party.vault.stats().keys == 0


def test_a_clock_that_is_read_for_nothing_is_no_hit(rig: Rig) -> None:
    """Blocks that end, keys that are used up."""
    party = rig.party(rotation=RotationPolicy(max_uses=6, block=2))
    for _ in range(12):
        party.seal("x")
    stats = party.vault.stats()
    assert stats.hits + stats.misses == 12
    assert stats.misses == len(party.vault.keys("acme")) == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_figures_of_its_own(memory_rig: Rig) -> None:
    """They begin at nothing; the keys are there."""
    party = memory_rig.party()
    blob = party.seal("x")
    party.open(blob)
    with party.vault.ring.meter._lock:
        child = os.fork()
        if child == 0:
            right = False
            try:
                party.open(blob)
                stats = party.vault.stats()
                right = (stats.hits, stats.misses, stats.keys, stats.kms.calls) == (1, 0, 1, 0)
            finally:
                os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert hits_and_misses(party) == (1, 1)


# -- observers ----------------------------------------------------------------------------------------------


def test_an_observer_is_told_of_calls_misses_and_the_breaker(memory_rig: Rig) -> None:
    """And of no value whose key is at hand; no name of a tenant is in what it hears."""
    blob = memory_rig.party().seal("x", "tenant-with-a-name")
    told = Told()
    party = memory_rig.party(observer=told, retries=RetryPolicy(deadline=0, failures=1))
    party.kms.fail(KMSUnavailable("out"), times=1)
    with pytest.raises(KMSUnavailable):
        party.open(blob, "tenant-with-a-name")
    memory_rig.clock.advance(10)
    for _ in range(5):
        party.open(blob, "tenant-with-a-name")
    assert [(call.backend, call.operation, call.items, call.outcome) for call in told.calls] == [
        ("key_store", "fetch", 1, "ok"),
        ("kms", "unwrap_many", 1, "KMSUnavailable"),
        ("key_store", "fetch", 1, "ok"),
        ("kms", "unwrap_many", 1, "ok"),
    ]
    assert all(call.seconds > 0 for call in told.calls)
    assert (told.misses, told.states) == ([1, 1], ["open", "half-open", "closed"])
    assert "tenant-with-a-name" not in repr(told.calls)


def test_a_batch_that_failed_in_part_says_so(memory_rig: Rig) -> None:
    """By class, and how many."""
    other, told = memory_rig.party(), Told()
    blobs = [other.seal("x", tenant) for tenant in "abc"]
    party = memory_rig.party(observer=told, retries=ONCE)
    party.kms.fail_items(KMSDenied("no"), when=lambda context: context["tenant"] != "b")
    party.vault.ring.prefetch(blobs=blobs)
    assert (told.calls[-1].outcome, told.calls[-1].item_errors) == ("partial", {"KMSDenied": 2})


def test_errors_are_counted_by_the_names_that_are_documented(memory_rig: Rig) -> None:
    """Whatever classes of its own a backend has: an alert on an outage is to meet all of them."""

    class NoRoute(KMSUnavailable):
        pass

    class Withdrawn(KMSDenied):
        pass

    told, blob = Told(), memory_rig.party().seal("x", "a")
    party = memory_rig.party(observer=told, retries=ONCE)
    party.kms.fail(NoRoute("out"), times=1)
    with pytest.raises(NoRoute):
        party.open(blob, "a")
    assert told.calls[-1].outcome == "KMSUnavailable"
    party.kms.fail_items(Withdrawn("no"), times=1)
    with pytest.raises(Withdrawn):
        party.open(blob, "a")
    assert told.calls[-1].item_errors == {"KMSDenied": 1}
    stats = party.vault.stats()
    assert (stats.kms.errors, stats.kms.item_errors) == ({"KMSUnavailable": 1}, {"KMSDenied": 1})


class Raising(Told):
    """An observer that raises whatever it is told."""

    def on_call(self, call: Call, /) -> None:
        """Raise."""
        super().on_call(call)
        raise ZeroDivisionError("a bug of the observer")

    on_miss = on_breaker = on_call  # type: ignore[assignment]  # raises as well


def test_an_observer_that_raises_breaks_nothing(memory_rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, with its traceback, and counted."""
    party = memory_rig.party(observer=Raising(), retries=RetryPolicy(deadline=0, failures=1))
    with caplog.at_level(logging.DEBUG, logger="fieldvault"):
        assert party.open(party.seal("x")) == "x"
        party.kms.fail(KMSUnavailable("out"), times=1)
        with pytest.raises(KMSUnavailable):
            party.seal("x", "globex")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    # Two misses, each with a read of the key store and a call of the KMS; a key stored; the breaker opened.
    assert party.vault.stats().observer_errors == 8


def test_what_a_value_meets_is_no_call_of_a_backend(memory_rig: Rig) -> None:
    """A ciphertext that was changed is looked up, and is a hit."""
    party = memory_rig.party()
    blob = party.seal("x")
    with pytest.raises(DecryptionError):
        party.open(blob[:-1] + bytes([blob[-1] ^ 1]))
    assert hits_and_misses(party) == (1, 1)
    assert party.vault.stats().kms.errors == {}


def test_whatever_else_a_backend_can_do_is_still_there() -> None:
    """An observed key store is one, capabilities and all."""
    calls: list[Call] = []
    observed = observed_store(MemoryKeyStore(), calls.append)
    assert isinstance(observed, Portable)
    store: Any = observed
    assert list(store.tenants()) == []
    assert list(store.all_keys("acme")) == []
    store.close()
    assert calls == []
    assert store.generation() == 0
    assert [call.operation for call in calls] == ["generation"]
    assert repr(store) == repr(store._backend)
    with pytest.raises(AttributeError):
        store.no_such_thing()
    assert {name for name in dir(KeyStore) if not name.startswith("_")} <= set(dir(MemoryKeyStore))


@pytest.mark.parametrize("work", ["open", "seal", "prefetch", "rotate", "index"])
def test_an_observer_that_uses_the_vault_is_told_that_it_cannot(
    memory_rig: Rig, work: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It might wait for the very key that waits for it, and so for ever; in another thread it may."""
    blob = memory_rig.party().seal("x")
    met: list[BaseException] = []
    later: list[Running] = []

    class Using(Told):
        def on_call(self, call: Call, /) -> None:
            super().on_call(call)
            use = uses[work]
            if not later:
                later.append(Running(use))
            try:
                use()
            except RuntimeError as error:
                met.append(error)
                raise

    party = memory_rig.party(observer=Using())
    vault = party.vault
    uses: dict[str, Callable[[], object]] = {
        "open": partial(party.open, blob),
        "seal": partial(party.seal, "y"),
        "prefetch": partial(vault.prefetch, ["acme"]),
        "rotate": partial(vault.rotate, "acme"),
        "index": partial(vault.ring.index_keys, "acme"),
    }
    answers = in_threads(4, lambda _: party.open(blob), timeout=10)
    assert answers == ["x"] * 4
    for each in later:
        each.result()
    assert met
    assert "an observer cannot use the vault that tells it" in str(met[0])
    assert vault.stats().observer_errors == len(met)
    assert len(caplog.records) == 1
    assert party.open(blob) == "x", "whoever is told of nothing may"

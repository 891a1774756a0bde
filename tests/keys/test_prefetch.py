"""Prefetching tenants: batches, and what stands against some of them."""

import asyncio

import pytest

from fieldvault import CachePolicy, RetryPolicy, Vault
from fieldvault.errors import ConfigurationError, KeyShredded, KeyStoreError, KMSDenied, KMSUnavailable
from tests.keys.parties import Rig

TENANTS = [f"tenant {index}" for index in range(1000)]


@pytest.fixture
def thousand(memory_rig: Rig) -> Rig:
    """Return a rig whose key store has a key of each of a thousand tenants."""
    assert memory_rig.party().vault.prefetch(TENANTS) == {}
    return memory_rig


def prefetched(vault: Vault, tenants: list[str], *, asynchronously: bool) -> dict[str, Exception]:
    """What either of the ways answers."""
    return asyncio.run(vault.aprefetch(tenants)) if asynchronously else vault.prefetch(tenants)


@pytest.mark.parametrize("asynchronously", [False, True], ids=["sync", "async"])
def test_a_thousand_cold_tenants_are_one_batch(thousand: Rig, asynchronously: bool) -> None:
    """One read, one call of the KMS, one step that reserves; then nothing is asked for them any more."""
    blobs = {tenant: thousand.party().seal("x", tenant) for tenant in TENANTS[:3]}
    party = thousand.party()
    assert prefetched(party.vault, [*TENANTS, *TENANTS[:5]], asynchronously=asynchronously) == {}
    assert [(call.method, len(call.contexts)) for call in party.kms.calls] == [("unwrap_many", 1000)]
    assert party.store.calls == ["current", "reserve"]
    stats = party.vault.stats()
    assert (stats.misses, stats.keys, stats.kms.items) == (1000, 1000, 1000)
    for tenant, blob in blobs.items():
        assert party.open(blob, tenant) == "x"
        party.seal("y", tenant)
    assert (len(party.kms.calls), len(party.store.calls)) == (1, 2)
    assert prefetched(party.vault, TENANTS, asynchronously=asynchronously) == {}
    assert (len(party.kms.calls), len(party.store.calls)) == (1, 2)
    assert prefetched(party.vault, [*TENANTS[:3], "newcomer"], asynchronously=asynchronously) == {}
    assert party.vault.stats().misses == 1001


def test_what_stands_against_a_tenant_is_told_of_that_tenant(memory_rig: Rig) -> None:
    """The others are there."""
    memory_rig.party().vault.prefetch("abcd")
    memory_rig.party().vault.shred("d", actor="tests", reason="left")
    party = memory_rig.party()
    party.kms.fail_items(KMSDenied("no"), when=lambda context: context["tenant"] == "b")
    failed = party.vault.prefetch("abcd")
    assert {tenant: type(problem) for tenant, problem in failed.items()} == {"b": KMSDenied, "d": KeyShredded}
    party.kms.calls.clear()
    party.seal("x", "a")
    party.seal("x", "c")
    assert party.kms.calls == []


def test_an_outage_stands_against_all(memory_rig: Rig) -> None:
    """Of either backend; nothing is raised, since nobody needs the keys yet."""
    memory_rig.party().vault.prefetch("ab")
    party = memory_rig.party(retries=RetryPolicy(deadline=0))
    party.kms.fail(KMSUnavailable("out"))
    assert {type(problem) for problem in party.vault.prefetch("ab").values()} == {KMSUnavailable}
    party.store.down = True
    failed = party.vault.prefetch("ab")
    assert {tenant: type(problem) for tenant, problem in failed.items()} == dict.fromkeys("ab", KeyStoreError)


def test_no_more_is_kept_than_the_cache_holds(thousand: Rig) -> None:
    """The bound holds."""
    party = thousand.party(CachePolicy(max_keys=10))
    assert party.vault.prefetch(TENANTS[:50]) == {}
    assert party.vault.stats().keys == 10


def test_a_name_that_cannot_be_is_refused(memory_rig: Rig) -> None:
    """Before anything is asked."""
    party = memory_rig.party()
    with pytest.raises(ConfigurationError):
        party.vault.prefetch(["acme", ""])
    assert (party.store.calls, party.kms.calls) == ([], [])
    assert party.vault.prefetch([]) == {}
    assert (party.store.calls, party.kms.calls) == ([], [])

"""Prometheus: what a registry holds of a vault, and which labels there are."""

import gc
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fieldvault import RetryPolicy
from fieldvault.errors import KMSDenied, KMSUnavailable
from fieldvault.telemetry.prometheus import PrometheusObserver
from tests.keys.parties import Party, Rig

TENANT = "tenant-with-a-name"


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry of its own."""
    return CollectorRegistry()


@pytest.fixture
def party(memory_rig: Rig, registry: CollectorRegistry) -> Iterator[Party]:
    """Yield a vault that the registry watches."""
    observer = PrometheusObserver(registry)
    party = memory_rig.party(observer=observer, retries=RetryPolicy(deadline=0, failures=1))
    observer.watch(party.vault)
    yield party
    assert party.vault.stats().observer_errors == 0


def test_calls_are_a_histogram_by_backend_operation_and_outcome(
    memory_rig: Rig, party: Party, registry: CollectorRegistry
) -> None:
    """Failed ones among them."""
    blob = memory_rig.party().seal("x", TENANT)
    party.kms.fail(KMSUnavailable("out"), times=1)
    with pytest.raises(KMSUnavailable):
        party.open(blob, TENANT)
    with pytest.raises(KMSUnavailable):
        party.open(blob, TENANT)
    memory_rig.clock.advance(10)
    for _ in range(4):
        party.open(blob, TENANT)

    def calls(backend: str, operation: str, outcome: str) -> float | None:
        labels = {"backend": backend, "operation": operation, "outcome": outcome}
        return registry.get_sample_value("fieldvault_call_seconds_count", labels)

    assert calls("kms", "unwrap_many", "ok") == 1
    assert calls("kms", "unwrap_many", "KMSUnavailable") == 1
    assert calls("key_store", "fetch", "ok") == 3
    assert registry.get_sample_value("fieldvault_key_misses_total") == 3
    assert registry.get_sample_value("fieldvault_refused_calls_total") == 1
    for state in ("open", "half-open", "closed"):
        assert registry.get_sample_value("fieldvault_breaker_changes_total", {"state": state}) == 1


def test_single_keys_that_failed_are_counted_by_class(
    memory_rig: Rig, party: Party, registry: CollectorRegistry
) -> None:
    """Beside the call, which is partial."""
    blobs = [memory_rig.party().seal("x", tenant) for tenant in "abc"]
    party.kms.fail_items(KMSDenied("no"), when=lambda context: context["tenant"] != "b")
    party.vault.ring.prefetch(blobs=blobs)
    labels = {"backend": "kms", "operation": "unwrap_many", "outcome": "KMSDenied"}
    assert registry.get_sample_value("fieldvault_item_errors_total", labels) == 2
    labels["outcome"] = "partial"
    assert registry.get_sample_value("fieldvault_call_seconds_count", labels) == 1


def test_what_a_vault_holds_is_read_when_it_is_collected(
    memory_rig: Rig, party: Party, registry: CollectorRegistry
) -> None:
    """Hits, keys, the age of the lease, the breaker."""
    assert registry.get_sample_value("fieldvault_lease_age_seconds") is None
    blob = party.seal("x", TENANT)
    for _ in range(4):
        party.open(blob, TENANT)
    memory_rig.clock.advance(7)
    assert registry.get_sample_value("fieldvault_key_hits_total") == 4
    assert registry.get_sample_value("fieldvault_keys_held") == 1
    assert registry.get_sample_value("fieldvault_keys_refreshed_total") == 0
    assert registry.get_sample_value("fieldvault_lease_age_seconds") == 7
    assert registry.get_sample_value("fieldvault_breakers_open") == 0
    party.kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable):
        party.seal("x", "another")
    assert registry.get_sample_value("fieldvault_breakers_open") == 1


def test_vaults_are_taken_together_and_forgotten_when_they_are_gone(
    memory_rig: Rig, registry: CollectorRegistry
) -> None:
    """One observer for all of a process; it keeps none alive."""
    observer = PrometheusObserver(registry)
    parties = [memory_rig.party(observer=observer) for _ in range(2)]
    for each in parties:
        observer.watch(each.vault)
        each.seal("x", TENANT)
    assert registry.get_sample_value("fieldvault_keys_held") == 2
    assert registry.get_sample_value("fieldvault_key_misses_total") == 2
    del each, parties[0]
    gc.collect()
    assert registry.get_sample_value("fieldvault_keys_held") == 1


def test_no_tenant_subject_or_key_is_in_what_is_exposed(party: Party, registry: CollectorRegistry) -> None:
    """And the values of labels are few."""
    blob = party.seal("a secret", TENANT, "subject-with-a-name")
    party.open(blob, TENANT)
    exposed = generate_latest(registry).decode()
    assert "fieldvault_call_seconds_bucket" in exposed
    for name in (TENANT, "subject-with-a-name", "secret", blob[3:19].hex()):
        assert name not in exposed


def test_a_second_one_in_a_registry_is_refused(registry: CollectorRegistry) -> None:
    """Rather than counted twice."""
    PrometheusObserver(registry)
    with pytest.raises(ValueError, match="fieldvault_call_seconds"):
        PrometheusObserver(registry)


def test_the_default_is_the_registry_that_everybody_exposes() -> None:
    """The one of the library."""
    from prometheus_client import REGISTRY

    observer = PrometheusObserver()
    try:
        assert REGISTRY.get_sample_value("fieldvault_keys_held") == 0
    finally:
        for collector in (
            observer,
            observer._calls,
            observer._item_errors,
            observer._misses,
            observer._breaker,
        ):
            REGISTRY.unregister(collector)

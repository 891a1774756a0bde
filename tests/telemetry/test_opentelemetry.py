"""OpenTelemetry: metrics and spans of a vault, by the real SDK."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fieldvault import RetryPolicy
from fieldvault.errors import KMSDenied, KMSUnavailable
from fieldvault.telemetry.opentelemetry import OpenTelemetryObserver
from fieldvault.telemetry.watching import SECONDS
from tests.keys.parties import Party, Rig

TENANT = "tenant-with-a-name"


class Sdk:
    """The SDK with what it exports in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def points(self, name: str) -> list[Any]:
        """The data points of a metric now."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str) -> dict[tuple[Any, ...], float]:
        """The counts or values of a metric by the values of its attributes."""
        return {
            tuple(dict(sorted(point.attributes.items())).values()): (
                point.count if hasattr(point, "count") else point.value
            )
            for point in self.points(name)
        }

    def value(self, name: str) -> float | None:
        """The value of a metric without attributes."""
        return self.values(name).get(())


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    """Yield an SDK of its own."""
    sdk = Sdk()
    yield sdk
    sdk.meters.shutdown()
    sdk.tracers.shutdown()


@pytest.fixture
def party(memory_rig: Rig, sdk: Sdk) -> Iterator[Party]:
    """Yield a vault that the SDK watches."""
    observer = OpenTelemetryObserver(meter_provider=sdk.meters, tracer_provider=sdk.tracers)
    party = memory_rig.party(observer=observer, retries=RetryPolicy(deadline=0, failures=1))
    observer.watch(party.vault)
    yield party
    assert party.vault.stats().observer_errors == 0


def test_calls_are_a_histogram_of_seconds(memory_rig: Rig, party: Party, sdk: Sdk) -> None:
    """By backend, operation and outcome, with bounds that fit."""
    blob = memory_rig.party().seal("x", TENANT)
    party.kms.fail(KMSUnavailable("out"), times=1)
    for _ in range(2):
        with pytest.raises(KMSUnavailable):
            party.open(blob, TENANT)
    memory_rig.clock.advance(10)
    for _ in range(4):
        party.open(blob, TENANT)
    assert sdk.values("fieldvault.call.duration") == {
        ("kms", "unwrap_many", "ok"): 1,
        ("kms", "unwrap_many", "KMSUnavailable"): 1,
        ("key_store", "fetch", "ok"): 3,
    }
    assert {tuple(point.explicit_bounds) for point in sdk.points("fieldvault.call.duration")} == {SECONDS}
    assert sdk.value("fieldvault.key.misses") == 3
    assert sdk.value("fieldvault.call.refused") == 1
    assert sdk.values("fieldvault.breaker.changes") == {("open",): 1, ("half-open",): 1, ("closed",): 1}


def test_what_a_vault_holds_is_read_when_it_is_exported(memory_rig: Rig, party: Party, sdk: Sdk) -> None:
    """Hits, keys, the age of the lease, the breaker."""
    assert sdk.value("fieldvault.lease.age") is None
    blob = party.seal("x", TENANT)
    for _ in range(4):
        party.open(blob, TENANT)
    memory_rig.clock.advance(7)
    assert sdk.value("fieldvault.key.hits") == 4
    assert sdk.value("fieldvault.key.held") == 1
    assert sdk.value("fieldvault.key.refreshed") == 0
    assert sdk.value("fieldvault.lease.age") == 7
    assert sdk.value("fieldvault.breaker.open") == 0
    party.kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable):
        party.seal("x", "another")
    assert sdk.value("fieldvault.breaker.open") == 1


def test_each_call_is_a_span_below_the_one_that_waits(memory_rig: Rig, party: Party, sdk: Sdk) -> None:
    """With the time that it took; what it waits for is an event of the request's span."""
    blob = memory_rig.party().seal("x", TENANT)
    with sdk.tracers.get_tracer("tests").start_as_current_span("request"):
        before = time.time_ns()
        party.open(blob, TENANT)
        after = time.time_ns()
        party.open(blob, TENANT)
    fetch, unwrap, request = sdk.exporter.get_finished_spans()
    assert [fetch.name, unwrap.name] == ["fieldvault key_store fetch", "fieldvault kms unwrap_many"]
    assert request.context is not None
    for span in (fetch, unwrap):
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert span.kind is SpanKind.CLIENT
        assert span.start_time is not None
        assert span.end_time is not None
        assert before - 1_000_000 <= span.start_time < span.end_time <= after
        assert span.status.status_code is StatusCode.UNSET
        assert span.attributes is not None
        assert span.attributes["fieldvault.items"] == 1
    assert [event.name for event in request.events] == ["fieldvault.miss"]


def test_a_call_that_failed_is_a_span_with_an_error(memory_rig: Rig, party: Party, sdk: Sdk) -> None:
    """Its class; single items that failed are counted beside it."""
    blobs = [memory_rig.party().seal("x", tenant) for tenant in "abc"]
    party.kms.fail_items(KMSDenied("no"), when=lambda context: context["tenant"] != "b")
    party.vault.ring.prefetch(blobs=blobs)
    assert sdk.values("fieldvault.item.errors") == {("kms", "unwrap_many", "KMSDenied"): 2}
    party.kms.fail(KMSUnavailable("a message"))
    with pytest.raises(KMSUnavailable):
        party.seal("x", "another")
    partial, failed = sdk.exporter.get_finished_spans()[1], sdk.exporter.get_finished_spans()[-1]
    assert partial.attributes is not None
    assert failed.attributes is not None
    assert partial.attributes["fieldvault.outcome"] == "partial"
    assert partial.status.status_code is StatusCode.UNSET
    assert failed.attributes["error.type"] == failed.attributes["fieldvault.outcome"] == "KMSUnavailable"
    assert failed.status.status_code is StatusCode.ERROR


def test_no_tenant_subject_or_key_is_in_what_is_exported(party: Party, sdk: Sdk) -> None:
    """In no name, attribute or event."""
    blob = party.seal("a secret", TENANT, "subject-with-a-name")
    party.open(blob, TENANT)
    party.kms.fail(KMSDenied(f"not {TENANT}"))
    with pytest.raises(KMSDenied):
        party.seal("x", f"{TENANT} of another")
    data = sdk.reader.get_metrics_data()
    assert data is not None
    exported = data.to_json() + "".join(span.to_json() for span in sdk.exporter.get_finished_spans())
    assert "fieldvault kms wrap" in exported
    for name in (TENANT, "subject-with-a-name", "secret", blob[3:19].hex()):
        assert name not in exported


def test_the_global_providers_are_the_default(memory_rig: Rig) -> None:
    """Where none is set up they do nothing, and nothing breaks."""
    observer = OpenTelemetryObserver()
    party = memory_rig.party(observer=observer)
    observer.watch(party.vault)
    assert party.open(party.seal("x")) == "x"
    assert party.vault.stats().observer_errors == 0

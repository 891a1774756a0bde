"""Metrics for Prometheus; the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Iterator

from fieldvault.keys.observing import Call
from fieldvault.telemetry.extras import require
from fieldvault.telemetry.watching import SECONDS, Readable, Watched

require("prometheus_client", of="PrometheusObserver", extra="prometheus")

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram  # noqa: E402 - looked for above
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric  # noqa: E402 - looked for above

__all__ = ["PrometheusObserver"]


class PrometheusObserver:
    """Keeps a vault's metrics in a registry, that of ``prometheus_client`` by default.

    One serves any number of vaults: ``Vault(observer=…)`` for the calls, ``watch`` for what a vault holds.
    The labels are ``backend``, ``operation`` and ``outcome``, whose values are a few dozen in all; tenants,
    subjects and keys are never among them. What ``watch`` adds is read when it is collected, and so is not
    there in the multiprocess mode of ``prometheus_client``.

    Raises:
        ValueError: the registry has one already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._watched = Watched()
        self._calls = Histogram(
            "fieldvault_call_seconds",
            "Calls of the KMS and the key store.",
            ("backend", "operation", "outcome"),
            buckets=SECONDS,
            registry=registry,
        )
        self._item_errors = Counter(
            "fieldvault_item_errors",
            "Single keys that failed in a batch.",
            ("backend", "operation", "outcome"),
            registry=registry,
        )
        self._misses = Counter("fieldvault_key_misses", "Keys that somebody waited for.", registry=registry)
        self._breaker = Counter(
            "fieldvault_breaker_changes",
            "States that the circuit breaker of the KMS went into.",
            ("state",),
            registry=registry,
        )
        registry.register(self)

    def watch(self, vault: Readable) -> None:
        """Tell what this vault holds, too, for as long as it is there."""
        self._watched.add(vault)

    def on_call(self, call: Call, /) -> None:
        """See ``Observer.on_call``."""
        self._calls.labels(call.backend, call.operation, call.outcome).observe(call.seconds)
        for error, count in call.item_errors.items():
            self._item_errors.labels(call.backend, call.operation, error).inc(count)

    def on_miss(self, keys: int, /) -> None:
        """See ``Observer.on_miss``."""
        self._misses.inc(keys)

    def on_breaker(self, state: str, /) -> None:
        """See ``Observer.on_breaker``."""
        self._breaker.labels(state).inc()

    def collect(self) -> Iterator[Metric]:
        """What the watched vaults say now; called by the registry."""
        total = self._watched.total
        yield CounterMetricFamily(
            "fieldvault_key_hits",
            "Look-ups of a key that found it at hand.",
            value=total(lambda stats: stats.hits),
        )
        yield CounterMetricFamily(
            "fieldvault_keys_refreshed",
            "Keys renewed in the background.",
            value=total(lambda stats: stats.refreshed),
        )
        yield CounterMetricFamily(
            "fieldvault_refused_calls",
            "Calls that the open circuit breaker answered.",
            value=total(lambda stats: stats.refused),
        )
        yield GaugeMetricFamily(
            "fieldvault_keys_held", "Unwrapped keys in memory.", value=total(lambda stats: stats.keys)
        )
        yield GaugeMetricFamily(
            "fieldvault_breakers_open",
            "Vaults that leave their KMS alone.",
            value=total(lambda stats: stats.breaker != "closed"),
        )
        age = self._watched.lease_age()
        if age is not None:
            yield GaugeMetricFamily(
                "fieldvault_lease_age_seconds", "Since the key store was last asked for news.", value=age
            )

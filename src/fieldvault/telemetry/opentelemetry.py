"""Metrics and traces for OpenTelemetry; the extra ``opentelemetry``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from fieldvault.keys.observing import Call
from fieldvault.keys.stats import Stats
from fieldvault.telemetry.extras import require
from fieldvault.telemetry.watching import SECONDS, Readable, Watched

require("opentelemetry", of="OpenTelemetryObserver", extra="opentelemetry")

from opentelemetry import metrics, trace  # noqa: E402 - looked for above
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation  # noqa: E402 - looked for above
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider  # noqa: E402 - looked for above

__all__ = ["OpenTelemetryObserver"]

_NAME = "fieldvault"

Callback = Callable[[CallbackOptions], Iterable[Observation]]


class OpenTelemetryObserver:
    """Gives OpenTelemetry a vault's metrics, and a span for each call of a backend.

    One serves any number of vaults: ``Vault(observer=…)`` for the calls, ``watch`` for what a vault holds.
    The attributes are ``fieldvault.backend``, ``fieldvault.operation`` and ``fieldvault.outcome``, whose
    values are a few dozen in all, and on spans the number of items; tenants, subjects and keys are never
    among them. Spans are made when a call has come back, so those of the backend's own client stand beside
    them, not below.

    The providers are the global ones by default.
    """

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        self._watched = Watched()
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._calls = meter.create_histogram(
            "fieldvault.call.duration",
            unit="s",
            description="Calls of the KMS and the key store.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._item_errors = meter.create_counter(
            "fieldvault.item.errors", unit="{key}", description="Single keys that failed in a batch."
        )
        self._misses = meter.create_counter(
            "fieldvault.key.misses", unit="{key}", description="Keys that somebody waited for."
        )
        self._breaker = meter.create_counter(
            "fieldvault.breaker.changes",
            unit="{change}",
            description="States that the circuit breaker of the KMS went into.",
        )
        meter.create_observable_counter(
            "fieldvault.key.hits",
            [self._total(lambda stats: stats.hits)],
            unit="{lookup}",
            description="Look-ups of a key that found it at hand.",
        )
        meter.create_observable_counter(
            "fieldvault.key.refreshed",
            [self._total(lambda stats: stats.refreshed)],
            unit="{key}",
            description="Keys renewed in the background.",
        )
        meter.create_observable_counter(
            "fieldvault.call.refused",
            [self._total(lambda stats: stats.refused)],
            unit="{call}",
            description="Calls that the open circuit breaker answered.",
        )
        meter.create_observable_up_down_counter(
            "fieldvault.key.held",
            [self._total(lambda stats: stats.keys)],
            unit="{key}",
            description="Unwrapped keys in memory.",
        )
        meter.create_observable_up_down_counter(
            "fieldvault.breaker.open",
            [self._total(lambda stats: stats.breaker != "closed")],
            unit="{vault}",
            description="Vaults that leave their KMS alone.",
        )
        meter.create_observable_gauge(
            "fieldvault.lease.age",
            [self._lease_age],
            unit="s",
            description="Since the key store was last asked for news.",
        )

    def watch(self, vault: Readable) -> None:
        """Tell what this vault holds, too, for as long as it is there."""
        self._watched.add(vault)

    def on_call(self, call: Call, /) -> None:
        """See ``Observer.on_call``."""
        attributes = _attributes(call, call.outcome)
        self._calls.record(call.seconds, attributes)
        for error, count in call.item_errors.items():
            self._item_errors.add(count, _attributes(call, error))
        now = time.time_ns()
        span = self._tracer.start_span(
            f"{_NAME} {call.backend} {call.operation}",
            kind=SpanKind.CLIENT,
            attributes={**attributes, "fieldvault.items": call.items},
            start_time=now - round(call.seconds * 1e9),
        )
        if call.error is not None:
            span.set_attribute("error.type", call.error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)

    def on_miss(self, keys: int, /) -> None:
        """See ``Observer.on_miss``; an event of the span that waits, too."""
        self._misses.add(keys)
        trace.get_current_span().add_event("fieldvault.miss", {"fieldvault.keys": keys})

    def on_breaker(self, state: str, /) -> None:
        """See ``Observer.on_breaker``."""
        self._breaker.add(1, {"fieldvault.breaker.state": state})

    def _total(self, figure: Callable[[Stats], int]) -> Callback:
        return lambda _: [Observation(self._watched.total(figure))]

    def _lease_age(self, _: CallbackOptions) -> Iterable[Observation]:
        age = self._watched.lease_age()
        return [] if age is None else [Observation(age)]


def _attributes(call: Call, outcome: str) -> dict[str, str]:
    return {
        "fieldvault.backend": call.backend,
        "fieldvault.operation": call.operation,
        "fieldvault.outcome": outcome,
    }

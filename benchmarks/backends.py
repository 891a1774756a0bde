"""KMS backends: a value before and after its key is at hand, a herd, and a page of many cold tenants.

Wall time, since most of it is waiting for somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any

from benchmarks.contenders import TEXT, VAULTS, Contender, Opened
from benchmarks.herds import check, tasks_meet, threads_meet
from benchmarks.key_peers import KEY_PEERS
from benchmarks.measure import Call, collected
from benchmarks.peers import Missing
from benchmarks.report import Row
from benchmarks.servers import Servers

__all__ = ["backend_rows"]

STARTS = 3
LEAST_ABREAST = 16
"""Requests that a KMS without batches has to be asked at a time."""

LATENCY = "A value's latency, by KMS"
_UNITS = {"ms": 1e6, "µs": 1e3}


def backend_rows(*, tenants: int, row: int, cold: int, warm: int, callers: int) -> Iterator[Row]:
    """The rows for every backend and peer.

    Latencies are those of ``cold`` first values and ``warm`` further ones; ``row`` of the ``tenants`` are
    also asked for one after the other.
    """
    with ExitStack() as stack:
        servers = Servers(stack)
        for name, make in {**VAULTS, **KEY_PEERS}.items():
            try:
                contender = make(servers, stack)
            except Missing as error:
                yield Row(LATENCY, name, None, "ms", note=str(error))
                continue
            names = [f"tenant {number:06d}" for number in range(max(tenants, cold + 1))]
            with contender.opened() as opened:
                if opened.fetch is not None:
                    opened.fetch(names)
                blobs = [opened.seal(tenant) for tenant in names]
            with collected():
                yield from _latencies(name, contender, names, blobs, cold=cold, warm=warm)
                budget = 1 if name in VAULTS else None
                yield from _herd(name, contender, names[0], blobs[0], callers, budget=budget)
                yield from _pages(name, contender, names[:tenants], blobs[:tenants], row)


def _latencies(
    name: str, contender: Contender, names: Sequence[str], blobs: Sequence[Any], *, cold: int, warm: int
) -> Iterator[Row]:
    starts: list[int] = []
    for _ in range(STARTS):
        begun = perf_counter_ns()
        with contender.opened() as opened:
            opened.seal(names[0])
            starts.append(perf_counter_ns() - begun)
    yield _latency(f"{name}, the first value of a process, sealed", starts, "ms")
    for work in ("sealed", "opened"):
        with contender.opened() as opened:
            calls = [_call(opened, work, *each) for each in zip(names, blobs, strict=True)]
            # Connections, and whatever else is made once, are made.
            calls[0]()
            if opened.bare is not None and work == "opened":
                unwraps = [opened.bare(tenant) for tenant in names[: cold + 1]]
                yield _latency(f"{name}, the KMS by itself, unwrapping", list(map(_timed, unwraps)), "ms")
            yield _latency(f"{name}, cold key, {work}", list(map(_timed, calls[1 : cold + 1])), "ms")
            yield _latency(f"{name}, warm key, {work}", list(map(_timed, repeat(calls[1], warm))), "µs")


def _herd(
    name: str, contender: Contender, tenant: str, blob: Any, callers: int, *, budget: int | None
) -> Iterator[Row]:
    section = f"{callers} callers meet one cold key, by KMS"
    for kind in ("threads", "tasks"):
        with contender.opened() as opened:
            before = opened.requests()
            if kind == "threads":
                meet = partial(threads_meet, partial(opened.open, tenant, blob), callers)
            elif opened.aopen is not None:
                meet = partial(tasks_meet, partial(opened.aopen, tenant, blob), callers)
            else:
                yield Row(section, f"{name}, {kind}", None, "requests", note="it has no coroutines")
                continue
            begun = perf_counter_ns()
            values = meet()
            took = (perf_counter_ns() - begun) / _UNITS["ms"]
            check(values, [TEXT] * callers)
            yield Row(
                section, f"{name}, {kind}", opened.requests() - before, "requests", budget, f"{took:.1f} ms"
            )


def _pages(
    name: str, contender: Contender, names: Sequence[str], blobs: Sequence[Any], row: int
) -> Iterator[Row]:
    section = "A page of values, each of another cold tenant, by KMS"
    if contender.requests is None:
        row = len(names)
    with contender.opened() as opened:
        asked, took = _page(opened, names[:row], blobs[:row])
    yield Row(section, f"{name}, {row:,} one by one", asked, "requests", None, took)
    if contender.requests is None:
        return
    if contender.abreast is not None:
        contender.abreast.restart()
    with contender.opened() as opened:
        asked, took = _page(opened, names, blobs, opened.fetch)
    what = f"{name}, {len(names):,} after vault.prefetch"
    yield Row(section, what, asked, "requests", contender.requests(len(names)), took)
    if contender.abreast is not None:
        # Who asks for n keys, k at a time, waits n / k times.
        waits, most = (-(-len(names) // abreast) for abreast in (contender.abreast.most, LEAST_ABREAST))
        note = f"{contender.abreast.most} requests at once"
        yield Row(section, what, waits, "waits in a row", most, note=note)


def _page(
    opened: Opened,
    names: Sequence[str],
    blobs: Sequence[Any],
    fetch: Callable[[Sequence[str]], object] | None = None,
) -> tuple[int, str]:
    """The requests, and how long it took, all together and each."""
    before = opened.requests()
    begun = perf_counter_ns()
    if fetch is not None:
        fetch(names)
    values = [opened.open(tenant, blob) for tenant, blob in zip(names, blobs, strict=True)]
    took = (perf_counter_ns() - begun) / _UNITS["ms"]
    check(values, [TEXT] * len(names))
    return opened.requests() - before, f"{took:.0f} ms, {took / len(names):.2f} each"


def _call(opened: Opened, work: str, tenant: str, blob: Any) -> Call:
    return partial(opened.seal, tenant) if work == "sealed" else partial(opened.open, tenant, blob)


def _timed(call: Call) -> int:
    begun = perf_counter_ns()
    call()
    return perf_counter_ns() - begun


def _latency(what: str, taken: Sequence[int], unit: str) -> Row:
    """The median, and the 95th percentile beside it."""
    tail = quantiles(taken, n=20, method="inclusive")[-1]
    return Row(
        LATENCY, what, median(taken) / _UNITS[unit], unit, None, f"95 %: {tail / _UNITS[unit]:.2f} {unit}"
    )

"""Timing on a machine that others use too: candidates interleaved, many short rounds, ratios within a round."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from random import Random
from statistics import median, quantiles
from time import perf_counter_ns

__all__ = ["Call", "Sample", "Samples", "collected", "interleaved", "spread"]

Call = Callable[[], object]
"""What every candidate and every floor is: a Python function without arguments, called in one plain loop."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One candidate's rounds: nanoseconds (of one call, or of one whole run) in the order they were taken."""

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The quietest round."""
        return min(self.rounds)

    def ratio(self, base: Sample) -> float:
        """How many times the base this costs: the median over the rounds, each against its own round's base."""
        return median(self._ratios(base))

    def quartiles(self, base: Sample) -> tuple[float, float]:
        """Where the middle half of the rounds' ratios lies."""
        return spread(self._ratios(base))

    def _ratios(self, base: Sample) -> list[float]:
        return [mine / other for mine, other in zip(self.rounds, base.rounds, strict=True)]


Samples = Mapping[str, Sample]


def interleaved(candidates: Mapping[str, Call], *, rounds: int, calls: int) -> dict[str, Sample]:
    """Nanoseconds of a call for each candidate, ``calls`` calls a round, in a new random order each round.

    Garbage collection is off meanwhile: none of the candidates makes cycles, the harness's own would disturb.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        _loop(call, calls)  # whatever is made on first use is made
    order = list(candidates)
    shuffle = Random(20).shuffle  # noqa: S311 - an order, not a secret
    with collected():
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                taken[name].append(_loop(candidates[name], calls) / calls)
    return {name: Sample(tuple(times)) for name, times in taken.items()}


def spread(values: list[float]) -> tuple[float, float]:
    """The lower and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


@contextmanager
def collected(*, pause: bool = True) -> Iterator[None]:
    """Collect garbage now and, unless ``pause`` is false, not again until the end of the block."""
    gc.collect()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _loop(call: Call, calls: int) -> int:
    begun = perf_counter_ns()
    for _ in repeat(None, calls):
        call()
    return perf_counter_ns() - begun

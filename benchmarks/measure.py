"""Timing on a machine that others use too: processor time, candidates interleaved, many short rounds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from random import Random
from statistics import quantiles
from time import process_time_ns

__all__ = ["Call", "Sample", "collected", "interleaved"]

Call = Callable[[], object]
"""What every candidate and every floor is: a Python function without arguments, called in one plain loop."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One candidate's rounds: nanoseconds of processor time (of a call, or of a run) in the order taken."""

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The quietest round."""
        return min(self.rounds)

    def ratio(self, base: Sample) -> float:
        """How many times the base this costs: the quietest round of each, since noise only ever adds."""
        return self.best / base.best

    def quartiles(self, base: Sample) -> tuple[float, float]:
        """Where the middle half of the ratios within a round lies: what the machine's noise did to them."""
        ratios = [mine / other for mine, other in zip(self.rounds, base.rounds, strict=True)]
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        return low, high


def interleaved(candidates: Mapping[str, Call], *, rounds: int, calls: int) -> dict[str, Sample]:
    """Each candidate's time for a call, ``calls`` calls a round, in a new random order each round.

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
    begun = process_time_ns()
    for _ in repeat(None, calls):
        call()
    return process_time_ns() - begun

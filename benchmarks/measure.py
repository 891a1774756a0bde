"""Timing on a machine that others use too: processor time, candidates interleaved, the quiet rounds kept."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from random import Random
from statistics import median, quantiles
from time import process_time_ns

__all__ = ["Call", "Sample", "collected", "interleaved", "quiet"]

Call = Callable[[], object]
"""What every candidate and every floor is: a Python function without arguments, called in one plain loop."""

LEAST = 3
"""Rounds that are kept at least, where there are so many."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One candidate's quiet rounds: nanoseconds of processor time, of a call or of a whole run.

    Samples that were taken together have the same rounds in the same order.
    """

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The quickest round."""
        return min(self.rounds)

    def ratio(self, base: Sample) -> float:
        """How many times the base this costs: the median over the rounds, each against the base in it."""
        return median(self._ratios(base))

    def quartiles(self, base: Sample) -> tuple[float, float]:
        """Where the middle half of the rounds' ratios lies."""
        ratios = self._ratios(base)
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        return low, high

    def _ratios(self, base: Sample) -> list[float]:
        return [mine / other for mine, other in zip(self.rounds, base.rounds, strict=True)]


def quiet(taken: Mapping[str, Sequence[float]]) -> dict[str, Sample]:
    """The quarter of the rounds in which the machine was quietest: all candidates together took least.

    Every candidate counts alike, as a multiple of its own quickest round, so the choice favours none.
    """
    least = {name: min(times) for name, times in taken.items()}
    noise = [
        sum(time / least[name] for name, time in zip(taken, times, strict=True))
        for times in zip(*taken.values(), strict=True)
    ]
    quietest = sorted(range(len(noise)), key=noise.__getitem__)[: max(len(noise) // 4, LEAST)]
    return {name: Sample(tuple(times[each] for each in quietest)) for name, times in taken.items()}


def interleaved(
    candidates: Mapping[str, Call], *, rounds: int, calls: int, worth: Mapping[str, int] | None = None
) -> dict[str, Sample]:
    """Each candidate's time for a call, ``calls`` calls a round, in a new random order each round.

    A call that is ``worth`` many, since it does so many things at once, is made so much less often, and its
    time divided.

    Garbage collection is off meanwhile: none of the candidates makes cycles, the harness's own would disturb.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    loops = {name: max(calls // (worth or {}).get(name, 1), 1) for name in candidates}
    things = {name: made * (worth or {}).get(name, 1) for name, made in loops.items()}
    for name, call in candidates.items():
        _loop(call, loops[name])  # whatever is made on first use is made
    order = list(candidates)
    shuffle = Random(20).shuffle  # noqa: S311 - an order, not a secret
    with collected():
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                taken[name].append(_loop(candidates[name], loops[name]) / things[name])
    return quiet(taken)


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

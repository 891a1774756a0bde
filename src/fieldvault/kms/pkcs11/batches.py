"""Many calls of a token: in a row where it is quick, and several at a time where that pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ask_all"]

A = TypeVar("A")
B = TypeVar("B")

# SoftHSM answers in a tenth of this, and threads make a batch of it slower: Python runs one at a time. A
# module that asks over a network takes longer.
_SLOW = 0.001
_TRIED = 2


def ask_all(ask: Callable[[A], B], items: Sequence[A], *, parallel: Callable[[], int]) -> list[B]:
    """The answer for each item, in order.

    The first few are asked for in a row; where each took a millisecond, the rest ``parallel`` at a time, a
    number that is asked for after those.
    """
    answers: list[B] = []
    quickest = float("inf")
    for item in items[:_TRIED]:
        begun = time.perf_counter()
        answers.append(ask(item))
        quickest = min(quickest, time.perf_counter() - begun)
    rest = items[_TRIED:]
    threads = min(parallel(), len(rest)) if quickest >= _SLOW else 1
    if threads < 2:
        return [*answers, *map(ask, rest)]
    with ThreadPoolExecutor(threads, thread_name_prefix="fieldvault-pkcs11") as pool:
        return [*answers, *pool.map(ask, rest)]

"""Batches: below the server's limit, several at once, and read item by item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.protocols import NotAsked

__all__ = ["MAX_ITEMS", "in_batches", "results"]

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741 - an item
A = TypeVar("A")

MAX_ITEMS = 249
"""Items of a batch, by default.

A server counts the JSON strings of a request, names of members among them, and refuses one of more than 1,000
(``max_request_json_strings``). An item of a ciphertext and a context has four; two stand around them.
"""


@dataclass(frozen=True, slots=True)
class _Chunk:
    key: Any
    numbers: Sequence[int]


def in_batches(
    items: Sequence[tuple[K, I]],
    ask: Callable[[K, Sequence[I]], Sequence[A | KMSError]],
    *,
    size: int,
    at_once: int,
) -> list[A | KMSError]:
    """Each item's answer, in order: those of one key in batches of ``size``, ``at_once`` of them in parallel.

    What a whole batch met is the answer of each of its items. Once one met an outage, those that have not
    begun are ``NotAsked``: a server that hangs is waited for once.

    Raises:
        KMSUnavailable, KMSDenied: every batch met such an error; the first one's.
    """
    groups: dict[K, list[int]] = defaultdict(list)
    for number, (key, _) in enumerate(items):
        groups[key].append(number)
    chunks = [
        _Chunk(key, numbers[start : start + size])
        for key, numbers in groups.items()
        for start in range(0, len(numbers), size)
    ]

    outages: list[KMSUnavailable] = []

    def answered(chunk: _Chunk) -> Sequence[A | KMSError] | KMSError:
        if outages:
            return NotAsked(str(outages[0]))
        try:
            return ask(chunk.key, [items[number][1] for number in chunk.numbers])
        except KMSUnavailable as error:
            outages.append(error)
            return error
        except KMSError as error:
            return error

    if len(chunks) < 2:
        outcomes = [answered(chunk) for chunk in chunks]
    else:
        with ThreadPoolExecutor(min(at_once, len(chunks)), "fieldvault-transit") as threads:
            outcomes = list(threads.map(answered, chunks))
    if outcomes and all(isinstance(outcome, KMSUnavailable | KMSDenied) for outcome in outcomes):
        raise next(outcome for outcome in outcomes if isinstance(outcome, KMSError))
    answers: dict[int, A | KMSError] = {}
    for chunk, outcome in zip(chunks, outcomes, strict=True):
        given = [outcome] * len(chunk.numbers) if isinstance(outcome, KMSError) else outcome
        answers.update(zip(chunk.numbers, given, strict=True))
    return [answers[number] for number in range(len(items))]


def results(answer: object, count: int) -> list[Mapping[str, Any]]:
    """The results of a batch, one an item.

    Raises:
        KMSUnavailable: they are not there, or not as many as there were items.
    """
    data = answer.get("data") if isinstance(answer, Mapping) else None
    found = data.get("batch_results") if isinstance(data, Mapping) else None
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(isinstance(each, Mapping) for each in found)
    ):
        raise KMSUnavailable("the answer is not that to a batch; see what stands between")
    return found

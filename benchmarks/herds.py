"""Herds: many callers that want the same thing at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

__all__ = ["check", "tasks_meet", "threads_meet"]


def threads_meet(call: Callable[[], Any], callers: int) -> list[Any]:
    """What so many threads get that call at once."""
    together = Barrier(callers)

    def wait_and_call(_: int) -> Any:
        together.wait()
        return call()

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(wait_and_call, range(callers)))


def tasks_meet(call: Callable[[], Awaitable[Any]], callers: int) -> list[Any]:
    """What so many tasks of one event loop get that call at once."""

    async def meet() -> list[Any]:
        return await asyncio.gather(*(call() for _ in range(callers)))

    return asyncio.run(meet())


def check(values: list[Any], expected: list[str]) -> None:
    """Fail unless what came back is what went in."""
    if values != expected:
        raise AssertionError("a value came back as another than it went in")

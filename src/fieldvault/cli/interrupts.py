"""Ctrl-C between two steps of a long job, and not in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["between_steps"]


@contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Gives what answers whether the job was asked to stop.

    The first Ctrl-C is only noted, so that the step at work ends and is reported; the second interrupts as
    ever.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - its shape
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)

"""What an object has to renew in a forked child."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_forked_children"]

T = TypeVar("T")


def in_forked_children(owner: T, renew: Callable[[T], None]) -> None:
    """Have ``renew(owner)`` run in every forked child, for as long as the owner lives.

    Where the operating system does not fork, nothing is to do. ``renew`` must not hold the owner.
    """
    if hasattr(os, "register_at_fork"):
        reference = weakref.ref(owner)

        def child() -> None:
            alive = reference()
            if alive is not None:
                renew(alive)

        os.register_at_fork(after_in_child=child)

"""``RAISE``: what to give for ``erased=`` where a shredded value is to be an error."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["RAISE"]


class _Sentinel(Enum):
    RAISE = "RAISE"

    def __repr__(self) -> str:
        return "RAISE"


RAISE: Final = _Sentinel.RAISE
"""Reading a shredded value raises ``KeyShredded`` instead of giving a stand-in."""

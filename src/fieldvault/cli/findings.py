"""Findings: the lines that ``doctor`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Level"]


class Level(StrEnum):
    """How a check ended; only a problem makes ``doctor`` end with an exit code other than 0."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``doctor``; ``items`` are the keys or files that it is about, where there are several."""

    check: str
    level: Level
    detail: str
    remedy: str | None = None
    items: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The finding in JSON's types."""
        return {
            "check": self.check,
            "level": self.level.value,
            "detail": self.detail,
            "remedy": self.remedy,
            "items": list(self.items),
        }

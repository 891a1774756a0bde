"""Read the code blocks out of a Markdown page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNABLE = frozenset({"python", "console", "sh"})

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[\w+-]*)[^`]*$")
_NOT_RUN = re.compile(r"^\s*<!-- not run: (?P<reason>.+?) -->\s*$")


class PageError(AssertionError):
    """A page says something that is not so; the message starts with page and line."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of code that the page promises to work.

    Args:
        page: How the page is called in messages.
        line: The line of the fence; the code starts on the next one.
        language: ``python``, ``console`` or ``sh``.
        code: What is between the fences, without the fence's own indent.
        not_run: Why it cannot run here, from ``<!-- not run: reason -->`` on the line before the fence.
    """

    page: str
    line: int
    language: str
    code: str
    not_run: str | None = None

    def at(self, offset: int = 0) -> str:
        """Return page and line of a line of the code, counted from 0."""
        return f"{self.page}:{self.line + 1 + offset}"


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages whose code is promised to run."""
    readme = root / "README.md"
    return [*([readme] if readme.exists() else []), *sorted((root / "docs").rglob("*.md"))]


def blocks(text: str, page: str) -> Iterator[Block]:
    """Yield the runnable blocks of a page, in order.

    Raises:
        PageError: A fence is never closed.
    """
    lines = text.splitlines()
    number = 0
    not_run: str | None = None
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            comment = _NOT_RUN.match(lines[number])
            if comment or lines[number].strip():
                not_run = comment["reason"] if comment else None
            number += 1
            continue
        end = _closing(lines, number + 1, opening["fence"])
        if end is None:
            raise PageError(f"{page}:{number + 1}: this fence is never closed")
        if opening["language"] in RUNNABLE:
            indent = len(opening["indent"])
            code = "\n".join(line[:indent].strip() + line[indent:] for line in lines[number + 1 : end])
            yield Block(page, number + 1, opening["language"], code, not_run)
        not_run = None
        number = end + 1


def _closing(lines: list[str], start: int, fence: str) -> int | None:
    for number in range(start, len(lines)):
        stripped = lines[number].strip()
        if len(stripped) >= len(fence) and set(stripped) == {fence[0]}:
            return number
    return None

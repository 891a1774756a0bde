"""What a command prints, and where.

Results go to stdout, as text for a person or as one JSON document; everything else goes to stderr.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fieldvault.cli.exits import Refused

__all__ = ["Listing", "Terminal", "counted", "moment", "shown", "tinted"]

_UNBOUNDED = 10_000

# Control characters, and those that turn the direction of the text around them: a name or a reason must not
# be able to repaint the terminal, or to look like another one.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

_TINTS = {
    "ok": "green",
    "live": "green",
    "active": "green",
    "warning": "yellow",
    "suspended": "yellow",
    "problem": "bold red",
    "shredded": "red",
    "destroyed": "red",
    "unusable": "red",
}


def shown(text: str) -> str:
    r"""``text`` as it may be printed: what would steer the terminal is spelled out, as ``\u202e``."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def moment(at: datetime) -> str:
    """A time for a person, in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def counted(number: int, noun: str) -> str:
    """A number of things, ``1 key`` or ``2 keys``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def tinted(word: str) -> Text:
    """A word that says a state, in the colour of that state."""
    return Text(word, style=_TINTS.get(word, ""))


@dataclass(frozen=True, slots=True)
class Listing:
    """A table without lines, which grep and awk can read as well as a person.

    Where it is wider than the terminal, each row becomes a small table of its own: nothing is cut, half a key
    id is none. ``heads`` may be empty texts; such a table folds its last column.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str | Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich asks for."""
        flat = _grid(self.heads)
        for row in self.rows:
            flat.add_row(*map(_cell, row))
        unbounded = options.update(max_width=_UNBOUNDED)
        if not any(self.heads) or Measurement.get(console, unbounded, flat).maximum <= options.max_width:
            yield flat
            return
        for number, row in enumerate(self.rows):
            if number:
                yield Text()
            upright = _grid(("", ""))
            for head, cell in zip(self.heads, row, strict=True):
                upright.add_row(Text(head, style="bold"), _cell(cell))
            yield upright


def _grid(heads: Sequence[str]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(heads), header_style="bold")
    for number, head in enumerate(heads, start=1):
        made.add_column(Text(head), overflow="fold", no_wrap=not any(heads) and number < len(heads))
    return made


def _cell(content: str | Text) -> Text:
    return Text(shown(content)) if isinstance(content, str) else content


@dataclass(slots=True)
class Terminal:
    """Where a command is told to look, and how it answers: the global options, and stdout and stderr."""

    config: Path
    json: bool = False

    def emit(self, document: Mapping[str, Any], *lines: RenderableType) -> None:
        """Print the result: ``document`` as JSON where that was asked for, else ``lines``."""
        if self.json:
            # ASCII only: valid whatever the encoding of stdout.
            click.echo(json.dumps(document, indent=2))
            return
        # A pipe has no width, and a line that is broken in it cannot be searched.
        unbounded = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        console = Console(
            markup=False,
            emoji=False,
            highlight=False,
            width=_UNBOUNDED if unbounded else None,
            # With a width alone, rich still takes the one of a dumb terminal.
            height=1 if unbounded else None,
        )
        with console.capture() as captured:
            for line in lines:
                console.print(Text(shown(line)) if isinstance(line, str) else line)
        # A table fills its cells up with blanks, the last column's too.
        click.echo("\n".join(line.rstrip() for line in captured.get().split("\n")), nl=False, color=True)

    def say(self, text: str) -> None:
        """A word to the person at the terminal, which is no part of the result."""
        click.echo(shown(text), err=True)

    def confirm(self, whom: str, name: str) -> None:
        """Have ``name`` typed.

        Raises:
            Refused: something else was typed, or nobody is there to type.
        """
        click.echo(f"Type {whom} to go on: ", nl=False, err=True)
        try:
            typed = sys.stdin.readline()
        except UnicodeDecodeError:
            typed = ""
        if not typed.endswith("\n"):
            click.echo(err=True)
        if typed.removesuffix("\n").removesuffix("\r") != name:
            raise Refused(f"not confirmed: {whom} was not typed; nothing was changed")

    @contextmanager
    def progress(self, doing: str, total: int | None) -> Iterator[Callable[[], None]]:
        """A bar on stderr where that is a terminal; gives what is called after each step."""
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False, emoji=False, highlight=False),
            transient=True,
            disable=not sys.stderr.isatty() or os.environ.get("TERM") == "dumb",
        )
        with bar:
            task = bar.add_task(doing, total=total)
            yield lambda: bar.advance(task)

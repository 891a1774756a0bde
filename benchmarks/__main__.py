"""``python -m benchmarks``: measure, print the tables, and write the same as JSON (and as Markdown)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmarks.backends import backend_rows
from benchmarks.cached import cached_rows
from benchmarks.keys import herd_rows, page_rows, round_robin_rows, shred_rows
from benchmarks.lookups import lookup_rows
from benchmarks.memory import memory_rows
from benchmarks.orm import orm_rows
from benchmarks.pages import subject_page_rows
from benchmarks.parts import part_rows
from benchmarks.report import Row, as_document, as_markdown, machine, print_report
from benchmarks.values import value_rows


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: numbers of rounds, calls, rows, processes and keys."""

    rounds: int = 400
    calls: int = 300
    orm_rows: int = 10_000
    orm_processes: int = 16
    orm_collectors: tuple[str, ...] = ("off", "on")
    page_processes: int = 6
    lookup_rows: int = 1_000_000
    lookups: int = 300
    lookup_processes: int = 4
    tenants: int = 10_000
    turns: int = 40
    callers: int = 64
    delay: float = 0.05
    subjects: int = 1_000
    shred_sizes: tuple[int, ...] = (1_000, 100_000)
    keys: int = 10_000
    page_tenants: int = 1_000
    tenants_in_a_row: int = 200
    cold_values: int = 100
    warm_values: int = 1_000
    cached_keys: int = 100_000


QUICK = Extent(
    rounds=2,
    calls=5,
    orm_rows=20,
    orm_processes=1,
    orm_collectors=("off",),
    page_processes=1,
    lookup_rows=50,
    lookups=5,
    lookup_processes=1,
    tenants=10,
    turns=2,
    callers=8,
    delay=0.01,
    subjects=10,
    shred_sizes=(5, 50),
    keys=20,
    page_tenants=10,
    tenants_in_a_row=3,
    cold_values=2,
    warm_values=5,
    cached_keys=20,
)
"""Shows that everything runs. Its figures mean nothing."""

MILLION = 1_000_000


def measured(extent: Extent) -> Iterator[Row]:
    """Every row of the report, as it is measured."""
    yield from value_rows(rounds=extent.rounds, calls=extent.calls)
    yield from part_rows(rounds=extent.rounds, calls=extent.calls)
    yield from orm_rows(
        rows=extent.orm_rows, processes=extent.orm_processes, collectors=extent.orm_collectors
    )
    yield from subject_page_rows(subjects=extent.subjects, processes=extent.page_processes)
    yield from lookup_rows(rows=extent.lookup_rows, lookups=extent.lookups, processes=extent.lookup_processes)
    yield from round_robin_rows(tenants=extent.tenants, rounds=extent.turns)
    yield from herd_rows(callers=extent.callers, delay=extent.delay)
    yield from page_rows(subjects=extent.subjects)
    yield from shred_rows(sizes=extent.shred_sizes)
    yield from memory_rows(keys=extent.keys)
    yield from backend_rows(
        tenants=extent.page_tenants,
        row=extent.tenants_in_a_row,
        cold=extent.cold_values,
        warm=extent.warm_values,
        callers=extent.callers,
    )
    yield from cached_rows(keys=extent.cached_keys)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--json", type=Path, default=Path("bench.json"), metavar="FILE", help="where JSON goes"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="where a table for the docs goes")
    parser.add_argument("--quick", action="store_true", help="tiny counts, to see that everything runs")
    parser.add_argument("--million", action="store_true", help="also shred a tenant with 1,000,000 subjects")
    options = parser.parse_args(arguments)
    extent = QUICK if options.quick else Extent()
    if options.million:
        extent = replace(extent, shred_sizes=(*extent.shred_sizes, MILLION))
    rows: list[Row] = []
    console = Console(stderr=True)
    with console.status("measuring") as status:
        for row in measured(extent):
            rows.append(row)
            status.update(f"measured: {row.section}")
    ran_on = machine()
    print_report(rows, ran_on)
    options.json.write_text(as_document(rows, ran_on), encoding="utf-8")
    if options.markdown is not None:
        options.markdown.write_text(as_markdown(rows, ran_on), encoding="utf-8")
    print(f"\nThe same as JSON: {options.json}")


if __name__ == "__main__":
    main()

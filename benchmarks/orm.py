"""ORM rows with three encrypted columns, loaded and inserted; each measurement in a fresh process.

As a program it is that process: ``python -m benchmarks.orm VARIANT ROWS on|off`` prints one JSON object with
nanoseconds. ``off`` is the garbage collector's state while the time runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from time import process_time_ns
from typing import Any

from sqlalchemy import create_engine, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from benchmarks.measure import Sample, collected, quiet
from benchmarks.models import TENANT, VARIANTS, Model
from benchmarks.peers import Missing
from benchmarks.processes import in_fresh_process
from benchmarks.report import Row, ratio_row

__all__ = ["orm_rows"]

LOAD, INSERT = "load", "insert"
TITLES = {
    LOAD: "Loading {rows:,} ORM rows with 3 encrypted columns",
    INSERT: "Bulk insert of {rows:,} rows with 3 encrypted columns",
}
SUBJECT, BASE, PLAIN = "fieldvault", "hand-written", "plaintext"
BUDGET = 1.1


def orm_rows(*, rows: int, processes: int, collectors: Sequence[str] = ("off", "on")) -> Iterator[Row]:
    """The rows for the ORM, from so many processes a variant and state of the collector, interleaved."""
    taken: dict[tuple[str, str, str], list[float]] = {}
    absent: dict[str, str] = {}
    for _ in range(processes):
        for collector in collectors:
            for variant in VARIANTS:
                if variant in absent:
                    continue
                answer = in_fresh_process("orm", variant, rows, collector)
                if "missing" in answer:
                    absent[variant] = answer["missing"]
                for work in TITLES.keys() & answer.keys():
                    taken.setdefault((work, collector, variant), []).append(answer[work])
    for work, title in TITLES.items():
        section = title.format(rows=rows)
        for collector in collectors:
            samples = quiet(
                {variant: taken[work, collector, variant] for variant in VARIANTS if variant not in absent}
            )
            yield from _section(section, f"collector {collector}", samples, judged=collector == "off")
        for variant, reason in absent.items():
            yield Row(section, variant, None, f"× {BASE}", note=reason)


def _section(section: str, how: str, samples: dict[str, Sample], *, judged: bool) -> Iterator[Row]:
    for variant, sample in samples.items():
        yield ratio_row(section, f"{variant}, {how}", sample, samples[PLAIN], unit=f"× {PLAIN}", scale="ms")
    yield ratio_row(
        section,
        f"{SUBJECT} beside {BASE}, {how}",
        samples[SUBJECT],
        samples[BASE],
        unit=f"× {BASE}",
        budget=BUDGET if judged else None,
        scale="ms",
    )


def _measure(model: Model, rows: int, *, pause: bool) -> dict[str, int]:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    model.base.metadata.create_all(engine)
    # Once with a few rows, so that statements are compiled, keys made and modules loaded.
    _insert(engine, model, 0, 10)()
    _load(engine, model)()
    taken = {}
    for work, run in ((INSERT, _insert(engine, model, 10, rows)), (LOAD, _load(engine, model))):
        with collected(pause=pause):
            begun = process_time_ns()
            run()
            taken[work] = process_time_ns() - begun
    engine.dispose()
    return taken


def _insert(engine: Any, model: Model, first: int, rows: int) -> Callable[[], None]:
    customers = [
        {
            "id": number,
            "tenant_id": TENANT,
            "name": f"Grace Brewster Hopper {number:09d}",
            "email": f"grace.hopper{number:08d}@example.com",
            "phone": f"+1 212 555 {number:09d}",
        }
        for number in range(first, first + rows)
    ]

    def run() -> None:
        with Session(engine) as session:
            session.execute(insert(model.customer), customers)
            session.commit()

    return run


def _load(engine: Any, model: Model) -> Callable[[], None]:
    def run() -> None:
        with Session(engine) as session:
            for customer in session.scalars(select(model.customer)).all():
                _ = customer.name, customer.email, customer.phone

    return run


def main() -> None:
    """Measure one variant and print what it took."""
    variant, rows, collector = sys.argv[1:]
    try:
        with VARIANTS[variant]() as model:
            answer: dict[str, Any] = _measure(model, int(rows), pause=collector == "off")
    except Missing as error:
        answer = {"missing": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

"""Writes ``docs/doors.md``: ``python -m scripts.doors RUN.json…``.

A run is what the tests in ``tests/sqlalchemy/doors`` write where ``FIELDVAULT_DOORS`` names a file: the
outcome of each door on each driver, on one release of SQLAlchemy. The page names all registered doors; what
no run tried stands there as untried.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.sqlalchemy.doors.registry import DATABASES, GROUPS, Door

PAGE = Path(__file__).parents[1] / "docs" / "doors.md"

Run = Mapping[str, Any]

_OPERATOR = re.compile(r"'[\w ]+'")

_HEAD = """\
# Doors

A door is a way by which values of encrypted columns get into or out of a database. Each is tried on the
databases and drivers below, and checked against the bytes that are stored: every cell is a ciphertext under
the key of its own row's tenant and subject, and no plaintext is sent or stored.

Tried with {releases}.

**right**: the values arrive, and come back equal. **refused**: an error before anything is sent or, for a
read, before a value is given out; what it says stands below the table. **wrong**: neither, and to be mended.
**–**: the database or the driver does not have it.

This page is made by `scripts/doors.py` from the outcomes of `tests/sqlalchemy/doors`.
"""


def page(runs: Sequence[Run]) -> str:
    """The page that tells the outcomes of some runs."""
    parts = [_HEAD.format(releases=" and ".join(f"SQLAlchemy {run['sqlalchemy']}" for run in runs))]
    parts += ["\n".join(_group(title, doors, runs)) for title, doors in GROUPS.items()]
    return "\n".join(parts) + "\n"


def _group(title: str, doors: Sequence[Door], runs: Sequence[Run]) -> Iterator[str]:
    databases = list(dict.fromkeys(DATABASES.values()))
    yield f"## {title}\n"
    yield f"| door | what it does | {' | '.join(databases)} |"
    yield f"|---|---|{'---|' * len(databases)}"
    for door in doors:
        cells = (_cell(door, database, runs) for database in databases)
        yield f"| **{_escaped(door.name)}** | {_escaped(door.line)} | {' | '.join(cells)} |"
    said: dict[str, list[str]] = {}
    for door in doors:
        message = _message(door, runs)
        if message:
            said.setdefault(message, []).append(door.name)
    if said:
        yield ""
    for message, names in said.items():
        yield f"- {', '.join(f'**{name}**' for name in names)}: “{message}”"
    yield ""


def _cell(door: Door, database: str, runs: Sequence[Run]) -> str:
    """The outcome on a database; by release where they differ."""
    drivers = [driver for driver in door.drivers if DATABASES[driver] == database]
    if not drivers:
        return "–"
    outcomes = {
        str(run["sqlalchemy"]): run["doors"].get(door.name, {}).get(driver, {}).get("outcome", "untried")
        for run in runs
        for driver in drivers
    }
    if len(set(outcomes.values())) > 1:
        return ", ".join(f"{release}: {outcome}" for release, outcome in outcomes.items())
    return next(iter(outcomes.values()), "untried")


def _message(door: Door, runs: Sequence[Run]) -> str | None:
    """What a refused door says, without the operator that it names."""
    for run in reversed(runs):
        for outcome in run["doors"].get(door.name, {}).values():
            if "says" in outcome:
                return _OPERATOR.sub("…", str(outcome["says"]))
    return None


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Read the runs that the command line names, the oldest release first, and write the page."""
    runs = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    if not runs:
        sys.exit("usage: python -m scripts.doors RUN.json…")
    PAGE.write_text(page(sorted(runs, key=_release)), encoding="utf-8")


def _release(run: Run) -> tuple[int, ...]:
    return tuple(int(part) for part in str(run["sqlalchemy"]).split(".")[:2])


if __name__ == "__main__":
    main()

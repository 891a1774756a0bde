"""The matrix of doors: what is registered is tried, and stands on the page."""

import ast
import importlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from scripts import doors
from scripts.doors import PAGE, page
from tests.sqlalchemy.doors.registry import DATABASES, GROUPS, door_named

NAMES = [door.name for group in GROUPS.values() for door in group]


def tried() -> list[str]:
    """Return the doors that the tests of this folder are marked with."""
    found: list[str] = []
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.door":
                for argument in node.args:
                    if isinstance(argument, ast.Starred):
                        module = importlib.import_module(f"tests.sqlalchemy.doors.{file.stem}")
                        found += getattr(module, ast.unparse(argument.value))
                    else:
                        found.append(ast.literal_eval(argument))
    return found


def test_every_door_is_registered_once_and_tried_once() -> None:
    """A door without a test would be a promise of nothing."""
    assert [name for name, times in Counter(NAMES).items() if times > 1] == []
    assert sorted(tried()) == sorted(NAMES)


def test_every_driver_has_a_column_in_the_matrix() -> None:
    """No outcome is lost."""
    assert {driver for name in NAMES for driver in door_named(name).drivers} == set(DATABASES)
    with pytest.raises(LookupError, match="no door is called 'window shopping'"):
        door_named("window shopping")


def test_the_page_names_exactly_the_registered_doors() -> None:
    """``python -m scripts.doors`` was run after the last door was added."""
    rows = re.findall(r"^\| \*\*(.+?)\*\* \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == NAMES


def test_a_page_tells_what_differs() -> None:
    """One outcome where all agree, one a release where they do not; what is missing is told apart."""
    old = {
        "sqlalchemy": "2.0.30",
        "doors": {
            "add": {"sqlite": {"outcome": "right"}, "psycopg": {"outcome": "wrong"}},
            "==": {"sqlite": {"outcome": "refused", "says": "compare in Python"}},
        },
    }
    new = {
        "sqlalchemy": "2.1.0",
        "doors": {"add": {"sqlite": {"outcome": "right"}, "psycopg": {"outcome": "right"}}},
    }
    text = page([old, new])
    (add,) = [line for line in text.splitlines() if line.startswith("| **add** |")]
    assert add.endswith("| right | 2.0.30: wrong, 2.1.0: right | untried | untried |")
    (ignore,) = [line for line in text.splitlines() if line.startswith("| **insert ignore** |")]
    assert ignore.endswith("| – | – | – | untried |")
    assert "- **==**: “compare in Python”" in text
    assert "SQLAlchemy 2.0.30 and SQLAlchemy 2.1.0" in text


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest release comes first, however the runs are ordered; without a run there is no page."""
    monkeypatch.setattr(doors, "PAGE", tmp_path / "doors.md")
    monkeypatch.setattr(sys, "argv", ["doors"])
    with pytest.raises(SystemExit, match="usage"):
        doors.main()
    runs = []
    for release in ("2.1.9", "2.0.58"):
        run = tmp_path / f"{release}.json"
        run.write_text(json.dumps({"sqlalchemy": release, "doors": {}}))
        runs.append(str(run))
    monkeypatch.setattr(sys, "argv", ["doors", *runs])
    doors.main()
    assert "SQLAlchemy 2.0.58 and SQLAlchemy 2.1.9" in (tmp_path / "doors.md").read_text(encoding="utf-8")

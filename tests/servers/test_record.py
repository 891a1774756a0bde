"""A missing part is named, and where every part is required, it is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.parts import PARTS, POSTGRESQL, SQLITE, Part
from tests.servers.record import REQUIRE_ALL, PartsRecord

ROOT = Path(__file__).parents[2]
ABSENT = Part("Absent", debian_package="absent-server", executables=("sh", "absentd"))


def test_a_missing_part_skips_its_test_and_says_why() -> None:
    """A developer without the server still gets the rest of the suite, and is told what was left out."""
    record = PartsRecord(require_all=False)
    with pytest.raises(pytest.skip.Exception, match="Absent: absentd not installed"):
        record.require(ABSENT)
    assert "Absent (absentd not installed; Debian package absent-server)" in record.closing_lines()[1]


def test_a_missing_part_fails_where_all_are_required() -> None:
    """Continuous integration never passes by leaving a part out."""
    record = PartsRecord(require_all=True)
    with pytest.raises(pytest.fail.Exception, match="Absent is required"):
        record.require(ABSENT)


def test_closing_lines_name_what_was_exercised_with_its_version() -> None:
    """Whoever reads the report knows what the tests really talked to, and what nobody asked for."""
    record = PartsRecord(exercised={"PostgreSQL": "15.1"})
    assert record.closing_lines()[0].startswith(
        "real parts exercised: PostgreSQL 15.1, through SQLAlchemy 2."
    )
    assert "MariaDB (no test asked for it)" in record.closing_lines()[1]
    assert record.untouched() == [part.name for part in PARTS if part is not POSTGRESQL]


def test_several_runs_are_told_of_together(tmp_path: Path) -> None:
    """The last lines of the test command name what all of its runs talked to, as each of them saved it."""
    PartsRecord(exercised={"PostgreSQL": "15.1"}, through=["2.1.9"]).save(tmp_path / "runs" / "one")
    PartsRecord(exercised={"Redis": "7"}, skipped={"MariaDB": "gone"}, through=["2.0.58"]).save(
        tmp_path / "runs" / "two"
    )
    done = _closing(tmp_path / "runs", require_all="0")
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first == "real parts exercised: PostgreSQL 15.1, Redis 7, through SQLAlchemy 2.0.58 and 2.1.9"
    assert second.startswith("real parts skipped: MariaDB (gone), ")
    strict = _closing(tmp_path / "runs", require_all="1")
    assert strict.returncode == 1
    assert "yet not exercised: SQLite, " in strict.stderr
    PartsRecord(exercised=dict.fromkeys((part.name for part in PARTS), "1")).save(tmp_path / "runs" / "rest")
    assert _closing(tmp_path / "runs", require_all="1").returncode == 0


def _closing(runs: Path, *, require_all: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.servers.closing", *sorted(runs.iterdir())],
        cwd=ROOT,
        env={**os.environ, REQUIRE_ALL: require_all},
        capture_output=True,
        text=True,
        check=False,
    )


def test_of_several_releases_the_newest_is_found(tmp_path: Path) -> None:
    """Release 15 is newer than release 9, whatever the alphabet says."""
    for release in ("9", "15"):
        folder = tmp_path / release / "bin"
        folder.mkdir(parents=True)
        (folder / "serverd").touch()
    part = Part("Server", executables=("serverd",), folders=(f"{tmp_path}/*/bin",))
    assert part.find("serverd") == tmp_path / "15" / "bin" / "serverd"
    assert part.missing() == []


def test_a_path_to_what_is_not_installed_is_refused() -> None:
    """Asking for an absent program is an error, not None."""
    with pytest.raises(FileNotFoundError, match="absentd is not installed"):
        ABSENT.path("absentd")


def test_every_part_that_is_a_program_names_its_package() -> None:
    """What continuous integration installs comes from the registry alone."""
    assert all(bool(part.debian_package) != bool(part.python_package) for part in PARTS if part.executables)


def test_a_program_of_a_python_package_stands_beside_the_interpreter() -> None:
    """It is the one that was installed for this run, whatever PATH has; no Debian package brings it."""
    part = Part("Absent", python_package="absent-server", executables=("sh",))
    assert part.missing() == ["sh"]
    with pytest.raises(pytest.skip.Exception, match="Absent: sh not installed; Python package absent-server"):
        PartsRecord(require_all=False).require(part)
    assert (
        Part("Python", python_package="python", executables=("python",)).path("python").parent
        == Path(sys.executable).parent
    )


@pytest.mark.parametrize(("value", "code"), [("1", 1), ("0", 0)])
def test_a_whole_run_that_leaves_a_part_out_fails_where_all_are_required(
    value: str, code: int, tmp_path: Path
) -> None:
    """Passing tests are not enough: each registered part has to be exercised."""
    tmp_path.joinpath("pytest.toml").write_text(f'[pytest]\npythonpath = ["{ROOT}"]\ntestpaths = ["."]\n')
    tmp_path.joinpath("conftest.py").write_text('pytest_plugins = ["tests.servers.plugin"]\n')
    tmp_path.joinpath("test_one.py").write_text("def test_sqlite(sqlite_url): assert sqlite_url\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"],
        cwd=tmp_path,
        env={**os.environ, REQUIRE_ALL: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert "1 passed" in done.stdout
    left_out = ", ".join(part.name for part in PARTS if part is not SQLITE)
    assert (f"yet not exercised: {left_out}" in done.stdout) == bool(code)


def test_one_of_several_runs_saves_its_record_and_is_not_judged_by_itself(tmp_path: Path) -> None:
    """It leaves parts to the others."""
    tmp_path.joinpath("pytest.toml").write_text(f'[pytest]\npythonpath = ["{ROOT}"]\ntestpaths = ["."]\n')
    tmp_path.joinpath("conftest.py").write_text('pytest_plugins = ["tests.servers.plugin"]\n')
    tmp_path.joinpath("test_one.py").write_text("def test_sqlite(sqlite_url): assert sqlite_url\n")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--save-parts=parts/run"],
        cwd=tmp_path,
        env={**os.environ, REQUIRE_ALL: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert PartsRecord.of_all([tmp_path / "parts" / "run"]).exercised.keys() == {SQLITE.name}

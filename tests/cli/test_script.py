"""The installed program, as a shell runs it."""

import fcntl
import json
import os
import pty
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.calling import PROGRAM, call, give_keys, records, run

MANY = [f"tenant {number:04}" for number in range(2_000)]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with many tenants; to be copied, for making their keys takes a while."""
    folder = tmp_path_factory.mktemp("crowded")
    config = str(folder / "fieldvault.toml")
    assert call("--config", config, "init").code == 0
    give_keys(*MANY, config=config)
    return folder


@pytest.fixture
def crowded_folder(folder: Path, crowded: Path) -> Path:
    """Work in a folder with a vault that has many tenants."""
    shutil.copytree(crowded, folder, dirs_exist_ok=True)
    return folder


def rotated(folder: Path) -> int:
    """Return how many tenants have a second data key by now."""
    with closing(sqlite3.connect(f"file:{folder / 'keys.db'}?mode=ro", uri=True)) as database:
        count: int = database.execute("SELECT count(*) FROM fieldvault_keys WHERE version = 2").fetchone()[0]
        return count


def interrupt_when_rotating(folder: Path, process: subprocess.Popen[str]) -> None:
    """Send what Ctrl-C sends once the work has begun."""
    deadline = time.monotonic() + 30
    while rotated(folder) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)


def test_ctrl_c_ends_rotate_all_between_two_tenants(crowded_folder: Path) -> None:
    """The answer says exactly what was done, and every tenant still has one active key."""
    with subprocess.Popen(
        [PROGRAM, "rotate", "--all", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        interrupt_when_rotating(crowded_folder, process)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    document = json.loads(out)
    assert document["interrupted"] is True
    assert 0 < len(document["rotated"]) == rotated(crowded_folder) < len(MANY)
    with closing(sqlite3.connect(crowded_folder / "keys.db")) as database:
        active = "SELECT count(*), count(DISTINCT tenant) FROM fieldvault_keys WHERE active = 1"
        assert database.execute(active).fetchone() == (len(MANY), len(MANY))


@pytest.mark.parametrize("way", [(), ("--json",)])
@pytest.mark.usefixtures("crowded_folder")
def test_a_reader_that_stops_reading_is_no_error(way: tuple[str, ...]) -> None:
    """As with `| head`: no traceback, nothing on stderr, the code that shells give a broken pipe."""
    with subprocess.Popen(
        [PROGRAM, "tenants", *way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


@pytest.mark.usefixtures("vault_folder")
def test_a_wrong_confirmation_changes_nothing() -> None:
    """Through a real pipe; and the right one does its work."""
    give_keys("茶庄")
    before = records("茶庄")
    answer = run("shred", "茶庄", "--reason", "r", typed="茶庄x\n")
    assert (answer.code, answer.out) == (6, "")
    assert records("茶庄") == before
    assert run("shred", "茶庄", "--reason", "r").code == 6
    assert records("茶庄") == before
    assert run("shred", "茶庄", "--reason", "r", typed="茶庄\n").code == 0
    assert {each.state for each in records("茶庄")} == {"destroyed"}


@pytest.mark.usefixtures("vault_folder")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
def test_what_is_typed_in_another_encoding_is_no_confirmation(encoding: str) -> None:
    """Bytes that are no text end in a refusal and no traceback."""
    give_keys("acme")
    done = subprocess.run(
        [PROGRAM, "shred", "acme", "--reason", "r"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        input=b"\xff\xfe\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"Traceback" not in done.stderr


@pytest.mark.usefixtures("vault_folder")
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_names_reach_a_terminal_of_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Letters that it lacks are spelled out; JSON is the same everywhere."""
    give_keys("茶庄 😀")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    answer = run("tenants")
    assert (answer.code, answer.err) == (0, "")
    assert ("茶庄 😀" if encoding == "utf-8" else "\\u8336\\u5e84 \\U0001f600") in answer.out
    assert run("tenants", "--json").document["tenants"][0]["tenant"] == "茶庄 😀"


def test_without_the_extra_a_plain_word_names_it(folder: Path) -> None:
    """Neither click nor rich is there; the code is that of a configuration that cannot work."""
    for missing in ("click", "rich"):
        script = (
            f"import sys; sys.modules[{missing!r}] = None; from fieldvault.cli import main; sys.exit(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (3, "")
        assert "fieldvault[cli]" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_any_other_missing_module_is_a_fault_of_ours(folder: Path) -> None:
    """It is not taken for the extra."""
    script = "import sys; sys.modules['cryptography'] = None; from fieldvault.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "fieldvault[cli]" not in done.stderr


def test_the_library_does_not_load_the_terminal_libraries() -> None:
    """An application that only encrypts need not have them."""
    modules = "fieldvault, fieldvault.kms, fieldvault.keystores"
    script = f"import sys, {modules}; print({{'click', 'rich'}} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"


def test_the_package_runs_as_a_module(folder: Path) -> None:
    """Where the program is not on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "fieldvault.cli", "--version"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("fieldvault 0.")


def on_a_terminal(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what the program prints to a real terminal, 80 columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", **(environment or {})},
    )
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 65_536):
            printed += part
    except OSError:
        pass  # how Linux tells that the other side of the terminal is closed
    os.close(ours)
    assert process.wait(timeout=60) in (0, 1)
    return printed.decode()


@pytest.mark.usefixtures("vault_folder")
def test_a_terminal_gets_progress_and_a_pipe_none() -> None:
    """A log file has no use for bars."""
    give_keys(*MANY[:20])
    assert "rotating" in on_a_terminal("rotate", "--all")
    assert "trying keys" in on_a_terminal("doctor")
    assert "rotating" not in on_a_terminal("rotate", "--all", environment={"TERM": "dumb"})
    piped = run("rotate", "--all")
    assert (piped.err, piped.out) == ("", "Rotated 20, failed 0, skipped 0.\n")


@pytest.mark.usefixtures("vault_folder")
def test_colours_are_for_terminals_that_want_them() -> None:
    """NO_COLOR is heeded, and a pipe gets none."""
    green = "\x1b[32m"
    assert green in on_a_terminal("doctor")
    assert green not in on_a_terminal("doctor", environment={"NO_COLOR": "1"})
    assert "\x1b" not in run("doctor").out


@pytest.mark.usefixtures("vault_folder")
def test_a_pipe_gets_each_row_in_one_line() -> None:
    """However long: a line that is broken cannot be searched."""
    give_keys("a" * 255)
    assert run("tenants").out.splitlines()[1].startswith("a" * 255)
    assert "a" * 255 in call("tenants").out.splitlines()[1]

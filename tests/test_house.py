"""Rules of the house that no other tool checks."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES_IN_ONE_SITTING = 350

# Written so that no pattern matches itself.
FORBIDDEN = {
    "a package index": re.compile(
        r"--(?:extra-)?index[-]url|--find[-]links|\bpy[p]i\.org|python[h]osted\.org"
    ),
    "a path of one machine": re.compile(r"(?<![\w.~}])/(?:root|work|home|opt|Users)/\w"),
}


def files() -> Iterator[Path]:
    """Yield the text files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in path.read_bytes()[:8192]:
            yield path


def modules() -> Iterator[Path]:
    """Yield the modules that people install."""
    for folder in ("src", "integrations"):
        yield from ROOT.joinpath(folder).rglob("*.py")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names_what_holds_on_one_machine_only(what: str) -> None:
    """The repository works from anywhere: no index URL, no path of whoever wrote it."""
    assert (ROOT / ".git").exists(), "run from a git checkout"
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if FORBIDDEN[what].search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a package index", "--index" + "-url https://example.com/simple"),
        ("a package index", "see https://py" + "pi.org/project/x"),
        ("a path of one machine", "open('/ho" + "me/me/x')"),
    ],
)
def test_the_rule_sees_what_it_forbids(what: str, line: str) -> None:
    """A pattern that matches nothing would keep no rule."""
    assert FORBIDDEN[what].search(line)


def test_requirements_are_pinned_with_hashes_and_nothing_else() -> None:
    """Each line of the requirement files pins a version, gives a hash, or is empty."""
    line_forms = re.compile(
        r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[\w.]+( ; [^#]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?"
    )
    for path in ROOT.joinpath("requirements").glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line_forms.fullmatch(line), f"{path.name}: {line}"


def test_a_module_can_be_read_in_one_sitting() -> None:
    """No module outgrows what a person takes in at once."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LINES_IN_ONE_SITTING} == {}

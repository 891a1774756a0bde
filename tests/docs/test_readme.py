"""The two commands that README promises are the ones that exist and that are tested."""

import re

from tests.docs.console import make_targets
from tests.docs.pages import ROOT, blocks


def test_readme_names_the_demo_and_the_tests_and_no_other_make_target() -> None:
    """A newcomer meets two commands, the demonstration first."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shells = (block.code for block in blocks(readme, "README.md") if block.language != "python")
    typed = "\n".join(line.removeprefix("$ ") for code in shells for line in code.splitlines())
    assert make_targets(typed) == ["demo", "test"]


def test_the_makefile_has_both_targets_and_each_does_its_work() -> None:
    """The demonstration runs its script; the tests run pytest."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = dict(re.findall(r"^([-.a-z0-9]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    assert "examples/demo.py" in recipes["demo"]
    assert "$(RUNS)" in recipes["test"]
    runs = re.findall(r"^RUNS := (.*)$", makefile, re.MULTILINE)[0].split()
    assert {"test-2.1", "test-2.0"} <= {*runs}
    assert all("-m pytest" in recipes[run] for run in runs)


def test_continuous_integration_calls_the_command_of_the_readme() -> None:
    """What is promised to a newcomer is what decides whether a change lands."""
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("\nmake test")

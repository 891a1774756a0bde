"""Runs of a conformance kit against broken backends, each on the tests that have to see what is broken."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.docs.pages import ROOT

Outcomes = Mapping[str, Mapping[str, set[str]]]
"""By class and test: ``passed``, ``failed`` and ``skipped``, as its parameters went."""


def only(kit: type, wanted: Sequence[str]) -> type:
    """A kit without all its other tests."""
    missing = [name for name in wanted if not hasattr(kit, name)]
    assert missing == [], f"the kit has no test {missing}"
    others = {name: None for name in dir(kit) if name.startswith("test_") and name not in wanted}
    return type(f"Test{kit.__name__}", (kit,), others)


def outcomes(folder: Path, module: str) -> Outcomes:
    """Run the classes of ``module.TESTS`` in a pytest of their own, and tell how each test went."""
    names = f"globals().update({{each.__name__: each for each in {module}.TESTS}})"
    (folder / "test_run.py").write_text(f"import {module}\n\n{names}\n", encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "--tb=line", "--junitxml=run.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_run.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for case in ET.parse(folder / "run.xml").iter("testcase"):  # noqa: S314 - our own file
        kinds = {each.tag for each in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = str(case.get("name")).partition("[")[0]
        found[str(case.get("classname")).rpartition(".")[2]][name].add(outcome)
    return found

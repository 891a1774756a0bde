"""One quick run of the benchmarks for all tests of its rows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of one quick run."""
    target = tmp_path_factory.mktemp("benchmarks") / "bench.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", str(target)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=240,
    )
    document = json.loads(target.read_text(encoding="utf-8"))
    assert document["machine"]["python"]
    measured: list[dict[str, Any]] = document["rows"]
    return measured

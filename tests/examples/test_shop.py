"""``examples/shop``: its own tests pass with encryption on and off, from the same models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("encryption", ["on", "off"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_shops_own_tests_pass(request: pytest.FixtureRequest, database: str, encryption: str) -> None:
    """In a process of their own, since the switch is read when the models are made."""
    url: str = request.getfixturevalue(f"{database}_url")
    environment = os.environ | {"SHOP_ENCRYPTION": encryption}
    if database != "sqlite":
        # Each of the shop's tests has a file of its own otherwise.
        environment["SHOP_DATABASE"] = url
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "examples/shop/tests"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert f"shop: encryption {encryption}" in done.stdout
    assert " passed" in done.stdout
    # What a database in a server cannot be asked: its file's bytes, twice.
    assert ("2 skipped" in done.stdout) is (database != "sqlite")

"""``examples/demo.py``, the README's first command, tells a true story."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_demo_shows_values_finds_none_in_the_file_and_shreds(tmp_path: Path) -> None:
    """It runs to its end, the file holds no plaintext, and what was shredded is read no more."""
    environment = os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "160", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    acts = re.split(r"The application reads", done.stdout)
    assert len(acts) == 4
    assert ["王秀英" in act for act in acts[1:]] == [True, False, False]
    assert ["Zoé Lefèvre" in act for act in acts[1:]] == [True, True, False]
    assert ["李强" in act for act in acts[1:]] == [True, True, True]
    assert done.stdout.count("22 names, phones, addresses and numbers looked for, 0 found") == 2

    (folder,) = tmp_path.glob("fieldvault-demo-*")
    content = (folder / "shop.db").read_bytes()
    assert "李强".encode() not in content
    assert "云裳阁".encode() in content, "the search would find plaintext if there were any"
    assert (folder / "root.keys").stat().st_mode & 0o777 == 0o600

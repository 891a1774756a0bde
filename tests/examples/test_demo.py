"""``examples/demo.py``, the README's first command, tells a true story."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.cells import cell_len

EXAMPLES = Path(__file__).parents[2] / "examples"


def demo(folder: Path, **environment: str) -> str:
    """What the demonstration prints, on a terminal of 80 columns."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"],
        env=os.environ | {"TMPDIR": str(folder), "COLUMNS": "80", "NO_COLOR": "1"} | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo_shows_values_finds_none_in_the_file_and_shreds(tmp_path: Path) -> None:
    """It runs to its end, the file holds no plaintext, and what was shredded is read no more."""
    told = demo(tmp_path)

    acts = re.split(r"The application reads", told)
    assert len(acts) == 4
    assert ["王秀英" in act for act in acts[1:]] == [True, False, False]
    assert ["Zoé Lefèvre" in act for act in acts[1:]] == [True, True, False]
    assert ["李强" in act for act in acts[1:]] == [True, True, True]
    assert "The changed name is refused: DecryptionError." in told
    assert "With the bit set right again: 王秀英" in told
    assert "1 key destroyed for “contract ended”" in told
    assert told.count("22 names, phones, addresses and numbers looked for, 0 found") == 2

    (folder,) = tmp_path.glob("fieldvault-demo-*")
    content = (folder / "shop.db").read_bytes()
    assert "李强".encode() not in content
    assert "云裳阁".encode() in content, "the search would find plaintext if there were any"
    assert (folder / "root.keys").stat().st_mode & 0o777 == 0o600


def test_every_value_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    """Nothing is cut or broken over lines, wherever the folder is."""
    told = demo(tmp_path)

    first = told.split("The application reads")[1]
    for value in ("31010619900307002X", "乌鲁木齐市天山区解放南路46号", "12 rue de l’Abbé-Grégoire, Paris"):
        assert value in first
    wide = [line for line in told.splitlines() if cell_len(line) > 80]
    assert wide in ([], [f"In {next(tmp_path.glob('fieldvault-demo-*'))}:"])


def test_a_terminal_without_the_letters_gets_the_story_all_the_same(tmp_path: Path) -> None:
    """As under LC_ALL=C, where Python does not turn to UTF-8 by itself."""
    told = demo(tmp_path, LC_ALL="C", PYTHONIOENCODING="", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")

    assert told.isascii()
    assert "Somebody changes one bit" in told
    assert "What is left" in told

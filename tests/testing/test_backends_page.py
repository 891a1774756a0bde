"""The kits that docs/backends.md shows are run, and passed, as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "backends.md"


# The house's own stores are run through all of the second kit elsewhere.
SHORT = "TestPassphraseKMS or test_a_key_is_rewrapped_where_it_is_as_expected"


def test_the_backends_of_the_page_pass_their_kits(tmp_path: Path) -> None:
    """A reader who copies them has tests that run."""
    code = [block.code for block in blocks(PAGE.read_text(encoding="utf-8"), PAGE.name)]
    (tmp_path / "test_page.py").write_text("\n\n".join(code), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SHORT, "test_page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 35, done.stdout

"""What README and docs show works as shown."""

from pathlib import Path

import pytest

from tests.docs.conftest import NotRun
from tests.docs.page import run_page
from tests.docs.pages import ROOT, pages

PAGES = {str(path.relative_to(ROOT)): path for path in pages()}


@pytest.mark.parametrize("name", PAGES)
def test_the_code_of_a_page_works(
    name: str, not_run: NotRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python and console block of the page runs, in order, and prints what the page shows."""
    monkeypatch.chdir(tmp_path)
    not_run.lines += run_page(PAGES[name].read_text(encoding="utf-8"), name, tmp_path)

"""Run one page from top to bottom."""

import re
from pathlib import Path

from tests.docs.console import run_console
from tests.docs.pages import ROOT, blocks
from tests.docs.python import page_module, run_python


def run_page(text: str, name: str, folder: Path, root: Path = ROOT) -> list[str]:
    """Run every block of a page in the folder, which should be the present one.

    The examples of the checkout are there too, under the name that commands call them by.

    Returns:
        One line for each block that the page marks as not runnable, with the page's reason.

    Raises:
        PageError: A block does not do what the page shows.
    """
    if (root / "examples").is_dir():
        (folder / "examples").symlink_to(root / "examples")
    not_run = []
    with page_module("page_" + re.sub(r"\W", "_", name)) as module:
        for block in blocks(text, name):
            if block.not_run:
                not_run.append(f"{name}:{block.line} ({block.not_run})")
            elif block.language == "python":
                run_python(block, module)
            else:
                run_console(block, folder, root)
    return not_run

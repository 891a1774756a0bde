"""The command line; the only package that knows click and rich, which the extra ``cli`` installs."""

from __future__ import annotations

import sys

__all__ = ["main"]

_MISSING_EXTRA = 3
"""``ExitCode.CONFIGURATION``, which cannot be imported where click is missing."""


def main() -> int:
    """Run ``fieldvault`` with this process's arguments; its exit code (docs/cli.md)."""
    try:
        from fieldvault.cli.app import run  # click and rich may be missing, and then a plain word is due
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print(
            f"Error: the command line needs {error.name}, which is not installed; "
            "install it with: pip install 'fieldvault[cli]'",
            file=sys.stderr,
        )
        return _MISSING_EXTRA
    return run()

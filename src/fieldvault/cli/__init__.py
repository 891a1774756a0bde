"""The command line; the only package that knows click and rich, which the extra ``cli`` installs."""

from __future__ import annotations

import sys

__all__ = ["main"]

_MISSING_EXTRA = 3
"""``ExitCode.CONFIGURATION``, which cannot be imported where click is missing."""


def main() -> int:
    """Run ``fieldvault`` with this process's arguments, and end the process (docs/cli.md: exit codes)."""
    try:
        from fieldvault.cli.app import run  # noqa: PLC0415 - without the extra there is still a plain word
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        print(
            f"Error: the command line needs {missing}, which is not installed; "
            "install it with: pip install 'fieldvault[cli]'",
            file=sys.stderr,
        )
        return _MISSING_EXTRA
    return run()

"""Fresh processes: what each measurement of the ORM, and of memory, runs in."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ["in_fresh_process"]


def in_fresh_process(module: str, *arguments: object) -> Any:
    """Run a module of this package as a program and return what it prints, which is JSON."""
    done = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout)

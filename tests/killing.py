"""Kills work at each line of some modules in turn, for tests of what is left."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any


def killed_at(line: int, files: Sequence[str], work: Callable[[], object]) -> bool:
    """Run the work in a forked child, killed as it comes to its ``line``-th line in some modules.

    ``files``: parts of the modules' paths. False: it came to the end before, and well.
    """
    child = os.fork()
    if child == 0:
        _run(line, files, work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _run(line: int, files: Sequence[str], work: Callable[[], object]) -> None:
    lines = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        if not any(part in frame.f_code.co_filename for part in files):
            return None
        if event == "line":
            lines += 1
            if lines == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    code = 1
    try:
        sys.settrace(trace)
        work()
        code = 0
    finally:
        sys.settrace(None)
        os._exit(code)

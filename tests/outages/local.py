"""What can befall the file of a ``LocalKMS`` while a process has it open."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


def root_key_file(played: str, path: Path) -> AbstractContextManager[None]:
    """What can befall the file of a ``LocalKMS``."""
    return {"file_gone": _file_gone, "file_unreadable": _file_unreadable}[played](path)


@contextmanager
def _file_gone(path: Path) -> Iterator[None]:
    kept = path.rename(path.with_suffix(".away"))
    yield
    kept.rename(path)


@contextmanager
def _file_unreadable(path: Path) -> Iterator[None]:
    with _file_gone(path):
        # Nobody is refused a file's content but who is not root; a folder's, everybody.
        path.mkdir(mode=0o700)
        yield
        path.rmdir()

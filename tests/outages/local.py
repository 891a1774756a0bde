"""What can befall the file of a ``LocalKMS`` while a process has it open."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from fieldvault.kms import LocalKMS


class FileLab:
    """A root-key file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        LocalKMS.create(path)

    def open(self) -> LocalKMS:
        """A process's KMS."""
        return LocalKMS(self.path)

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        return {"file_gone": self._gone, "file_unreadable": self._unreadable}[played]()

    @contextmanager
    def _gone(self) -> Iterator[None]:
        kept = self.path.rename(self.path.with_suffix(".away"))
        yield
        kept.rename(self.path)

    @contextmanager
    def _unreadable(self) -> Iterator[None]:
        with self._gone():
            # Nobody is refused a file's content but who is not root; a folder's, everybody.
            self.path.mkdir(mode=0o700)
            yield
            self.path.rmdir()

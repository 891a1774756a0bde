"""A file for its owner's eyes: read if it is, created once, replaced all at once, locked."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fieldvault.errors import ConfigurationError, KMSError, KMSUnavailable

__all__ = ["create", "locked", "read", "replace"]

_UNFINISHED = ".new"


def read(path: Path) -> bytes:
    """What the file holds.

    Raises:
        ConfigurationError: there is none, or others than its owner may read or write it.
        KMSUnavailable: it is there and cannot be read now.
    """
    try:
        with path.open("rb") as file:
            content, mode = file.read(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        failure = _failure(path, "read", error)
    else:
        if not mode & (stat.S_IRWXG | stat.S_IRWXO):
            return content
        failure = ConfigurationError(
            f"the root-key file {path} is open to others (mode {stat.S_IMODE(mode):04o}); make it yours "
            f"alone: chmod 600 {path}"
        )
    raise failure


def create(path: Path, content: bytes) -> None:
    """Write a new file; one that is there, or that another process makes at the same moment, stays as it is.

    Raises:
        ConfigurationError: there is one already, or the folder cannot be written.
    """
    problem: str
    try:
        with _beside(path, content) as made:
            # A link fails where the name exists; a rename would replace it.
            path.hardlink_to(made)
        _sync_folder(path)
    except FileExistsError:
        problem = f"{path} exists; it may hold the only copy of a root key, so it is not overwritten"
    except OSError as error:
        problem = f"the root-key file {path} cannot be written: {error.strerror}"
    else:
        return
    raise ConfigurationError(problem)


def replace(path: Path, content: bytes) -> None:
    """Replace the file, all at once: a reader and a crash see the old content or the new.

    The caller holds ``locked``.

    Raises:
        KMSUnavailable: it cannot be written; the old content stands.
    """
    try:
        # Copies that a killed process left: keys that nobody knows of outlive every rotation.
        for left in path.parent.glob(f".{glob.escape(path.name)}.*{_UNFINISHED}"):
            left.unlink(missing_ok=True)
        with _beside(path, content) as made:
            made.replace(path)
        _sync_folder(path)
    except OSError as error:
        failure = _failure(path, "written", error)
    else:
        return
    raise failure


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one, thread or process, that replaces the file. Readers need no lock.

    Raises:
        ConfigurationError: there is no such file.
        KMSUnavailable: it cannot be opened now.
    """
    handle = _locked(path)
    try:
        yield
    finally:
        # Closing alone would leave the lock to a child that was forked meanwhile.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _locked(path: Path) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                # Whoever had the lock may have put another file in this one's place.
                if os.path.samestat(os.fstat(handle), path.stat()):
                    locked_handle, handle = handle, -1
                    return locked_handle
            finally:
                if handle >= 0:
                    os.close(handle)
        except OSError as error:
            failure = _failure(path, "locked", error)
        else:
            continue
        raise failure


def _failure(path: Path, verb: str, error: OSError) -> KMSError | ConfigurationError:
    if isinstance(error, FileNotFoundError):
        return ConfigurationError(
            f"there is no root-key file {path}; restore it from its backup, or correct the path (kms.path): "
            "a new one opens nothing that is already sealed"
        )
    return KMSUnavailable(f"the root-key file {path} cannot be {verb}: {error.strerror}")


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> Iterator[Path]:
    """A new file in the same folder, mode 0600, with the content on the disk; gone at the end."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent)
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            # The umask can take away bits of the owner too.
            os.fchmod(file.fileno(), stat.S_IRUSR | stat.S_IWUSR)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield made
    finally:
        made.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

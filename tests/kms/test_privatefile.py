"""Files of one's own: their modes, their locks, and what a kill leaves of them."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from fieldvault.errors import ConfigurationError, KMSUnavailable
from fieldvault.kms import LocalKMS, privatefile
from fieldvault.testing.samples import together
from tests.killing import killed_at

PACKAGE = ["fieldvault/kms/"]
BENEATH = ["pathlib.py"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _fails(number: int, *_: object, **__: object) -> None:
    raise OSError(number, os.strerror(number))


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill is no power failure: what was written is there, on the disk or not yet."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_a_file_has_mode_0600_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    """When it is made, and when it is replaced."""
    path = tmp_path / "root.keys"
    with umask(mask):
        kms = LocalKMS.create(path)
        assert _mode(path) == 0o600
        kms.rotate_root_key()
        assert _mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that closes it."""
    path = tmp_path / "root.keys"
    LocalKMS.create(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        LocalKMS(path)
    path.chmod(0o400)
    LocalKMS(path)


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    """Whatever is there: a file, a folder, or a link to nothing."""
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "folder", "link"):
        with pytest.raises(ConfigurationError, match="exists; it may hold the only copy of a root key"):
            LocalKMS.create(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder", "link"}


def test_of_many_that_create_at_once_one_does(tmp_path: Path) -> None:
    """The others are told, and the file is the winner's."""
    path = tmp_path / "root.keys"

    def create(content: bytes) -> bytes | None:
        try:
            privatefile.create(path, content)
        except ConfigurationError:
            return None
        return content

    answers = together([partial(create, b"%d" % number) for number in range(16)])
    assert [answer for answer in answers if answer is not None] == [path.read_bytes()]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    """Not an outage: nothing gets better by asking again."""
    for path in (tmp_path / "root.keys", tmp_path / "nowhere" / "root.keys"):
        with pytest.raises(
            ConfigurationError, match=r"there is no root-key file.*opens nothing that is already"
        ):
            privatefile.read(path)
        with pytest.raises(ConfigurationError, match="there is no root-key file"), privatefile.locked(path):
            pass
    with pytest.raises(ConfigurationError, match="cannot be written: No such file or directory"):
        LocalKMS.create(tmp_path / "nowhere" / "root.keys")


def test_a_file_that_cannot_be_read_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, a disk that fails, or no file at all."""
    with pytest.raises(KMSUnavailable, match="cannot be read: Is a directory"):
        LocalKMS(tmp_path)
    path = tmp_path / "root.keys"
    LocalKMS.create(path)
    for number in (errno.EACCES, errno.EIO, errno.ESTALE):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", partial(_fails, number))
            with pytest.raises(KMSUnavailable, match=f"cannot be read: {os.strerror(number)}") as caught:
                LocalKMS(path)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_file_that_cannot_be_written_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A full disk in the middle of a rotation, or of the creation; nothing half-done is left about."""
    path = tmp_path / "root.keys"
    kms = LocalKMS.create(path)
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, call, partial(_fails, errno.ENOSPC))
        with pytest.raises(KMSUnavailable, match="cannot be written: No space left on device"):
            kms.rotate_root_key()
        with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
            LocalKMS.create(tmp_path / "other.keys")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert kms.rotate_root_key() == 2


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    """By the next that replaces the file; nothing else is."""
    path = tmp_path / "root [1].keys"
    kms = LocalKMS.create(path)
    left = tmp_path / ".root [1].keys.abc.new"
    others = [
        tmp_path / ".root 1.keys.abc.new",
        tmp_path / "root [1].keys.new",
        tmp_path / ".other.keys.abc.new",
    ]
    for each in (left, *others):
        each.touch()
    kms.rotate_root_key()
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_whoever_waited_for_the_lock_sees_what_was_written(tmp_path: Path) -> None:
    """A lock on a file that was replaced meanwhile is no lock."""
    path = tmp_path / "counter"
    privatefile.create(path, b"0")

    def count_up() -> None:
        for _ in range(25):
            with privatefile.locked(path):
                privatefile.replace(path, b"%d" % (int(privatefile.read(path)) + 1))

    together([count_up] * 8)
    assert path.read_bytes() == b"200"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_lock_is_given_up_though_a_child_was_forked_meanwhile(tmp_path: Path) -> None:
    """The child has inherited the locked file, and lives on."""
    path = tmp_path / "root.keys"
    privatefile.create(path, b"")
    end, say_end = os.pipe()
    with privatefile.locked(path):
        child = os.fork()
        if child == 0:
            os.close(say_end)
            os.read(end, 1)
            os._exit(0)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(say_end)
    os.close(end)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(("files", "step"), [(PACKAGE, 1), (BENEATH, 3)], ids=["here", "beneath"])
@pytest.mark.usefixtures("unsynced")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_at_any_line_of_a_rotation_leaves_the_old_file_or_the_new(
    tmp_path: Path, files: list[str], step: int
) -> None:
    """It opens, what was wrapped before unwraps, and what is left beside it is private and cleared away."""
    path = tmp_path / "root.keys"
    kms = LocalKMS.create(path)
    wrapped = kms.wrap(bytes(32), context={})
    before = path.read_bytes()
    versions = []
    for line in count(1, step):
        path.write_bytes(before)
        if not killed_at(line, files, LocalKMS(path).rotate_root_key):
            break
        assert {_mode(each) for each in tmp_path.iterdir()} == {0o600}
        survivor = LocalKMS(path)
        assert survivor.unwrap(wrapped, context={}) == bytes(32)
        versions.append(survivor.rotate_root_key())
        assert list(tmp_path.iterdir()) == [path]
    assert versions == sorted(versions)
    assert {versions.count(2) > 20, versions.count(3) > 3 or files is BENEATH} == {True}


@pytest.mark.usefixtures("unsynced")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_at_any_line_of_a_creation_leaves_no_file_or_a_whole_one(tmp_path: Path) -> None:
    """And the next creation works, or finds it."""
    path = tmp_path / "root.keys"
    there = []
    for line in count(1):
        path.unlink(missing_ok=True)
        killed = killed_at(line, PACKAGE, lambda: LocalKMS.create(path))
        assert {_mode(each) for each in tmp_path.iterdir()} <= {0o600}
        there.append(path.exists())
        kms = LocalKMS(path) if path.exists() else LocalKMS.create(path)
        assert kms.rotate_root_key() == 2
        assert list(tmp_path.iterdir()) == [path]
        if not killed:
            break
    assert there == sorted(there)
    assert {there.count(False) > 20, there.count(True) > 10} == {True}

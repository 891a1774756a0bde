"""The embedded KMS: opened, rotated, shared by processes."""

import copy
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fieldvault.errors import ConfigurationError, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.kms import LocalKMS, rootfile
from fieldvault.testing.samples import together
from tests.kms.conftest import PASSPHRASE, cheap, root_key

CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))


@pytest.fixture
def kms(root_file: Path, passphrase: str | None) -> LocalKMS:
    """The KMS of a file of two versions."""
    return LocalKMS(root_file, passphrase)


def _versions(path: Path) -> list[int]:
    return [entry["version"] for entry in json.loads(path.read_bytes())["keys"]]


def _without(path: Path, version: int) -> None:
    document = json.loads(path.read_bytes())
    document["keys"] = [entry for entry in document["keys"] if entry["version"] != version]
    path.write_text(json.dumps(document))


def _in_a_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_new_file_opens_with_the_passphrase_it_was_made_with(tmp_path: Path) -> None:
    """Stretched as a real one is, and not opened with another, with none, or with one too many."""
    made = LocalKMS.create(tmp_path / "root.keys", PASSPHRASE)
    wrapped = made.wrap(KEY, context=CONTEXT)
    assert LocalKMS(tmp_path / "root.keys", passphrase=PASSPHRASE).unwrap(wrapped, context=CONTEXT) == KEY
    parameters = json.loads((tmp_path / "root.keys").read_bytes())["passphrase"]
    assert (parameters["operations"], parameters["memory"]) == (3, 256 << 20)
    with pytest.raises(KMSDenied, match="passphrase does not open"):
        LocalKMS(tmp_path / "root.keys", "another")
    with pytest.raises(ConfigurationError, match="wants a passphrase"):
        LocalKMS(tmp_path / "root.keys")
    LocalKMS.create(tmp_path / "open.keys")
    with pytest.raises(ConfigurationError, match="has no passphrase"):
        LocalKMS(tmp_path / "open.keys", PASSPHRASE)


def test_a_wrapped_key_has_53_bytes_and_names_its_root_key(kms: LocalKMS) -> None:
    """Version 2 wraps here, and version 1 is still there."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    assert (len(wrapped), wrapped[:5]) == (53, b"\x01\x00\x00\x00\x02")


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_only_32_bytes_are_a_key(kms: LocalKMS, size: int) -> None:
    """A key of another size is a mistake of the caller's."""
    with pytest.raises(ConfigurationError, match=f"32 bytes, not of {size}"):
        kms.wrap(bytes(size), context=CONTEXT)


def test_nothing_of_it_shows_a_key(kms: LocalKMS, root_file: Path, passphrase: str | None) -> None:
    """Not printed, not pickled, not copied, not among what a debugger would list first."""
    opener = rootfile.read(root_file, passphrase)[1]
    assert repr(kms) == f"LocalKMS({str(root_file)!r})"
    for thing in (kms, opener, *vars(kms).values()):
        if passphrase is not None:
            assert passphrase not in repr(thing)
    for thing in filter(None, (kms, opener)):
        for act in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="not pickled or copied"):
                act(thing)


def test_a_running_process_learns_of_a_version_that_another_added(
    kms: LocalKMS, root_file: Path, passphrase: str | None
) -> None:
    """When it meets a key that the new version wrapped; until then it goes on with what it knows."""
    other = LocalKMS(root_file, passphrase)
    assert other.rotate_root_key() == 3
    assert kms.wrap(KEY, context=CONTEXT)[1:5] == b"\x00\x00\x00\x02"
    assert kms.unwrap(other.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
    assert kms.wrap(KEY, context=CONTEXT)[1:5] == b"\x00\x00\x00\x03"
    assert "versions 1, 2, 3" in kms.check()


def test_processes_that_rotate_at_once_lose_no_version(
    kms: LocalKMS, root_file: Path, passphrase: str | None
) -> None:
    """Every number that one of them was told is in the file, once."""
    rotators = [LocalKMS(root_file, passphrase) for _ in range(4)]
    versions = together([rotator.rotate_root_key for rotator in [*rotators, *rotators]])
    assert sorted(versions) == list(range(3, 11))
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(3):
                    kms.rotate_root_key()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert _versions(root_file) == list(range(1, 23))
    assert kms.check().startswith(f"root-key file {root_file}, versions 1, 2, 3,")


def test_a_version_that_was_removed_is_disabled(
    kms: LocalKMS, root_file: Path, passphrase: str | None
) -> None:
    """Keys that it wrapped are out of reach, and the error says what would bring them back."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    _without(root_file, 2)
    with pytest.raises(KMSKeyDisabled, match="has no version 2; restore the file that has it"):
        LocalKMS(root_file, passphrase).unwrap(wrapped, context=CONTEXT)
    assert kms.unwrap(wrapped, context=CONTEXT) == KEY
    assert "version 1, " in kms.check()
    with pytest.raises(KMSKeyDisabled):
        kms.unwrap(wrapped, context=CONTEXT)


def test_a_passphrase_that_was_changed_is_asked_for_again(tmp_path: Path) -> None:
    """A running process cannot read the file any more, and says so when it has to."""
    path = tmp_path / "root.keys"
    rootfile.create(path, [root_key()], cheap())
    kms = LocalKMS(path, PASSPHRASE)
    wrapped = kms.wrap(KEY, context=CONTEXT)
    rootfile.write(path, rootfile.read(path, PASSPHRASE)[0], cheap("another"))
    for call in (kms.check, kms.rotate_root_key):
        with pytest.raises(KMSDenied, match="was changed; open it anew"):
            call()
    assert kms.unwrap(wrapped, context=CONTEXT) == KEY


@pytest.mark.parametrize("call", ["check", "rotate_root_key", "unwrap"])
def test_a_file_that_went_away_is_told(kms: LocalKMS, root_file: Path, call: str) -> None:
    """By whatever has to read it; keys of known versions are unwrapped without it."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    unknown = wrapped[:4] + b"\x09" + wrapped[5:]
    root_file.unlink()
    calls: dict[str, Callable[[], object]] = {
        "check": kms.check,
        "rotate_root_key": kms.rotate_root_key,
        "unwrap": lambda: kms.unwrap(unknown, context=CONTEXT),
    }
    with pytest.raises(ConfigurationError, match="there is no root-key file"):
        calls[call]()
    root_file.mkdir()
    with pytest.raises(KMSUnavailable, match=r"cannot be (read|locked): Is a directory"):
        calls[call]()
    assert kms.unwrap(wrapped, context=CONTEXT) == KEY


def test_it_finds_its_file_wherever_the_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is one from where the process was when it opened the file."""
    monkeypatch.chdir(tmp_path)
    kms = LocalKMS.create("root.keys")
    monkeypatch.chdir("/")
    assert kms.rotate_root_key() == 2


def test_a_rotation_replaces_the_file_behind_a_link(tmp_path: Path) -> None:
    """And leaves the link one."""
    (tmp_path / "vault").mkdir()
    LocalKMS.create(tmp_path / "vault" / "root.keys")
    link = tmp_path / "root.keys"
    link.symlink_to("vault/root.keys")
    assert LocalKMS(link).rotate_root_key() == 2
    assert link.is_symlink()
    assert _versions(tmp_path / "vault" / "root.keys") == [1, 2]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_rotation_stops_nobody(
    kms: LocalKMS, root_file: Path, passphrase: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has a lock of its own, and does not keep its parent's on the file."""
    inside, go_on = threading.Event(), threading.Event()
    write = rootfile.write

    def slow_write(*arguments: object) -> None:
        inside.set()
        assert go_on.wait(30)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rootfile, "write", slow_write)
    rotator = threading.Thread(target=kms.rotate_root_key)
    rotator.start()
    assert inside.wait(30)
    monkeypatch.undo()
    proceed, close = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(close)
            kms.check()
            os.read(proceed, 1)
            code = 0
        finally:
            os._exit(code)
    go_on.set()
    rotator.join()
    # The child is alive and has inherited the locked file; whoever rotates next does not wait for it.
    assert LocalKMS(root_file, passphrase).rotate_root_key() == 4
    os.close(close)
    assert os.waitpid(child, 0)[1] == 0
    os.close(proceed)


def test_a_kms_that_is_gone_is_not_in_the_way_of_a_fork(tmp_path: Path) -> None:
    """Nothing is kept alive for it."""
    LocalKMS.create(tmp_path / "root.keys").close()
    assert _in_a_child(lambda: None) == 0


def test_a_kms_that_does_not_unwrap_what_it_wraps_fails_its_check(
    kms: LocalKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that cannot fail would be none."""
    monkeypatch.setattr(kms, "unwrap", lambda _wrapped, *, context: bytes(32) if context else b"")
    with pytest.raises(KMSError, match="does not unwrap what it wraps"):
        kms.check()


def _every_byte_changed(content: bytes) -> Iterator[bytes]:
    for position, byte in enumerate(content):
        for other in {byte ^ 1, ord("A") if byte != ord("A") else ord("B")}:
            yield content[:position] + bytes([other]) + content[position + 1 :]


def test_a_file_with_any_byte_changed_is_refused_or_still_right(
    kms: LocalKMS, root_file: Path, passphrase: str | None
) -> None:
    """It never opens to another key: what it would wrap no backup of the file could ever unwrap."""
    old = kms.wrap(KEY, context=CONTEXT)
    refused = right = 0
    for content in _every_byte_changed(root_file.read_bytes()):
        root_file.write_bytes(content)
        try:
            opened = LocalKMS(root_file, passphrase)
        except (ConfigurationError, KMSDenied):
            refused += 1
        else:
            assert opened.unwrap(old, context=CONTEXT) == KEY
            assert kms.unwrap(opened.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
            right += 1
    assert refused > right > 0


def test_only_what_the_newest_root_key_wrapped_is_current(root_file: Path, passphrase: str | None) -> None:
    """A rewrap brings the rest under it; another file's version of the same number does not count."""
    kms, context = LocalKMS(root_file, passphrase), {"tenant": "acme"}
    wrapped = kms.wrap(bytes(32), context=context)
    assert kms.is_current(wrapped, context=context)
    assert not kms.is_current(wrapped, context={})
    kms.rotate_root_key()
    assert not kms.is_current(wrapped, context=context)
    again = kms.rewrap(wrapped, context=context)
    assert kms.is_current(again, context=context)
    assert kms.unwrap(again, context=context) == bytes(32)
    other = LocalKMS.create(root_file.with_name("other.keys"))
    other.rotate_root_key()
    other.rotate_root_key()
    theirs = other.wrap(bytes(32), context=context)
    assert theirs[:5] == again[:5]
    assert not kms.is_current(theirs, context=context)

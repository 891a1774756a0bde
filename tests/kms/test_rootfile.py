"""The root-key file: what is in it, and what is refused."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldvault.errors import ConfigurationError, KMSDenied
from fieldvault.kms import rootfile
from fieldvault.kms.base64text import from_text, to_text
from fieldvault.kms.passphrase import Passphrase
from fieldvault.testing.samples import told_by
from tests.kms.conftest import PASSPHRASE, cheap, root_key

EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not an object": lambda _: [],
    "a number": lambda _: 1,
    "another format": lambda d: {**d, "format": "fieldvault root keys 2"},
    "no format": lambda d: {name: d[name] for name in ("passphrase", "keys")},
    "no passphrase": lambda d: {name: d[name] for name in ("format", "keys")},
    "no keys": lambda d: {name: d[name] for name in ("format", "passphrase")},
    "an empty list of keys": lambda d: {**d, "keys": []},
    "keys that are text": lambda d: {**d, "keys": "abc"},
    "a key that is text": lambda d: {**d, "keys": ["abc"]},
    "one version twice": lambda d: {**d, "keys": [d["keys"][0], d["keys"][0]]},
    "versions in another order": lambda d: {**d, "keys": d["keys"][::-1]},
    **{
        f"{name} {value!r}": lambda d, name=name, value=value: {**d, "keys": [{**d["keys"][0], name: value}]}  # type: ignore[misc]
        for name, values in {
            "version": [0, -1, 2**32, True, 1.0, "1", None],
            "created_at": ["yesterday", "2024-05-01T00:00:00", "2024-05-01T00:00:00+08:00", 5, None],
            "key": ["", "====", "not base64", "YWJj", "YWJj\n", 5, None, "ÄÖÜ"],
            "id": ["", "YWJj", "not base64", 5],
        }.items()
        for value in values
    },
}

PARAMETERS: dict[str, dict[str, Any]] = {
    "another function": {"kdf": "pbkdf2"},
    "64 GiB of memory": {"memory": 64 << 30},
    "more than a GiB of memory": {"memory": (1 << 30) + 1024},
    "hardly any memory": {"memory": 8191},
    "a million operations": {"operations": 1_000_000},
    "no operations": {"operations": 0},
    "memory in text": {"memory": "8192"},
    "true operations": {"operations": True},
    "a short salt": {"salt": "YWJj"},
    "a salt that is none": {"salt": 5},
}


def _edited(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path.write_text(json.dumps(edit(json.loads(path.read_bytes()))))


def test_a_file_reads_back_as_it_was_written(root_file: Path, passphrase: str | None) -> None:
    """Versions, times to the microsecond, and keys; also without deriving the passphrase again."""
    keys, opener = rootfile.read(root_file, passphrase)
    assert [key.version for key in keys] == [1, 2]
    again = rootfile.reread(root_file, opener)
    assert [(key.version, key.created_at, key.id()) for key in again] == [
        (key.version, key.created_at, key.id()) for key in keys
    ]
    assert len({key.id() for key in keys}) == 2


def test_a_file_is_what_the_page_says(root_file: Path, passphrase: str | None) -> None:
    """Members in order, and no key in sight where there is a passphrase."""
    content = root_file.read_bytes()
    document = json.loads(content)
    assert list(document) == ["format", "passphrase", "keys"]
    assert document["format"] == "fieldvault root keys 1"
    assert [list(entry) for entry in document["keys"]] == [["version", "created_at", "id", "key"]] * 2
    keys, _ = rootfile.read(root_file, passphrase)
    shown = to_text(keys[0].key.reveal()).encode() in content
    assert shown is (passphrase is None)


def test_a_file_without_ids_is_read(root_file: Path, passphrase: str | None) -> None:
    """They are a check, and were not always there."""
    before = rootfile.read(root_file, passphrase)[0]

    def without_ids(document: dict[str, Any]) -> dict[str, Any]:
        for entry in document["keys"]:
            del entry["id"]
        return document

    _edited(root_file, without_ids)
    assert [key.id() for key in rootfile.read(root_file, passphrase)[0]] == [key.id() for key in before]


@pytest.mark.parametrize("edit", EDITS)
def test_what_is_not_of_the_format_is_refused(root_file: Path, passphrase: str | None, edit: str) -> None:
    """By name, before anything of it is used."""
    _edited(root_file, EDITS[edit])
    with pytest.raises((ConfigurationError, KMSDenied)) as caught:
        rootfile.read(root_file, passphrase)
    assert caught.value.__context__ is None
    assert "root-key file" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b'{"keys": 1' + b"0" * 5_000 + b"}"]
)
def test_what_is_no_json_is_refused(root_file: Path, content: bytes) -> None:
    """However deep, and in whatever encoding."""
    root_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a root-key file") as caught:
        rootfile.read(root_file, None)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("changed", PARAMETERS)
def test_a_derivation_that_nobody_can_afford_is_refused(tmp_path: Path, changed: str) -> None:
    """At once: whoever wrote the file may want this machine's memory, or a weak key."""
    path = tmp_path / "root.keys"
    rootfile.create(path, [root_key()], cheap())
    _edited(path, lambda d: {**d, "passphrase": {**d["passphrase"], **PARAMETERS[changed]}})
    with pytest.raises(ConfigurationError, match="is not a root-key file"):
        rootfile.read(path, PASSPHRASE)


def test_a_passphrase_cannot_be_taken_off_a_file(tmp_path: Path) -> None:
    """Sealed keys are no root keys."""
    path = tmp_path / "root.keys"
    rootfile.create(path, [root_key()], cheap())
    _edited(path, lambda d: {**d, "passphrase": None})
    with pytest.raises(ConfigurationError, match=r"version 1 in the root-key file .* is damaged"):
        rootfile.read(path, None)


def test_sealed_keys_do_not_change_places(tmp_path: Path) -> None:
    """Each is bound to its version."""
    path = tmp_path / "root.keys"
    rootfile.create(path, [root_key(1), root_key(2)], cheap())

    def exchanged(document: dict[str, Any]) -> dict[str, Any]:
        one, two = document["keys"]
        one["key"], two["key"] = two["key"], one["key"]
        return document

    _edited(path, exchanged)
    with pytest.raises(KMSDenied):
        rootfile.read(path, PASSPHRASE)


def test_a_passphrase_is_text_and_not_empty() -> None:
    """What is neither is refused, and not shown."""
    with pytest.raises(ConfigurationError, match="is not empty"):
        cheap("")
    with pytest.raises(ConfigurationError, match="not UTF-8") as caught:
        cheap("secret\udcff")
    assert all("secret" not in told for told in told_by(caught.value))


def test_a_passphrase_does_not_print() -> None:
    """Neither itself nor the key that it was stretched to."""
    assert repr(cheap()) == "<Passphrase>"


def test_memory_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    """Another process has it; the passphrase is not wrong."""
    script = """
import resource, sys
from fieldvault.errors import KMSUnavailable
from fieldvault.kms.passphrase import Passphrase
resource.setrlimit(resource.RLIMIT_AS, (%d, %d))
try:
    Passphrase("secret")
except KMSUnavailable as error:
    assert error.__context__ is None
    print(error)
"""
    limit = (200 << 20) + _address_space()
    done = subprocess.run(
        [sys.executable, "-c", script % (limit, limit)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == (
        "the passphrase of the root-key file takes 256 MiB of memory, which are not to be had now\n"
    )
    assert resource.getrlimit(resource.RLIMIT_AS) != (limit, limit)


def _address_space() -> int:
    """What a fresh interpreter with these modules takes before it begins."""
    script = "import fieldvault.kms.passphrase as p; print(open('/proc/self/statm').read().split()[0])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout) * resource.getpagesize()


@pytest.mark.parametrize("text", ["YWJj\n", "YWI", "YWJ=", "Y-Jj", "", "YWI=", "YWJj"])
def test_base64_has_one_form(text: str) -> None:
    """Whatever parses writes the same text again."""
    try:
        data = from_text(text)
    except ValueError:
        assert text in {"YWJj\n", "YWI", "YWJ=", "Y-Jj"}
    else:
        assert to_text(data) == text


def test_a_passphrase_that_seals_opens() -> None:
    """Sealing draws a nonce each time."""
    sealer, key = cheap(), root_key()
    sealed = sealer.seal(key.key, 1)
    assert sealer.open(sealed, 1) == key.key.reveal()
    assert sealed != sealer.seal(key.key, 1)
    for changed in (sealed[:-1], sealed[:10], b"", sealed + b"x"):
        with pytest.raises(KMSDenied):
            sealer.open(changed, 1)
    with pytest.raises(KMSDenied):
        Passphrase("another", sealer.parameters).open(sealed, 1)

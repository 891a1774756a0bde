"""Key material stays where it is: it does not print, pickle, copy or compare itself."""

import copy
import dataclasses
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import cryptography_vectors
import pytest

from fieldvault.secret import KEY_SIZE, Secret

MATERIAL = bytes(range(100, 132))


@dataclasses.dataclass
class Holder:
    """Something an application might print, copy or turn into a dictionary."""

    name: str
    key: Secret


def shown(text: str) -> bool:
    """Whether the text holds the material, as it is, in hex or as ``repr`` gives it."""
    return any(form in text for form in (MATERIAL.decode("latin-1"), MATERIAL.hex(), repr(MATERIAL)[2:-1]))


@pytest.mark.parametrize("show", [repr, str, ascii, format, pprint.pformat])
def test_a_secret_shows_nothing(show: Callable[[object], str]) -> None:
    """However it is printed, alone or inside something, the bytes are not there."""
    assert show(Secret(MATERIAL)) == f"{Secret(MATERIAL)}" == "<Secret>"
    assert not shown(show(Holder("k", Secret(MATERIAL))))
    assert not shown(show([Secret(MATERIAL)]))


def test_a_traceback_that_prints_locals_shows_nothing() -> None:
    """The material is not in a stack trace of code that holds a secret."""
    secret = Secret(MATERIAL)
    try:
        secret.derive(b"info", 10**6)
    except ValueError as error:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True)
        ours = [frame for frame in frames.stack if frame.name.startswith("test_")]
        assert ours
        assert not any(shown(text) for frame in ours for text in (frame.locals or {}).values())
    else:
        pytest.fail("HKDF-SHA256 gives 8160 bytes at most")


@pytest.mark.parametrize(
    "leave",
    [*(partial(pickle.dumps, protocol=protocol) for protocol in range(6)), copy.copy, copy.deepcopy],
    ids=repr,
)
def test_a_secret_is_neither_pickled_nor_copied(leave: Callable[[object], object]) -> None:
    """No cache, worker pool or copy takes the bytes along, not from inside of another object either."""
    with pytest.raises(TypeError, match="not pickled or copied"):
        leave(Secret(MATERIAL))
    if leave is not copy.copy:  # a shallow copy of a holder shares the secret, and takes no bytes
        with pytest.raises(TypeError, match="not pickled or copied"):
            leave(Holder("k", Secret(MATERIAL)))


def test_a_dataclass_that_holds_a_secret_does_not_become_a_dictionary() -> None:
    """``dataclasses.asdict`` copies what it finds, and a secret refuses."""
    with pytest.raises(TypeError, match="not pickled or copied"):
        dataclasses.asdict(Holder("k", Secret(MATERIAL)))


def test_json_takes_no_secret() -> None:
    """It is none of JSON's types, and its ``str`` is blank."""
    with pytest.raises(TypeError):
        json.dumps({"key": Secret(MATERIAL)})
    assert not shown(json.dumps({"key": Secret(MATERIAL)}, default=str))


@pytest.mark.parametrize(
    "compare",
    [
        lambda secret: secret == Secret(MATERIAL),
        lambda secret: secret != Secret(MATERIAL),
        lambda secret: secret == MATERIAL,
        lambda secret: secret in {0: Secret(MATERIAL)}.values(),
        lambda secret: Holder("k", secret) == Holder("k", Secret(MATERIAL)),
    ],
    ids=["same bytes", "unlike", "bare bytes", "in a list", "inside a dataclass"],
)
def test_a_secret_is_not_compared(compare: Callable[[Secret], Any]) -> None:
    """A comparison that stops at the first different byte tells how far it got; compare key ids."""
    with pytest.raises(TypeError, match="compare key ids"):
        compare(Secret(MATERIAL))


def test_a_secret_is_no_dictionary_key() -> None:
    """A hash of the bytes would be one more copy of them."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret(MATERIAL))


def test_a_secret_has_no_dictionary_of_attributes() -> None:
    """``vars`` and what builds on it find nothing to print."""
    with pytest.raises(TypeError):
        vars(Secret(MATERIAL))


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_key_material_of_another_size_is_refused(size: int) -> None:
    """A key is 32 bytes; the message says how many there were, and not which."""
    with pytest.raises(ValueError, match=f"32 bytes, not {size}"):
        Secret(b"k" * size)


def test_a_secret_reveals_what_it_was_made_of() -> None:
    """Wrapping a key needs the bytes, and asks for them by name."""
    assert KEY_SIZE == 32
    assert Secret(MATERIAL).reveal() == MATERIAL


def test_derivation_agrees_with_rfc_5869() -> None:
    """HKDF-SHA256 with an empty salt: test case 3 of the RFC, whose key is not of our size."""
    with cryptography_vectors.open_vector_file("KDF/rfc-5869-HKDF-SHA256.txt", "r") as file:
        case = dict(line.split("=") for line in file.read().split("COUNT = 3")[1].splitlines() if "=" in line)
    known = {name.strip(): value.strip() for name, value in case.items()}
    assert (known["salt"], known["info"]) == ("", "")
    secret = object.__new__(Secret)
    secret._bytes = bytes.fromhex(known["IKM"])
    assert secret.derive(b"", int(known["L"])).hex() == known["OKM"]


def test_keys_for_different_purposes_are_different() -> None:
    """The information string separates what is derived, and so do the bytes of the key."""
    one, other = Secret(MATERIAL), Secret(bytes(32))
    derived = {secret.derive(info, 32) for secret in (one, other) for info in (b"a", b"b", b"")}
    assert len(derived) == 6
    assert one.derive(b"a", 64)[:32] == one.derive(b"a", 32)

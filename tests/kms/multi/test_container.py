"""The container of a key's parts: one encoding, and a seal that only the key makes."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldvault.errors import KMSError
from fieldvault.kms.multi.container import Container, fits, sealed

KEY = bytes(range(32))
NAMES = st.from_regex("[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@settings(max_examples=40)
@given(st.binary(min_size=32, max_size=32), st.dictionaries(NAMES, st.binary(max_size=300), min_size=1))
def test_what_was_encoded_is_parsed(key: bytes, parts: dict[str, bytes]) -> None:
    """Whatever the members wrapped."""
    container = sealed(key, parts)
    assert Container.parse(container.encoded()) == container
    assert fits(key, container)


@given(st.binary(max_size=200))
def test_what_parses_is_encoded_to_the_same_bytes(rest: bytes) -> None:
    """There is one encoding of a container."""
    for wrapped in (rest, b"fv-multi\x01" + rest, b"fv-multi\x01" + bytes(32) + rest):
        try:
            container = Container.parse(wrapped)
        except KMSError:
            continue
        assert container.encoded() == wrapped


def test_the_layout_is_the_documented_one() -> None:
    """Magic, seal, then names and parts in order of the names."""
    wrapped = sealed(KEY, {"west": b"w", "east": b"ee"}).encoded()
    assert wrapped[:9] == b"fv-multi\x01"
    assert wrapped[41:] == b"\x04east\x00\x00\x00\x02ee" + b"\x04west\x00\x00\x00\x01w"
    known = HKDF(hashes.SHA256(), 32, None, b"fieldvault/1 multi wrap" + wrapped[41:]).derive(KEY)
    assert wrapped[9:41] == known


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x04west\x00\x00\x00\x01w" + b"\x04east\x00\x00\x00\x02ee",
        b"\x04east\x00\x00\x00\x02ee" * 2,
        b"\x04east\x00\x00\x00\x02e",
        b"\x04east\x00\x00\x00",
        b"\x04\xff\xff\xff\xff\x00\x00\x00\x01w",
    ],
    ids=["empty", "another order", "twice", "cut short", "no length", "no text"],
)
def test_another_encoding_is_refused(body: bytes) -> None:
    """It fails closed."""
    with pytest.raises(KMSError):
        Container.parse(b"fv-multi\x01" + bytes(32) + body)


@pytest.mark.parametrize("answer", [bytes(32), KEY[:31], KEY + b"\x00", "key", None])
def test_another_key_does_not_fit(answer: object) -> None:
    """Nor does what is no key."""
    assert not fits(answer, sealed(KEY, {"east": b"e"}))


def test_the_key_does_not_fit_other_parts() -> None:
    """A part that was exchanged is noticed by whoever opens another one."""
    container = sealed(KEY, {"east": b"e", "west": b"w"})
    assert not fits(KEY, Container({"east": b"e", "west": b"x"}, container.seal))
    assert not fits(KEY, Container({"east": b"e"}, container.seal))

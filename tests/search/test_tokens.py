"""Tokens: their encoding, their keys, their length."""

import copy
import hashlib
import hmac
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.errors import ConfigurationError, UnsupportedValue
from fieldvault.search.normalize import casefold, exact, last
from fieldvault.search.tokens import IndexSpec
from fieldvault.secret import Secret

MATERIAL = bytes(range(32))
KEY = Secret(MATERIAL)
KNOWN = "e52fc238495c139ac46dbba04d030d91457239fdf2884fa396e01f0cceb4dc8e"
PAIR = IndexSpec(["people.first", "people.last"], "names", ["casefold", last(4)])
EMAIL = IndexSpec(["people.email"], "email", ["email"])


def lp(part: bytes) -> bytes:
    """Return a part with its length in front, as docs/search.md writes it."""
    return len(part).to_bytes(4, "big") + part


def hkdf(material: bytes, info: bytes) -> bytes:
    """Return 32 bytes of HKDF-SHA256 (RFC 5869), from the standard library alone."""
    extracted = hmac.digest(bytes(32), material, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def independent(material: bytes, fields: list[str], name: str, texts: list[str], bits: int) -> bytes:
    """Return a token, computed from the page without anything of fieldvault."""
    info = b"fieldvault/1 blind index" + len(fields).to_bytes(4, "big")
    info += b"".join(lp(each.encode()) for each in fields) + lp(name.encode())
    content = b"".join(lp(text.encode()) for text in texts)
    whole = int.from_bytes(hmac.digest(hkdf(material, info), content, hashlib.sha256), "big")
    size = (bits + 7) // 8
    return ((whole >> (256 - bits)) << (8 * size - bits)).to_bytes(size, "big")


def token(spec: IndexSpec, *values: object, key: Secret = KEY) -> bytes:
    """Return the token of values."""
    content = spec.normalized(values)
    assert content is not None
    return spec.token_maker(key)(content)


@pytest.mark.parametrize("bits", range(1, 257))
def test_a_token_is_what_the_page_says_at_every_length(bits: int) -> None:
    """Against HMAC and HKDF of the standard library; unused bits are zero, and the size is as promised."""
    spec = IndexSpec(["people.first", "people.last"], "names", ["casefold", last(4)], bits=bits)
    expected = independent(MATERIAL, ["people.first", "people.last"], "names", ["li", "雷lei"], bits)
    assert token(spec, "LI", "韩雷ＬＥＩ") == expected
    assert spec.size == len(expected)
    assert spec.is_truncated == (bits < 256)


def test_a_known_answer_stays_what_it_is() -> None:
    """It is in databases."""
    assert token(EMAIL, "Ann@Example.com").hex() == KNOWN
    assert independent(MATERIAL, ["people.email"], "email", ["ann@example.com"], 256).hex() == KNOWN


texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=3, max_size=3)


@given(texts, texts)
def test_no_two_sequences_of_texts_share_an_encoding(one: list[str], other: list[str]) -> None:
    """Not by moving a letter over the border between two of them."""
    spec = IndexSpec(["a.a", "a.b", "a.c"], "x", [str, str, str])
    assert (spec.normalized(one) == spec.normalized(other)) is (one == other)


def test_a_letter_may_not_move_between_the_parts() -> None:
    """The example of the above that a concatenation gets wrong."""
    spec = IndexSpec(["a.a", "a.b"], "x", ["casefold", "casefold"])
    assert len(set(starmap(token, [(spec, "ab", "c"), (spec, "a", "bc"), (spec, "", "abc")]))) == 3


@pytest.mark.parametrize("values", [(None, "Li"), ("Li", None), (None, None)])
def test_where_a_part_is_missing_there_is_no_token(values: tuple[str | None, str | None]) -> None:
    """None has none, and neither has what normalizes to None; an empty text has one."""
    assert PAIR.normalized(values) is None
    assert IndexSpec(["a.b"], "x", ["digits"]).normalized(["none"]) is None
    assert PAIR.normalized(("", "")) == bytes(8)


def test_none_does_not_reach_a_normalizer() -> None:
    """A function of the application need not know of NULL."""
    assert IndexSpec(["a.b"], "x", [len]).normalized([None]) is None


DIFFERENT: list[dict[str, Any]] = [
    {"fields": ["people.email"], "name": "email"},
    {"fields": ["people.mail"], "name": "email"},
    {"fields": ["people.email"], "name": "mail"},
    {"fields": ["people.e"], "name": "mailemail"},
    {"fields": ["people.emaile"], "name": "mail"},
]


def test_tokens_of_two_indexes_never_relate() -> None:
    """Another field, another name, a border that moved between them, other fields: other tokens."""
    made = [token(IndexSpec(**each, normalizers=["casefold"]), "x") for each in DIFFERENT]
    two = IndexSpec(["a.b", "a.c"], "x", ["casefold", "casefold"])
    turned = IndexSpec(["a.c", "a.b"], "x", ["casefold", "casefold"])
    made += [token(two, "x", "x"), token(turned, "x", "x")]
    assert len({each[:2] for each in made}) == len(made)


def test_tokens_of_two_keys_never_relate() -> None:
    """Nor does a token tell the key that the index's key was derived from."""
    assert token(EMAIL, "x") != token(EMAIL, "x", key=Secret(os.urandom(32)))
    assert token(EMAIL, "x") != hmac.digest(MATERIAL, lp(b"x"), hashlib.sha256)


def test_a_shorter_token_is_the_beginning_of_a_longer_one() -> None:
    """So that an index is shortened without decrypting anything."""
    whole = token(EMAIL, "x")
    assert token(IndexSpec(["people.email"], "email", ["email"], bits=16), "x") == whole[:2]


def test_a_maker_serves_many_threads_at_once() -> None:
    """Each gets the tokens of its own values."""
    maker = EMAIL.token_maker(KEY)
    contents = [lp(str(number).encode()) for number in range(2_000)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(maker, contents)) == [maker(content) for content in contents]


def test_a_maker_neither_prints_nor_pickles() -> None:
    """It holds a key."""
    maker = EMAIL.token_maker(KEY)
    assert repr(maker) == "<TokenMaker>"
    for attempt in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(TypeError):
            attempt(maker)


def test_a_spec_is_a_value() -> None:
    """Equal ones are equal, hash alike and show what they are; nothing of one can be changed."""
    one, other = (IndexSpec(["a.b"], "x", ["casefold"], bits=9) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != IndexSpec(["a.b"], "x", ["casefold"], bits=10)
    assert one != IndexSpec(["a.b"], "x", ["exact"], bits=9)
    assert repr(one) == f"IndexSpec(fields=('a.b',), name='x', normalizers=({casefold!r},), bits=9)"
    with pytest.raises(AttributeError):
        one.bits = 8  # type: ignore[misc]
    assert IndexSpec(["a.b"], "x", [casefold]) == IndexSpec(("a.b",), "x", ("casefold",), 256)
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"fields": []}, "at least one field"),
        ({"fields": "a.b"}, "sequences"),
        ({"normalizers": "casefold"}, "sequences"),
        ({"fields": ["a\n"]}, "a field has no control"),
        ({"fields": [7]}, "a field is a str"),
        ({"name": ""}, "name of an index is not empty"),
        ({"normalizers": []}, "1 fields and 0 normalizers"),
        ({"normalizers": ["lower"]}, "no normalizer 'lower'"),
        ({"bits": 0}, "1 to 256 bits"),
        ({"bits": 257}, "1 to 256 bits"),
        ({"bits": True}, "1 to 256 bits"),
        ({"bits": 8.0}, "1 to 256 bits"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(arguments: dict[str, Any], says: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigurationError, match=says):
        IndexSpec(**{"fields": ["a.b"], "name": "x", "normalizers": [exact], **arguments})


def test_as_many_values_as_fields_are_wanted() -> None:
    """Too few would be another index."""
    with pytest.raises(ConfigurationError, match="2 fields, and was given 1"):
        PAIR.normalized(["Li"])


def test_text_that_utf_8_cannot_hold_is_refused_without_showing_it() -> None:
    """The codec's own error has the text; it is nowhere in the chain."""
    with pytest.raises(UnsupportedValue, match=r"'people.last'.*surrogate") as caught:
        PAIR.normalized(["Li", "x\ud800"])
    assert caught.value.__context__ is None

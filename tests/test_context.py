"""No two contexts share an encoding, and no name gets in that another could be taken for."""

import uuid
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.context import (
    MAX_NAME_SIZE,
    as_name,
    associated_data,
    bound_to_row,
    check_name,
    encode_context,
    encode_row,
)
from fieldvault.errors import ConfigurationError, UnsupportedValue

HEADER = bytes(range(19))
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
# Few characters and the bytes of length fields, so that a missing length would show.
tricky = st.text(st.sampled_from("ab\x00\x01\x02"), max_size=4)
rows = st.none() | st.lists(tricky, max_size=3)


@pytest.mark.parametrize(
    "name", ["a", "客户", "a b", "Ü", "e\u0301", "n" * 255, "é" * 127, "\u200b", "a/b\\c'\""]
)
def test_a_name_is_taken_as_it_is(name: str) -> None:
    """Any text without control characters, not normalised, up to 255 bytes."""
    assert check_name("tenant", name) is name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "a tenant is not empty"),
        ("n" * (MAX_NAME_SIZE + 1), "at most 255 bytes"),
        ("é" * 128, "at most 255 bytes"),
        ("a\x00", "no control characters"),
        ("\n", "no control characters"),
        ("a\x1f", "no control characters"),
        ("a\x7f", "no control characters"),
        ("a\x80", "no control characters"),
        ("a\x9f", "no control characters"),
        ("a\ud800", "no surrogates"),
        ("\udfff", "no surrogates"),
        (b"acme", "a tenant is a str, not bytes"),
        (7, "a tenant is a str, not int"),
        (None, "a tenant is a str, not NoneType"),
        (type("Text", (str,), {})("acme"), "a tenant is a str, not Text"),
    ],
)
def test_a_name_that_could_be_mistaken_is_refused(name: object, message: str) -> None:
    """The message says what kind of name it is and what the rule is."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_name("tenant", name)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("acme", "acme"),
        (type("Text", (str,), {"__str__": lambda _: "other"})("shop"), "shop"),
        (0, "0"),
        (-7, "-7"),
        (IntEnum("Number", {"ONE": 1}).ONE, "1"),  # type: ignore[attr-defined]
        (uuid.UUID(int=2**128 - 1), "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ],
)
def test_text_integers_and_uuids_name_a_tenant(value: object, name: str) -> None:
    """By one text, whatever class of them it is."""
    assert as_name("tenant", value) == name
    assert type(as_name("tenant", value)) is str


@pytest.mark.parametrize("value", [True, 1.5, b"acme", None, ["acme"], object()])
def test_nothing_else_names_one(value: object) -> None:
    """The message says what to pass."""
    with pytest.raises(ConfigurationError, match="a subject is text, an integer or a UUID, not") as caught:
        as_name("subject", value)
    assert "such as customer.id" in str(caught.value)


def test_what_becomes_a_name_keeps_the_rules_of_one() -> None:
    """A name that cannot be is refused as ever."""
    for value in ("", "a\n", "x" * 256, 10**255):
        with pytest.raises(ConfigurationError, match="a tenant"):
            as_name("tenant", value)


@given(
    one=st.tuples(tricky, tricky, st.none() | tricky, rows),
    other=st.tuples(tricky, tricky, st.none() | tricky, rows),
)
def test_different_contexts_have_different_associated_data(
    one: tuple[str, str, str | None, list[str] | None], other: tuple[str, str, str | None, list[str] | None]
) -> None:
    """Every part has its length in front, so no part can borrow from its neighbour."""

    def encoded(context: tuple[str, str, str | None, list[str] | None]) -> bytes:
        tenant, field, subject, row = context
        bound = None if row is None else encode_row(row)
        return associated_data(HEADER, tenant=tenant, field=field, subject=subject, row=bound)

    assert (encoded(one) == encoded(other)) == (one == other)


def test_an_absent_part_is_not_an_empty_one() -> None:
    """No subject and the empty subject, no row and the row of no parts: four encodings."""
    found = {
        associated_data(HEADER, tenant="t", field="f", subject=subject, row=row)
        for subject in (None, "")
        for row in (None, b"")
    }
    assert len(found) == 4


def test_the_header_is_bound_too() -> None:
    """Version, suite, type and key id stand in front of the associated data."""
    assert associated_data(HEADER, tenant="t", field="f", subject=None).startswith(HEADER)


@given(one=st.lists(tricky, max_size=4), other=st.lists(tricky, max_size=4))
def test_different_rows_have_different_encodings(one: list[str], other: list[str]) -> None:
    """Parts are told apart, and their order counts."""
    assert (encode_row(one) == encode_row(other)) == (one == other)


@given(row=st.lists(tricky, max_size=3), subject=st.none() | tricky)
def test_what_was_made_without_a_row_is_bound_to_one(row: list[str], subject: str | None) -> None:
    """To the same bytes as if the row had been known from the start."""
    known = {"tenant": "acme", "field": "customers.email", "subject": subject}
    bound = bound_to_row(associated_data(HEADER, **known), encode_row(row))  # type: ignore[arg-type]
    assert bound == associated_data(HEADER, row=encode_row(row), **known)  # type: ignore[arg-type]


def test_a_row_that_is_no_text_is_refused() -> None:
    """A lone surrogate has no UTF-8; the message does not repeat the key."""
    with pytest.raises(UnsupportedValue, match="primary key with a lone surrogate") as caught:
        encode_row(["customer-\ud800"])
    assert caught.value.__context__ is None
    assert "customer" not in str(caught.value)


@given(one=st.dictionaries(tricky, tricky, max_size=4), other=st.dictionaries(tricky, tricky, max_size=4))
def test_different_encryption_contexts_have_different_encodings(
    one: dict[str, str], other: dict[str, str]
) -> None:
    """The number of entries and each length are part of it."""
    assert (encode_context(one) == encode_context(other)) == (one == other)


@given(context=st.dictionaries(names, names, max_size=5), data=st.data())
def test_the_order_of_a_context_does_not_count(context: dict[str, str], data: st.DataObject) -> None:
    """A mapping has no order, so its encoding has the names' own."""
    shuffled = dict(data.draw(st.permutations(list(context.items()))))
    assert encode_context(shuffled) == encode_context(context)


def test_names_are_ordered_by_their_utf_8_bytes() -> None:
    """The order of UTF-16, which other languages sort by, would put the emoji first."""
    encoded = encode_context({"\U0001f600": "1", "\uff5e": "2"})
    assert encoded.index("\uff5e".encode()) < encoded.index("\U0001f600".encode())

"""Advice on lengths, beside the figures of the rule that it follows."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.errors import ConfigurationError
from fieldvault.search.advice import MAX_ROWS, plan

ROWS = st.integers(1, MAX_ROWS)
EXISTING = st.lists(st.integers(1, 40), max_size=3)
VALUES = st.none() | st.integers(1, 10**6)


@pytest.mark.parametrize(("rows", "expected"), [(2**31, 128.0), (2**24, 1.0), (2**16, 0.00390625)])
def test_coincidences_are_those_that_ciphersweet_gives_as_examples(rows: int, expected: float) -> None:
    """Two indexes, of 16 and 8 bits (its page on security, *Blind Index Information Leaks*)."""
    assert plan(rows, existing=[16]).coincidences(8) == expected


@pytest.mark.parametrize(("existing", "least", "most"), [([], 8, 14), ([4], 4, 10)])
def test_lengths_are_those_of_its_planner(existing: list[int], least: int, most: int) -> None:
    """For 50,000 rows; its upper figures, 15 and 11, are a bit more: they leave 1.5 coincidences, not 2."""
    advice = plan(50_000, existing=existing)
    assert (advice.least, advice.most) == (least, most)
    assert 1.5 < advice.coincidences(most + 1) < 1.6


@given(ROWS, EXISTING, VALUES)
def test_exactly_the_lengths_that_fit_are_advised(rows: int, existing: list[int], values: int | None) -> None:
    """Each length from least to most keeps the rule, and none outside does."""
    advice = plan(rows, existing=existing, values=values)
    for bits in range(1, 80):
        found = advice.coincidences(bits)
        inside = advice.least is not None and advice.most is not None and advice.least <= bits <= advice.most
        names = values is not None and 2 ** (sum(existing) + bits) > values
        fits = found >= 2 and found * found <= rows * (1 + 1e-12) and not names
        assert inside == fits == (advice.verdict(bits) == "fits")


def test_more_indexes_tell_apart_no_more_values_than_there_are() -> None:
    """With 12 values a token has a twelfth of the rows, at every length."""
    assert {plan(1_200, existing=[8], values=12).coincidences(bits) for bits in (1, 8, 256)} == {100.0}


def test_the_share_of_values_that_stand_alone_is_that_of_a_random_token() -> None:
    """Beside a count: 4 bits for 12 values, by inclusion of every token's chance."""
    alone = plan(10_000, values=12).alone(4)
    assert alone is not None
    assert math.isclose(alone, (15 / 16) ** 11)
    assert plan(10_000, values=12).alone(256) == 1.0
    assert plan(10_000).alone(4) is None


@pytest.mark.parametrize(
    ("rows", "existing", "values", "says"),
    [
        (50_000, (), None, "Take 8 to 14 bits."),
        (16, (), None, "Take 2 to 3 bits."),
        (4, (), None, "Take 1 bits."),
        (10_000, (), 366, "At 7 bits 94% of the values share"),
        (10_000, (), 12, "of 12 values each has 1 row in 12"),
        (10_000, (8, 8), None, "beside the indexes that the field has already"),
        (3, (), None, "so few rows or values"),
        (10_000, (), 100, "so few rows or values"),
    ],
)
def test_advice_says_what_to_do(rows: int, existing: tuple[int, ...], values: int | None, says: str) -> None:
    """Also where no length suits."""
    advice = plan(rows, existing=existing, values=values)
    assert says in advice.summary()
    assert ("No length suits" in advice.summary()) is (advice.least is None)


def test_the_lengths_shown_include_what_is_advised_its_neighbours_and_the_full_one() -> None:
    """And where nothing is advised, some of each size."""
    assert plan(50_000).lengths() == [*range(7, 16), 256]
    assert plan(4).lengths() == [1, 2, 256]
    assert plan(3).lengths() == [1, 2, 4, 8, 16, 32, 256]


@pytest.mark.parametrize(
    ("rows", "existing", "values", "says"),
    [
        (0, [], None, "number of rows"),
        (MAX_ROWS + 1, [], None, "number of rows"),
        (True, [], None, "number of rows"),
        (10, [], 0, "number of values"),
        (10, [0], None, "length of each index"),
        (10, [257], None, "length of each index"),
    ],
)
def test_figures_that_cannot_be_are_refused(
    rows: int, existing: list[int], values: int | None, says: str
) -> None:
    """The message says what to give."""
    with pytest.raises(ConfigurationError, match=says):
        plan(rows, existing=existing, values=values)

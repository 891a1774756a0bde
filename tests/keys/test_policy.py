"""The policies: what cannot work is refused at construction."""

from datetime import timedelta
from math import inf, nan
from typing import Any

import pytest

from fieldvault.errors import ConfigurationError
from fieldvault.keys.policy import CachePolicy, RetryPolicy, RotationPolicy


@pytest.mark.parametrize(
    "members",
    [
        {"max_keys": 0},
        {"max_keys": 0.5},
        {"max_keys": True},
        {"max_keys": "10"},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": nan},
        {"ttl": inf},
        {"lease": 0},
        {"lease": inf},
        {"lease": "30"},
        {"lease": None},
        {"grace": -1},
        {"grace": inf},
        {"grace": False},
        {"refresh_ahead": -0.1},
        {"refresh_ahead": 1},
        {"refresh_ahead": True},
        {"refresh_ahead": nan},
        {"reprove": 1},
    ],
)
def test_a_cache_policy_that_cannot_work_is_refused(members: dict[str, Any]) -> None:
    """The message names the member."""
    with pytest.raises(ConfigurationError, match=next(iter(members))):
        CachePolicy(**members)


def test_no_grace_is_a_policy() -> None:
    """Zero serves nothing in an outage."""
    assert CachePolicy(grace=0).grace == 0


def test_nothing_refreshed_ahead_is_a_policy() -> None:
    """And so is nearly all the time."""
    assert CachePolicy(refresh_ahead=0).refresh_ahead == 0
    assert CachePolicy(refresh_ahead=0.99).refresh_ahead == 0.99


@pytest.mark.parametrize(
    "members",
    [
        {"deadline": -1},
        {"deadline": inf},
        {"deadline": False},
        {"deadline": None},
        {"failures": 0},
        {"failures": 2.5},
        {"failures": True},
        {"pause": 0},
        {"pause": "10"},
    ],
)
def test_a_retry_policy_that_cannot_work_is_refused(members: dict[str, Any]) -> None:
    """The message names the member."""
    with pytest.raises(ConfigurationError, match=next(iter(members))):
        RetryPolicy(**members)


def test_no_repeated_try_is_a_policy() -> None:
    """Zero tries once."""
    assert RetryPolicy(deadline=0).deadline == 0


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"max_age": timedelta(0)}, "max_age"),
        ({"max_age": 90}, "max_age"),
        ({"max_uses": 0}, "max_uses"),
        ({"max_uses": 2**32 + 1}, "max_uses"),
        ({"max_uses": 1e6}, "max_uses"),
        ({"block": 0}, "block"),
        ({"block": 1.5}, "block"),
        ({"block": True}, "block"),
        ({"block": 11, "max_uses": 10}, "block <= max_uses"),
    ],
)
def test_a_rotation_policy_that_cannot_work_is_refused(members: dict[str, Any], message: str) -> None:
    """The bound of 2^32 messages cannot be raised."""
    with pytest.raises(ConfigurationError, match=message):
        RotationPolicy(**members)

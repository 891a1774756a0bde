"""Batches: no item is lost, mixed up, or spoiled by another; and the server takes each of them."""

import os
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import NotAsked, WrappedKey
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit.batches import MAX_ITEMS, in_batches
from tests.kms.transit.conftest import Tenancy

Open = Callable[..., TransitKMS]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers())),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=1, max_value=3),
)
def test_each_item_gets_its_own_answer_in_order(
    items: list[tuple[str, int]], size: int, at_once: int
) -> None:
    """Those of one key go together, and no batch is too big."""

    def ask(key: str, asked: Sequence[int]) -> list[str | KMSError]:
        assert 0 < len(asked) <= size
        return [f"{key}{item}" for item in asked]

    answers = in_batches(items, ask, size=size, at_once=at_once)
    assert answers == [f"{key}{item}" for key, item in items]


def test_a_batch_that_fails_spoils_no_other() -> None:
    """What it met is what its items met."""
    begun = threading.Barrier(3)

    def ask(_: str, asked: Sequence[int]) -> list[int | KMSError]:
        begun.wait(timeout=30)
        if 2 in asked:
            raise KMSUnavailable("gone for a moment")
        return list(asked)

    answers = in_batches([("a", number) for number in range(6)], ask, size=2, at_once=4)
    assert [answers[0], answers[1], *answers[4:]] == [0, 1, 4, 5]
    assert all(isinstance(each, KMSUnavailable) for each in answers[2:4])


def test_an_outage_is_waited_for_once() -> None:
    """A thousand batches that each wait for a server that hangs would take an hour."""
    asked = []

    def ask(_: str, items: Sequence[int]) -> list[int | KMSError]:
        asked.append(items)
        if 3 in items:
            raise KMSUnavailable("no answer in time")
        return list(items)

    answers = in_batches([("a", number) for number in range(9)], ask, size=1, at_once=1)
    assert answers[:3] == [0, 1, 2]
    assert {str(each) for each in answers[3:]} == {"no answer in time"}
    assert [type(each) for each in answers[3:]] == [KMSUnavailable, *[NotAsked] * 5]
    assert asked == [[0], [1], [2], [3]]


@pytest.mark.parametrize("error", [KMSUnavailable, KMSDenied])
def test_what_hit_every_batch_hit_the_call(error: type[KMSError]) -> None:
    """It is raised, so that the call is tried again as a whole, or not at all."""

    def ask(_: str, asked: Sequence[int]) -> list[int | KMSError]:
        raise error(f"no answer for {asked}")

    with pytest.raises(error):
        in_batches([("a", 1), ("b", 2)], ask, size=1, at_once=2)


def test_keys_that_are_gone_are_told_item_by_item() -> None:
    """Each of them is."""

    def ask(key: str, _: Sequence[int]) -> list[int | KMSError]:
        raise KMSKeyDisabled(f"{key} is gone")

    answers = in_batches([("a", 1), ("b", 2)], ask, size=1, at_once=2)
    assert [str(each) for each in answers] == ["a is gone", "b is gone"]


def test_batches_are_asked_at_once() -> None:
    """As many as there are connections: none of these goes on before all have begun."""
    begun = threading.Barrier(4)

    def ask(_: str, asked: Sequence[int]) -> list[int | KMSError]:
        begun.wait(timeout=30)
        return list(asked)

    assert in_batches([("a", number) for number in range(4)], ask, size=1, at_once=4) == [0, 1, 2, 3]


def _wrapped(kms: TransitKMS, count: int) -> tuple[list[bytes], list[WrappedKey]]:
    keys = [os.urandom(32) for _ in range(8)]
    distinct = [
        WrappedKey(kms.wrap(key, context={"tenant": f"t{n}"}), {"tenant": f"t{n}"})
        for n, key in enumerate(keys)
    ]
    return [keys[n % 8] for n in range(count)], [distinct[n % 8] for n in range(count)]


def test_a_page_of_a_thousand_tenants_takes_five_requests(tenancy: Tenancy, open_kms: Open) -> None:
    """Each as big as the server takes by default, and no bigger."""
    kms = open_kms()
    keys, items = _wrapped(kms, 1000)
    before = tenancy.server.audit_mark()
    assert kms.unwrap_many(items) == keys
    made = [entry for entry in tenancy.server.audited(before) if entry["type"] == "request"]
    assert [entry["request"]["path"] for entry in made] == [f"transit/decrypt/{tenancy.key}"] * 5
    assert sorted(len(entry["request"]["data"]["batch_input"]) for entry in made) == [4, *[MAX_ITEMS] * 4]


def test_one_item_more_is_refused_by_the_server(open_kms: Open) -> None:
    """The limit is the server's: were it higher, so could batches be."""
    kms = open_kms(batch_size=MAX_ITEMS + 1)
    _, items = _wrapped(kms, MAX_ITEMS + 1)
    answers = kms.unwrap_many(items)
    (said,) = {str(answer).partition(" answered: ")[2] for answer in answers}
    assert said.endswith(f"exceeded maximum number of strings (transit/decrypt/{kms._key})")


def test_a_bad_item_spoils_no_other_of_its_batch(open_kms: Open) -> None:
    """The server calls such a batch a bad request, and answers the good items all the same."""
    kms = open_kms(batch_size=3)
    keys, items = _wrapped(kms, 8)
    items[1] = items[1]._replace(context={"tenant": "globex"})
    items[7] = items[7]._replace(wrapped=items[7].wrapped[:-1] + bytes([items[7].wrapped[-1] ^ 1]))
    answers = kms.unwrap_many([*items, WrappedKey(b"never wrapped", {})])
    for number, answer in enumerate(answers):
        if number in {1, 7, 8}:
            assert type(answer) is KMSError
        else:
            assert answer == keys[number]

"""Single flight."""

import threading
import time
from collections.abc import Mapping

import pytest

from fieldvault.errors import KMSUnavailable
from fieldvault.keys.flight import SingleFlight
from tests.keys.parties import Running, in_threads


class Loader:
    """A loader that records what it was asked for, and answers once it is let."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, keys: list[str]) -> Mapping[str, str | Exception]:
        """Answer each key in capitals."""
        self.asked.append(keys)
        self.begun.set()
        assert self.go_on.wait(10)
        return {key: key.upper() for key in keys}


def test_many_threads_that_want_one_key_load_it_once() -> None:
    """Sixty-four callers, one load, sixty-four answers."""
    flight: SingleFlight[str, str] = SingleFlight()
    loads: list[list[str]] = []

    def load(keys: list[str]) -> dict[str, str | Exception]:
        loads.append(keys)
        time.sleep(0.1)
        return {"a": "A"}

    assert in_threads(64, lambda _: flight.run(["a"], load)) == [{"a": "A"}] * 64
    assert loads == [["a"]]


def test_a_batch_loads_only_what_nobody_loads_already() -> None:
    """The second caller leads its own key and waits for the other."""
    flight: SingleFlight[str, str] = SingleFlight()
    first, second = Loader(), Loader()
    second.go_on.set()
    one = Running(lambda: flight.run(["a"], first))
    assert first.begun.wait(10)
    two = Running(lambda: flight.run(["a", "b", "b"], second))
    assert second.begun.wait(10)
    assert not two.is_done
    first.go_on.set()
    assert one.result() == {"a": "A"}
    assert two.result() == {"a": "A", "b": "B"}
    assert second.asked == [["b"]]


def test_callers_with_overlapping_batches_never_wait_for_each_other() -> None:
    """Whatever the order in which batches name their keys, all come back."""
    flight: SingleFlight[int, int] = SingleFlight()

    def load(keys: list[int]) -> dict[int, int | Exception]:
        time.sleep(0.001)
        return {key: key for key in keys}

    def work(index: int) -> dict[int, int | Exception]:
        keys = list(range(10)) if index % 2 else list(reversed(range(10)))
        for _ in range(19):
            flight.run(keys, load)
        return flight.run(keys, load)

    assert in_threads(16, work) == [{key: key for key in range(10)}] * 16


def test_what_the_leader_met_every_follower_meets() -> None:
    """Each caller gets an error of its own to raise: one shared one would gather the frames of all."""
    flight: SingleFlight[str, str] = SingleFlight()
    started = threading.Barrier(8)
    calls: list[int] = []

    def load(_: list[str]) -> dict[str, str | Exception]:
        calls.append(1)
        time.sleep(0.1)
        raise KMSUnavailable("out", 7)

    def work(_: int) -> dict[str, str | Exception]:
        started.wait(10)
        return flight.run(["a"], load)

    errors = [answer["a"] for answer in in_threads(8, work)]
    assert len(calls) == 1
    assert {type(error) for error in errors} == {KMSUnavailable}
    assert {error.args for error in errors} == {("out", 7)}
    assert len({id(error) for error in errors}) == 8


def test_an_error_of_another_package_is_handed_on_as_it_is() -> None:
    """Nobody knows how to copy it."""
    flight: SingleFlight[str, str] = SingleFlight()
    first = Loader()
    error = ZeroDivisionError()

    def load(keys: list[str]) -> Mapping[str, str | Exception]:
        first(keys)
        raise error

    one = Running(lambda: flight.run(["a"], load))
    assert first.begun.wait(10)
    two = Running(lambda: flight.run(["a"], load))
    time.sleep(0.05)
    first.go_on.set()
    assert one.result()["a"] is error
    assert two.result()["a"] is error


def test_an_interrupted_leader_leaves_the_key_to_another() -> None:
    """An interruption concerns its own caller only."""
    flight: SingleFlight[str, str] = SingleFlight()
    first, second = Loader(), Loader()
    second.go_on.set()

    def interrupted(keys: list[str]) -> Mapping[str, str | Exception]:
        first(keys)
        raise KeyboardInterrupt

    one = Running(lambda: flight.run(["a"], interrupted))
    assert first.begun.wait(10)
    others = [Running(lambda: flight.run(["a"], second)) for _ in range(4)]
    time.sleep(0.05)
    first.go_on.set()
    with pytest.raises(KeyboardInterrupt):
        one.result()
    assert [other.result() for other in others] == [{"a": "A"}] * 4
    assert len(second.asked) >= 1


def test_nobody_is_left_waiting_for_a_loader_that_forgets_a_key() -> None:
    """A loader that breaks its word is an error, not a deadlock."""
    flight: SingleFlight[str, str] = SingleFlight()
    answer = flight.run(["a", "b"], lambda _: {"a": "A"})
    assert isinstance(answer["b"], KeyError)
    assert flight.run(["b"], lambda _: {"b": "B"}) == {"b": "B"}


def test_a_reset_flight_knows_nobody() -> None:
    """A forked child would wait for ever for threads that it does not have."""
    flight: SingleFlight[str, str] = SingleFlight()
    first, second = Loader(), Loader()
    second.go_on.set()
    one = Running(lambda: flight.run(["a"], first))
    assert first.begun.wait(10)
    flight.reset()
    assert flight.run(["a"], second) == {"a": "A"}
    first.go_on.set()
    assert one.result() == {"a": "A"}

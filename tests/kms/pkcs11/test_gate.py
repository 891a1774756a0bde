"""Many together, or one alone; one who wants to be alone is not kept waiting by those who come later."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from fieldvault.errors import KMSUnavailable
from fieldvault.kms.pkcs11.gate import Gate

LONG = 30.0


def soon() -> float:
    """A time that is nearly there."""
    return time.monotonic() + 0.02


def later() -> float:
    """A time that no test waits for."""
    return time.monotonic() + LONG


def elsewhere(work: Callable[[], object]) -> None:
    """Work in another thread, whose error is raised here."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work).result(LONG)


def enter(gate: Gate, *, alone: bool) -> None:
    """Go in and out."""
    with gate.alone(soon()) if alone else gate.together(soon()):
        pass


@pytest.mark.parametrize(
    ("inside", "outside", "let_in"),
    [(False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_one_alone_keeps_everybody_out(*, inside: bool, outside: bool, let_in: bool) -> None:
    """And waits for everybody; others are in together."""
    gate = Gate()
    with gate.alone(later()) if inside else gate.together(later()):
        if let_in:
            elsewhere(lambda: enter(gate, alone=outside))
        else:
            with pytest.raises(KMSUnavailable, match="has not ended in time"):
                elsewhere(lambda: enter(gate, alone=outside))
    elsewhere(lambda: enter(gate, alone=True))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("then", [False, True])
def test_whoever_is_in_may_come_in_again(*, first: bool, then: bool) -> None:
    """As a callback may, or a fork in the midst of it."""
    gate = Gate()
    with gate.alone(later()) if first else gate.together(later()):
        with gate.alone(soon()) if then else gate.together(soon()):
            pass
        with pytest.raises(KMSUnavailable):
            elsewhere(lambda: enter(gate, alone=True))
    elsewhere(lambda: enter(gate, alone=True))


def test_whoever_wants_to_be_alone_goes_first() -> None:
    """Else a busy module would never be left; after giving up they stand in nobody's way."""
    gate = Gate()
    with ExitStack() as waiting:
        with gate.together(later()):
            entered = threading.Event()

            def alone() -> None:
                with gate.alone(later()):
                    entered.set()

            thread = threading.Thread(target=alone)
            thread.start()
            waiting.callback(thread.join)
            while not gate._waiting:
                time.sleep(0.001)
            with pytest.raises(KMSUnavailable):
                elsewhere(lambda: enter(gate, alone=False))
            assert not entered.is_set()
        assert entered.wait(LONG)
    with gate.together(later()):
        with pytest.raises(KMSUnavailable):
            elsewhere(lambda: enter(gate, alone=True))
        elsewhere(lambda: enter(gate, alone=False))

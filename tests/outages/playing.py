"""Playing a row of the matrix in a laboratory, where failures can be ordered."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pytest

from fieldvault.keys.protocols import KMS, KeyStore
from tests.outages import matrix
from tests.outages.cells import (
    CONNECT,
    MARGIN,
    PATIENCE,
    RETRIES,
    SILENT,
    TIMEOUT,
    Cell,
    Outcome,
    played,
    prepared,
    recovered,
)
from tests.outages.matrix import SERVED, Row


class Lab(Protocol):
    """Where failures can be ordered."""

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the matrix calls so, for the length of a block."""
        ...


def params(*backends: str) -> Sequence[object]:
    """The rows of backends as parameters."""
    return [pytest.param(row, id=f"{row.backend}: {row.failure}") for row in matrix.rows_of(*backends)]


def timeout_of(row: Row) -> float:
    """A short one where it is waited out."""
    return TIMEOUT if row.played in SILENT else PATIENCE


def holds(
    row: Row,
    lab: Lab,
    open_kms: Callable[[], KMS],
    open_store: Callable[[], KeyStore],
    *,
    comes_back: bool = True,
) -> None:
    """Play all cells of a row, compare, and see that they work again when the failure is over."""
    cells = prepared(open_kms, open_store)
    with lab.failure(row.played):
        outcomes = played(cells)
    compare(row, cells, outcomes)
    if comes_back:
        assert recovered(cells) == {cell.name: SERVED for cell in cells}


def compare(row: Row, cells: Sequence[Cell], outcomes: dict[str, Outcome]) -> None:
    """See that each cell met what the row says, in time."""
    told = {name: outcome.what for name, outcome in outcomes.items()}
    assert told == {cell.name: row.expected(cell.state) for cell in cells}
    limits = {
        matrix.TRIES: RETRIES.deadline + 2 * TIMEOUT,
        matrix.ANSWER: 2 * TIMEOUT,
        matrix.AT_ONCE: 0.0,
        matrix.MEMBERS: RETRIES.deadline + 4 * TIMEOUT,
        matrix.MODULE: RETRIES.deadline,
        matrix.CALL: 0.0,
        matrix.ONCE: 2 * TIMEOUT + CONNECT,
        matrix.AGAIN: 2 * RETRIES.deadline + 2 * TIMEOUT,
    }
    late = {
        name: each.seconds for name, each in outcomes.items() if each.seconds > limits[row.within] + MARGIN
    }
    assert late == {}

"""Playing the cells of a row: vaults that are prepared, then meet a failure, all at once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from fieldvault import CachePolicy, RetryPolicy, Vault, errors
from fieldvault.errors import FieldVaultError
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.testing.fakes import ManualClock
from tests.keys.parties import FIELD, in_threads
from tests.outages.matrix import SERVED, State

TENANT = "acme"
CACHE = CachePolicy(ttl=300, lease=30, grace=60, refresh_ahead=0)
RETRIES = RetryPolicy(deadline=0.2, failures=3, pause=10)
TIMEOUT = 0.5
"""Seconds that an answer is waited for where none comes."""

PATIENCE = 10.0
"""Seconds that an answer is waited for where one comes, which on a loaded machine takes its time."""

SILENT = frozenset({"silent", "stopped", "standby_alone"})
"""What is played where none comes."""

CONNECT = 2
"""Seconds to connect to a database; the driver takes no less."""

MARGIN = 3.0
"""Seconds that a loaded machine may take for what takes none."""

AGES: Mapping[State, float] = {
    State.COLD: 0,
    State.WARM: CACHE.lease - 1,
    State.STALE: CACHE.lease + 1,
    State.EXPIRED: CACHE.ttl + 1,
    State.SPENT: CACHE.ttl + CACHE.grace + 1,
    State.FIRST: 0,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller met, and after how many seconds."""

    what: str
    seconds: float


class Cell:
    """A vault in some state, and the one thing that is done with it."""

    def __init__(self, state: State, verb: str, kms: KMS, store: KeyStore, blob: bytes) -> None:
        self.name = f"{state}, {verb}"
        self.state = state
        self._clock = ManualClock()
        self.vault = Vault(kms=kms, key_store=store, cache=CACHE, retries=RETRIES, clock=self._clock)
        self._tenant = TENANT if state is not State.FIRST else f"new {verb}"
        self._work: Callable[[], object] = partial(self._read, blob) if verb == "read" else self._write
        if state not in (State.COLD, State.FIRST):
            # Both keys and a block of messages, as a process has that has been at work.
            self._read(blob)
            self._write()

    def _read(self, blob: bytes) -> None:
        assert self.vault.decrypt(blob, field=FIELD, tenant=self._tenant) == "x"

    def _write(self) -> None:
        assert self.vault.encrypt("y", field=FIELD, tenant=self._tenant)

    def age(self) -> None:
        """Let as much time pass as the state says."""
        self._clock.advance(AGES[self.state])

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._clock.advance(seconds)

    def play(self) -> Outcome:
        """Do it, and tell what comes of it."""
        began = time.monotonic()
        what = SERVED
        try:
            self._work()
        except FieldVaultError as error:
            # A backend has classes of its own below those that callers know.
            what = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in errors.__all__)
        return Outcome(what, time.monotonic() - began)


def prepared(open_kms: Callable[[], KMS], open_store: Callable[[], KeyStore]) -> list[Cell]:
    """A cell for each state and verb, each with a process's own backends, over one key store."""
    with Vault(kms=open_kms(), key_store=open_store(), cache=CACHE) as vault:
        blob = vault.encrypt("x", field=FIELD, tenant=TENANT)
    cells = [
        Cell(state, verb, open_kms(), open_store(), blob)
        for state in State
        for verb in (("read", "write") if state is not State.FIRST else ("write",))
    ]
    for cell in cells:
        cell.age()
    return cells


def recovered(cells: list[Cell]) -> dict[str, str]:
    """What all of them meet when the failure is over; who was too slow may try again."""
    outcomes: dict[str, str] = {}
    for _ in range(5):
        for cell in cells:
            cell.advance(RETRIES.pause)
        outcomes = {name: outcome.what for name, outcome in played(cells).items()}
        if set(outcomes.values()) == {SERVED}:
            break
    return outcomes


def played(cells: list[Cell]) -> dict[str, Outcome]:
    """What all of them meet, at once."""
    outcomes = in_threads(len(cells), lambda index: cells[index].play())
    for outcome in outcomes:
        assert isinstance(outcome, Outcome), repr(outcome)
    return {cell.name: outcome for cell, outcome in zip(cells, outcomes, strict=True)}

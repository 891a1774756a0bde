"""The circuit breaker: what is out is left alone for a while, and nobody waits for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pybreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker

from fieldvault.errors import KMSUnavailable
from fieldvault.keys.clock import Clock
from fieldvault.keys.policy import RetryPolicy

__all__ = ["Admission", "Breaker", "Target"]

_MOST = 1024
"""Root keys in trouble that are remembered: there may be one a tenant, and records can name any."""

_SEVERAL = 2
"""Root keys that are out at once, at least, before that is taken for an outage of the KMS."""


class Target(NamedTuple):
    """What a call asks of: to wrap or to unwrap, by which root key, for which tenant."""

    operation: str
    root_key: str
    tenant: str


class Admission(NamedTuple):
    """What a call may ask for, and what it is for the breaker.

    ``trials`` are those targets that were left alone until now; ``turn`` is the outage of several that it
    has a turn in. Either is tried once. Of the ``refused`` ones nothing is asked.
    """

    refused: Mapping[Target, KMSUnavailable]
    trials: Collection[Target]
    turn: _Whole | None


class _Outage(Exception):
    """What a circuit is told of a call that found it unavailable."""


class _Circuit:
    """The circuit of ``pybreaker`` keeps count and state; here is the time."""

    __slots__ = ("_circuit", "since", "until")

    def __init__(self, failures: int) -> None:
        self._circuit = CircuitBreaker(fail_max=failures, throw_new_error_on_trip=False)
        self.since = datetime.now(UTC)
        self.until = 0.0

    @property
    def state(self) -> str:
        return self._circuit.current_state

    def begin_trial(self) -> None:
        self._circuit.half_open()

    def fail(self, until: float) -> None:
        """An outage. Where it opens, or is open, that is until then."""
        was_closed = self.state == STATE_CLOSED
        if self.state != STATE_OPEN:
            with suppress(_Outage):
                self._circuit.call(_raise_outage)
        if self.state == STATE_OPEN:
            self.until = until
            if was_closed:
                self.since = datetime.now(UTC)

    def is_due(self, now: float) -> bool:
        """Whether it is left alone, and has been for long enough."""
        return self.state == STATE_OPEN and self.until <= now

    def open(self, until: float) -> None:
        if self.state != STATE_OPEN:
            self._circuit.open()
            self.until = until


class _Whole:
    """The circuit of all root keys together, for one operation, and what speaks for an outage of the KMS."""

    __slots__ = ("circuit", "has_turn", "root_keys", "tenants")

    def __init__(self, failures: int) -> None:
        self.circuit = _Circuit(failures)
        self.has_turn = False
        self.root_keys: set[str] = set()
        self.tenants: set[str] = set()

    def is_news(self, target: Target) -> bool:
        """Whether neither its root key nor its tenant was among those that were found out so far.

        Every version of a tenant's own root key has a name.
        """
        if target.root_key in self.root_keys or target.tenant in self.tenants:
            return False
        self.root_keys.add(target.root_key)
        self.tenants.add(target.tenant)
        return True

    def end(self, until: float, *, is_whole: bool) -> None:
        """A turn is over; one of a root key that was not found out before, if it ``is_whole``."""
        if not is_whole:
            self.has_turn = False
        elif self.circuit.state == STATE_HALF_OPEN:
            self.circuit.fail(until)


class Breaker:
    """Leaves a root key alone after ``failures`` outages in a row; after each ``pause`` one call tries it.

    One root key's outage is nobody else's. Where as many root keys of as many tenants were found out with no
    answer in between it is taken for an outage of the KMS: then no root key is tried without a turn. One that
    was not found out itself gets one a ``pause``; the others take turns with each other, so they never take
    away the trial that would show that the rest works. Any answer ends that. Wrapping and unwrapping are told
    apart: there may be KMSs that can do one of them.

    The circuit of ``pybreaker`` would hold its lock over the call that it guards, and so let calls through
    one by one: here it hears of each call afterwards. ``tell`` is told of each change of the state, with
    nothing held.
    """

    def __init__(self, policy: RetryPolicy, *, clock: Clock, tell: Callable[[str], None]) -> None:
        self._policy = policy
        self._clock = clock
        self._tell = tell
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: a lock of its own; it finds out by itself how the KMS is."""
        self._lock = threading.Lock()
        self._own: OrderedDict[tuple[str, str], _Circuit] = OrderedDict()
        self._wholes: dict[str, _Whole] = {}

    @property
    def state(self) -> str:
        """``open`` while anything is left alone, ``half-open`` while one call tries it, else ``closed``."""
        with self._lock:
            return self._state()

    def admit(self, targets: Iterable[Target], *, proof: bool = False) -> Admission:
        """What the call that is about to begin may ask for; all targets are of one operation.

        Whoever is admitted says with ``note`` how it went, whatever happens. A ``proof`` goes by its own root
        key only: whether a permission was revoked is not for others' outages to hide.

        Raises:
            KMSUnavailable: all of it is left alone.
        """
        asked = set(targets)
        with self._lock:
            before = self._state()
            admission = self._admitted(asked, proof=proof)
            after = self._state()
        if after != before:
            self._tell(after)
        if len(admission.refused) == len(asked):
            raise next(iter(admission.refused.values()))
        return admission

    def note(self, admission: Admission, *, answered: Collection[Target], out: Collection[Target]) -> None:
        """How a call went: which of its targets were answered for, and which were found out.

        A trial that is among neither proved nothing, and the pause begins anew.
        """
        with self._lock:
            before = self._state()
            until = self._clock() + self._policy.pause
            for target in answered:
                self._own.pop((target.operation, target.root_key), None)
                self._wholes.pop(target.operation, None)
            for target in out:
                self._found_out(target, until, admission, speaks=not answered)
            for target in admission.trials:
                own = self._own.get((target.operation, target.root_key))
                if own is not None and own.state == STATE_HALF_OPEN:
                    own.fail(until)
            if admission.turn is not None:
                admission.turn.end(until, is_whole=not admission.trials)
            after = self._state()
        if after != before:
            self._tell(after)

    def _admitted(self, asked: Collection[Target], *, proof: bool) -> Admission:
        now = self._clock()
        refused: dict[Target, KMSUnavailable] = {}
        due: set[Target] = set()
        for target in asked:
            own = self._own.get((target.operation, target.root_key))
            if own is None or own.state == STATE_CLOSED:
                continue
            if own.is_due(now):
                due.add(target)
            else:
                refused[target] = _refusal(own, now, " for this root key" if target.root_key else "")
        turn: _Whole | None = None
        whole = self._wholes.get(next(iter(asked)).operation)
        if whole is not None and whole.circuit.state != STATE_CLOSED and not proof:
            fresh = {target for target in asked if (target.operation, target.root_key) not in self._own}
            admitted: set[Target] = set()
            if fresh and whole.circuit.is_due(now):
                whole.circuit.begin_trial()
                turn, admitted, due = whole, fresh, set()
            elif due and not whole.has_turn:
                whole.has_turn = True
                turn, admitted = whole, due
            refusal = _refusal(whole.circuit, now, "")
            refused.update((target, refusal) for target in asked if target not in admitted)
        trials = due - refused.keys()
        for target in trials:
            self._own[target.operation, target.root_key].begin_trial()
        return Admission(refused, trials, turn)

    def _found_out(self, target: Target, until: float, admission: Admission, *, speaks: bool) -> None:
        place = target.operation, target.root_key
        own = self._own.get(place)
        if own is not None and own.state != STATE_CLOSED and target not in admission.trials:
            # It began before the circuit opened, and is no news.
            return
        if own is None:
            own = self._own[place] = _Circuit(self._policy.failures)
            while len(self._own) > _MOST:
                self._own.popitem(last=False)
        own.fail(until)
        if target.root_key:
            self._count(target, own, until, speaks=speaks)

    def _count(self, target: Target, own: _Circuit, until: float, *, speaks: bool) -> None:
        """What the outage of a root key that is not the only one says of the KMS."""
        whole = self._wholes.get(target.operation)
        if whole is None:
            if not speaks:
                # The same call brought an answer.
                return
            whole = self._wholes[target.operation] = _Whole(max(self._policy.failures, _SEVERAL))
        if whole.circuit.state != STATE_CLOSED:
            # Once is enough while the others are out, too.
            own.open(until)
        elif whole.is_news(target):
            whole.circuit.fail(until)
            if whole.circuit.state == STATE_OPEN:
                for (operation, _), each in self._own.items():
                    if operation == target.operation:
                        each.open(until)

    def _state(self) -> str:
        circuits = [*self._own.values(), *(whole.circuit for whole in self._wholes.values())]
        states = {circuit.state for circuit in circuits}
        return next((state for state in (STATE_HALF_OPEN, STATE_OPEN) if state in states), STATE_CLOSED)


def _raise_outage() -> None:
    raise _Outage


def _refusal(circuit: _Circuit, now: float, of_what: str) -> KMSUnavailable:
    since = f"the KMS has been unavailable{of_what} since {_moment(circuit.since)}"
    remaining = circuit.until - now
    if remaining <= 0:
        return KMSUnavailable(f"{since}; one call is trying it now, and until that is back nobody else does")
    until = datetime.now(UTC) + timedelta(seconds=remaining)
    return KMSUnavailable(f"{since}, and is left alone until {_moment(until)}")


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

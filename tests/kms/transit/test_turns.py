"""Turns at one server: how long threads wait for one, and for a server that does not answer."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from fieldvault import CachePolicy, Vault
from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.policy import RetryPolicy
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit.turns import Turns
from fieldvault.testing.samples import in_a_fork, together
from tests.kms.transit.conftest import Tenancy
from tests.servers.proxy import Delay, Hang, Proxy

CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))
FIELD = "customers.email"
THREADS = 64
CONNECT, READ = 0.2, 0.6
TIMEOUT = CONNECT + READ
MARGIN = 0.6
"""Seconds that 64 threads on a busy machine may be late."""
Open = Callable[..., TransitKMS]


@pytest.fixture
def proxy(tenancy: Tenancy) -> Iterator[Proxy]:
    """What stands before the server."""
    made = Proxy(tenancy.server.port)
    yield made
    made.close()


@pytest.fixture
def kms(open_kms: Open, proxy: Proxy) -> TransitKMS:
    """Impatient, with few connections, and logged in."""
    opened = open_kms(url=proxy.url, connect_timeout=CONNECT, read_timeout=READ, pool_size=4)
    opened.check()
    return opened


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    began = time.monotonic()
    met: object
    try:
        met = call()
    except KMSError as error:
        met = error
    return time.monotonic() - began, met


def test_threads_wait_for_a_server_that_hangs_one_timeout_and_not_in_a_row(
    kms: TransitKMS, proxy: Proxy
) -> None:
    """However many there are for each connection; and no turn is lost by it."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    unwrap = partial(kms.unwrap, wrapped, context=CONTEXT)
    with proxy.meeting(Hang()):
        ends = together([partial(_timed, unwrap)] * THREADS)
    assert {type(met) for _, met in ends} == {KMSUnavailable}
    assert max(seconds for seconds, _ in ends) < TIMEOUT + MARGIN
    unanswered = [met for _, met in ends if "no answer in time" in str(met)]
    assert 4 <= len(unanswered) < THREADS
    assert kms._engine.connection._turns._free == 4
    assert together([unwrap] * 4) == [KEY] * 4


def test_there_are_no_more_connections_than_the_pool_holds(tenancy: Tenancy, open_kms: Open) -> None:
    """However many threads ask; they wait for one another, and each connection is used again."""
    kms = open_kms(pool_size=2)
    wrapped = kms.wrap(KEY, context=CONTEXT)
    before = tenancy.server.audit_mark()

    def work() -> None:
        for _ in range(5):
            assert kms.unwrap(wrapped, context=CONTEXT) == KEY

    together([work] * 8)
    assert len({entry["request"]["remote_port"] for entry in tenancy.server.audited(before)}) <= 2


def test_who_waits_gives_up_with_the_first_that_got_no_answer(open_kms: Open, proxy: Proxy) -> None:
    """A server that hangs is asked as often as there are connections, and no more."""
    kms = open_kms(url=proxy.url, connect_timeout=2.7, read_timeout=0.3, pool_size=4)
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with proxy.meeting(Hang()):
        ends = together([partial(_timed, partial(kms.unwrap, wrapped, context=CONTEXT))] * 24)
    assert all("no answer in time" in str(met) for _, met in ends)
    assert max(seconds for seconds, _ in ends) < 0.3 + MARGIN


def test_what_was_waited_is_taken_off_the_timeouts(kms: TransitKMS) -> None:
    """So that both together take no longer than the time-outs."""
    connection = kms._engine.connection
    given: list[tuple[float, float]] = []
    begun, enough = threading.Barrier(5), threading.Event()

    def hold(_adapter: object) -> None:
        begun.wait()
        enough.wait()

    def ask(adapter: Any) -> None:
        given.append(adapter._kwargs["timeout"])

    threads = [threading.Thread(target=connection.ask, args=(hold,)) for _ in range(4)]
    for each in threads:
        each.start()
    begun.wait()
    late = threading.Thread(target=connection.ask, args=(ask,))
    began = time.monotonic()
    late.start()
    late.join(0.2)
    enough.set()
    for each in (*threads, late):
        each.join()
    waited = time.monotonic() - began
    connection.ask(ask)
    (connect, read), whole = given
    assert whole == (CONNECT, READ)
    assert TIMEOUT - waited <= connect + read <= TIMEOUT - 0.15
    assert connect / read == pytest.approx(CONNECT / READ)


def test_a_page_of_threads_fails_within_the_deadline_and_a_timeout(open_kms: Open, proxy: Proxy) -> None:
    """As docs/outages.md has it, with a cold tenant for each of 64 threads."""
    store, deadline = MemoryKeyStore(), 0.3
    with Vault(kms=open_kms(), key_store=store) as vault:
        blobs = {
            f"t{number}": vault.encrypt("x", field=FIELD, tenant=f"t{number}") for number in range(THREADS)
        }
    kms = open_kms(url=proxy.url, connect_timeout=CONNECT, read_timeout=READ)
    kms.check()
    cache, retries = CachePolicy(refresh_ahead=0), RetryPolicy(deadline=deadline)
    with Vault(kms=kms, key_store=store, cache=cache, retries=retries) as vault:
        reads = [
            partial(_timed, partial(vault.decrypt, blob, field=FIELD, tenant=tenant))
            for tenant, blob in blobs.items()
        ]
        with proxy.meeting(Hang()):
            ends = together(reads)
    assert {type(met) for _, met in ends} == {KMSUnavailable}
    assert max(seconds for seconds, _ in ends) < deadline + TIMEOUT + MARGIN


def test_a_server_that_is_slow_serves_whoever_waits(kms: TransitKMS, proxy: Proxy) -> None:
    """To wait for a connection is no failure as long as there are answers."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with proxy.meeting(Delay(0.05)):
        assert together([partial(kms.unwrap, wrapped, context=CONTEXT)] * 16) == [KEY] * 16


def test_a_child_waits_for_none_of_its_parents_threads(kms: TransitKMS, proxy: Proxy) -> None:
    """They are not there to give their turns back."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    asking = [
        threading.Thread(target=_timed, args=(partial(kms.unwrap, wrapped, context=CONTEXT),))
        for _ in range(8)
    ]
    with proxy.meeting(Hang()):
        for each in asking:
            each.start()
        while kms._engine.connection._turns._free:
            time.sleep(0.001)

        def child() -> None:
            assert kms._engine.connection._turns._free == 4

        in_a_fork(child)
        for each in asking:
            each.join()


class TestTurns:
    """One turn, which somebody has; in each test others want it."""

    @pytest.fixture
    def turns(self) -> Turns:
        """One at a time."""
        return Turns(1)

    @staticmethod
    def _wanting(turns: Turns, outcomes: list[object], limit: float = 10) -> threading.Thread:
        """A thread that waits by the time this returns; it notes what it met."""
        waiting = len(turns._waiting)

        def want() -> None:
            try:
                with turns.turn(limit) as waited:
                    outcomes.append(waited)
            except KMSUnavailable as error:
                outcomes.append(error)

        thread = threading.Thread(target=want)
        thread.start()
        while len(turns._waiting) == waiting and thread.is_alive():
            time.sleep(0.001)
        return thread

    def test_who_came_first_is_first(self, turns: Turns) -> None:
        """Also before somebody who comes when a turn ends; what they waited is told."""
        order: list[int] = []

        def want(number: int) -> None:
            with turns.turn(10) as waited:
                assert waited > 0
                order.append(number)

        threads = []
        with turns.turn(0) as waited:
            assert waited == 0
            for number in range(5):
                threads.append(threading.Thread(target=want, args=(number,)))
                threads[-1].start()
                while len(turns._waiting) <= number:
                    time.sleep(0.001)
        for each in threads:
            each.join()
        assert order == [0, 1, 2, 3, 4]
        assert turns._free == 1

    def test_who_waited_long_enough_gives_up(self, turns: Turns) -> None:
        """And is not called later: the turn goes to the next one."""
        outcomes: list[object] = []
        with turns.turn(0):
            with (
                pytest.raises(KMSUnavailable, match="all 1 connections to the KMS are in use"),
                turns.turn(0.01),
            ):
                pytest.fail("there were two turns")
            following = self._wanting(turns, outcomes)
        following.join()
        assert isinstance(outcomes[0], float)
        assert turns._free == 1

    def test_what_is_called_off_is_met_by_all_who_wait_and_by_nobody_else(self, turns: Turns) -> None:
        """Each raises an error of its own."""
        outcomes: list[object] = []
        with turns.turn(0):
            waiting = [self._wanting(turns, outcomes) for _ in range(3)]
            outage = KMSUnavailable("no answer in time")
            turns.call_off(outage)
            for each in waiting:
                each.join()
            late = self._wanting(turns, outcomes)
        late.join()
        assert [str(each) for each in outcomes[:3]] == ["no answer in time"] * 3
        assert len({id(each) for each in (*outcomes[:3], outage)}) == 4
        assert isinstance(outcomes[3], float)
        assert turns._free == 1

    def test_who_is_called_in_the_moment_of_giving_up_begins(
        self, turns: Turns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And the turn is not lost."""

        def give_up(_future: object, _limit: float) -> None:
            monkeypatch.undo()
            turns._end()
            raise TimeoutError

        turns._free = 0
        monkeypatch.setattr("fieldvault.kms.transit.turns.Future.result", give_up)
        with turns.turn(10):
            assert turns._free == 0
        assert turns._free == 1

    @pytest.mark.parametrize("called", [False, True])
    def test_who_is_interrupted_keeps_no_turn(
        self, turns: Turns, monkeypatch: pytest.MonkeyPatch, called: bool
    ) -> None:
        """Neither one that it waits for, nor one that it was just given."""

        class Interrupted(BaseException):
            """What a signal's handler raises."""

        def interrupt(_future: object, _limit: float | None = None) -> None:
            monkeypatch.undo()
            if called:
                turns._end()
            raise Interrupted

        turns._free = 0
        monkeypatch.setattr("fieldvault.kms.transit.turns.Future.result", interrupt)
        with pytest.raises(Interrupted), turns.turn(10):
            pytest.fail("it was interrupted")
        if not called:
            turns._end()
        assert turns._free == 1

    def test_an_error_in_a_turn_ends_it(self, turns: Turns) -> None:
        """Whatever it is."""
        with pytest.raises(ValueError, match="x"), turns.turn(0):
            raise ValueError("x")
        assert turns._free == 1

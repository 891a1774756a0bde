"""KMS backends are asked as promised, what they were asked is counted, and what is missing is named."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import backends, servers
from benchmarks.contenders import TEXT, VAULTS, Contender, Opened
from benchmarks.key_peers import KEY_PEERS
from benchmarks.report import Row
from benchmarks.servers import Abreast, Servers
from tests.servers.parts import MOTO, OPENBAO, SOFTHSM, Part
from tests.servers.record import PartsRecord
from tests.servers.tcp import port_owner

PARTS = {"PKCS11KMS, SoftHSM": SOFTHSM, "TransitKMS, OpenBao": OPENBAO, "AWSKMS, moto": MOTO}
MULTI = "MultiKMS, OpenBao then moto"

StandIn = Callable[[Contender], None]

measured = partial(backends.backend_rows, tenants=40, row=3, cold=2, warm=5, callers=4)


class Fake:
    """A KMS that answers with a text, and counts what it is asked."""

    def __init__(self, answer: str = TEXT, fetch: Callable[[Sequence[str]], object] = list) -> None:
        self.answer = answer
        self.fetch = fetch
        self.requests = 0

    def ask(self, *_: object) -> str:
        """One request."""
        self.requests += 1
        return self.answer

    async def aask(self, *_: object) -> str:
        """One request of a coroutine."""
        return self.ask()

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """Whoever asks for each value."""
        yield Opened(self.ask, self.ask, lambda: self.requests, aopen=self.aask, fetch=self.fetch)


class Client:
    """As much of an AWS client as can be watched."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., None]] = {}
        self.meta = SimpleNamespace(events=SimpleNamespace(register=self.handlers.__setitem__))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A function that has a contender measured in place of all others."""

    def put(contender: Contender) -> None:
        monkeypatch.setattr(backends, "KEY_PEERS", {})
        monkeypatch.setattr(backends, "VAULTS", {"fake": lambda *_: contender})

    return put


@pytest.mark.parametrize("kms", VAULTS)
def test_each_kms_is_asked_cold_and_warm_by_a_herd_and_for_a_page(
    rows: list[dict[str, Any]], real_parts: PartsRecord, kms: str
) -> None:
    """Every figure is there for each that is installed; the run itself compares what comes back."""
    for part in (OPENBAO, MOTO) if kms == MULTI else [PARTS[kms]] if kms in PARTS else []:
        real_parts.require(part)
    own = {
        row["what"].removeprefix(f"{kms}, "): row
        for row in rows
        if row["what"].startswith(f"{kms}, ") and row["measured"]
    }
    keys = {f"{state} key, {work}" for state in ("cold", "warm") for work in ("sealed", "opened")}
    page = {"3 one by one", "10 after vault.prefetch"}
    others = {"the first value of a process, sealed", "the KMS by itself, unwrapping", "threads", "tasks"}
    assert own.keys() == keys | page | others
    assert all(row["figure"] > 0 for row in own.values())
    assert {own[kind]["figure"] for kind in ("threads", "tasks")} == {1}


def test_a_page_of_cold_tenants_is_a_batch_or_requests_side_by_side(
    rows: list[dict[str, Any]], real_parts: PartsRecord
) -> None:
    """As the servers count; one after the other the same tenants are a request each."""
    for part in (OPENBAO, MOTO):
        real_parts.require(part)
    counted = {
        (row["what"], row["unit"]): row for row in rows if row["unit"] in ("requests", "waits in a row")
    }
    for kms, requests in {"LocalKMS": 1, "TransitKMS, OpenBao": 1, "AWSKMS, moto": 10}.items():
        assert counted[f"{kms}, 10 after vault.prefetch", "requests"]["figure"] == requests
        assert counted[f"{kms}, 3 one by one", "requests"]["figure"] == 3
    waits = counted["AWSKMS, moto, 10 after vault.prefetch", "waits in a row"]
    assert 1 <= waits["figure"] < 10, "the KMS was not asked side by side at all"


@pytest.mark.parametrize("peer", [*KEY_PEERS, "AWS Encryption SDK", "Asherah"])
def test_each_peer_with_keys_is_asked_or_says_what_is_missing(rows: list[dict[str, Any]], peer: str) -> None:
    """Their libraries are installed for ``make bench`` alone."""
    own = [row for row in rows if row["what"] == peer or row["what"].startswith(f"{peer}, ")]
    assert own
    absent = [row["note"] for row in own if row["figure"] is None]
    if absent:
        pytest.skip(absent[0])
    assert all(row["figure"] > 0 for row in own)


def test_whoever_asks_for_each_value_misses_the_budgets(stand_in: StandIn) -> None:
    """What is counted is what the KMS saw, and not what was hoped for."""
    stand_in(Contender(Fake().opened, requests=lambda _: 1))
    counted = {row.what: (row.figure, row.met) for row in measured() if row.unit == "requests"}
    assert counted == {
        "fake, threads": (4, False),
        "fake, tasks": (4, False),
        "fake, 3 one by one": (3, None),
        "fake, 40 after vault.prefetch": (40, False),
    }


@pytest.mark.parametrize(("at_once", "met"), [(1, False), (13, False), (16, True)])
def test_a_kms_without_batches_is_held_to_sixteen_requests_at_once(
    stand_in: StandIn, at_once: int, met: bool
) -> None:
    """The waits in a row are those of as many requests as were under way together."""
    abreast, client = Abreast(), Client()
    abreast.watch(client)

    def fetch(tenants: Sequence[str]) -> None:
        for first in range(0, len(tenants), at_once):
            for event in ("before-call.kms", "after-call.kms"):
                for _ in tenants[first : first + at_once]:
                    client.handlers[event](event_name=event)

    stand_in(Contender(Fake(fetch=fetch).opened, requests=int, abreast=abreast))
    (waits,) = [row for row in measured() if row.unit == "waits in a row"]
    assert (waits.figure, waits.met) == (-(-40 // at_once), met)
    assert waits.note == f"{at_once} requests at once"


def test_a_value_that_comes_back_as_another_is_no_figure(stand_in: StandIn) -> None:
    """The run ends."""
    stand_in(Contender(Fake("another").opened))
    with pytest.raises(AssertionError, match="another than it went in"):
        list(measured())


def test_a_server_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line says what to install, and the others are measured."""
    absent = Part("Absent", python_package="absent-server", executables=("absent",))
    for name in ("OPENBAO", "MOTO", "SOFTHSM"):
        monkeypatch.setattr(servers, name, absent)
    monkeypatch.setattr(backends, "KEY_PEERS", {})
    rows: list[Row] = list(measured())
    skipped = {row.what: row.note for row in rows if row.figure is None}
    assert skipped == dict.fromkeys([*PARTS, MULTI], "absent not installed; Python package absent-server")
    assert any(row.what.startswith("LocalKMS, ") for row in rows)


def test_what_was_started_ends_with_its_stack(real_parts: PartsRecord) -> None:
    """No server, no folder and no variable of the environment is left."""
    for part in (SOFTHSM, OPENBAO):
        real_parts.require(part)
    before = dict(os.environ)
    with ExitStack() as stack:
        started = Servers(stack)
        assert started.softhsm.is_file()
        configuration = Path(os.environ["SOFTHSM2_CONF"])
        assert port_owner(started.openbao.port) == started.openbao.process.pid
    assert port_owner(started.openbao.port) is None
    assert not configuration.parent.exists()
    assert os.environ == before

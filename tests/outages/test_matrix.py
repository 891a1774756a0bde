"""The matrix of docs/outages.md, cell by cell, against real servers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from fieldvault import Vault
from fieldvault.errors import KMSKeyDisabled
from fieldvault.keys import protocols
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import ManualClock
from tests.keys.parties import FIELD
from tests.outages import matrix
from tests.outages.aws import AWSLab
from tests.outages.cells import (
    CACHE,
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
from tests.outages.local import root_key_file
from tests.outages.matrix import SERVED, Row, State
from tests.outages.transit import TransitLab
from tests.servers.ministack import MinistackServer
from tests.servers.moto import CREDENTIALS, MotoServer
from tests.servers.openbao import OpenBaoServer

FINAL = {"killed", "expired_token", "deleted"}
"""What does not come back by itself on OpenBao."""


class Lab(NamedTuple):
    """A backend whose failures can be ordered."""

    open: Callable[[], protocols.KMS]
    failure: Callable[[str], AbstractContextManager[None]]


def rows(backend: str) -> Sequence[object]:
    """The rows of a backend as parameters."""
    return [pytest.param(row, id=row.failure) for row in matrix.KMS if row.backend == backend]


def holds(row: Row, lab: Lab, *, comes_back: bool = True) -> list[Cell]:
    """Play all cells of a row, compare, and see that they work again when the failure is over."""
    store = MemoryKeyStore()

    def open_store() -> protocols.KeyStore:
        return store

    cells = prepared(lab.open, open_store)
    with lab.failure(row.played):
        outcomes = played(cells)
    compare(row, cells, outcomes)
    if comes_back:
        assert recovered(cells) == {cell.name: SERVED for cell in cells}
    return cells


def compare(row: Row, cells: Sequence[Cell], outcomes: dict[str, Outcome]) -> None:
    """See that each cell met what the row says, in time."""
    told = {name: outcome.what for name, outcome in outcomes.items()}
    assert told == {cell.name: row.expected(cell.state) for cell in cells}
    limits = {
        matrix.TRIES: RETRIES.deadline + 2 * TIMEOUT,
        matrix.ANSWER: 2 * TIMEOUT,
        matrix.AT_ONCE: 0.0,
        matrix.ONCE: 2 * TIMEOUT + CONNECT,
    }
    late = {
        name: each.seconds for name, each in outcomes.items() if each.seconds > limits[row.within] + MARGIN
    }
    assert late == {}


def timeout_of(row: Row) -> float:
    """A short one where it is waited out."""
    return TIMEOUT if row.played in SILENT else PATIENCE


@pytest.fixture
def transit(openbao_server: OpenBaoServer) -> Iterator[TransitLab]:
    """Yield a transit key of a test's own."""
    with closing(TransitLab(openbao_server, PATIENCE)) as lab:
        yield lab


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What AWS's standard chain finds, and nothing of this machine's."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name.upper(), value)


@pytest.mark.parametrize("row", rows("TransitKMS"))
def test_transit(row: Row, request: pytest.FixtureRequest) -> None:
    """On OpenBao; one that is killed is the test's own."""
    if row.played == "killed":
        with OpenBaoServer() as server, closing(TransitLab(server, PATIENCE)) as lab:
            holds(row, Lab(lab.open, lab.failure), comes_back=False)
        return
    server = request.getfixturevalue("openbao_server")
    with closing(TransitLab(server, timeout_of(row))) as lab:
        if row.played == "expired_login":
            lab.log_in_by_role()
        holds(row, Lab(lab.open, lab.failure), comes_back=row.played not in FINAL)


@pytest.mark.parametrize("row", rows("AWSKMS"))
def test_aws(row: Row, request: pytest.FixtureRequest) -> None:
    """On moto, and where the state of a key matters on MiniStack."""
    server: MotoServer | MinistackServer = request.getfixturevalue(
        "ministack_server" if row.played in {"disabled", "deleted"} else "moto_server"
    )
    # The SDK slows a client down that was throttled: each process has its own there.
    with closing(AWSLab(server, timeout_of(row), shares_client=row.played != "throttled")) as lab:
        holds(row, Lab(lab.open, lab.failure))


@pytest.mark.parametrize("row", rows("LocalKMS"))
def test_local(row: Row, tmp_path: Path) -> None:
    """With the file open in every process."""
    path = tmp_path / "root.keys"
    LocalKMS.create(path)
    holds(row, Lab(lambda: LocalKMS(path), lambda played: root_key_file(played, path)))


def test_a_tenants_own_root_key_stops_that_tenant_within_the_lease(transit: TransitLab) -> None:
    """And no other one, whoever is used first."""
    clock = ManualClock()
    kms = transit.open(dedicated=True)
    with Vault(kms=kms, key_store=MemoryKeyStore(), cache=CACHE, retries=RETRIES, clock=clock) as vault:
        blobs = {tenant: vault.encrypt("x", field=FIELD, tenant=tenant) for tenant in ("a", "b")}
        transit.end_tenant("b")
        assert vault.decrypt(blobs["b"], field=FIELD, tenant="b") == "x"
        clock.advance(CACHE.lease)
        assert vault.decrypt(blobs["a"], field=FIELD, tenant="a") == "x"
        with pytest.raises(KMSKeyDisabled):
            vault.decrypt(blobs["b"], field=FIELD, tenant="b")
        assert vault.decrypt(blobs["a"], field=FIELD, tenant="a") == "x"


def test_the_circuit_breaker_spares_a_server_that_is_out(transit: TransitLab) -> None:
    """After three calls in vain nobody asks, and nobody waits, until the pause is over."""
    store = MemoryKeyStore()
    (spent,) = (cell for cell in prepared(transit.open, lambda: store) if cell.name == f"{State.SPENT}, read")
    with transit.proxy.refusing():
        for _ in range(RETRIES.failures):
            assert spent.play().what == "KMSUnavailable"
        before = spent.vault.stats()
        assert (before.breaker, before.refused) == ("open", 0)
        assert spent.play().what == "KMSUnavailable"
        after = spent.vault.stats()
        assert (after.kms.calls, after.refused) == (before.kms.calls, 1)
    spent.advance(RETRIES.pause)
    assert spent.play().what == SERVED
    assert spent.vault.stats().breaker == "closed"

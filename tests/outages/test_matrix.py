"""The matrix of docs/outages.md, cell by cell, against real servers."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.errors import KMSKeyDisabled
from fieldvault.keys.protocols import KeyStore
from fieldvault.keystores import MemoryKeyStore
from fieldvault.testing.fakes import ManualClock
from tests.keys.parties import FIELD
from tests.outages.aws import AWSLab
from tests.outages.cells import CACHE, PATIENCE, RETRIES, played, prepared
from tests.outages.local import FileLab
from tests.outages.matrix import AWS, LOCAL, MULTI, PKCS11, SERVED, TRANSIT, Row, State
from tests.outages.members import MembersLab
from tests.outages.playing import holds, params, timeout_of
from tests.outages.standby import StandbyLab
from tests.outages.tokens import TokenLab
from tests.outages.transit import TransitLab
from tests.servers.ministack import MinistackServer
from tests.servers.moto import MotoServer
from tests.servers.openbao import OpenBaoServer
from tests.servers.openbao_cluster import OpenBaoCluster
from tests.servers.softhsm import SoftHSM

OpenStore = Callable[[], KeyStore]


@pytest.fixture
def open_store() -> OpenStore:
    """One key store for all of a row's processes, which never fails."""
    store = MemoryKeyStore()
    return lambda: store


@pytest.fixture
def transit(openbao_server: OpenBaoServer) -> Iterator[TransitLab]:
    """Yield a transit key of a test's own."""
    with closing(TransitLab(openbao_server, PATIENCE)) as lab:
        yield lab


@pytest.mark.parametrize("row", params(TRANSIT))
def test_transit(row: Row, request: pytest.FixtureRequest, open_store: OpenStore) -> None:
    """On OpenBao; one that is killed is the test's own."""
    if row.played == "killed":
        with OpenBaoServer() as server, closing(TransitLab(server, PATIENCE)) as lab:
            holds(row, lab, lab.open, open_store, comes_back=False)
        return
    if row.played.startswith(("standby", "reader")):
        cluster = request.getfixturevalue("openbao_cluster")
        with closing(StandbyLab(cluster, timeout_of(row), reads=row.played.startswith("reader"))) as lab:
            holds(row, lab, lab.open, open_store)
        return
    with closing(TransitLab(request.getfixturevalue("openbao_server"), timeout_of(row))) as lab:
        if row.played == "expired_login":
            lab.log_in_by_role()
        holds(row, lab, lab.open, open_store, comes_back=row.played not in {"expired_token", "deleted"})


@pytest.mark.parametrize("row", params(AWS))
def test_aws(row: Row, request: pytest.FixtureRequest, open_store: OpenStore) -> None:
    """On moto, and where the state of a key matters on MiniStack."""
    server: MotoServer | MinistackServer = request.getfixturevalue(
        "ministack_server" if row.played in {"disabled", "deleted"} else "moto_server"
    )
    # The SDK slows a client down that was throttled: each process has its own there.
    with closing(AWSLab(server, timeout_of(row), shares_client=row.played != "throttled")) as lab:
        holds(row, lab, lab.open, open_store)


@pytest.mark.parametrize("row", params(PKCS11))
def test_pkcs11(row: Row, softhsm: SoftHSM, open_store: OpenStore) -> None:
    """In a token of SoftHSM."""
    with closing(TokenLab(softhsm)) as lab:
        holds(row, lab, lab.open, open_store, comes_back=row.played not in {"deleted", "swapped"})


@pytest.mark.parametrize("row", params(MULTI))
def test_multi(row: Row, transit: TransitLab, request: pytest.FixtureRequest, open_store: OpenStore) -> None:
    """On OpenBao first, and then on MiniStack, or moto, which enforces policies."""
    server: MotoServer | MinistackServer = request.getfixturevalue(
        "moto_server" if row.played.endswith("denied") else "ministack_server"
    )
    with closing(AWSLab(server, PATIENCE, shares_client=True)) as second:
        lab = MembersLab(transit, second, required=1 if row.played.endswith("required") else 2)
        holds(row, lab, lab.open, open_store, comes_back=row.played not in {"one_deleted", "all_gone"})


@pytest.mark.parametrize("row", params(LOCAL))
def test_local(row: Row, tmp_path: Path, open_store: OpenStore) -> None:
    """With the file open in every process."""
    lab = FileLab(tmp_path / "root.keys")
    holds(row, lab, lab.open, open_store)


def test_a_tenants_own_root_key_stops_that_tenant_within_the_lease(transit: TransitLab) -> None:
    """And no other one, whoever is used first."""
    clock = ManualClock()
    kms = transit.open(dedicated=True)
    with Vault(kms=kms, key_store=MemoryKeyStore(), cache=CACHE, retries=RETRIES, clock=clock) as vault:
        for tenant in ("a", "b"):
            transit.begin_tenant(tenant)
        blobs = {tenant: vault.encrypt("x", field=FIELD, tenant=tenant) for tenant in ("a", "b")}
        transit.end_tenant("b")
        assert vault.decrypt(blobs["b"], field=FIELD, tenant="b") == "x"
        clock.advance(CACHE.lease)
        assert vault.decrypt(blobs["a"], field=FIELD, tenant="a") == "x"
        with pytest.raises(KMSKeyDisabled):
            vault.decrypt(blobs["b"], field=FIELD, tenant="b")
        assert vault.decrypt(blobs["a"], field=FIELD, tenant="a") == "x"


def test_a_standby_that_is_cut_off_says_what_it_last_heard(
    openbao_cluster: OpenBaoCluster, open_store: OpenStore
) -> None:
    """A policy that was withdrawn meanwhile goes on there."""
    with closing(StandbyLab(openbao_cluster, PATIENCE, reads=True)) as lab:
        cells = [cell for cell in prepared(lab.open, open_store) if cell.state is not State.FIRST]
        with lab.failure("reader_cut_off"):
            outcomes = played(cells)
    assert {outcome.what for outcome in outcomes.values()} == {SERVED}


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

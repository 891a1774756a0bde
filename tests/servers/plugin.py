"""The pytest plugin: lazy servers for a whole run, a fresh database for each test, the closing lines."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.mariadb import MariaDBServer
from tests.servers.ministack import MinistackServer
from tests.servers.moto import MotoServer
from tests.servers.openbao import OpenBaoServer
from tests.servers.openbao_cluster import OpenBaoCluster
from tests.servers.parts import MARIADB, MINISTACK, MOTO, OPENBAO, POSTGRESQL, SOFTHSM, SQLITE
from tests.servers.postgresql import PostgreSQLServer
from tests.servers.record import REQUIRE_ALL, PartsRecord
from tests.servers.softhsm import SoftHSM

RECORD = pytest.StashKey[PartsRecord]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Several runs are told of together."""
    parser.addoption("--save-parts", type=Path, metavar="FILE", help="keep the record of real parts there")


def pytest_configure(config: pytest.Config) -> None:
    """Start the run's record."""
    config.stash[RECORD] = PartsRecord()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of the whole suite that left out a part although all are required.

    Of a run that is one of several, ``tests.servers.closing`` judges.
    """
    record = session.config.stash[RECORD]
    saved: Path | None = session.config.getoption("--save-parts")
    if saved is not None:
        record.save(saved)
    whole_suite = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    judged = record.require_all and whole_suite and saved is None
    if judged and record.untouched() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the tests talked to."""
    record = config.stash[RECORD]
    for line in record.closing_lines():
        terminalreporter.write_line(line)
    if record.require_all and record.untouched() and config.getoption("--save-parts") is None:
        terminalreporter.write_line(
            f"{REQUIRE_ALL}=1, yet not exercised: {', '.join(record.untouched())}", red=True
        )


@pytest.fixture(scope="session")
def real_parts(request: pytest.FixtureRequest) -> PartsRecord:
    """Record what this run talks to; a fixture of a new part asks it for leave."""
    return request.config.stash[RECORD]


@pytest.fixture(scope="session")
def postgresql_server(real_parts: PartsRecord) -> Iterator[PostgreSQLServer]:
    """Run one PostgreSQL for the whole run."""
    real_parts.require(POSTGRESQL)
    with PostgreSQLServer() as server:
        real_parts.exercised[POSTGRESQL.name] = server.version
        yield server


@pytest.fixture(scope="session")
def mariadb_server(real_parts: PartsRecord) -> Iterator[MariaDBServer]:
    """Run one MariaDB for the whole run."""
    real_parts.require(MARIADB)
    with MariaDBServer() as server:
        real_parts.exercised[MARIADB.name] = server.version
        yield server


@pytest.fixture(scope="session")
def openbao_server(real_parts: PartsRecord) -> Iterator[OpenBaoServer]:
    """Run one OpenBao for the whole run."""
    real_parts.require(OPENBAO)
    with OpenBaoServer() as server:
        real_parts.exercised[OPENBAO.name] = server.version
        yield server


@pytest.fixture(scope="session")
def openbao_cluster(real_parts: PartsRecord) -> Iterator[OpenBaoCluster]:
    """Run one OpenBao of several nodes for the whole run."""
    real_parts.require(OPENBAO)
    with OpenBaoCluster() as cluster:
        real_parts.exercised[OPENBAO.name] = cluster.version
        yield cluster


@pytest.fixture(scope="session")
def moto_server(real_parts: PartsRecord) -> Iterator[MotoServer]:
    """Run one moto for the whole run."""
    real_parts.require(MOTO)
    with MotoServer() as server:
        real_parts.exercised[MOTO.name] = server.version
        yield server


@pytest.fixture(scope="session")
def ministack_server(real_parts: PartsRecord) -> Iterator[MinistackServer]:
    """Run one MiniStack for the whole run."""
    real_parts.require(MINISTACK)
    with MinistackServer() as server:
        real_parts.exercised[MINISTACK.name] = server.version
        yield server


@pytest.fixture(scope="session")
def softhsm(real_parts: PartsRecord) -> Iterator[SoftHSM]:
    """Have one SoftHSM, with a token, for the whole run."""
    real_parts.require(SOFTHSM)
    with SoftHSM() as tokens:
        real_parts.exercised[SOFTHSM.name] = tokens.version
        yield tokens


@pytest.fixture
def sqlite_url(real_parts: PartsRecord, tmp_path: Path) -> str:
    """Return the URL of an SQLite database file that does not exist yet."""
    real_parts.exercised[SQLITE.name] = sqlite3.sqlite_version
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """Yield the URL of a fresh, empty PostgreSQL database."""
    with postgresql_server.fresh_database() as url:
        yield url


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """Yield the URL of a fresh, empty MariaDB database."""
    with mariadb_server.fresh_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh, empty database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url

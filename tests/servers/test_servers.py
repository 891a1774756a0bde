"""The servers under the tests are real, fresh, ours, and do not outlive us."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tests.servers.mariadb import MariaDBServer
from tests.servers.openbao import OpenBaoServer
from tests.servers.parts import MARIADB, OPENBAO, POSTGRESQL, Part
from tests.servers.postgresql import PostgreSQLServer
from tests.servers.process import OwnedServer
from tests.servers.record import PartsRecord

ROOT = Path(__file__).parents[2]


def test_a_database_is_empty_and_keeps_what_is_written(database_url: str) -> None:
    """Each kind of database starts without tables, takes a row of non-ASCII text, and gives it back."""
    engine = create_engine(database_url, poolclass=NullPool)
    assert inspect(engine).get_table_names() == []
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE person (name VARCHAR(40))"))
        connection.execute(text("INSERT INTO person VALUES (:name)"), {"name": "王小明 😀"})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT name FROM person")) == "王小明 😀"


def test_two_tests_never_meet_in_one_database(
    postgresql_server: PostgreSQLServer, mariadb_server: MariaDBServer
) -> None:
    """Two databases handed out at once have different names and share no table."""
    for server in (postgresql_server, mariadb_server):
        with server.fresh_database() as first, server.fresh_database() as second:
            engine = create_engine(first, poolclass=NullPool)
            with engine.begin() as connection:
                connection.execute(text("CREATE TABLE mine (id INTEGER)"))
            assert inspect(engine).has_table("mine")
            assert not inspect(create_engine(second, poolclass=NullPool)).has_table("mine")


def test_a_connection_left_open_does_not_hold_up_the_next_test(
    postgresql_server: PostgreSQLServer, mariadb_server: MariaDBServer
) -> None:
    """A database goes away although a transaction on it was never ended."""
    for server in (postgresql_server, mariadb_server):
        with server.fresh_database() as url:
            connection = create_engine(url, poolclass=NullPool).connect()
            connection.execute(text("CREATE TABLE mine (id INTEGER)"))
            connection.commit()
            connection.execute(text("SELECT * FROM mine"))
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT * FROM mine"))
        connection.invalidate()
        connection.close()


def test_the_servers_are_not_root_and_listen_on_no_network(
    postgresql_server: PostgreSQLServer, mariadb_server: MariaDBServer
) -> None:
    """Neither server runs as root, and neither holds a TCP socket."""
    for server in (postgresql_server, mariadb_server):
        assert server.process is not None
        process = Path("/proc", str(server.process.pid))
        uids = next(
            line for line in process.joinpath("status").read_text().splitlines() if line.startswith("Uid:")
        )
        assert "0" not in uids.split()[1:]
        sockets = {
            target.name.removeprefix("socket:[").removesuffix("]")
            for descriptor in process.joinpath("fd").iterdir()
            if (target := descriptor.readlink()).name.startswith("socket:")
        }
        for table in ("tcp", "tcp6"):
            inodes = {line.split()[9] for line in process.joinpath("net", table).read_text().splitlines()[1:]}
            assert not sockets & inodes


@pytest.mark.parametrize(
    ("part", "server"),
    [
        pytest.param(POSTGRESQL, PostgreSQLServer, id="postgresql"),
        pytest.param(MARIADB, MariaDBServer, id="mariadb"),
        pytest.param(OPENBAO, OpenBaoServer, id="openbao"),
    ],
)
def test_a_killed_test_run_takes_its_server_with_it(
    part: Part, server: type[OwnedServer], real_parts: PartsRecord
) -> None:
    """After SIGKILL, which lets nothing clean up, the kernel ends the server."""
    real_parts.require(part)
    program = (
        f"import time; from {server.__module__} import {server.__name__} as Server;"
        "server = Server(); print(server.process.pid, server.folder, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        process = Path("/proc", pid)
        assert is_running(process)
        owner.kill()
    deadline = time.monotonic() + 15
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(process)
    shutil.rmtree(folder)


def is_running(process: Path) -> bool:
    """Tell whether the process of a /proc folder still runs; a zombie that waits for init does not."""
    try:
        state = process.joinpath("stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}

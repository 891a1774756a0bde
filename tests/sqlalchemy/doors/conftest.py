"""Tries each door on each driver, and writes the outcomes where ``FIELDVAULT_DOORS`` names a file."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

from fieldvault import Vault
from fieldvault.sqlalchemy import protect
from tests.servers.parts import SQLITE
from tests.servers.record import PartsRecord
from tests.sqlalchemy import shop
from tests.sqlalchemy.conftest import MakeVault
from tests.sqlalchemy.doors.place import Place
from tests.sqlalchemy.doors.registry import door_named

OUTCOMES = pytest.StashKey[dict[str, dict[str, dict[str, str]]]]()
OUTCOMES_FILE = "FIELDVAULT_DOORS"

DRIVERS = {
    "sqlite": ("sqlite", "sqlite+pysqlite"),
    "aiosqlite": ("sqlite", "sqlite+aiosqlite"),
    "psycopg": ("postgresql", "postgresql+psycopg"),
    "psycopg_async": ("postgresql", "postgresql+psycopg"),
    "asyncpg": ("postgresql", "postgresql+asyncpg"),
    "pymysql": ("mariadb", "mariadb+pymysql"),
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, start the record."""
    config.addinivalue_line("markers", "door(*names): the doors that a test tries; one a parameter `door`")
    config.stash[OUTCOMES] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each door on each of its drivers."""
    marker = metafunc.definition.get_closest_marker("door")
    if marker is None:
        return
    (drivers,) = {door_named(name).drivers for name in marker.args}
    metafunc.parametrize("driver", drivers, scope="module", indirect=True)
    if "door" in metafunc.fixturenames:
        metafunc.parametrize("door", marker.args)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test as its driver wants it; afterwards, nothing may be in the clear."""
    place = pyfuncitem.funcargs.get("place")
    if not isinstance(place, Place):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    test = pyfuncitem.obj

    async def awaited() -> None:
        await test(**arguments)

    place.run(awaited if asyncio.iscoroutinefunction(test) else lambda: test(**arguments))
    place.run(place.check_no_plaintext)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the outcome of a door."""
    report = yield
    marker = item.get_closest_marker("door")
    if marker is not None and isinstance(item, pytest.Function) and (call.when == "call" or report.failed):
        name = item.callspec.params.get("door", marker.args[0])
        door = door_named(str(name))
        place = item.funcargs.get("place")
        outcome = {"outcome": "wrong" if report.failed else "refused" if door.refused else "right"}
        if isinstance(place, Place) and place.says and not report.failed:
            outcome["says"] = place.says
        driver = str(item.callspec.params["driver"])
        known = item.config.stash[OUTCOMES].setdefault(door.name, {})
        if known.get(driver, {}).get("outcome") != "wrong":
            # A test with several parameters is right where all of them are.
            known[driver] = outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes for ``python -m scripts.doors``."""
    file = os.environ.get(OUTCOMES_FILE)
    if file:
        outcomes = {"sqlalchemy": sqlalchemy.__version__, "doors": session.config.stash[OUTCOMES]}
        Path(file).write_text(json.dumps(outcomes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The models of the module: the shop's, unless it has its own."""
    return shop.Base


@pytest.fixture(scope="module")
def driver(request: pytest.FixtureRequest) -> str:
    """The driver under test."""
    return str(request.param)


@pytest.fixture(scope="module")
def url(
    driver: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    real_parts: PartsRecord,
) -> Iterator[str]:
    """A database for the tests of a module."""
    server, drivername = DRIVERS[driver]
    if server == "sqlite":
        real_parts.exercised[SQLITE.name] = sqlite3.sqlite_version
        yield f"{drivername}:///{tmp_path_factory.mktemp('doors') / 'doors.db'}"
        return
    with request.getfixturevalue(f"{server}_server").fresh_database() as fresh:
        yield make_url(fresh).set(drivername=drivername).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def furnished(driver: str, url: str, base: type[DeclarativeBase]) -> Iterator[Place]:
    """The module's tables behind the driver."""
    if driver in ("asyncpg", "aiosqlite", "psycopg_async"):
        with asyncio.Runner() as runner:
            engine = create_async_engine(url)
            _hurry(engine.sync_engine)
            place = Place(driver, engine.sync_engine, engine, runner)
            place.run(lambda: base.metadata.create_all(place.engine))
            yield place
            runner.run(engine.dispose())
    else:
        place = Place(driver, create_engine(url), None, None)
        _hurry(place.engine)
        base.metadata.create_all(place.engine)
        yield place
        place.engine.dispose()


def _hurry(engine: sqlalchemy.Engine) -> None:
    """The file is thrown away: nobody waits for the disk."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _do_not_sync)


def _do_not_sync(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()


@pytest.fixture
def vault(make_vault: MakeVault) -> Iterator[Vault]:
    """An empty vault."""
    with make_vault() as vault:
        yield vault


@pytest.fixture
def place(furnished: Place, base: type[DeclarativeBase], vault: Vault) -> Iterator[Place]:
    """The module's tables, empty, bound to an empty vault."""
    protect(base, vault)
    furnished.use(vault, base)
    yield furnished

    def empty() -> None:
        with furnished.engine.begin() as connection:
            for table in reversed(base.metadata.sorted_tables):
                connection.execute(table.delete())

    furnished.run(empty)


@pytest.fixture
def session(place: Place) -> Iterator[Session]:
    """A session of the place; an asynchronous driver's through ``run_sync``."""
    session = Session(place.engine)
    yield session
    place.run(session.close)

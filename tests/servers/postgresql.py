"""PostgreSQL in a folder of its own, on a unix socket, with durability switched off."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from tests.servers.parts import POSTGRESQL
from tests.servers.process import START_LIMIT, OwnedServer, unprivileged_user

USER = "fieldvault"


_EMPTY = (
    """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    """,
    """
    DO $$ DECLARE each text; BEGIN
        FOR each IN SELECT nspname FROM pg_namespace
            WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        LOOP EXECUTE 'DROP SCHEMA ' || quote_ident(each) || ' CASCADE'; END LOOP;
    END $$
    """,
    "CREATE SCHEMA public AUTHORIZATION pg_database_owner",
    "GRANT USAGE ON SCHEMA public TO PUBLIC",
)
"""Statements that leave a database as ``CREATE DATABASE`` makes it, in a tenth of the time."""


class PostgreSQLServer(OwnedServer):
    """A running PostgreSQL; every database it hands out is empty."""

    def __init__(self) -> None:
        super().__init__("postgresql", user=unprivileged_user("postgres"), death=signal.SIGQUIT)
        self.socket = self.folder / ".s.PGSQL.5432"
        self._databases = 0
        self._emptied: list[str] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        self._admin: Engine = create_engine(
            self.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        self.version = self._first_answer()

    def _start(self) -> None:
        data = self.folder / "data"
        self.prepare(
            POSTGRESQL.path("initdb"), "--pgdata", str(data), "--username", USER,
            "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
        )  # fmt: skip
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.start(POSTGRESQL.path("postgres"), ["-D", str(data), *options], listens_on=self.socket)

    @retry(
        retry=retry_if_exception_type(OperationalError),
        stop=stop_after_delay(START_LIMIT),
        wait=wait_fixed(0.02),
    )
    def _first_answer(self) -> str:
        """Return the version; PostgreSQL listens a moment before it lets anyone in."""
        with self._admin.connect() as connection:
            return str(connection.scalar(text("SHOW server_version"))).split()[0]

    def url(self, database: str, driver: str = "psycopg") -> str:
        """Return the SQLAlchemy URL of a database of this server."""
        url = URL.create(
            f"postgresql+{driver}", username=USER, database=database, query={"host": str(self.folder)}
        )
        return url.render_as_string(hide_password=False)

    def create_database(self) -> str:
        """Create an empty database, which goes with the server; return its URL."""
        return self.url(self._create_database())

    def _create_database(self) -> str:
        self._databases += 1
        name = f"test_{self._databases}"
        with self._admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return name

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """Yield the URL of an empty database; afterwards whoever is still connected is thrown out."""
        url = self._emptied.pop() if self._emptied else self.create_database()
        try:
            yield url
        finally:
            engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                for statement in _EMPTY:
                    connection.exec_driver_sql(statement)
            self._emptied.append(url)

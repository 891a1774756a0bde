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


class PostgreSQLServer(OwnedServer):
    """A running PostgreSQL; every database it hands out is fresh and empty."""

    def __init__(self) -> None:
        super().__init__("postgresql", user=unprivileged_user("postgres"), death=signal.SIGQUIT)
        self._databases = 0
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
        self.start(
            POSTGRESQL.path("postgres"), ["-D", str(data), *options], listens_on=self.folder / ".s.PGSQL.5432"
        )

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

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """Create an empty database, yield its URL, and drop it with whoever is still connected."""
        self._databases += 1
        name = f"test_{self._databases}"
        with self._admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield self.url(name)
        finally:
            with self._admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))

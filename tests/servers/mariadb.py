"""MariaDB in a folder of its own, on a unix socket, with durability switched off."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.servers.parts import MARIADB
from tests.servers.process import OwnedServer, unprivileged_user


class MariaDBServer(OwnedServer):
    """A running MariaDB; every database it hands out is fresh and empty."""

    def __init__(self) -> None:
        super().__init__("mariadb", user=unprivileged_user("mysql"), death=signal.SIGKILL)
        self.socket = self.folder / "server.sock"
        self._databases = 0
        self._admin: Engine = create_engine(self.url(""), pool_pre_ping=True, isolation_level="AUTOCOMMIT")
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        with self._admin.connect() as connection:
            self.version = str(connection.scalar(text("SELECT VERSION()"))).split("-")[0]

    def close(self) -> None:
        """See ``OwnedServer.close``."""
        self._admin.dispose()
        super().close()

    def _start(self) -> None:
        data = self.folder / "data"
        self.prepare(
            MARIADB.path("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip
        settings = {
            "datadir": str(data),
            "socket": str(self.socket),
            "pid-file": str(self.folder / "server.pid"),
            "max-connections": "200",
            "innodb-flush-log-at-trx-commit": "0",
            "innodb-doublewrite": "0",
            "ssl": "0",
            # A file a table costs more time than what is in it.
            "innodb-file-per-table": "0",
            "character-set-server": "utf8mb4",
            "collation-server": "utf8mb4_bin",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self.start(
            MARIADB.path("mariadbd"), ["--no-defaults", "--skip-networking", *options], listens_on=self.socket
        )

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database of this server."""
        url = URL.create(
            "mariadb+pymysql",
            username="root",
            database=database,
            query={"unix_socket": str(self.socket), "charset": "utf8mb4"},
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
        """Create an empty database, yield its URL, and drop it with whoever is still connected."""
        name = self._create_database()
        try:
            yield self.url(name)
        finally:
            with self._admin.connect() as connection:
                # A transaction left open would make DROP DATABASE wait for its metadata lock.
                left_open = connection.scalars(
                    text("SELECT id FROM information_schema.processlist WHERE db = :name"), {"name": name}
                ).all()
                for connection_id in left_open:
                    # One that has ended meanwhile is as good.
                    with suppress(OperationalError):
                        connection.execute(text(f"KILL CONNECTION {connection_id}"))
                connection.execute(text(f"DROP DATABASE {name}"))

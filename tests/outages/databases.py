"""What can befall ``SQLKeyStore``, brought about on real databases, or by a proxy in front of them."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql.schema import keys
from tests.outages.cells import CONNECT
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgresql import PostgreSQLServer
from tests.servers.proxy import Fault, Hang, Proxy, ResetAfter
from tests.servers.tcp import LOOPBACK

_QUERIES = {
    "postgresql": {"connect_timeout": str(CONNECT)},
    # Without TLS, for which PyMySQL reads all of the system's certificates whenever it connects.
    "mariadb": {"connect_timeout": str(CONNECT), "ssl_disabled": "true"},
}
_Statements = tuple[str, ...]

_GRANTS: Mapping[str, _Statements] = {
    "postgresql": (
        "CREATE ROLE {user} LOGIN",
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {user}",
    ),
    "mariadb": (
        "CREATE USER {user}@localhost",
        "GRANT SELECT, INSERT, UPDATE ON {database}.* TO {user}@localhost",
    ),
}
_END = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'",
    "mariadb": "KILL CONNECTION USER {user}@localhost",
}
_REVOCATIONS: Mapping[str, _Statements] = {
    "postgresql": ("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {user}",),
    # MariaDB looks at the rights on a database when a connection begins to use it.
    "mariadb": ("REVOKE ALL PRIVILEGES ON {database}.* FROM {user}@localhost", _END["mariadb"]),
}
_LOCKS: Mapping[str, _Statements] = {
    "postgresql": ("ALTER ROLE {user} NOLOGIN", _END["postgresql"]),
    "mariadb": ("ALTER USER {user}@localhost ACCOUNT LOCK", _END["mariadb"]),
}
_UNLOCKS: Mapping[str, _Statements] = {
    "postgresql": ("ALTER ROLE {user} LOGIN",),
    "mariadb": ("ALTER USER {user}@localhost ACCOUNT UNLOCK",),
}


class DatabaseLab:
    """A database with the tables, a user who may use them, and a proxy before the server."""

    def __init__(self, server: PostgreSQLServer | MariaDBServer, url: str) -> None:
        self._server = server
        self._kind = "postgresql" if isinstance(server, PostgreSQLServer) else "mariadb"
        self._admin = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._database = make_url(url).database
        self._user = f"outage_{secrets.token_hex(6)}"
        SQLKeyStore(url).close()
        self._run(_GRANTS[self._kind])
        self.proxy = Proxy(server.socket)
        address = make_url(url).set(
            username=self._user, host=LOOPBACK, port=self.proxy.port, query=_QUERIES[self._kind]
        )
        self._url = address.render_as_string(hide_password=False)
        self._opened: list[SQLKeyStore] = []

    def open(self) -> SQLKeyStore:
        """A process's key store."""
        self._opened.append(SQLKeyStore(self._url))
        return self._opened[-1]

    def close(self) -> None:
        """Close all of them, and the proxy."""
        for each in self._opened:
            each.close()
        self.proxy.close()

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        faults: dict[str, Fault] = {"reset": ResetAfter(5), "silent": Hang()}
        if played in faults:
            return self.proxy.meeting(faults[played])
        events: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "refused": self.proxy.refusing,
            "stopped": self._server.stopped,
            "killed": self._killed,
            "denied": self._denied,
            "locked": self._locked,
            "gone": self._gone,
        }
        return events[played]()

    @contextmanager
    def _killed(self) -> Iterator[None]:
        self._server.kill()
        yield

    @contextmanager
    def _denied(self) -> Iterator[None]:
        self._run(_REVOCATIONS[self._kind])
        yield
        self._run(_GRANTS[self._kind][1:])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._run(_LOCKS[self._kind])
        yield
        self._run(_UNLOCKS[self._kind])

    @contextmanager
    def _gone(self) -> Iterator[None]:
        keys.metadata.drop_all(self._admin)
        yield

    def _run(self, statements: _Statements) -> None:
        with self._admin.connect() as connection:
            for statement in statements:
                connection.execute(text(statement.format(user=self._user, database=self._database)))

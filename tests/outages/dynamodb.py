"""What can befall ``DynamoDBKeyStore``, brought about on MiniStack and moto, or by a proxy before them."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fieldvault.aws.clients import ClientOptions
from fieldvault.keystores import DynamoDBKeyStore
from tests.outages.aws import error_answer
from tests.servers.ministack import REGION, MinistackServer
from tests.servers.moto import MotoServer
from tests.servers.proxy import Answer, Fault, Garble, Hang, Proxy, ResetAfter


class TableLab:
    """A table of its own on a server, and a proxy before it."""

    def __init__(self, server: MotoServer | MinistackServer, timeout: float, *, shares_client: bool) -> None:
        self._server = server
        self._admin = server.client("dynamodb")
        self._table = f"outage-{secrets.token_hex(6)}"
        DynamoDBKeyStore(self._table, self._admin).create_table()
        self.proxy = Proxy(server.port)
        self._options = ClientOptions(
            region_name=REGION, endpoint_url=self.proxy.url, connect_timeout=timeout, read_timeout=timeout
        )
        self._shared: Any = self._options.open("dynamodb", 16) if shares_client else None

    def open(self) -> DynamoDBKeyStore:
        """A process's key store; all of one client where they share it, which takes long to open."""
        return DynamoDBKeyStore(self._table, self._shared or self._options.open("dynamodb", 4))

    def close(self) -> None:
        """Close the proxy."""
        self.proxy.close()

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        faults: dict[str, Fault] = {
            "silent": Hang(),
            "reset": ResetAfter(60),
            "malformed": Garble(),
            "throttled": error_answer(400, "ThrottlingException"),
            "error_500": error_answer(500, "InternalServerError"),
            "error_503": Answer(503),
            "expired_token": error_answer(400, "ExpiredTokenException"),
        }
        if played in faults:
            return self.proxy.meeting(faults[played])
        events: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "refused": self.proxy.refusing,
            "stopped": self._server.stopped,
            "denied": self._denied,
            "gone": self._gone,
        }
        return events[played]()

    @contextmanager
    def _denied(self) -> Iterator[None]:
        """From one moment to the next IAM policies count, and there is none for who asks."""
        assert isinstance(self._server, MotoServer)
        with self._server.enforcing():
            yield

    @contextmanager
    def _gone(self) -> Iterator[None]:
        self._admin.update_table(TableName=self._table, DeletionProtectionEnabled=False)
        self._admin.delete_table(TableName=self._table)
        yield

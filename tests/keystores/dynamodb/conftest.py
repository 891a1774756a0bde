"""Tables on the server that does one request at a time, and a client such as the store opens itself."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from fieldvault.aws.clients import ClientOptions
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from tests.servers.ministack import CREDENTIALS, REGION, MinistackServer

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def client(ministack_server: MinistackServer) -> Any:
    """A client that tests share, as making one costs more than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name.upper(), value)
        return ClientOptions(region_name=REGION, endpoint_url=ministack_server.url).open("dynamodb", 16)


@pytest.fixture
def table(client: Any) -> Iterator[str]:
    """The name of a new, empty table."""
    name = f"fieldvault-keys-{next(_NUMBERS)}"
    DynamoDBKeyStore(name, client).create_table()
    yield name
    client.update_table(TableName=name, DeletionProtectionEnabled=False)
    client.delete_table(TableName=name)


@pytest.fixture
def open_store(client: Any, table: str) -> Callable[[], DynamoDBKeyStore]:
    """Another store on the same table."""
    return lambda: DynamoDBKeyStore(table, client)


@pytest.fixture
def store(open_store: Callable[[], DynamoDBKeyStore]) -> DynamoDBKeyStore:
    """The store under test."""
    return open_store()

"""The DynamoDB key store keeps every promise of the public kit."""

from collections.abc import Callable
from typing import Any

import pytest

from fieldvault.keys.protocols import KeyStore
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from fieldvault.testing import KeyStoreConformance


class TestDynamoDBKeyStore(KeyStoreConformance):
    """One table, shared by all that open it."""

    @pytest.fixture
    def open_store(self, client: Any, table: str) -> Callable[[], KeyStore]:
        """Another store on the same table."""
        return lambda: DynamoDBKeyStore(table, client)

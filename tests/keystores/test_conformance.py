"""The key stores of the house keep every promise of the public kit."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from fieldvault.keys.protocols import KeyStore
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.testing import KeyStoreConformance


class TestMemoryKeyStore(KeyStoreConformance):
    """The reference."""

    @pytest.fixture
    def open_store(self) -> Callable[[], KeyStore]:
        """Memory is shared by being the same object."""
        store = MemoryKeyStore()
        return lambda: store


class TestSQLKeyStore(KeyStoreConformance):
    """SQLite, PostgreSQL and MariaDB."""

    @pytest.fixture
    def open_store(self, emptied_engine: Engine) -> Callable[[], KeyStore]:
        """Another store on the same database."""
        return lambda: SQLKeyStore(emptied_engine)

"""The accounts on each database, bound to a fresh vault."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine

from fieldvault import Vault
from fieldvault.sqlalchemy import protect
from fieldvault.testing.fakes import FaultyKMS
from tests.sqlalchemy.complaints.accounts import Base
from tests.sqlalchemy.conftest import MakeVault
from tests.sqlalchemy.world import CountingKeyStore, World


def _firm(engine: Engine, vault: Vault) -> World:
    assert isinstance(vault.kms, FaultyKMS)
    assert isinstance(vault.key_store, CountingKeyStore)
    protect(Base, vault)
    Base.metadata.create_all(engine)
    return World(engine, vault, vault.kms, vault.key_store)


@pytest.fixture
def firm(sqlite_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield the accounts on SQLite."""
    engine = create_engine(sqlite_url)
    yield _firm(engine, make_vault())
    engine.dispose()


@pytest.fixture
def any_firm(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield the accounts on each database in turn."""
    engine = create_engine(database_url)
    yield _firm(engine, make_vault())
    engine.dispose()

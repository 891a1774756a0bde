"""A fresh database and a fresh vault for each test, the shop's models bound to it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import DeclarativeBase

from fieldvault import Vault
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import protect
from fieldvault.testing.fakes import FaultyKMS
from tests.sqlalchemy.shop import Base
from tests.sqlalchemy.world import CountingKeyStore, World

MakeVault = Callable[..., Vault]


@pytest.fixture(scope="session")
def root_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root-key file."""
    path = tmp_path_factory.mktemp("kms") / "root.keys"
    LocalKMS.create(path)
    return path


@pytest.fixture
def make_vault(root_keys: Path) -> MakeVault:
    """Return a maker of vaults with empty key stores."""
    return lambda **options: Vault(
        kms=FaultyKMS(LocalKMS(root_keys)), key_store=CountingKeyStore(), **options
    )


def world_of(base: type[DeclarativeBase], engine: Engine, vault: Vault) -> World:
    """Make a world of a base's models: bound to the vault, their tables made."""
    assert isinstance(vault.kms, FaultyKMS)
    assert isinstance(vault.key_store, CountingKeyStore)
    protect(base, vault)
    base.metadata.create_all(engine)
    return World(engine, vault, vault.kms, vault.key_store)


@pytest.fixture
def world(sqlite_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield the shop on SQLite."""
    engine = create_engine(sqlite_url)
    # The file is thrown away: nobody waits for the disk.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    yield world_of(Base, engine, make_vault())
    engine.dispose()


@pytest.fixture
def any_world(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield the shop on each database in turn."""
    engine = create_engine(database_url)
    yield world_of(Base, engine, make_vault())
    engine.dispose()

"""A rig of a real local KMS and real key stores, memory and SQLite, for the tests of keys."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event

from fieldvault.keys.policy import RetryPolicy
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import ManualClock
from tests.keys.parties import Rig


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands still."""
    return ManualClock()


@pytest.fixture
def local_kms(tmp_path: Path) -> LocalKMS:
    """Return a KMS with a root key of its own."""
    return LocalKMS.create(tmp_path / "root.keys")


@pytest.fixture
def memory_rig(local_kms: LocalKMS, clock: ManualClock) -> Rig:
    """Return a rig with a key store in memory."""
    return Rig(local_kms, MemoryKeyStore(), clock)


@pytest.fixture
def sqlite_rig(local_kms: LocalKMS, clock: ManualClock, sqlite_url: str) -> Iterator[Rig]:
    """Yield a rig with a key store in an SQLite file."""
    engine = create_engine(sqlite_url)
    # A crash of the machine is nothing that these tests meet; waiting for its disk is.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    yield Rig(local_kms, SQLKeyStore(engine), clock)
    engine.dispose()


@pytest.fixture(params=["memory", "sqlite"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Return a rig with each embedded key store in turn."""
    found: Rig = request.getfixturevalue(f"{request.param}_rig")
    return found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the vault try an unavailable KMS again for a moment only, and never leave it alone."""
    monkeypatch.setattr("fieldvault.vault.RetryPolicy", partial(RetryPolicy, deadline=0.02, failures=10_000))

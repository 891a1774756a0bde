"""A shop with two tenants. ``SHOP_DATABASE`` is its database, by default a file of SQLite."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.shop.app import Shop
from examples.shop.encryption import ENCRYPTED
from examples.shop.models import Base
from fieldvault.kms import LocalKMS


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in the loop that its shop lives in."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    runner = pyfuncitem.funcargs["runner"]
    assert isinstance(runner, asyncio.Runner)
    runner.run(pyfuncitem.obj(**arguments))
    return True


def pytest_report_header() -> str:
    """Say which of the two ways is tested."""
    return f"shop: encryption {'on' if ENCRYPTED else 'off'}"


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Yield an event loop."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the URL of the shop's database."""
    return os.environ.get("SHOP_DATABASE") or f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"


@pytest.fixture(scope="session")
def root_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root-key file."""
    path = tmp_path_factory.mktemp("kms") / "root.keys"
    LocalKMS.create(path)
    return path


@pytest.fixture
def vault(tmp_path: Path, root_keys: Path) -> dict[str, dict[str, str]]:
    """Return the configuration of an empty vault."""
    return {
        "kms": {"type": "local", "path": str(root_keys)},
        "key_store": {"type": "sql", "url": f"sqlite:///{tmp_path / 'keys.db'}"},
    }


@pytest.fixture
def shop(runner: asyncio.Runner, database: str, vault: dict[str, dict[str, str]]) -> Iterator[Shop]:
    """Yield the shop, open and empty."""
    shop = Shop.open(database, vault)
    runner.run(shop.create_tables())
    for tenant in ("acme", "nordwind"):
        runner.run(shop.open_tenant(tenant, title=tenant.title(), bank_account=f"DE02 1203 {tenant}"))
    yield shop
    runner.run(shop.engine.dispose())
    runner.run(_drop_tables(shop))
    runner.run(shop.close())


async def _drop_tables(shop: Shop) -> None:
    async with shop.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)

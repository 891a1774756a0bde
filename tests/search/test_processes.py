"""Processes that need a tenant's first index key at the same moment, on real databases."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from fieldvault.keys.records import KeyState, Purpose
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS

ROOT = Path(__file__).parents[2]
PROCESSES = 4
TENANTS = [f"tenant {number}" for number in range(10)]


def test_processes_that_make_the_first_index_key_at_once_agree(database_url: str, tmp_path: Path) -> None:
    """Each tenant has one key, and all write its tokens under it."""
    LocalKMS.create(tmp_path / "root.keys")
    SQLKeyStore(database_url).close()
    job = json.dumps({"database": database_url, "root_keys": str(tmp_path / "root.keys")})
    with ExitStack() as stack:
        herd = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.search.herd", job],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(PROCESSES)
        ]
        pipes = [(each.stdin, each.stdout) for each in herd]
        for _, answers in pipes:
            assert answers is not None
            assert answers.readline() == "ready\n"
        for tenant in TENANTS:
            for asking, _ in pipes:
                assert asking is not None
                asking.write(f"{tenant}\n")
                asking.flush()
        written = [[answers.readline() for _ in TENANTS] for _, answers in pipes if answers is not None]
        for asking, _ in pipes:
            assert asking is not None
            asking.close()
        assert [each.wait(30) for each in herd] == [0] * PROCESSES
    assert all(each == written[0] for each in written)
    assert len(set(written[0])) == len(TENANTS)
    store = SQLKeyStore(database_url)
    try:
        for tenant in TENANTS:
            (key,) = store.keys(tenant, None)
            assert (key.purpose, key.state, key.version) == (Purpose.INDEX, KeyState.ACTIVE, 1)
    finally:
        store.close()

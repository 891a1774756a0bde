"""Keys and processes: real ones, that race, stand still, and fork, on real databases."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from fieldvault import CachePolicy, Vault
from fieldvault.keys.records import KeyState, Purpose
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS

ROOT = Path(__file__).parents[2]
FIELD = "customers.email"


def herd(job: dict[str, Any]) -> list[list[bytes]]:
    """What each process of a herd sealed; all of them have read it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.keys.herd", json.dumps(job)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [[bytes.fromhex(blob) for blob in member] for member in json.loads(done.stdout)]


@pytest.mark.parametrize("subject", [None, "alice"])
def test_eight_processes_that_create_a_first_key_at_once_end_with_one(
    database_url: str, tmp_path: Path, subject: str | None
) -> None:
    """One becomes active, and all eight can read what each wrote."""
    LocalKMS.create(tmp_path / "root.keys")
    SQLKeyStore(database_url).close()
    sealed = herd(
        {
            "database": database_url,
            "root_keys": str(tmp_path / "root.keys"),
            "subject": subject,
            "processes": 8,
            "values": 3,
            "rotation": {},
        }
    )
    assert [len(member) for member in sealed] == [3] * 8
    store = SQLKeyStore(database_url)
    try:
        (key,) = [record for record in store.keys("acme", subject) if record.purpose is Purpose.DATA]
        assert (key.state, key.version) == (KeyState.ACTIVE, 1)
        assert {blob[3:19] for member in sealed for blob in member} == {key.key_id}
        assert Counter(record.purpose for record in store.keys("acme", None)) <= Counter(Purpose)
    finally:
        store.close()


def test_eight_processes_keep_the_bound_of_every_key_and_draw_no_nonce_twice(
    database_url: str, tmp_path: Path
) -> None:
    """They reserve blocks of one key, rotate it by themselves, and read each other."""
    LocalKMS.create(tmp_path / "root.keys")
    SQLKeyStore(database_url).close()
    sealed = herd(
        {
            "database": database_url,
            "root_keys": str(tmp_path / "root.keys"),
            "subject": None,
            "processes": 8,
            "values": 20,
            "rotation": {"max_uses": 40, "block": 8},
        }
    )
    blobs = [blob for member in sealed for blob in member]
    assert len({blob[3:31] for blob in blobs}) == 160
    store = SQLKeyStore(database_url)
    try:
        noted = {record.key_id: record.uses for record in store.keys("acme", None)}
        states = Counter(record.state for record in store.keys("acme", None))
    finally:
        store.close()
    assert states[KeyState.ACTIVE] == 1
    assert len(noted) >= 4
    for key_id, count in Counter(blob[3:19] for blob in blobs).items():
        assert count <= noted[key_id] <= 40


class Reader:
    """A process that reads a ciphertext when it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> str:
        """``ok``, or the name of the error that it met."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("read\n")
        stdin.flush()
        return stdout.readline().strip()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)
        if number is signal.SIGSTOP:
            assert os.waitpid(self._process.pid, os.WUNTRACED)[1] != 0


@contextmanager
def reader(job: dict[str, Any]) -> Iterator[Reader]:
    """Run a reader."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.keys.reader", json.dumps(job)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Reader(process)
    finally:
        process.send_signal(signal.SIGCONT)
        pipe: IO[str] | None
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


Setup = tuple[Vault, dict[str, Any]]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Setup]]:
    """Yield what makes a vault with one sealed value, and the job of its readers."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    vaults: list[Vault] = []

    def make(*, lease: float, subject: str | None, forked: bool) -> Setup:
        kms = LocalKMS.create(tmp_path / "root.keys")
        # Unlike the readers' lease, so that the receipt has to tell of theirs.
        vault = Vault(kms=kms, key_store=SQLKeyStore(url), cache=CachePolicy(lease=0.01, grace=0))
        vaults.append(vault)
        blob = vault.encrypt("secret", field=FIELD, tenant="acme", subject=subject)
        job = {
            "database": url,
            "root_keys": str(tmp_path / "root.keys"),
            "lease": lease,
            "blob": blob.hex(),
            "forked": forked,
        }
        return vault, job

    yield make
    for vault in vaults:
        vault.close()


@pytest.mark.parametrize("subject", [None, "alice"])
def test_a_process_stopped_over_a_shred_and_resumed_cannot_read(
    setup: Callable[..., Setup], subject: str | None
) -> None:
    """Its lease ran out while it stood still; the receipt covers it."""
    lease = 1.0
    vault, job = setup(lease=lease, subject=subject, forked=False)
    with reader(job) as stopped:
        assert stopped.read() == "ok"
        stopped.signal(signal.SIGSTOP)
        receipt = vault.shred("acme", actor="operator", reason="left")
        wait = receipt.unreadable_after.timestamp() - time.time()
        assert lease - 0.5 < wait <= lease + 0.5
        time.sleep(max(0.0, wait))
        stopped.signal(signal.SIGCONT)
        assert stopped.read() == "KeyShredded"


def test_a_forked_child_cannot_read_after_a_shred(setup: Callable[..., Setup]) -> None:
    """It inherits the keys of its parent, and their lease."""
    vault, job = setup(lease=0.5, subject=None, forked=True)
    with reader(job) as child:
        assert child.read() == "ok"
        receipt = vault.shred("acme", actor="operator", reason="left")
        time.sleep(max(0.0, receipt.unreadable_after.timestamp() - time.time()))
        assert child.read() == "KeyShredded"

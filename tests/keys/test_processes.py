"""Keys and processes: real ones, that race, stand still, and fork, on real databases."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fieldvault import CachePolicy, Vault
from fieldvault.keys.records import KeyState, Purpose
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from tests.keys.herd import FIELD, SCOPES, VALUES

ROOT = Path(__file__).parents[2]


def herd(job: dict[str, Any]) -> dict[tuple[str, str | None], list[bytes]]:
    """What eight processes sealed, by scope; all of them have read all of it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.keys.herd", json.dumps(job)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    members = json.loads(done.stdout)
    assert len(members) == 8
    return {
        scope: [bytes.fromhex(blob) for member in members for blob in member[index]]
        for index, scope in enumerate(SCOPES)
    }


def test_eight_processes_that_create_and_use_keys_at_once_agree(database_url: str, tmp_path: Path) -> None:
    """A scope's first key is one key; busy ones rotate within their bound; all eight read what each wrote."""
    LocalKMS.create(tmp_path / "root.keys")
    SQLKeyStore(database_url).close()
    sealed = herd({"database": database_url, "root_keys": str(tmp_path / "root.keys"), "processes": 8})
    store = SQLKeyStore(database_url)
    try:
        records = {scope: list(store.keys(*scope)) for scope in SCOPES}
    finally:
        store.close()
    assert Counter(record.purpose for record in records["acme", None]) == {Purpose.DATA: 1, Purpose.WRAP: 1}
    for scope in (("acme", None), ("acme", "alice")):
        (key,) = [record for record in records[scope] if record.purpose is Purpose.DATA]
        assert (key.state, key.version) == (KeyState.ACTIVE, 1)
        assert {blob[3:19] for blob in sealed[scope]} == {key.key_id}
        assert len(sealed[scope]) == 8 * VALUES
    busy = {record.key_id: record for record in records["busy", None]}
    assert Counter(record.state for record in busy.values())[KeyState.ACTIVE] == 1
    assert len(busy) >= 8 * VALUES / 24
    for key_id, count in Counter(blob[3:19] for blob in sealed["busy", None]).items():
        assert count <= busy[key_id].uses <= 24
    assert len({blob[3:31] for blobs in sealed.values() for blob in blobs}) == 3 * 8 * VALUES


def test_eight_processes_that_meet_one_cold_key_make_one_kms_call_each(
    database_url: str, tmp_path: Path
) -> None:
    """However many of their threads ask at once; and one read of the key store."""
    with Vault(kms=LocalKMS.create(tmp_path / "root.keys"), key_store=SQLKeyStore(database_url)) as vault:
        blob = vault.encrypt("secret", field=FIELD, tenant="acme")
    job = {
        "database": database_url,
        "root_keys": str(tmp_path / "root.keys"),
        "blob": blob.hex(),
        "processes": 8,
        "threads": 8,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.keys.cold", json.dumps(job)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        json.loads(done.stdout)
        == [{"opened": ["secret"] * 8, "kms": {"unwrap_many": 1}, "key_store": {"fetch": 1}, "misses": 1}] * 8
    )


class Reader:
    """A process that reads a ciphertext when it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> str:
        """For each ciphertext ``ok``, or the name of the error that it met."""
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


def test_no_process_reads_after_a_shred_once_the_receipts_time_has_come(
    database_url: str, tmp_path: Path
) -> None:
    """Not one that stood still over the shred, not a forked child; the receipt covers the longest lease."""
    lease = 1.0
    kms = LocalKMS.create(tmp_path / "root.keys")
    with Vault(kms=kms, key_store=SQLKeyStore(database_url), cache=CachePolicy(lease=0.5, grace=0)) as vault:
        blobs = [
            vault.encrypt("secret", field=FIELD, tenant="acme", subject=subject).hex()
            for subject in (None, "alice")
        ]
        job = {
            "database": database_url,
            "root_keys": str(tmp_path / "root.keys"),
            "lease": lease,
            "blobs": blobs,
        }
        with reader({**job, "forked": False}) as stopped, reader({**job, "forked": True}) as child:
            assert stopped.read() == "ok ok"
            stopped.signal(signal.SIGSTOP)
            assert child.read() == "ok ok"
            receipt = vault.shred("acme", actor="operator", reason="left")
            wait = receipt.unreadable_after.timestamp() - time.time()
            assert lease - 0.5 < wait <= lease + 0.1
            time.sleep(max(0.0, wait))
            stopped.signal(signal.SIGCONT)
            assert stopped.read() == "KeyShredded KeyShredded"
            assert child.read() == "KeyShredded KeyShredded"

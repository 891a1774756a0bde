"""Jobs done in many processes at once, and in processes that are killed.

``python -m tests.keystores.sql.crowd URL JOB NUMBER`` forks from an interpreter without threads, so that
every process starts warm and at the same moment; each prints one line of JSON.
"""
# ruff: noqa: S311, T201 - chance picks what to break; its output is what it is run for

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import Change, KeySlot, KeyState, Purpose
from fieldvault.keystores import SQLKeyStore
from fieldvault.testing.samples import add, fence, record

ROOT = Path(__file__).parents[3]
LIMIT = 120


def crowd(url: str, job: str, number: int) -> list[Any]:
    """What each of the processes said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.keystores.sql.crowd", url, job, str(number)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def first_key(url: str) -> object:
    """Make the tables and a tenant's first key; the key that is active then, and whether it is ours."""
    store = SQLKeyStore(url)
    ours = record(KeySlot("acme"))
    won = add(store, ours)
    (active,) = (key for key in store.keys("acme", None) if key.state is KeyState.ACTIVE)
    assert won is (active.key_id == ours.key_id)
    return [active.key_id.hex(), won]


def rotate(url: str) -> object:
    """Bring 3 keys of our own into one slot, against all others; how many tries were lost."""
    store, lost = SQLKeyStore(url), 0
    for _ in range(3):
        while True:
            (active,) = (key for key in store.keys("acme", None) if key.state is KeyState.ACTIVE)
            store.reserve([active.key_id], 10, limit=2**32)
            if add(store, record(KeySlot("acme"), active.version + 1), active):
                break
            lost += 1
    return lost


def churn(url: str, ready: int) -> None:
    """Make, rotate, suspend, and shred keys, for as long as it lasts."""
    store = SQLKeyStore(url)
    while True:
        slot = KeySlot(f"tenant {random.randrange(12)}", random.choice([None, "ann"]))
        there = list(store.keys(slot.tenant, slot.subject))
        active = next((key for key in there if key.state is KeyState.ACTIVE), None)
        newest = max((key.version for key in there), default=0)
        try:
            added = [Addition(record(slot, newest + 1), None if active is None else active.key_id)]
            added.append(Addition(record(KeySlot(slot.tenant, "bob"), random.randrange(1, 9)), None))
            store.add_active(added)
        except KeyShredded:
            continue
        os.write(ready, b"!")
        if active is not None and random.random() < 0.3:
            store.transition(active.key_id, expect=KeyState.RETIRED, to=KeyState.SUSPENDED)
        if random.random() < 0.3:
            store.shred(fence(slot.tenant, slot.subject))


def kill(url: str) -> object:
    """Kill a churning process at a moment that chance picks; what is left is whole."""
    ready, say_ready = os.pipe()
    child = os.fork()
    if child == 0:
        churn(url, say_ready)
    os.read(ready, 1)
    time.sleep(random.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    return check(url)


def check(url: str) -> int:
    """Nothing of the store contradicts itself; the number of its keys."""
    store, count = SQLKeyStore(url), 0
    changes = store.changes(0)
    assert changes is not None
    assert len(changes) == store.generation()
    fences = set()
    for tenant in store.tenants():
        keys = list(store.all_keys(tenant))
        count += len(keys)
        for slot in {key.slot for key in keys}:
            versions = [key.version for key in keys if key.slot == slot]
            assert len(versions) == len(set(versions))
            assert sum(key.state is KeyState.ACTIVE for key in keys if key.slot == slot) <= 1
        for subject in {None, *(key.subject for key in keys)}:
            found = store.fence(tenant, subject)
            if found is not None and found.subject == subject:
                fences.add(Change(tenant, subject, whole_tenant=subject is None))
                assert not any(key.wrapped for key in keys if key.subject == subject)
                assert all(key.state is KeyState.DESTROYED for key in keys if key.subject == subject)
        for key in keys:
            assert (key.wrapped is None) is (key.state is KeyState.DESTROYED)
            # Every rotation and every suspension of it was noted in the very step.
            noted = changes.count(Change(tenant, key.subject)) + changes.count(
                Change(tenant, None, whole_tenant=True)
            )
            assert noted >= (key.state is not KeyState.ACTIVE)
            assert key.purpose is Purpose.DATA
    assert fences <= set(changes)
    store.close()
    return count


def _child(job: Callable[[str], object], url: str) -> None:
    code = 1
    try:
        os.write(1, json.dumps(job(url)).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def main(url: str, job: str, number: int) -> int:
    """Run the job in ``number`` processes that begin together; 0 if all of them ended well."""
    jobs = {each.__name__: each for each in (first_key, rotate)}
    if job == "kill":
        for _ in range(number):
            print(kill(url), flush=True)
        return 0
    gate, open_gate = os.pipe()
    children = []
    for _ in range(number):
        child = os.fork()
        if child == 0:
            os.close(open_gate)
            os.read(gate, 1)
            _child(jobs[job], url)
        children.append(child)
    os.close(open_gate)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

"""What a cached key costs in memory: a fresh process, many warm tenants, two ways to look.

As a program it is that process: ``python -m benchmarks.memory FOLDER KEYS traced|resident`` opens one value of
each tenant of the world in FOLDER and prints the bytes that a key has added.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers import FIELD
from benchmarks.report import Row
from benchmarks.world import World
from fieldvault.keys.records import KeySlot

__all__ = ["memory_rows"]

BUDGET = 2.5 * 1024
TEXT = "0123456789abcdef0123456789abcdef"
PAGE = 4096

WAYS = {
    "resident": "what the operating system sees, the cipher's native state included",
    "traced": "what Python allocated (tracemalloc)",
}


def memory_rows(*, keys: int) -> Iterator[Row]:
    """Bytes a cached key that has opened one value."""
    with TemporaryDirectory(prefix="fieldvault-benchmark-") as name:
        folder = Path(name)
        made = World(folder)
        tenants = [f"tenant {number:06d}" for number in range(keys)]
        with made.vault(max_keys=keys) as vault:
            vault.ring.prefetch(slots=[KeySlot(tenant) for tenant in tenants])
            blobs = [vault.encrypt(TEXT, field=FIELD, tenant=tenant) for tenant in tenants]
        made.engine.dispose()
        (folder / "blobs").write_bytes(b"".join(blobs))
        for way, what in WAYS.items():
            done = subprocess.run(  # noqa: S603 - this very program
                [sys.executable, "-m", "benchmarks.memory", name, str(keys), way],
                check=True,
                capture_output=True,
                text=True,
            )
            added = round(int(done.stdout) / keys)
            yield Row("Memory", f"a cached key of {keys:,}, {way}", added, "bytes", BUDGET, note=what)


def _added(folder: Path, keys: int, way: str) -> int:
    with World(folder).vault(max_keys=keys) as vault:
        packed = (folder / "blobs").read_bytes()
        size = len(packed) // keys
        tenants = [f"tenant {number:06d}" for number in range(keys)]
        look: Callable[[], int] = _resident
        vault.decrypt(packed[:size], field=FIELD, tenant=tenants[0])  # whatever is made once is made
        if way == "traced":
            tracemalloc.start()
            look = _traced
        before = look()
        for number, tenant in enumerate(tenants):
            if vault.decrypt(packed[number * size : (number + 1) * size], field=FIELD, tenant=tenant) != TEXT:
                raise AssertionError("a value came back as another than it went in")
        return look() - before


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def main() -> None:
    """Measure in this process and print the bytes added."""
    folder, keys, way = sys.argv[1:]
    print(_added(Path(folder), int(keys), way))


if __name__ == "__main__":
    main()

"""What a cached key costs in memory: a fresh process, many warm tenants, two ways to look.

As a program it is that process: ``python -m benchmarks.memory FOLDER KEYS WAY`` opens one value of each
tenant of the world in FOLDER and prints the bytes that all of it has added. The way ``cipher`` only makes as
many cipher objects.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from resource import getpagesize
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.peers import FIELD
from benchmarks.processes import in_fresh_process
from benchmarks.report import Row
from benchmarks.world import World
from fieldvault.keys.records import KeySlot

__all__ = ["memory_rows", "resident"]

BUDGET = 2.5 * 1024
TEXT = "0123456789abcdef0123456789abcdef"
PAGE = 100

CIPHER, RESIDENT, TRACED = "cipher", "resident", "traced"
WAYS = {
    TRACED: ("a cached key, as Python counts (tracemalloc)", BUDGET),
    RESIDENT: ("a cached key, as the operating system counts", BUDGET),
    CIPHER: ("a bare AESGCM, as the operating system counts", None),
}


def memory_rows(*, keys: int) -> Iterator[Row]:
    """Bytes of a cached key that has opened one value, and of the cipher object that any of them holds."""
    with TemporaryDirectory(prefix="fieldvault-benchmark-") as name:
        folder = Path(name)
        made = World(folder)
        tenants = [_tenant(number) for number in range(keys)]
        with made.vault(max_keys=keys) as vault:
            vault.ring.prefetch(slots=[KeySlot(tenant) for tenant in tenants])
            blobs = [vault.encrypt(TEXT, field=FIELD, tenant=tenant) for tenant in tenants]
        made.engine.dispose()
        (folder / "blobs").write_bytes(b"".join(blobs))
        for way, (what, budget) in WAYS.items():
            added = in_fresh_process("memory", name, keys, way)
            yield Row(f"Memory of {keys:,} keys", what, round(added / keys), "bytes", budget)


def _added(folder: Path, keys: int, way: str) -> int:
    if way == CIPHER:
        before = resident()
        kept = [AESGCM(AESGCM.generate_key(256)) for _ in range(keys)]
        return resident() - before if kept else 0
    with World(folder).vault(max_keys=keys) as vault:
        packed = (folder / "blobs").read_bytes()
        size = len(packed) // keys
        blobs = [packed[number * size : (number + 1) * size] for number in range(keys)]
        tenants = [_tenant(number) for number in range(keys)]
        vault.decrypt(blobs[0], field=FIELD, tenant=tenants[0])  # whatever is made once is made
        if way == TRACED:
            tracemalloc.start()
        look = _traced if way == TRACED else resident
        before = look()
        for first in range(0, keys, PAGE):
            vault.ring.prefetch(blobs=blobs[first : first + PAGE])
        for blob, tenant in zip(blobs, tenants, strict=True):
            if vault.decrypt(blob, field=FIELD, tenant=tenant) != TEXT:
                raise AssertionError("a value came back as another than it went in")
        return look() - before


def _tenant(number: int) -> str:
    return f"tenant {number:06d}"


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def resident() -> int:
    """What the operating system counts of this process now, in bytes, garbage collected before."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * getpagesize()


def main() -> None:
    """Measure in this process and print the bytes added."""
    folder, keys, way = sys.argv[1:]
    print(_added(Path(folder), int(keys), way))


if __name__ == "__main__":
    main()

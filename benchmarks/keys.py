"""Keys: what many tenants, cold caches and erasure cost, counted where counting will do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from time import perf_counter
from typing import Any

from benchmarks.herds import check, tasks_meet, threads_meet
from benchmarks.measure import Call, interleaved
from benchmarks.peers import FIELD
from benchmarks.report import Row, ratio_row
from benchmarks.world import World, world
from fieldvault import Vault
from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose

__all__ = ["herd_rows", "page_rows", "round_robin_rows", "shred_rows"]

TENANT = "acme"
TEXT = "0123456789abcdef0123456789abcdef"
BATCH = 10_000


def round_robin_rows(*, tenants: int, rounds: int) -> Iterator[Row]:
    """Many warm tenants in turn, beside as many values of one."""
    section = f"{tenants:,} warm tenants in turn, beside one"
    with world() as made, made.vault(max_keys=tenants) as vault:
        names = [f"tenant {number:06d}" for number in range(tenants)]
        vault.ring.prefetch(slots=[KeySlot(name) for name in names])
        seals: dict[str, Call] = {}
        opens: dict[str, Call] = {}
        for how, turns in {"one": [names[0]] * tenants, "many": names}.items():
            blobs = [(vault.encrypt(TEXT, field=FIELD, tenant=name), name) for name in turns]
            seals[how] = _sealing(vault, turns)
            opens[how] = _opening(vault, blobs)
        for work, candidates in (("vault.encrypt", seals), ("vault.decrypt", opens)):
            samples = interleaved(candidates, rounds=rounds, calls=tenants)
            yield ratio_row(section, work, samples["many"], samples["one"], unit="× one tenant", budget=1.3)


def herd_rows(*, callers: int, delay: float) -> Iterator[Row]:
    """Many threads, then as many tasks, meet one cold key at once; a KMS call takes ``delay`` seconds."""
    with world() as made:
        with made.vault() as vault:
            blob = vault.encrypt(TEXT, field=FIELD, tenant=TENANT)
        for kind, meet in (("threads", _threads), ("tasks", _tasks)):
            kms = made.kms(delay)
            with made.vault(kms) as cold:
                check(meet(cold, blob, callers), [TEXT] * callers)
            yield Row("Cold caches", f"{callers} {kind} meet one cold key", kms.calls, "KMS calls", 1)


def page_rows(*, subjects: int) -> Iterator[Row]:
    """A page of ciphertexts, each of another subject of one tenant, opened by a vault that has no key yet."""
    with world() as made:
        names = [f"subject {number:06d}" for number in range(subjects)]
        with made.vault() as vault:
            vault.ring.prefetch(slots=[KeySlot(TENANT, name) for name in names])
            blobs = [vault.encrypt(TEXT, field=FIELD, tenant=TENANT, subject=name) for name in names]
        kms = made.kms()
        with made.vault(kms) as cold, made.statements() as statements:
            begun = perf_counter()
            check(cold.decrypt_many(blobs, field=FIELD, tenant=TENANT), [TEXT] * subjects)
            took = perf_counter() - begun
        what = f"page of {subjects:,} values of {subjects:,} subjects"
        yield Row("Cold caches", what, statements.count, "key-store statements", 1, f"{took * 1e3:.0f} ms")
        yield Row("Cold caches", what, kms.calls, "KMS calls", 1)


def shred_rows(*, sizes: Sequence[int]) -> Iterator[Row]:
    """Shredding a tenant with few and with many subjects: statements, and rows that they wrote."""
    section = "Shredding a tenant"
    fewest: int | None = None
    for size in sizes:
        with world() as made:
            statements, rows_written, took = _shred(made, size)
        fewest = statements if fewest is None else fewest
        what = f"with {size:,} subjects"
        yield Row(section, what, statements, "key-store statements", fewest, f"{took * 1e3:.1f} ms")
        yield Row(section, what, rows_written, "rows written")


def _shred(made: World, subjects: int) -> tuple[int, int, float]:
    with made.vault() as vault:
        sealed = vault.encrypt(TEXT, field=FIELD, tenant=TENANT, subject="a known subject")
        parent = next(info.key_id for info in vault.keys(TENANT) if info.purpose is Purpose.WRAP)
        for first in range(0, subjects, BATCH):
            numbers = range(first, min(first + BATCH, subjects))
            vault.key_store.add_active([Addition(_record(number, parent), None) for number in numbers])
        with made.statements() as statements:
            begun = perf_counter()
            vault.shred(TENANT, actor="benchmark", reason="to count the statements")
            took = perf_counter() - begun
        try:
            vault.decrypt(sealed, field=FIELD, tenant=TENANT)
        except KeyShredded:
            return statements.count, statements.rows_written, took
    raise AssertionError("a shredded tenant's value was read")


def _record(number: int, parent: bytes) -> KeyRecord:
    # Of the size of a subject's key. Nobody will unwrap it: its parent goes first, which is the point.
    return KeyRecord(
        key_id=os.urandom(16),
        tenant=TENANT,
        subject=f"subject {number:09d}",
        purpose=Purpose.DATA,
        version=1,
        state=KeyState.ACTIVE,
        created_at=datetime.now(UTC),
        uses=0,
        wrapped=os.urandom(49),
        parent=parent,
    )


def _sealing(vault: Vault, tenants: Sequence[str]) -> Call:
    turn = cycle(tenants).__next__
    return lambda: vault.encrypt(TEXT, field=FIELD, tenant=turn())


def _opening(vault: Vault, blobs: Sequence[tuple[bytes, str]]) -> Call:
    turn = cycle(blobs).__next__

    def call() -> Any:
        blob, tenant = turn()
        return vault.decrypt(blob, field=FIELD, tenant=tenant)

    return call


def _threads(vault: Vault, blob: bytes, callers: int) -> list[Any]:
    return threads_meet(partial(vault.decrypt, blob, field=FIELD, tenant=TENANT), callers)


def _tasks(vault: Vault, blob: bytes, callers: int) -> list[Any]:
    return tasks_meet(partial(vault.adecrypt, blob, field=FIELD, tenant=TENANT), callers)

"""Single values: sealing and opening 32 characters, warm, against the floors and the peers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.dialects import sqlite

from benchmarks.measure import Call, interleaved
from benchmarks.models import TENANT, fieldvault_model
from benchmarks.peers import FIELD, PEERS, Missing, Peer
from benchmarks.report import Row, ratio_row
from benchmarks.world import world
from fieldvault import Vault
from fieldvault.sqlalchemy.opening import page_opener

__all__ = ["value_rows"]

TEXT = "0123456789abcdef0123456789abcdef"

SEAL, OPEN, SIZE = "Sealing a 32-byte value", "Opening a 32-byte value", "Overhead of a ciphertext"
FLOOR, VAULT, COLUMN = "floor", "fieldvault", "fieldvault, in a column of rows"
SEAL_BUDGETS: Mapping[str, float] = {VAULT: 1.5, COLUMN: 1.4}
OPEN_BUDGETS: Mapping[str, float] = {VAULT: 1.9, COLUMN: 1.6}
OVERHEAD_BUDGET = 48
RIVAL = "Asherah"
PAGE = 100
"""Values of a column that are sealed, or opened, together."""


def value_rows(*, rounds: int, calls: int) -> Iterator[Row]:
    """The rows for single values: ``rounds`` rounds of ``calls`` calls for each candidate."""
    with ExitStack() as stack:
        vault = stack.enter_context(stack.enter_context(world()).vault())
        peers, absent = _prepared(
            {VAULT: lambda: _vault(vault), COLUMN: lambda: _column(vault, stack), **PEERS}
        )
        seal_floor, open_floor = _floors()
        seals, opens = {FLOOR: seal_floor}, {FLOOR: open_floor}
        overheads: dict[str, int] = {}
        for name, peer in peers.items():
            seals[name] = peer.sealing(TEXT)
            blob = seals[name]()
            opens[name] = peer.opening(blob)
            if opens[name]() != TEXT:
                raise AssertionError(f"{name} does not read what it wrote")
            overheads[name] = len(blob) - len(TEXT)  # type: ignore[arg-type]  # bytes, or text
        for section, candidates, budgets in ((SEAL, seals, SEAL_BUDGETS), (OPEN, opens, OPEN_BUDGETS)):
            yield from _timed(section, candidates, budgets, rounds=rounds, calls=calls)
            for name, reason in absent.items():
                yield Row(section, name, None, "× floor", budgets.get(name), note=reason)
        for name, overhead in overheads.items():
            budget = OVERHEAD_BUDGET if name in (VAULT, COLUMN) else None
            yield Row(SIZE, name, overhead, "bytes", budget)


def _timed(
    section: str, candidates: Mapping[str, Call], budgets: Mapping[str, float], *, rounds: int, calls: int
) -> Iterator[Row]:
    samples = interleaved(candidates, rounds=rounds, calls=calls, worth={COLUMN: PAGE})
    for name, sample in samples.items():
        yield ratio_row(section, name, sample, samples[FLOOR], unit="× floor", budget=budgets.get(name))
    if RIVAL in samples:
        beside = f"{VAULT} beside {RIVAL}"
        yield ratio_row(section, beside, samples[VAULT], samples[RIVAL], unit=f"× {RIVAL}", budget=1.0)


def _floors() -> tuple[Call, Call]:
    aead = AESGCM(AESGCM.generate_key(256))
    random = os.urandom
    value, nonce = TEXT.encode(), random(12)
    sealed = aead.encrypt(nonce, value, None)
    return lambda: aead.encrypt(random(12), value, None), lambda: aead.decrypt(nonce, sealed, None)


def _vault(vault: Vault) -> Peer:
    return Peer(
        lambda text: lambda: vault.encrypt(text, field=FIELD, tenant=TENANT),
        lambda blob: lambda: vault.decrypt(blob, field=FIELD, tenant=TENANT),
    )


def _column(vault: Vault, stack: ExitStack) -> Peer:
    # As statements and result rows do it: a column at a time, then the processor for each value.
    column = fieldvault_model(vault).customer.__table__.c.email.type
    stack.enter_context(vault.scope(tenant=TENANT))
    dialect = sqlite.dialect()
    seal, bind = column.column_sealer(dialect), column.bind_processor(dialect)
    open_page, result = page_opener(column.bound, dialect), column.result_processor(dialect, None)
    owner = TENANT, None

    def sealing(text: str) -> Call:
        texts = [text] * PAGE
        return lambda: list(map(bind, seal(texts, owner, None)))[-1]

    def opening(blob: object) -> Call:
        cells = [blob] * PAGE
        return lambda: list(map(result, open_page(cells, None, None, None, None)))[-1]

    return Peer(sealing, opening)


def _prepared(
    makers: Mapping[str, Callable[[], Peer]],
) -> tuple[dict[str, Peer], dict[str, str]]:
    peers: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name, make in makers.items():
        try:
            peers[name] = make()
        except Missing as error:
            absent[name] = str(error)
    return peers, absent

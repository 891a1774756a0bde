"""What the conformance kits put into a backend, and how they call it from many threads at once."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import Fence, KeyRecord, KeySlot, KeyState, Purpose

__all__ = [
    "THREADS",
    "acme",
    "add",
    "fence",
    "first_key",
    "in_a_fork",
    "record",
    "shows",
    "state_of",
    "successor",
    "together",
    "told_by",
    "wrap_key",
]

T = TypeVar("T")

THREADS = 8


def acme(subject: str | None = None, purpose: Purpose = Purpose.DATA) -> KeySlot:
    """A slot of the tenant that most promises are about."""
    return KeySlot("acme", subject, purpose)


def record(slot: KeySlot, version: int = 1, *, parent: bytes | None = None) -> KeyRecord:
    """A new active key, random where a real one is."""
    return KeyRecord(
        key_id=os.urandom(16),
        tenant=slot.tenant,
        subject=slot.subject,
        purpose=slot.purpose,
        version=version,
        state=KeyState.ACTIVE,
        created_at=datetime.now(UTC),
        uses=0,
        wrapped=os.urandom(53),
        parent=parent,
    )


def add(store: KeyStore, key: KeyRecord, replaces: KeyRecord | None = None) -> bool:
    """Whether the key became its slot's active one."""
    accepted = store.add_active([Addition(key, None if replaces is None else replaces.key_id)])
    assert accepted in (set(), {key.key_id})
    return bool(accepted)


def first_key(store: KeyStore, slot: KeySlot, *, parent: bytes | None = None) -> KeyRecord:
    """The first key of a slot, added."""
    key = record(slot, parent=parent)
    assert add(store, key)
    return key


def wrap_key(store: KeyStore, tenant: str = "acme") -> KeyRecord:
    """A tenant's first wrap key, added."""
    return first_key(store, KeySlot(tenant, None, Purpose.WRAP))


def successor(store: KeyStore, key: KeyRecord) -> KeyRecord:
    """The next key of a slot, added in the place of ``key``."""
    following = record(key.slot, key.version + 1, parent=key.parent)
    assert add(store, following, key)
    return following


def fence(tenant: str = "acme", subject: str | None = None, reason: str = "asked to be forgotten") -> Fence:
    """A fence, now."""
    return Fence(tenant, subject, "officer", reason, datetime.now(UTC))


def state_of(store: KeyStore, key: KeyRecord) -> KeyState:
    """The state that the store has a key in."""
    return store.fetch([key.key_id]).records[key.key_id].state


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The answers of calls made at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(timeout=60)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def in_a_fork(work: Callable[[], object]) -> None:
    """Do the work in a forked child, within 30 seconds; what went wrong there is wrong here."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # That it may be unsafe in a process with threads is why it is tried.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        _as_a_child(work, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"the forked child ended with {code}: {told}"


def _as_a_child(work: Callable[[], object], writing: int) -> NoReturn:
    """Work, tell the parent what went wrong, and end without cleaning up what is the parent's."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        work()
        code = 0
    except BaseException:
        os.write(writing, traceback.format_exc().encode())
        raise
    finally:
        os._exit(code)


def told_by(error: BaseException | None) -> Iterator[str]:
    """Everything that an error, or one that it came from, would show in a log."""
    while error is not None:
        yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
        error = error.__cause__ or error.__context__


def shows(text: str, secret: str) -> bool:
    """Whether a text holds a secret, or two thirds of it in one piece: cut in two it is shown as well."""
    size = min(len(secret), max(8, len(secret) * 2 // 3))
    return any(secret[start : start + size] in text for start in range(len(secret) - size + 1))

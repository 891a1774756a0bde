"""What the measurements run on: vaults over a SQLite key store, with every call of the backends counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, create_engine, event

from fieldvault import CachePolicy, Vault
from fieldvault.errors import KMSError
from fieldvault.keys.protocols import WrappedKey
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS

__all__ = ["CountingKMS", "Statements", "World", "world"]


class CountingKMS:
    """A ``LocalKMS`` behind which each request takes ``delay`` seconds, as one over a network would."""

    def __init__(self, kms: LocalKMS, delay: float = 0.0) -> None:
        self._kms = kms
        self._delay = delay
        self._lock = threading.Lock()
        self.calls = 0

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Counted, and passed on."""
        self._count()
        return self._kms.wrap(key, context=context)

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """Counted, and passed on."""
        self._count()
        return self._kms.unwrap(wrapped, context=context)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Counted as one request, and passed on."""
        self._count()
        return self._kms.unwrap_many(items)

    def check(self) -> str:
        """Passed on."""
        return self._kms.check()

    def close(self) -> None:
        """Passed on."""
        self._kms.close()

    def _count(self) -> None:
        with self._lock:
            self.calls += 1
        time.sleep(self._delay)


@dataclass(slots=True)
class Statements:
    """The statements that an engine ran: how many, and how many rows those that write touched."""

    count: int = 0
    rows_written: int = 0
    texts: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, engine: Engine) -> Iterator[Statements]:
        """Count in a block."""
        event.listen(engine, "after_cursor_execute", self._note)
        try:
            yield self
        finally:
            event.remove(engine, "after_cursor_execute", self._note)

    def _note(self, _connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("PRAGMA"):
            return
        self.count += 1
        self.texts.append(statement)
        if not statement.startswith("SELECT"):
            self.rows_written += max(cursor.rowcount, 0)


class World:
    """One root-key file and one key store in a folder of their own; every ``vault`` starts cold."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "root.keys"
        LocalKMS.create(self._root)
        self.engine = create_engine(f"sqlite:///{folder / 'keys.db'}")
        event.listen(self.engine, "connect", _without_waiting_for_the_disk)

    def kms(self, delay: float = 0.0) -> CountingKMS:
        """The KMS, with a counter of its own."""
        return CountingKMS(LocalKMS(self._root), delay)

    def vault(self, kms: CountingKMS | None = None, *, max_keys: int = 10_000) -> Vault:
        """A vault with an empty cache."""
        return Vault(
            kms=self.kms() if kms is None else kms,
            key_store=SQLKeyStore(self.engine),
            cache=CachePolicy(max_keys=max_keys, ttl=3_600, lease=3_600),
        )


@contextmanager
def world() -> Iterator[World]:
    """A world that is gone afterwards."""
    with TemporaryDirectory(prefix="fieldvault-benchmark-") as folder:
        made = World(Path(folder))
        try:
            yield made
        finally:
            made.engine.dispose()


def _without_waiting_for_the_disk(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")

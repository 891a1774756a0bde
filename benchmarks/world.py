"""What the measurements run on: vaults over a SQLite key store, with every call of the backends counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import create_engine, event

from fieldvault import CachePolicy, Vault
from fieldvault.errors import KMSError
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS

__all__ = ["CountingKMS", "Statements", "World", "world"]

HOUR = 3_600.0


class CountingKMS:
    """A ``LocalKMS`` that counts requests, and makes each ``delay`` seconds longer, as a network would."""

    def __init__(self, kms: LocalKMS, delay: float = 0.0) -> None:
        self._kms = kms
        self._delay = delay
        self._lock = threading.Lock()
        self.calls = 0

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """One request."""
        self._count()
        return self._kms.wrap(key, context=context)

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """One request."""
        self._count()
        return self._kms.unwrap(wrapped, context=context)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """One request, however many items."""
        self._count()
        return self._kms.unwrap_many(items)

    def check(self) -> str:
        """Not counted."""
        return self._kms.check()

    def close(self) -> None:
        """Not counted."""
        self._kms.close()

    def _count(self) -> None:
        with self._lock:
            self.calls += 1
        if self._delay:
            time.sleep(self._delay)


class Statements:
    """The statements that an engine ran, settings apart, and the rows that those which write have written."""

    def __init__(self) -> None:
        self.count = 0
        self.rows_written = 0

    def note(self, _connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        """Listener of ``after_cursor_execute``."""
        if statement.startswith("PRAGMA"):
            return
        self.count += 1
        if not statement.startswith("SELECT"):
            self.rows_written += cursor.rowcount


class World:
    """A root-key file and a key store in a folder, made if missing; each ``vault`` starts cold."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "root.keys"
        if not self._root.exists():
            LocalKMS.create(self._root)
        self.engine = create_engine(f"sqlite:///{folder / 'keys.db'}")
        event.listen(self.engine, "connect", _without_waiting_for_the_disk)

    def local(self) -> LocalKMS:
        """The KMS by itself."""
        return LocalKMS(self._root)

    def kms(self, delay: float = 0.0) -> CountingKMS:
        """The KMS, with a counter of its own."""
        return CountingKMS(self.local(), delay)

    def vault(self, kms: KMS | None = None, *, max_keys: int = 10_000) -> Vault:
        """A vault with an empty cache, and a lease that no measurement outlasts."""
        return Vault(
            kms=self.kms() if kms is None else kms,
            key_store=SQLKeyStore(self.engine),
            cache=CachePolicy(max_keys=max_keys, ttl=HOUR, lease=HOUR),
        )

    @contextmanager
    def statements(self) -> Iterator[Statements]:
        """Count what the key store's engine runs in a block."""
        counted = Statements()
        event.listen(self.engine, "after_cursor_execute", counted.note)
        try:
            yield counted
        finally:
            event.remove(self.engine, "after_cursor_execute", counted.note)


@contextmanager
def world() -> Iterator[World]:
    """A world in a folder of its own, gone afterwards."""
    with TemporaryDirectory(prefix="fieldvault-benchmark-") as folder:
        made = World(Path(folder))
        try:
            yield made
        finally:
            made.engine.dispose()


def _without_waiting_for_the_disk(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")

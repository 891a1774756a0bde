"""``SQLKeyStore``: the key store protocol in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from math import ceil

from sqlalchemy import Engine

from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import (
    Change,
    Fence,
    KeyRecord,
    KeySlot,
    KeyState,
    Snapshot,
    check_transition,
)
from fieldvault.keystores.sql import copying, reading, writing
from fieldvault.keystores.sql.engines import anchored, check_transactions, open_engine
from fieldvault.keystores.sql.rows import batches, fence_of, in_slots
from fieldvault.keystores.sql.schema import STEPS, is_newest, keys, upgrade
from fieldvault.keystores.sql.transactions import Transactions
from fieldvault.settings import Section

__all__ = ["SQLKeyStore"]


class SQLKeyStore:
    """Keeps keys in five tables, ``fieldvault_*``, of a SQLite, PostgreSQL or MariaDB database.

    ``database`` is a URL, or an engine to share. Tables that are missing are made, older ones brought up to
    date. What must not interleave takes row locks, and unique constraints decide races. On SQLite deleted
    content is overwritten (``secure_delete``), in its journals too. PostgreSQL and MariaDB keep old row
    versions until they vacuum or purge, and every database's backups and logs keep more: what is wiped here
    is out of reach there only once its root key is destroyed.

    An engine that is passed in shows the parameters of its statements, wrapped keys among them, wherever it
    is told to (``echo``); one made from a URL never does.

    Raises:
        ConfigurationError: a URL or an engine that cannot work.
        KeyStoreError: the database cannot be reached, or a newer release has been here.
    """

    def __init__(self, database: str | Engine) -> None:
        engine = open_engine(database) if isinstance(database, str) else database
        self._owned = isinstance(database, str)
        self._transactions = Transactions(engine)
        try:
            self._transactions.read(check_transactions)
            if not self._transactions.read(lambda connection: is_newest(connection, STEPS)):
                self._transactions.define(lambda connection: upgrade(connection, STEPS))
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_config(cls, section: Section) -> SQLKeyStore:
        """Open the database that a configuration names.

        ``url``, or ``url_env`` or ``url_file`` where it holds a password. The path in a SQLite URL is
        relative to the configuration's folder.
        """
        name, url = section.text_or_secret("url")
        section.finish()
        with section.blaming(name):
            return cls(anchored(url, section.folder))

    # -- reading --------------------------------------------------------------------------------------------

    def generation(self) -> int:
        """See ``KeyStore.generation``."""
        return self._transactions.read(reading.generation)

    def changes(self, since: int) -> Sequence[Change] | None:
        """See ``KeyStore.changes``."""
        return self._transactions.read(lambda connection: reading.changes_since(connection, since))

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        """See ``KeyStore.fetch``."""
        conditions = [keys.c.key_id.in_(part) for part in batches(key_ids)]
        return self._transactions.read(lambda connection: reading.snapshot(connection, conditions))

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        """See ``KeyStore.current``."""
        conditions = [in_slots(part) & reading.live_or_newest() for part in batches(slots)]
        return self._transactions.read(lambda connection: reading.snapshot(connection, conditions))

    def fence(self, tenant: str, subject: str | None) -> Fence | None:
        """See ``KeyStore.fence``."""
        row = self._transactions.read(lambda connection: reading.fence_over(connection, tenant, subject))
        return None if row is None else fence_of(row)

    def keys(self, tenant: str, subject: str | None) -> Sequence[KeyRecord]:
        """See ``KeyStore.keys``."""
        return self._transactions.read(
            lambda connection: reading.records_of_scope(connection, tenant, subject)
        )

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        """See ``KeyStore.all_keys``."""
        after: KeyRecord | None = None
        while True:
            page = self._page_of_keys(tenant, after)
            yield from page
            if len(page) < reading.PAGE:
                return
            after = page[-1]

    def tenants(self) -> Iterator[str]:
        """See ``KeyStore.tenants``."""
        after: str | None = None
        while True:
            page = self._page_of_tenants(after)
            yield from page
            if len(page) < reading.PAGE:
                return
            after = page[-1]

    def fences(self) -> Iterator[Fence]:
        """See ``Portable.fences``."""
        after: Fence | None = None
        while True:
            page = self._page_of_fences(after)
            yield from page
            if len(page) < reading.PAGE:
                return
            after = page[-1]

    def check(self) -> str:
        """See ``KeyStore.check``."""
        count = self._transactions.read(reading.count)
        # Without its query, in which some drivers take a password too.
        return f"{self._transactions.engine.url.set(query={}).render_as_string()}, {count} keys"

    # -- writing --------------------------------------------------------------------------------------------

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        """See ``KeyStore.add_active``."""
        self._enter({addition.record.tenant for addition in additions})
        return self._transactions.write(lambda connection: writing.add_active(connection, additions))

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        """See ``KeyStore.transition``."""
        check_transition(expect, to)
        done = self._transactions.write(
            lambda connection: writing.transition(connection, key_id, expect=expect, to=to)
        )
        if done and to is KeyState.DESTROYED:
            self._transactions.truncate_log()
        return done

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        """See ``KeyStore.reserve``."""
        return self._transactions.write(
            lambda connection: writing.reserve(connection, key_ids, uses, limit=limit)
        )

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        """See ``KeyStore.rewrap``."""
        return self._transactions.write(
            lambda connection: writing.rewrap(connection, key_id, expect=expect, wrapped=wrapped)
        )

    def shred(self, fence: Fence) -> Sequence[bytes]:
        """See ``KeyStore.shred``."""
        self._enter({fence.tenant})
        destroyed = self._transactions.write(lambda connection: writing.shred(connection, fence))
        self._transactions.truncate_log()
        return destroyed

    def declare_lease(self, seconds: float) -> float:
        """See ``KeyStore.declare_lease``."""
        milliseconds = ceil(seconds * 1000)
        longest = self._transactions.read(lambda connection: reading.number(connection, "lease_milliseconds"))
        if longest < milliseconds:
            longest = self._transactions.write(
                lambda connection: writing.raise_lease(connection, milliseconds)
            )
        return longest / 1000

    # -- as a copy ------------------------------------------------------------------------------------------

    def begin_copy(self) -> int | None:
        """See ``Portable.begin_copy``."""
        return self._transactions.write(copying.begin)

    def take_over(self, records: Sequence[KeyRecord], fences: Sequence[Fence], *, token: int) -> int:
        """See ``Portable.take_over``; one transaction."""
        return self._transactions.write(
            lambda connection: copying.take_over(connection, records, fences, token=token)
        )

    def finish_copy(self, *, token: int, generation: int, lease: float) -> None:
        """See ``Portable.finish_copy``."""
        self._transactions.write(
            lambda connection: copying.finish(
                connection, token=token, generation=generation, milliseconds=ceil(lease * 1000)
            )
        )
        self._transactions.truncate_log()

    def give_up_copy(self) -> bool:
        """See ``Portable.give_up_copy``; takes the right to delete rows of three tables."""
        given_up = self._transactions.write(copying.give_up)
        if given_up:
            self._transactions.truncate_log()
        return given_up

    def move_away(self, *, token: int) -> int:
        """See ``Portable.move_away``."""
        return self._transactions.write(partial(copying.move_away, token=token))

    def move_back(self, *, token: int | None = None) -> bool:
        """See ``Portable.move_back``."""
        return self._transactions.write(partial(copying.move_back, token=token))

    def close(self) -> None:
        """See ``KeyStore.close``; an engine that was passed in stays open."""
        if self._owned:
            self._transactions.engine.dispose()

    def __repr__(self) -> str:
        return f"<SQLKeyStore {self._transactions.engine.dialect.name}>"

    # -- inside ---------------------------------------------------------------------------------------------

    def _page_of_keys(self, tenant: str, after: KeyRecord | None) -> Sequence[KeyRecord]:
        return self._transactions.read(lambda connection: reading.page_of_keys(connection, tenant, after))

    def _page_of_fences(self, after: Fence | None) -> Sequence[Fence]:
        return self._transactions.read(lambda connection: reading.page_of_fences(connection, after))

    def _page_of_tenants(self, after: str | None) -> Sequence[str]:
        return self._transactions.read(lambda connection: reading.page_of_tenants(connection, after))

    def _enter(self, names: AbstractSet[str]) -> None:
        # In a transaction of its own: a tenant's row has to be there for all to see before anyone locks it.
        missing = self._transactions.read(lambda connection: reading.missing_tenants(connection, names))
        if missing:
            self._transactions.write(lambda connection: writing.enter(connection, missing))

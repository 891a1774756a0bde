"""``DynamoDBKeyStore``: the key store protocol in one table of DynamoDB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import ceil
from typing import Any, NoReturn

from fieldvault.aws.clients import ClientOptions, Clients
from fieldvault.aws.workers import Workers
from fieldvault.errors import ConfigurationError
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import Change, Fence, KeyRecord, KeySlot, KeyState, Snapshot, check_transition
from fieldvault.keystores.dynamodb import copying, reading, writing
from fieldvault.keystores.dynamodb.creation import create_table
from fieldvault.keystores.dynamodb.heads import served
from fieldvault.keystores.dynamodb.shredding import shred
from fieldvault.keystores.dynamodb.table import Table
from fieldvault.settings import Section

__all__ = ["DynamoDBKeyStore"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_PARALLEL = 8


class DynamoDBKeyStore:
    """Keeps keys in one table of DynamoDB: no index, no scan, every read consistent.

    ``table`` is its name. Opening does not touch it: ``create_table`` makes one, or another tool does
    (docs/keystores/dynamodb.md).
    ``client`` is a boto3 client for DynamoDB to share; without it one is opened, with ``region_name``,
    ``endpoint_url``, the role ``role_arn`` (with ``external_id``), and time limits in seconds, on the SDK's
    standard chain of credentials. Large reads are made in ``parallel`` calls at a time.

    Each method is one transaction, with two exceptions. More additions than one holds, 49 of one tenant, are
    added in several: where one of these meets a fence that was not there at the start, or the process dies,
    those before it stand, each whole. And of a batch of ``reserve`` each key is a step of its own. A table's
    backups keep what is wiped here; it is out of reach there only once its root key is destroyed.

    Raises:
        ConfigurationError: no name of a table, no region, an impossible client.
    """

    def __init__(
        self,
        table: str,
        client: Any = None,
        region_name: str | None = None,
        endpoint_url: str | None = None,
        *,
        parallel: int = _PARALLEL,
        **options: Any,
    ) -> None:
        if not _NAME.fullmatch(str(table)):
            raise ConfigurationError(f"{table!r} names no table of DynamoDB; give its name, not its ARN")
        if parallel < 1:
            raise ConfigurationError("parallel is the number of calls at a time, at least 1")
        given = ClientOptions(region_name=region_name, endpoint_url=endpoint_url, **options)
        clients = Clients("dynamodb", client, given, connections=parallel + 2)
        self._table = Table(table, clients, Workers(parallel, "fieldvault-dynamodb"))

    @classmethod
    def from_config(cls, section: Section) -> DynamoDBKeyStore:
        """Open the table that a configuration names: ``table``, and the members of ``ClientOptions``."""
        table, parallel = section.text("table"), section.whole("parallel", _PARALLEL)
        options = ClientOptions.from_config(section)
        section.finish()
        return cls(table, parallel=parallel, **{name: getattr(options, name) for name in options.__slots__})

    # -- reading --------------------------------------------------------------------------------------------

    def generation(self) -> int:
        """See ``KeyStore.generation``."""
        return served(self._table).generation

    def changes(self, since: int) -> Sequence[Change] | None:
        """See ``KeyStore.changes``."""
        return reading.changes(self._table, since)

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        """See ``KeyStore.fetch``."""
        return reading.fetch(self._table, key_ids)

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        """See ``KeyStore.current``."""
        return reading.current(self._table, slots)

    def fence(self, tenant: str, subject: str | None) -> Fence | None:
        """See ``KeyStore.fence``."""
        return reading.fence_over(self._table, tenant, subject)

    def keys(self, tenant: str, subject: str | None) -> Sequence[KeyRecord]:
        """See ``KeyStore.keys``."""
        return reading.keys_of_scope(self._table, tenant, subject)

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        """See ``KeyStore.all_keys``."""
        return reading.all_keys(self._table, tenant)

    def tenants(self) -> Iterator[str]:
        """See ``KeyStore.tenants``."""
        return reading.tenants(self._table)

    def fences(self) -> Iterator[Fence]:
        """See ``Portable.fences``."""
        return copying.fences(self._table)

    def check(self) -> str:
        """See ``KeyStore.check``."""
        return f"{self._where()}, {served(self._table).tenants} tenants"

    # -- writing --------------------------------------------------------------------------------------------

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        """See ``KeyStore.add_active``."""
        return writing.add_active(self._table, additions)

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        """See ``KeyStore.transition``."""
        check_transition(expect, to)
        return writing.transition(self._table, key_id, expect=expect, to=to)

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        """See ``KeyStore.reserve``."""
        return writing.reserve(self._table, key_ids, uses, limit=limit)

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        """See ``KeyStore.rewrap``."""
        return writing.rewrap(self._table, key_id, expect=expect, wrapped=wrapped)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        """See ``KeyStore.shred``; a scope of more than 92 keys takes more than one transaction."""
        return shred(self._table, fence)

    def declare_lease(self, seconds: float) -> float:
        """See ``KeyStore.declare_lease``."""
        return writing.raise_lease(self._table, ceil(seconds * 1000)) / 1000

    # -- as a copy ------------------------------------------------------------------------------------------

    def begin_copy(self) -> bool:
        """See ``Portable.begin_copy``."""
        return copying.begin(self._table)

    def take_over(self, records: Sequence[KeyRecord], fences: Sequence[Fence]) -> int:
        """See ``Portable.take_over``; the fences first, then each slot in one transaction."""
        return copying.take_over(self._table, records, fences)

    def finish_copy(self, *, generation: int, lease: float) -> None:
        """See ``Portable.finish_copy``."""
        copying.finish(self._table, generation=generation, milliseconds=ceil(lease * 1000))

    # -- its life -------------------------------------------------------------------------------------------

    def create_table(self) -> str:
        """See ``Provisioned.create_table``; paid by request, and kept from being deleted by mistake."""
        create_table(self._table)
        served(self._table)
        return self._where()

    def close(self) -> None:
        """See ``KeyStore.close``; a client that was passed in stays open."""
        self._table.close()

    def _where(self) -> str:
        return f"DynamoDB table {self._table.name} in {self._table.clients.get().meta.region_name}"

    def __repr__(self) -> str:
        return f"DynamoDBKeyStore({self._table.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DynamoDBKeyStore is not pickled or copied; open it in each process")

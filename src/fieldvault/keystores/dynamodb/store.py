"""``DynamoDBKeyStore``: the key store protocol in one table of DynamoDB."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import ceil
from typing import Any, NoReturn

from fieldvault.aws.clients import ClientOptions, Clients, MemberError, blaming_members
from fieldvault.aws.workers import Workers
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import Change, Fence, KeyRecord, KeySlot, KeyState, Snapshot, check_transition
from fieldvault.keystores.dynamodb import copying, reading, writing
from fieldvault.keystores.dynamodb.creation import create_table
from fieldvault.keystores.dynamodb.heads import served
from fieldvault.keystores.dynamodb.items import SEPARATOR
from fieldvault.keystores.dynamodb.shredding import shred
from fieldvault.keystores.dynamodb.table import Table
from fieldvault.settings import Section

__all__ = ["DynamoDBKeyStore"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_PARALLEL = 8
_NAMED = 5


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
            raise MemberError(f"{table!r} names no table of DynamoDB; give its name, not its ARN", "table")
        if parallel < 1:
            raise MemberError("parallel is the number of calls at a time, at least 1", "parallel")
        given = ClientOptions(region_name=region_name, endpoint_url=endpoint_url, **options)
        clients = Clients("dynamodb", client, given, connections=parallel + 2)
        self._table = Table(table, clients, Workers(parallel, "fieldvault-dynamodb"))

    @classmethod
    def from_config(cls, section: Section) -> DynamoDBKeyStore:
        """Open the table that a configuration names: ``table``, and the members of ``ClientOptions``."""
        table, parallel = section.text("table"), section.whole("parallel", _PARALLEL)
        options = ClientOptions.from_config(section)
        section.finish()
        with blaming_members(section):
            return cls(
                table, parallel=parallel, **{name: getattr(options, name) for name in options.__slots__}
            )

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
        seen = served(self._table)
        plural = "" if seen.tenants == 1 else "s"
        return f"{self._where()}, {seen.tenants} tenant{plural}{_half_done(seen.wiping)}"

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

    def begin_copy(self) -> int | None:
        """See ``Portable.begin_copy``."""
        return copying.begin(self._table)

    def take_over(self, records: Sequence[KeyRecord], fences: Sequence[Fence], *, token: int) -> int:
        """See ``Portable.take_over``; the fences first, then each slot in one transaction."""
        return copying.take_over(self._table, records, fences, token=token)

    def finish_copy(self, *, token: int, generation: int, lease: float) -> None:
        """See ``Portable.finish_copy``."""
        copying.finish(self._table, token=token, generation=generation, milliseconds=ceil(lease * 1000))

    def give_up_copy(self) -> bool:
        """See ``Portable.give_up_copy``; takes the permission ``dynamodb:DeleteItem``."""
        return copying.give_up(self._table)

    def move_away(self, *, token: int) -> int:
        """See ``Portable.move_away``."""
        return copying.move_away(self._table, token=token)

    def move_back(self, *, token: int | None = None) -> bool:
        """See ``Portable.move_back``."""
        return copying.move_back(self._table, token=token)

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


def _half_done(wiping: Iterable[str]) -> str:
    """Shreds that stopped midway: whom to shred once more, so that the rest of the keys is wiped as well."""
    scopes = [" / ".join(name.split(SEPARATOR)).removesuffix(" / ") for name in sorted(wiping)]
    if not scopes:
        return ""
    more = f" and {len(scopes) - _NAMED} more" if len(scopes) > _NAMED else ""
    return f"; shreds that stopped midway, shred again: {', '.join(scopes[:_NAMED])}{more}"

"""The table: its calls, tried again where that is safe, and failing in one way."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from fieldvault.aws.clients import Clients
from fieldvault.aws.workers import Workers
from fieldvault.errors import KeyStoreError
from fieldvault.keystores.dynamodb.failures import FAILURES, Busy, Conflict, Refused, failure
from fieldvault.keystores.dynamodb.items import Address, Item

__all__ = ["MAX_ACTIONS", "Table", "contended"]

T = TypeVar("T")

MAX_ACTIONS = 100
"""Items of one transaction, and of one batch of reads."""

_OUTAGE_SECONDS = 2.0
_CONTENTION_SECONDS = 30.0
_WAIT = wait_random_exponential(multiplier=0.01, max=0.5)


class Table:
    """A table with the partition key ``pk`` and the sort key ``sk``; every read is a consistent one.

    What is throttled, or gets no answer, is asked again for two seconds; what others are in the way of, for
    thirty. A transaction carries a token, so that one whose answer was lost is not done twice.
    """

    def __init__(self, name: str, clients: Clients, workers: Workers) -> None:
        self.name = name
        self.clients = clients
        self._workers = workers

    def get(self, address: Address) -> Item | None:
        """One item."""
        return cast("Item | None", self._ask("get_item", Key=address.key).get("Item"))

    def get_many(self, addresses: Iterable[Address]) -> dict[Address, Item]:
        """Those of these items that there are, in as few calls as the service allows, several at a time."""
        wanted = list(dict.fromkeys(addresses))
        found: dict[Address, Item] = {}
        for items in self._workers.map(self._batch, _parts(wanted)):
            found.update((Address.of(item), item) for item in items)
        return found

    def query(self, pk: str, *, begins: str = "", after: str | None = None) -> Iterator[Sequence[Item]]:
        """The items of a partition in order, in pages, the next one fetched when it is asked for.

        Those whose sort key begins so, or comes after this one.
        """
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if begins:
            condition, values = f"{condition} AND begins_with(sk, :sk)", {**values, ":sk": {"S": begins}}
        elif after is not None:
            condition, values = f"{condition} AND sk > :sk", {**values, ":sk": {"S": after}}
        more: dict[str, Any] = {}
        while True:
            answer = self._ask(
                "query", KeyConditionExpression=condition, ExpressionAttributeValues=values, **more
            )
            yield _members(answer, "Items")
            if "LastEvaluatedKey" not in answer:
                return
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def update(self, address: Address, **expressions: Any) -> Item | None:
        """Change one item; its new attributes as asked for, or ``None`` if its condition did not hold.

        An update whose answer was lost is done again.
        """
        call = partial(self.call, "update_item", TableName=self.name, Key=address.key, **expressions)
        try:
            return cast("Item", _persistently(call).get("Attributes", {}))
        except Refused:
            return None

    def transact(self, actions: Sequence[Mapping[str, Any]]) -> None:
        """Do all of these or none.

        Raises:
            Refused: a condition did not hold.
        """
        token = str(uuid.uuid4())
        items = [
            {kind: {"TableName": self.name, **action}} for each in actions for kind, action in each.items()
        ]
        _persistently(
            partial(self.call, "transact_write_items", TransactItems=items, ClientRequestToken=token)
        )

    def map(self, work: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """The answers for all items, several at a time."""
        return self._workers.map(work, items)

    def close(self) -> None:
        """Give up threads and connections."""
        self._workers.close()
        self.clients.close()

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One call, once.

        Raises:
            KeyStoreError: it failed.
            Refused: a condition did not hold.
        """
        try:
            answer: dict[str, Any] = getattr(self.clients.get(), operation)(**parameters)
        except FAILURES as error:
            told = failure(error, self._where())
        else:
            return answer
        raise told

    def _where(self) -> str:
        return f"table {self.name} in {self.clients.get().meta.region_name}"

    def _ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return _persistently(
            partial(self.call, operation, TableName=self.name, ConsistentRead=True, **parameters)
        )

    def _batch(self, addresses: Sequence[Address]) -> list[Item]:
        found: list[Item] = []
        left: dict[str, Any] = {self.name: {"Keys": [each.key for each in addresses], "ConsistentRead": True}}

        def ask() -> None:
            nonlocal left
            answer = self.call("batch_get_item", RequestItems=left)
            found.extend(_members(_members(answer, "Responses"), self.name, ()))
            before, left = left, answer.get("UnprocessedKeys") or {}
            if left == before:
                raise Busy("the key store failed: none of a batch was read, reads are throttled")

        while left:
            # Each time that some of it was read is a beginning anew.
            _persistently(ask)
        return found


def contended(work: Callable[[], T]) -> T:
    """``work`` that reads, decides and writes, again for as long as others change what it has read.

    Raises:
        KeyStoreError: they did not stop.
    """
    try:
        return Retrying(
            retry=retry_if_exception_type(Refused),
            wait=_WAIT,
            stop=stop_after_delay(_CONTENTION_SECONDS),
            reraise=True,
        )(work)
    except Refused:
        pass
    raise KeyStoreError("the key store failed: others changed it without a pause")


def _members(answer: Mapping[str, Any], name: str, default: Any = None) -> Any:
    members = answer.get(name, default)
    if members is None:
        raise KeyStoreError(f"the key store failed: an answer without {name}")
    return members


def _persistently(call: Callable[[], T]) -> T:
    return Retrying(
        retry=retry_if_exception_type((Busy, Conflict)), wait=_WAIT, stop=_out_of_patience, reraise=True
    )(call)


def _out_of_patience(state: RetryCallState) -> bool:
    error = None if state.outcome is None else state.outcome.exception()
    limit = _CONTENTION_SECONDS if isinstance(error, Conflict) else _OUTAGE_SECONDS
    return (state.seconds_since_start or 0.0) >= limit


def _parts(addresses: Sequence[Address]) -> list[Sequence[Address]]:
    return [addresses[start : start + MAX_ACTIONS] for start in range(0, len(addresses), MAX_ACTIONS)]

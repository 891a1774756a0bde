"""The head of the store, one item: the generation, and what holds for the store as a whole."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from fieldvault.errors import MovedAway, UnfinishedCopy
from fieldvault.keystores.dynamodb import actions
from fieldvault.keystores.dynamodb.failures import Refused
from fieldvault.keystores.dynamodb.items import HEAD, damaged
from fieldvault.keystores.dynamodb.table import Table

__all__ = ["Head", "found", "head", "served"]


class Head(NamedTuple):
    """What holds for the store as a whole.

    The generation, the number of tenants, the scopes that are fenced while their keys are not all wiped yet;
    the token of whoever copies to it, as long as it is a copy that is not finished; and whether it was moved
    away.
    """

    generation: int
    tenants: int
    wiping: AbstractSet[str]
    token: int | None
    moved: bool


def head(table: Table) -> Head:
    """The head; of a table in which nothing ever was, a new one.

    Raises:
        KeyStoreError: it is gone, and with it what makes cached keys stale.
    """
    item = table.get(HEAD)
    if item is None:
        found(table)
        item = table.get(HEAD)
    if item is None:
        raise damaged(HEAD)
    return Head(
        int(item["value"]["N"]),
        int(item["tenants"]["N"]) if "tenants" in item else 0,
        frozenset(item.get("wiping", {}).get("SS", ())),
        int(item["unfinished"]["N"]) if "unfinished" in item else None,
        "moved" in item,
    )


def served(table: Table) -> Head:
    """The head of a store that serves.

    Raises:
        UnfinishedCopy, MovedAway: it serves nobody.
    """
    seen = head(table)
    if seen.token is not None:
        raise UnfinishedCopy
    if seen.moved:
        raise MovedAway
    return seen


def found(table: Table) -> None:
    """Begin a store in an empty table.

    Raises:
        KeyStoreError: it is not empty.
    """
    if any(next(iter(table.query(partition)), ()) for partition in ("changes", "tenants")):
        # There is a head again where another process began the store in between.
        if table.get(HEAD) is None:
            raise damaged(HEAD)
        return
    try:
        table.transact([actions.exists_not({**HEAD.key, "value": {"N": "0"}, "format": {"N": "1"}})])
    except Refused:
        # Another process was first.
        return

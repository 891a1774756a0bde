"""Cells that are equal where values are: one, or while an index key is rotated one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fieldvault.keys.indexing import Index, IndexKeys
from fieldvault.sqlalchemy.carrier import Claim, Sealed

__all__ = ["cell_of"]


def cell_of(
    keys: IndexKeys, index: Index, content: bytes, *, unique: bool, show: Callable[[bytes], Any] = bytes
) -> Sealed:
    """The cell to write: a token, or where it has to be unique under several keys, one after another."""
    token = show(keys.token(index, content))
    if not unique or len(keys.usable) == 1:
        return Sealed((token,))
    others = [show(each) for each in keys.tokens(index, content)]
    claim = Claim((*(each for each in others if each != token), token))
    claim.tenant = keys.active.record.tenant
    return claim

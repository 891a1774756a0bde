"""Key stores: where wrapped data keys and their records live."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fieldvault.keystores.memory import MemoryKeyStore
from fieldvault.keystores.sql import SQLKeyStore

if TYPE_CHECKING:
    from fieldvault.keystores.dynamodb import DynamoDBKeyStore

__all__ = ["DynamoDBKeyStore", "MemoryKeyStore", "SQLKeyStore"]


def __getattr__(name: str) -> Any:
    """``DynamoDBKeyStore``, imported once it is asked for: it needs the vendor's library."""
    if name != "DynamoDBKeyStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.dynamodb"), name)
    except ModuleNotFoundError as error:
        missing = error.name
    raise ImportError(
        f"{name} needs the module {missing}, which is not installed; install fieldvault[dynamodb]"
    )

"""Key stores: where wrapped data keys and their records live."""

from fieldvault.keystores.memory import MemoryKeyStore
from fieldvault.keystores.sql import SQLKeyStore

__all__ = ["MemoryKeyStore", "SQLKeyStore"]

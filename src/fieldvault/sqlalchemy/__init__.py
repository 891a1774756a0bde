"""Encrypted columns for SQLAlchemy models."""

from fieldvault.erased import RAISE
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.blind_index import BlindIndex
from fieldvault.sqlalchemy.protect import protect
from fieldvault.sqlalchemy.rebuilding import Rebuilt, rebuild
from fieldvault.sqlalchemy.types import Encrypted
from fieldvault.sqlalchemy.uniqueness import NotUnique

__all__ = ["RAISE", "BlindIndex", "Encrypted", "KeyScope", "NotUnique", "Rebuilt", "protect", "rebuild"]

"""Encrypted columns for SQLAlchemy models."""

from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.protect import protect
from fieldvault.sqlalchemy.types import RAISE, Encrypted

__all__ = ["RAISE", "Encrypted", "KeyScope", "protect"]

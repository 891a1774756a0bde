"""Field-level encryption and key management for SQLAlchemy applications."""

from fieldvault import errors
from fieldvault.erased import RAISE
from fieldvault.keys.policy import CachePolicy, RetryPolicy, RotationPolicy
from fieldvault.keys.records import KeyInfo, KeyState, Purpose
from fieldvault.lifecycle.erase import ErasureReceipt
from fieldvault.scope import KeyScope
from fieldvault.vault import Vault

__all__ = [
    "RAISE",
    "CachePolicy",
    "ErasureReceipt",
    "KeyInfo",
    "KeyScope",
    "KeyState",
    "Purpose",
    "RetryPolicy",
    "RotationPolicy",
    "Vault",
    "errors",
]

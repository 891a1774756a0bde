"""What wraps and unwraps data keys under a root key; one backend a file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fieldvault.kms.local import LocalKMS
from fieldvault.kms.multi import MultiKMS

if TYPE_CHECKING:
    from fieldvault.kms.aws import AWSKMS
    from fieldvault.kms.pkcs11 import PKCS11KMS
    from fieldvault.kms.transit import TransitKMS

__all__ = ["AWSKMS", "PKCS11KMS", "LocalKMS", "MultiKMS", "TransitKMS"]

_EXTRAS = {"AWSKMS": "aws", "PKCS11KMS": "pkcs11", "TransitKMS": "transit"}
"""Backends that need a vendor's library, and the extra, and module here, of each."""


def __getattr__(name: str) -> Any:
    """A vendor's backend, imported once it is asked for: most installations have the library of one."""
    if name not in _EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_EXTRAS[name]}"), name)
    except ModuleNotFoundError as error:
        missing = error.name
    raise ImportError(
        f"{name} needs the module {missing}, which is not installed; install fieldvault[{_EXTRAS[name]}]"
    )

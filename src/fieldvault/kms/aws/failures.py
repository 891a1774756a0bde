"""What each answer of AWS KMS, and each exception of the SDK, means for a key."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from botocore.exceptions import BotoCoreError, ClientError

from fieldvault.aws.faults import (
    COMMON_CODES,
    SDK_FAULTS,
    STILL_EXPIRED,
    Fault,
    code_of,
    fault_of_code,
    fault_of_sdk,
    words_of,
)
from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable

__all__ = ["CODES", "OPERATIONS", "NoRootKey", "Unreachable", "WrongRootKey", "failure", "meaning_of"]


class Unreachable(KMSUnavailable):
    """There was no answer at all: another call now would wait as long for none."""


class NoRootKey(KMSKeyDisabled):
    """AWS KMS knows no key of that name."""


class WrongRootKey(KMSError):
    """The wrapped key was wrapped under another root key than the one that was named."""


OPERATIONS = (
    "Encrypt",
    "Decrypt",
    "ReEncrypt",
    "DescribeKey",
    "CreateKey",
    "CreateAlias",
    "ScheduleKeyDeletion",
)
"""What this backend calls; all but the first two only where an operator asks for it."""

CODES: Mapping[str, type[KMSError]] = MappingProxyType(
    {
        "AlreadyExistsException": KMSError,
        "CloudHsmClusterInvalidConfigurationException": KMSError,
        "CustomKeyStoreInvalidStateException": KMSError,
        "CustomKeyStoreNotFoundException": KMSError,
        "DependencyTimeoutException": KMSUnavailable,
        "DisabledException": KMSKeyDisabled,
        "DryRunOperationException": KMSError,
        "IncorrectKeyException": WrongRootKey,
        "InvalidAliasNameException": KMSError,
        "InvalidArnException": KMSError,
        "InvalidCiphertextException": KMSError,
        "InvalidGrantTokenException": KMSDenied,
        "InvalidKeyUsageException": KMSError,
        "KMSInternalException": KMSUnavailable,
        # Scheduled for deletion, or its material is not there; mostly final, and never a matter of moments.
        "KMSInvalidStateException": KMSKeyDisabled,
        "KeyUnavailableException": KMSUnavailable,
        "LimitExceededException": KMSError,
        "MalformedPolicyDocumentException": KMSError,
        "NotFoundException": NoRootKey,
        "TagException": KMSError,
        "UnsupportedOperationException": KMSError,
        "XksKeyAlreadyInUseException": KMSError,
        "XksKeyInvalidConfigurationException": KMSError,
        "XksKeyNotFoundException": KMSError,
    }
)
"""The answers that AWS KMS declares for these operations; the others are common to all services."""

_BY_FAULT: Mapping[Fault, type[KMSError]] = MappingProxyType(
    {
        Fault.OUTAGE: KMSUnavailable,
        Fault.DENIAL: KMSDenied,
        Fault.MISTAKE: KMSError,
        Fault.OTHER: KMSError,
    }
)


def meaning_of(error: type[Exception] | str) -> type[KMSError] | None:
    """What a code, or a class of the SDK, is told as by itself; ``None`` where nobody has said it."""
    if isinstance(error, str):
        return CODES.get(error) or (_BY_FAULT[COMMON_CODES[error]] if error in COMMON_CODES else None)
    fault = SDK_FAULTS.get(error.__name__)
    return None if fault is None else _of_the_sdk(fault)


def failure(error: Exception) -> KMSError:
    """The error that callers get in place of the SDK's.

    One that nobody has a meaning for yet is told by its HTTP status, or as its base class.
    """
    if isinstance(error, ClientError):
        kind = meaning_of(code_of(error)) or _BY_FAULT[fault_of_code(error)]
        return kind(f"AWS KMS answered: {words_of(error)}")
    if isinstance(error, BotoCoreError):
        kind = _of_the_sdk(fault_of_sdk(error))
        return kind(f"AWS KMS was not reached: {words_of(error)}")
    if isinstance(error, STILL_EXPIRED):
        return Unreachable("AWS KMS was not reached: new credentials came expired already")
    return KMSError(f"AWS KMS gave an answer that makes no sense: {type(error).__name__}")


def _of_the_sdk(fault: Fault) -> type[KMSError]:
    return Unreachable if fault is Fault.OUTAGE else _BY_FAULT[fault]

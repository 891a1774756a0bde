"""What the errors of python-pkcs11 mean to an operator: every one that it has is in the table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pkcs11 import exceptions as vendor
from pkcs11.exceptions import PKCS11Error

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable

__all__ = ["MEANINGS", "meaning"]

_UNAVAILABLE = (
    vendor.DeviceError,
    vendor.DeviceMemory,
    vendor.DeviceRemoved,
    vendor.FunctionCancelled,
    vendor.FunctionFailed,
    vendor.GeneralError,
    vendor.HostMemory,
    vendor.NoSuchToken,
    vendor.OperationActive,
    vendor.OperationNotInitialized,
    vendor.SessionClosed,
    vendor.SessionCount,
    vendor.SessionExists,
    vendor.SessionHandleInvalid,
    vendor.SlotIDInvalid,
    vendor.TokenNotPresent,
    vendor.TokenNotRecognised,
    vendor.UserAlreadyLoggedIn,
)
_DENIED = (
    vendor.AnotherUserAlreadyLoggedIn,
    vendor.FunctionRejected,
    vendor.PinExpired,
    vendor.PinIncorrect,
    vendor.PinInvalid,
    vendor.PinLenRange,
    vendor.PinLocked,
    vendor.PinTooWeak,
    vendor.SessionReadOnly,
    vendor.SessionReadOnlyExists,
    vendor.SessionReadWriteSOExists,
    vendor.TokenWriteProtected,
    vendor.UserNotLoggedIn,
    vendor.UserPinNotInitialized,
    vendor.UserTooManyTypes,
)
_KEY_DISABLED = (
    vendor.KeyHandleInvalid,
    vendor.NoSuchKey,
    vendor.ObjectHandleInvalid,
    vendor.UnwrappingKeyHandleInvalid,
    vendor.WrappingKeyHandleInvalid,
)
_OTHER = (
    vendor.ArgumentsBad,
    vendor.AttributeReadOnly,
    vendor.AttributeSensitive,
    vendor.AttributeTypeInvalid,
    vendor.AttributeValueInvalid,
    vendor.DataInvalid,
    vendor.DataLenRange,
    vendor.DomainParamsInvalid,
    vendor.EncryptedDataInvalid,
    vendor.EncryptedDataLenRange,
    vendor.ExceededMaxIterations,
    vendor.FunctionNotSupported,
    vendor.KeyIndigestible,
    vendor.KeyNeeded,
    vendor.KeyNotNeeded,
    vendor.KeyNotWrappable,
    vendor.KeySizeRange,
    vendor.KeyTypeInconsistent,
    vendor.KeyUnextractable,
    vendor.MechanismInvalid,
    vendor.MechanismParamInvalid,
    vendor.MultipleObjectsReturned,
    vendor.MultipleTokensReturned,
    vendor.NoEvent,
    vendor.PublicKeyInvalid,
    vendor.RandomNoRNG,
    vendor.RandomSeedNotSupported,
    vendor.SignatureInvalid,
    vendor.SignatureLenRange,
    vendor.TemplateIncomplete,
    vendor.TemplateInconsistent,
    vendor.UnwrappingKeySizeRange,
    vendor.UnwrappingKeyTypeInconsistent,
    vendor.WrappedKeyInvalid,
    vendor.WrappedKeyLenRange,
    vendor.WrappingKeySizeRange,
    vendor.WrappingKeyTypeInconsistent,
)

_MODULE = (
    "a failure within the module; for SoftHSM, see that SOFTHSM2_CONF is set, and that this user may read "
    "the folder of tokens that it names"
)

MEANINGS: Mapping[type[PKCS11Error], type[KMSError]] = MappingProxyType(
    {
        **dict.fromkeys(_UNAVAILABLE, KMSUnavailable),
        **dict.fromkeys(_DENIED, KMSDenied),
        **dict.fromkeys(_KEY_DISABLED, KMSKeyDisabled),
        **dict.fromkeys(_OTHER, KMSError),
        # Return codes that the library has no class for: the module's own, or those of a newer standard.
        PKCS11Error: KMSError,
    }
)


_WORDS: Mapping[type[PKCS11Error], str] = MappingProxyType(
    {
        vendor.DeviceRemoved: "the token was removed",
        vendor.FunctionFailed: _MODULE,
        vendor.GeneralError: _MODULE,
        vendor.NoSuchToken: "no slot has a token of that label; see token_label, or bring the token back",
        vendor.PinExpired: "the PIN has expired; set a new one with the vendor's tools",
        vendor.PinIncorrect: "the PIN is wrong; see pin_env or pin_file",
        vendor.PinInvalid: "the PIN has characters that no PIN has; see pin_env or pin_file",
        vendor.PinLenRange: "the PIN is too short or too long; see pin_env or pin_file",
        vendor.PinLocked: "the PIN is locked after too many wrong ones; the security officer sets a new one",
        vendor.TokenNotPresent: "the token was removed",
        vendor.UserPinNotInitialized: "the token has no user PIN yet; set one with the vendor's tools",
    }
)
"""What some of them say to an operator."""


def meaning(error: PKCS11Error, token: str) -> KMSError:
    """The error to raise for one of the vendor's; it says which token, and what that answered."""
    # What the library itself says of a token that it does not find is one of Python's dictionaries.
    own = "" if type(error) is vendor.NoSuchToken else str(error)
    said = ": ".join(filter(None, (type(error).__name__, own, _WORDS.get(type(error), ""))))
    return MEANINGS.get(type(error), KMSError)(f"the PKCS#11 token {token!r} answered {said}")

"""What every error of the vendor's library means here: try again, no permission, key gone, or the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from hvac import exceptions as vendor
from requests import exceptions as http
from urllib3 import exceptions as transport

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable

__all__ = ["MEANING", "TransitKeyMissing", "is_timeout", "of_encryption", "of_item", "translated"]

MEANING: Mapping[type[Exception], type[KMSError]] = {
    # 400: what it says decides, see _GONE.
    vendor.InvalidRequest: KMSError,
    vendor.Unauthorized: KMSDenied,
    vendor.Forbidden: KMSDenied,
    # 404: no such mount, no such namespace.
    vendor.InvalidPath: KMSKeyDisabled,
    vendor.UnsupportedOperation: KMSError,
    vendor.PreconditionFailed: KMSUnavailable,
    vendor.RateLimitExceeded: KMSUnavailable,
    vendor.InternalServerError: KMSUnavailable,
    vendor.VaultNotInitialized: KMSUnavailable,
    vendor.VaultDown: KMSUnavailable,
    # Whatever has no class of its own: redirects of a standby node, gateways, replication that is behind.
    vendor.UnexpectedError: KMSUnavailable,
    vendor.BadGateway: KMSUnavailable,
    vendor.ParamValidationError: KMSError,
    vendor.VaultError: KMSError,
    http.ConnectionError: KMSUnavailable,
    http.ProxyError: KMSUnavailable,
    http.SSLError: KMSUnavailable,
    http.Timeout: KMSUnavailable,
    http.ConnectTimeout: KMSUnavailable,
    http.ReadTimeout: KMSUnavailable,
    # Half an answer, or none that can be read: says nothing about the key.
    http.ChunkedEncodingError: KMSUnavailable,
    http.ContentDecodingError: KMSUnavailable,
    http.InvalidJSONError: KMSUnavailable,
    http.JSONDecodeError: KMSUnavailable,
    http.HTTPError: KMSUnavailable,
    http.TooManyRedirects: KMSUnavailable,
    http.RetryError: KMSUnavailable,
    http.StreamConsumedError: KMSUnavailable,
    http.UnrewindableBodyError: KMSUnavailable,
    http.RequestException: KMSUnavailable,
    # The address and the token are checked before they get this far.
    http.URLRequired: KMSError,
    http.MissingSchema: KMSError,
    http.InvalidSchema: KMSError,
    http.InvalidURL: KMSError,
    http.InvalidProxyURL: KMSError,
    http.InvalidHeader: KMSError,
    # A certificate's file that went away.
    OSError: KMSUnavailable,
}

_MISSING = ("encryption key not found", "no existing key", "could not delete key; not found", "key not found")
_GONE: Mapping[str, str] = {
    **dict.fromkeys(_MISSING, "is not there: it was deleted, or has another name"),
    "too old": "no longer opens the version that wrapped it: min_decryption_version is above it",
    "too new": "does not have the version that wrapped it: it was made anew, or restored from a backup",
    "soft-deleted": "is soft-deleted; it can be restored",
}

_REFUSALS = (vendor.InvalidRequest, vendor.Unauthorized, vendor.Forbidden, vendor.InvalidPath)
"""What only the server itself may say: 400, 401, 403, 404."""

_PROVIDER_AWAY = ("fetching keys", "keyset configuration error")
"""What a login by JWT is refused with where the server cannot get the identity provider's keys."""

_BETWEEN = "see what stands between"

_SECRETIVE = re.compile(r"[\w+/=.-]{24,}")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


class TransitKeyMissing(KMSKeyDisabled):
    """The server has no key of that name."""


def translated(error: Exception, server: str) -> KMSError:
    """The error of this package for one that a request met; to be raised outside the ``except`` block.

    The vendor's error holds the server's answer, keys among it, and must not become a cause or a context.
    What is no error of the vendor's libraries comes from reading an answer that nobody had thought of.
    """
    if not isinstance(error, vendor.VaultError):
        known = (MEANING[each] for each in type(error).__mro__ if each in MEANING)
        return next(known, KMSUnavailable)(f"{server} cannot be reached: {_kind(error)}")
    meaning = next(MEANING[each] for each in type(error).__mro__ if each in MEANING)
    path = str(error.url or "").partition("/v1/")[2]
    asked = f" ({path})" if path else ""
    told = _told(error)
    if told is None and isinstance(error, _REFUSALS):
        return KMSUnavailable(
            f"{server} answered{asked} as neither OpenBao nor Vault does: {type(error).__name__}; {_BETWEEN}"
        )
    said = _said(", ".join(told or ()))
    if isinstance(error, vendor.InvalidRequest):
        meaning = KMSUnavailable if any(sign in said for sign in _PROVIDER_AWAY) else _meaning(said)
    return meaning(f"{server} answered: {said or type(error).__name__}{asked}{_hint(meaning, path)}")


def is_timeout(error: BaseException) -> bool:
    """Whether no answer came in time, or only the beginning of one."""
    return isinstance(error, http.Timeout) or any(
        isinstance(each, transport.TimeoutError) for each in error.args
    )


def of_item(said: str, key: str) -> KMSError:
    """The error for one item of a batch of wrapped keys."""
    gone = _gone(said)
    if gone is not None:
        return _meaning(said)(f"the transit key {key} {gone}")
    return KMSError(
        "the wrapped key was changed, or wrapped for another key, tenant or purpose, or under "
        "another transit key, or one of the same name that was deleted and made anew"
    )


def of_encryption(said: str, key: str) -> KMSError:
    """The error for a key that was not wrapped."""
    return _meaning(said)(f"the transit key {key} does not encrypt: {_said(said)}")


def _meaning(said: str) -> type[KMSError]:
    if any(sign in said for sign in _MISSING):
        return TransitKeyMissing
    return KMSError if _gone(said) is None else KMSKeyDisabled


def _gone(said: str) -> str | None:
    return next((told for sign, told in _GONE.items() if sign in said), None)


def _told(error: vendor.VaultError) -> Sequence[str] | None:
    """What the server itself said, which it does in one form; ``None``: something else answered."""
    told: object = error.errors
    if told is None:
        # The client reads it only where the content type is JSON to the letter.
        with suppress(ValueError, RecursionError):
            answer = json.loads(error.text or "")
            told = answer.get("errors") if isinstance(answer, dict) else None
    if isinstance(told, list) and all(isinstance(each, str) for each in told):
        return told
    return None


def _hint(meaning: type[KMSError], path: str) -> str:
    if meaning is not KMSDenied or not path:
        return ""
    if path.startswith("auth/"):
        return "; see auth_mount, and what the login was given"
    return "; see the policy of the token, and mount, key and namespace"


def _kind(error: Exception) -> str:
    if is_timeout(error):
        return "no answer in time"
    if isinstance(error, http.SSLError):
        return "TLS failed; see the certificates of both sides"
    if isinstance(error, http.InvalidJSONError):
        return f"the answer is not JSON; {_BETWEEN}"
    if not isinstance(error, OSError):
        return f"the answer cannot be read ({type(error).__name__}); {_BETWEEN}"
    return _cause(error) or type(error).__name__


def _cause(error: BaseException) -> str | None:
    """What the operating system said, at the bottom of the chain."""
    said = None
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, OSError) and each.strerror:
            said = each.strerror
        each = each.__context__
    return said


def _said(said: str) -> str:
    """What the server said, in one line, without anything that could be a token or a key it repeats."""
    return _SECRETIVE.sub("…", _BLANKS.sub(" ", said).strip())[:300]

"""Calls of AWS KMS, each with its answer checked, and failing in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from fieldvault.aws.clients import Clients
from fieldvault.aws.faults import STILL_EXPIRED
from fieldvault.errors import KMSError
from fieldvault.kms.aws.failures import WrongRootKey, failure
from fieldvault.secret import KEY_SIZE

__all__ = ["MAX_CONTEXT_SIZE", "Calls", "Wrapped", "fits"]

MAX_CONTEXT_SIZE = 8_192
"""What AWS KMS takes of an encryption context, in bytes of its names and values."""

_MAX_WRAPPED_SIZE = 6_144
# What the SDK makes of an answer that is not as its model says.
_MALFORMED = (ResponseParserError, ValueError, KeyError, TypeError, AttributeError)


class Wrapped(NamedTuple):
    """What Encrypt or ReEncrypt answered: the blob, and the ARN of the key that made it."""

    blob: bytes
    key: str


class Calls:
    """Asks AWS KMS; whatever goes wrong is a ``KMSError``, raised without the SDK's as its cause.

    The SDK's exceptions remember the call, and so the key that was to be wrapped.
    """

    def __init__(self, clients: Clients, grant_tokens: Sequence[str]) -> None:
        self._clients = clients
        self._grants: dict[str, Any] = {"GrantTokens": list(grant_tokens)} if grant_tokens else {}

    def encrypt(self, key_name: str, key: bytes, context: Mapping[str, str]) -> Wrapped:
        """Encrypt under a root key."""
        answer = self.ask(
            "encrypt", KeyId=key_name, Plaintext=key, EncryptionContext=dict(context), **self._grants
        )
        return _wrapped(answer)

    def re_encrypt(
        self, source: str, destination: str, wrapped: bytes, context: Mapping[str, str]
    ) -> Wrapped:
        """Have what one root key encrypted, and no other, encrypted by another or itself; nobody sees it."""
        _look_over(wrapped, context)
        answer = self.ask(
            "re_encrypt",
            CiphertextBlob=wrapped,
            SourceKeyId=source,
            SourceEncryptionContext=dict(context),
            DestinationKeyId=destination,
            DestinationEncryptionContext=dict(context),
            **self._grants,
        )
        made = _wrapped(answer)
        # AWS KMS keeps to the source that is named. One that went by the blob alone would open a stranger's.
        if source == destination and _id(answer.get("SourceKeyId")) != _id(made.key):
            raise WrongRootKey("another root key wrapped this")
        return made

    def decrypt(self, key_name: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Decrypt what this root key encrypted, and no other."""
        _look_over(wrapped, context)
        answer = self.ask(
            "decrypt", KeyId=key_name, CiphertextBlob=wrapped, EncryptionContext=dict(context), **self._grants
        )
        key = answer.get("Plaintext")
        if isinstance(key, bytes) and len(key) == KEY_SIZE:
            return key
        raise KMSError(f"AWS KMS gave an answer that makes no sense: no key of {KEY_SIZE} bytes")

    def ask(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """The answer to any call.

        Raises:
            KMSError: the one that tells best what went wrong.
        """
        try:
            answer: Mapping[str, Any] = getattr(self._clients.get(), operation)(**parameters)
        except (BotoCoreError, ClientError, STILL_EXPIRED, *_MALFORMED) as error:
            told = failure(error)
        else:
            return answer
        raise told


def fits(context: Mapping[str, str]) -> bool:
    """Whether AWS KMS takes a context of this size."""
    size = sum(len(name.encode()) + len(value.encode()) for name, value in context.items())
    return size <= MAX_CONTEXT_SIZE


def _look_over(wrapped: bytes, context: Mapping[str, str]) -> None:
    if not 0 < len(wrapped) <= _MAX_WRAPPED_SIZE or not fits(context):
        raise KMSError("not a key that AWS KMS wrapped, or not in this context")


def _wrapped(answer: Mapping[str, Any]) -> Wrapped:
    blob, made_by = answer.get("CiphertextBlob"), answer.get("KeyId")
    if isinstance(blob, bytes) and blob and isinstance(made_by, str):
        return Wrapped(blob, made_by)
    raise KMSError("AWS KMS gave an answer that makes no sense: no wrapped key")


def _id(arn: object) -> str:
    """The key id of an ARN, which the replicas of a multi-region key share."""
    return str(arn).rpartition("/")[2]

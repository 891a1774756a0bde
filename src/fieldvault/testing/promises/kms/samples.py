"""What the kit of KMS backends wraps, under which contexts, and how it looks at what went wrong."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from fieldvault.errors import KMSError
from fieldvault.keys.protocols import KMS, WrappedKey

__all__ = ["CONTEXT", "TellsNothing", "every_call", "met_by"]

CONTEXT: Mapping[str, str] = {"key_id": "00" * 16, "purpose": "data", "tenant": "acme"}

TellsNothing = Callable[[BaseException], None]
"""Asserts that an error, and what it came from, shows neither the data key nor a secret."""


def every_call(kms: KMS, wrapped: bytes, key: bytes) -> Mapping[str, Callable[[], object]]:
    """Each way to ask a KMS for something, by name; an item's error counts as that of the call."""

    def unwrap_many() -> bytes:
        (answer,) = kms.unwrap_many([WrappedKey(wrapped, CONTEXT)])
        if isinstance(answer, KMSError):
            raise answer
        return answer

    return {
        "unwrap": lambda: kms.unwrap(wrapped, context=CONTEXT),
        "unwrap_many": unwrap_many,
        "wrap": lambda: kms.wrap(key, context=CONTEXT),
        "check": kms.check,
    }


def met_by(call: Callable[[], object], wanted: type[KMSError], tells_nothing: TellsNothing) -> None:
    """Assert that a call ends with this error, and that the error tells nothing."""
    with pytest.raises(wanted) as caught:
        call()
    assert str(caught.value), "an error has a message"
    tells_nothing(caught.value)

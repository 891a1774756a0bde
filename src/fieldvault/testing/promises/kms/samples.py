"""What the kit of KMS backends wraps, under which contexts, and how it looks at what went wrong."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import pytest

from fieldvault.errors import KMSError
from fieldvault.keys.protocols import KMS, WrappedKey

__all__ = ["CONTEXT", "TellsNothing", "all_met_by", "met_by", "served"]

_ITEMS = 3

CONTEXT: Mapping[str, str] = {"key_id": "00" * 16, "purpose": "data", "tenant": "acme"}

TellsNothing = Callable[[BaseException], None]
"""Asserts that an error, and what it came from, shows neither the data key nor a secret."""


def served(kms: KMS, key: bytes) -> bytes:
    """The key, wrapped; and everything asked once, so that what a KMS keeps for later it has."""
    wrapped = kms.wrap(key, context=CONTEXT)
    for call in _every_call(kms, wrapped, key, KMSError).values():
        call()
    return wrapped


def all_met_by(
    kms: KMS,
    wrapped: bytes,
    key: bytes,
    wanted: type[KMSError],
    tells_nothing: TellsNothing,
    *,
    patience: float = float("inf"),
) -> None:
    """Assert that every way to ask ends with this error, within as many seconds, and tells nothing."""
    for name, call in _every_call(kms, wrapped, key, wanted).items():
        begun = time.monotonic()
        met_by(call, wanted, tells_nothing)
        assert time.monotonic() - begun < patience, name


def met_by(call: Callable[[], object], wanted: type[KMSError], tells_nothing: TellsNothing) -> None:
    """Assert that a call ends with this error, and that the error tells nothing."""
    with pytest.raises(wanted) as caught:
        call()
    assert str(caught.value), "an error has a message"
    tells_nothing(caught.value)


def _every_call(
    kms: KMS, wrapped: bytes, key: bytes, wanted: type[KMSError]
) -> Mapping[str, Callable[[], object]]:
    """Each way to ask a KMS for something, by name; if all items met errors, theirs is that of the call."""

    def unwrap_many() -> Sequence[bytes | KMSError]:
        answers = kms.unwrap_many([WrappedKey(wrapped, CONTEXT)] * _ITEMS)
        errors = [answer for answer in answers if isinstance(answer, KMSError)]
        if len(errors) == _ITEMS:
            raise next((error for error in errors if not isinstance(error, wanted)), errors[0])
        assert list(answers) == [key] * _ITEMS
        return answers

    return {
        "unwrap": lambda: kms.unwrap(wrapped, context=CONTEXT),
        "unwrap_many": unwrap_many,
        "wrap": lambda: kms.wrap(key, context=CONTEXT),
        "check": kms.check,
    }

"""Rewrapping: the same key under the root key as it is now, and no more work than there is."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import pytest

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.protocols import KMS, Rewrapping
from fieldvault.testing.promises.kms.samples import CONTEXT, TellsNothing, met_by

__all__ = ["RewrappingPromises"]

_OTHER = {**CONTEXT, "tenant": "globex"}


class RewrappingPromises:
    """Bringing wrapped keys up to date (``Rewrapping``); skipped for a KMS that does not."""

    def test_what_was_just_wrapped_is_current_and_can_be_wrapped_again(
        self, kms: KMS, elsewhere: KMS, key: bytes
    ) -> None:
        """The new form opens everywhere, and the old one still does."""
        rewrapping, wrapped = _rewrapping(kms), kms.wrap(key, context=CONTEXT)
        assert rewrapping.is_current(wrapped, context=CONTEXT) is True
        again = rewrapping.rewrap(wrapped, context=CONTEXT)
        assert rewrapping.is_current(again, context=CONTEXT) is True
        for each in (again, wrapped):
            assert elsewhere.unwrap(each, context=CONTEXT) == key
        _opens_not(elsewhere, again, _OTHER)

    def test_what_an_older_version_wrapped_is_not_current_until_it_is_rewrapped(
        self, kms: KMS, key: bytes, rotate: Callable[[], object]
    ) -> None:
        """Whoever rotated the root key."""
        rewrapping, wrapped = _rewrapping(kms), kms.wrap(key, context=CONTEXT)
        assert rewrapping.is_current(wrapped, context=CONTEXT) is True
        rotate()
        assert rewrapping.is_current(wrapped, context=CONTEXT) is False
        again = rewrapping.rewrap(wrapped, context=CONTEXT)
        assert rewrapping.is_current(again, context=CONTEXT) is True
        assert kms.unwrap(again, context=CONTEXT) == key

    def test_what_does_not_open_is_neither_current_nor_rewrapped(
        self, kms: KMS, key: bytes, tells_nothing: TellsNothing
    ) -> None:
        """To wrap it anew under this context would be to bless what somebody moved here."""
        wrapped = kms.wrap(key, context=CONTEXT)
        changed = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
        for blob, context in ((wrapped, _OTHER), (changed, CONTEXT), (wrapped[:-1], CONTEXT), (b"", CONTEXT)):
            _neither(kms, blob, context, tells_nothing)

    def test_what_another_root_key_wrapped_is_neither_current_nor_rewrapped(
        self, kms: KMS, stranger: KMS, key: bytes, tells_nothing: TellsNothing
    ) -> None:
        """Though it may be of the same kind and version."""
        _neither(kms, stranger.wrap(key, context=CONTEXT), CONTEXT, tells_nothing)

    def test_in_an_outage_nothing_is_current_or_rewrapped(
        self,
        kms: KMS,
        key: bytes,
        break_connection: Callable[[], AbstractContextManager[None]],
        tells_nothing: TellsNothing,
    ) -> None:
        """Whoever asks is told to ask again."""
        rewrapping, wrapped = _rewrapping(kms), kms.wrap(key, context=CONTEXT)
        assert rewrapping.is_current(wrapped, context=CONTEXT) is True
        with break_connection():
            assert not _is_current(rewrapping, wrapped, CONTEXT)
            met_by(lambda: rewrapping.rewrap(wrapped, context=CONTEXT), KMSUnavailable, tells_nothing)


def _rewrapping(kms: KMS) -> Rewrapping:
    if not isinstance(kms, Rewrapping):
        pytest.skip("this KMS does not rewrap by itself")
    return kms


def _neither(kms: KMS, wrapped: bytes, context: Mapping[str, str], tells_nothing: TellsNothing) -> None:
    rewrapping = _rewrapping(kms)
    assert not _is_current(rewrapping, wrapped, context)
    met_by(lambda: rewrapping.rewrap(wrapped, context=context), KMSError, tells_nothing)


def _is_current(kms: Rewrapping, wrapped: bytes, context: Mapping[str, str]) -> bool:
    """Whether it says so; that it cannot tell may be an error as well."""
    try:
        return kms.is_current(wrapped, context=context)
    except KMSError:
        return False


def _opens_not(kms: KMS, wrapped: bytes, context: Mapping[str, str]) -> None:
    with pytest.raises(KMSError):
        kms.unwrap(wrapped, context=context)

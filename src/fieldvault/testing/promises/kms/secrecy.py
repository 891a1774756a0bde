"""Secrecy: what a KMS shows of itself, in representations, pickles and logs."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import copy
import logging
import pickle
from base64 import b32encode, b64encode, urlsafe_b64encode
from binascii import hexlify
from collections.abc import Sequence

import pytest

from fieldvault.errors import KMSError
from fieldvault.keys.protocols import KMS
from fieldvault.testing.promises.kms.samples import CONTEXT
from fieldvault.testing.samples import shows

__all__ = ["SecrecyPromises"]


class SecrecyPromises:
    """Neither the data keys nor what the KMS was opened with is shown."""

    def test_a_wrapped_key_does_not_show_the_key(self, kms: KMS, key: bytes) -> None:
        """Not even nine bytes of it, nor in an encoding that nobody needs a key for."""
        wrapped = kms.wrap(key, context=CONTEXT)
        parts = [key[start : start + 9] for start in range(24)]
        for read in (wrapped, wrapped[::-1], bytes(byte ^ 0xFF for byte in wrapped)):
            assert not any(part in read for part in parts)
            for encode in (b64encode, urlsafe_b64encode, b32encode, hexlify):
                assert not any(encode(part).rstrip(b"=")[:12] in read for part in parts)

    def test_nothing_that_is_shown_holds_a_secret(
        self, kms: KMS, key: bytes, secrets: Sequence[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The object itself, what its check says, and what is logged while it works."""
        with caplog.at_level(logging.INFO):
            wrapped = kms.wrap(key, context=CONTEXT)
            kms.unwrap(wrapped, context=CONTEXT)
            with pytest.raises(KMSError):
                kms.unwrap(wrapped, context={})
            shown = [repr(kms), str(kms), kms.check()]
        for text in (*shown, caplog.text):
            assert not any(shows(text, secret) for secret in (*secrets, key.hex(), repr(key)[2:-1]))

    def test_it_is_not_pickled_or_copied(self, kms: KMS) -> None:
        """What it was opened with would go along."""
        for move in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises((TypeError, pickle.PicklingError)):
                move(kms)

    def test_a_check_says_what_was_reached(self, kms: KMS) -> None:
        """One line for a person."""
        said = kms.check()
        assert said
        assert "\n" not in said

    def test_closing_twice_is_fine(self, kms: KMS) -> None:
        """Whoever cleans up does not have to remember."""
        kms.close()
        kms.close()

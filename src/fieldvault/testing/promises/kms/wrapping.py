"""Wrapping and unwrapping: what goes in comes out, and under another context nothing does."""
# ruff: noqa: S101, S311 - assertions are the point; chance picks what to break

from __future__ import annotations

import os
import random
from collections.abc import Mapping

import pytest

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.testing.promises.kms.samples import CONTEXT, TellsNothing

__all__ = ["WrappingPromises"]

_POSITIONS = 64
_KEYS, _MANY = 60, 600

_OTHER_CONTEXTS: Mapping[str, Mapping[str, str]] = {
    "another tenant": {**CONTEXT, "tenant": "globex"},
    "another purpose": {**CONTEXT, "purpose": "wrap"},
    "another key id": {**CONTEXT, "key_id": "00" * 15 + "01"},
    "a tenant in capitals": {**CONTEXT, "tenant": "ACME"},
    "a tenant with a space": {**CONTEXT, "tenant": "acme "},
    "a name more": {**CONTEXT, "subject": "ann"},
    "a name less": {"key_id": "00" * 16, "purpose": "data"},
    "names and values exchanged": {value: name for name, value in CONTEXT.items()},
    "values moved between names": {**CONTEXT, "purpose": "acme", "tenant": "data"},
    "letters moved between values": {**CONTEXT, "purpose": "dat", "tenant": "aacme"},
    "a name within a value": {"key_id": "00" * 16, "purpose": "datatenantacme"},
    "a name behind separators": {"key_id": "00" * 16, "purpose": "data,tenant=acme"},
    "a name behind quotes": {"key_id": "00" * 16, "purpose": 'data", "tenant": "acme'},
    "nothing": {},
}


class WrappingPromises:
    """Round trips, contexts, and wrapped keys that were changed."""

    def test_what_was_wrapped_is_unwrapped(self, kms: KMS, elsewhere: KMS, key: bytes) -> None:
        """Under the same context, here and in another process."""
        wrapped = kms.wrap(key, context=CONTEXT)
        assert kms.unwrap(wrapped, context=CONTEXT) == key
        assert elsewhere.unwrap(wrapped, context=CONTEXT) == key

    def test_the_order_of_a_context_does_not_matter(self, kms: KMS, key: bytes) -> None:
        """It is a mapping."""
        wrapped = kms.wrap(key, context=CONTEXT)
        assert kms.unwrap(wrapped, context=dict(reversed(list(CONTEXT.items())))) == key

    @pytest.mark.parametrize(
        "name",
        [
            "\u5546\u5e97",
            "\u0645\u062a\u062c\u0631",
            "\U0001f511",
            "x" * 255,
            "\u5e97" * 85,
            '"{}\\',
            "a=b&c",
        ],
    )
    def test_names_in_any_script_are_contexts(self, kms: KMS, key: bytes, name: str) -> None:
        """Tenants and subjects are, as they are."""
        context = {**CONTEXT, "tenant": name}
        assert kms.unwrap(kms.wrap(key, context=context), context=context) == key

    @pytest.mark.parametrize("other", _OTHER_CONTEXTS)
    def test_another_context_opens_nothing(
        self, kms: KMS, key: bytes, other: str, tells_nothing: TellsNothing
    ) -> None:
        """The context is authenticated, every name and value of it, alone and among many."""
        wrapped = kms.wrap(key, context=CONTEXT)
        _refused(kms, wrapped, _OTHER_CONTEXTS[other], tells_nothing)
        (answer,) = kms.unwrap_many([WrappedKey(wrapped, _OTHER_CONTEXTS[other])])
        assert isinstance(answer, KMSError)

    def test_a_wrapped_key_that_was_changed_opens_nothing(
        self, kms: KMS, key: bytes, tells_nothing: TellsNothing
    ) -> None:
        """Whichever bit was flipped."""
        wrapped = kms.wrap(key, context=CONTEXT)
        positions = range(len(wrapped))
        for position in positions if len(wrapped) <= _POSITIONS else random.sample(positions, _POSITIONS):
            changed = bytearray(wrapped)
            changed[position] ^= 1 << random.randrange(8)
            _refused(kms, bytes(changed), CONTEXT, tells_nothing)

    def test_a_wrapped_key_of_another_length_opens_nothing(
        self, kms: KMS, key: bytes, tells_nothing: TellsNothing
    ) -> None:
        """Cut short, longer, twice, or not there at all."""
        wrapped = kms.wrap(key, context=CONTEXT)
        for changed in (wrapped[:-1], wrapped[1:], wrapped[:5], wrapped + b"\x00", wrapped * 2, b"", b"\x00"):
            _refused(kms, changed, CONTEXT, tells_nothing)

    def test_bytes_that_nobody_wrapped_open_nothing(
        self, kms: KMS, key: bytes, tells_nothing: TellsNothing
    ) -> None:
        """Random ones, and the key itself."""
        size = len(kms.wrap(key, context=CONTEXT))
        for foreign in (os.urandom(size), bytes(size), b"\xff" * size, key):
            _refused(kms, foreign, CONTEXT, tells_nothing)

    def test_what_another_root_key_wrapped_opens_nothing(
        self, kms: KMS, stranger: KMS, key: bytes, tells_nothing: TellsNothing
    ) -> None:
        """Keys do not move between root keys by themselves."""
        _refused(kms, stranger.wrap(key, context=CONTEXT), CONTEXT, tells_nothing)

    def test_many_are_unwrapped_in_order(self, kms: KMS) -> None:
        """More than a vendor's batch holds, the same one again and again, or none; bad ones in between."""
        wrapped: dict[bytes, WrappedKey] = {}
        for number in range(_KEYS):
            key, context = os.urandom(32), {**CONTEXT, "tenant": f"tenant {number}"}
            wrapped[key] = WrappedKey(kms.wrap(key, context=context), context)
        keys = random.choices(list(wrapped), k=_MANY)
        items = [wrapped[key] for key in keys]
        bad = random.sample(range(_MANY), 3)
        for index in bad:
            items[index] = items[index]._replace(context=CONTEXT)
        answers = list(kms.unwrap_many(items))
        assert [index for index in range(_MANY) if answers[index] != keys[index]] == sorted(bad)
        for index in bad:
            assert isinstance(answers[index], KMSError)
            assert not isinstance(answers[index], KMSUnavailable)
        assert list(kms.unwrap_many([])) == []

    def test_of_many_each_meets_its_own_error(self, kms: KMS) -> None:
        """One bad item spoils no other."""
        keys = [os.urandom(32) for _ in range(4)]
        good = [WrappedKey(kms.wrap(key, context=CONTEXT), CONTEXT) for key in keys]
        moved = good[1]._replace(context={**CONTEXT, "tenant": "globex"})
        changed = good[2]._replace(wrapped=good[2].wrapped[:-1] + bytes([good[2].wrapped[-1] ^ 1]))
        answers = kms.unwrap_many([good[0], moved, changed, WrappedKey(b"", {}), good[3]])
        assert [answers[0], answers[4]] == [keys[0], keys[3]]
        for answer in answers[1:4]:
            assert isinstance(answer, KMSError)
            assert not isinstance(answer, KMSUnavailable)


def _refused(kms: KMS, wrapped: bytes, context: Mapping[str, str], tells_nothing: TellsNothing) -> None:
    with pytest.raises(KMSError) as caught:
        kms.unwrap(wrapped, context=context)
    assert not isinstance(caught.value, KMSUnavailable), "an outage is something else"
    tells_nothing(caught.value)

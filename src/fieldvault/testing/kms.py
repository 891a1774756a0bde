"""The conformance kit of KMS backends."""
# ruff: noqa: S101, S311 - assertions are the point; chance picks what to break

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.protocols import KMS, RootKeyRotation, WrappedKey
from fieldvault.testing.samples import THREADS, together, told_by

__all__ = ["KMSConformance"]

_CONTEXT = {"key_id": "00" * 16, "purpose": "data", "tenant": "acme"}
_POSITIONS = 64

_OTHER_CONTEXTS = {
    "another tenant": {**_CONTEXT, "tenant": "globex"},
    "another purpose": {**_CONTEXT, "purpose": "wrap"},
    "another key id": {**_CONTEXT, "key_id": "00" * 15 + "01"},
    "a tenant in capitals": {**_CONTEXT, "tenant": "ACME"},
    "a tenant with a space": {**_CONTEXT, "tenant": "acme "},
    "a name more": {**_CONTEXT, "subject": "ann"},
    "a name less": {"key_id": "00" * 16, "purpose": "data"},
    "names and values exchanged": {value: name for name, value in _CONTEXT.items()},
    "values moved between names": {**_CONTEXT, "purpose": "acme", "tenant": "data"},
    "letters moved between values": {**_CONTEXT, "purpose": "dat", "tenant": "aacme"},
    "nothing": {},
}


class KMSConformance:
    """Every promise of the ``KMS`` protocol, as a test.

    A subclass overrides the fixture ``open_kms``, and ``stranger`` where a second root key can be had. What
    it does not test: a KMS that cannot be reached, denies or has lost its root key; only the backend's author
    can bring these about.
    """

    @pytest.fixture
    def open_kms(self) -> Callable[[], KMS]:
        """A function that opens the KMS under test; each call the same root key, as another process would."""
        raise NotImplementedError("override the fixture open_kms")

    @pytest.fixture
    def stranger(self) -> KMS:
        """A KMS of the same kind under another root key."""
        pytest.skip("no second root key to test with")

    @pytest.fixture
    def kms(self, open_kms: Callable[[], KMS]) -> Iterator[KMS]:
        """The KMS under test."""
        with closing(open_kms()) as kms:
            yield kms

    @pytest.fixture
    def elsewhere(self, open_kms: Callable[[], KMS]) -> Iterator[KMS]:
        """The same root key, as another process would use it."""
        with closing(open_kms()) as elsewhere:
            yield elsewhere

    @pytest.fixture
    def key(self) -> bytes:
        """A data key."""
        return os.urandom(32)

    def test_what_was_wrapped_is_unwrapped(self, kms: KMS, elsewhere: KMS, key: bytes) -> None:
        """Under the same context, here and in another process."""
        wrapped = kms.wrap(key, context=_CONTEXT)
        assert kms.unwrap(wrapped, context=_CONTEXT) == key
        assert elsewhere.unwrap(wrapped, context=_CONTEXT) == key

    def test_the_order_of_a_context_does_not_matter(self, kms: KMS, key: bytes) -> None:
        """It is a mapping."""
        wrapped = kms.wrap(key, context=_CONTEXT)
        assert kms.unwrap(wrapped, context=dict(reversed(_CONTEXT.items()))) == key

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
        context = {**_CONTEXT, "tenant": name}
        assert kms.unwrap(kms.wrap(key, context=context), context=context) == key

    @pytest.mark.parametrize("other", _OTHER_CONTEXTS)
    def test_another_context_opens_nothing(self, kms: KMS, key: bytes, other: str) -> None:
        """The context is authenticated, every name and value of it."""
        self._refused(kms, kms.wrap(key, context=_CONTEXT), _OTHER_CONTEXTS[other], key)

    def test_a_wrapped_key_that_was_changed_opens_nothing(self, kms: KMS, key: bytes) -> None:
        """Whichever bit was flipped."""
        wrapped = kms.wrap(key, context=_CONTEXT)
        positions = range(len(wrapped))
        for position in positions if len(wrapped) <= _POSITIONS else random.sample(positions, _POSITIONS):
            changed = bytearray(wrapped)
            changed[position] ^= 1 << random.randrange(8)
            self._refused(kms, bytes(changed), _CONTEXT, key)

    def test_a_wrapped_key_of_another_length_opens_nothing(self, kms: KMS, key: bytes) -> None:
        """Cut short, longer, twice, or not there at all."""
        wrapped = kms.wrap(key, context=_CONTEXT)
        for changed in (wrapped[:-1], wrapped[1:], wrapped[:5], wrapped + b"\x00", wrapped * 2, b"", b"\x00"):
            self._refused(kms, changed, _CONTEXT, key)

    def test_bytes_that_nobody_wrapped_open_nothing(self, kms: KMS, key: bytes) -> None:
        """Random ones, and the key itself."""
        size = len(kms.wrap(key, context=_CONTEXT))
        for foreign in (os.urandom(size), bytes(size), b"\xff" * size, key):
            self._refused(kms, foreign, _CONTEXT, key)

    def test_what_another_root_key_wrapped_opens_nothing(self, kms: KMS, stranger: KMS, key: bytes) -> None:
        """Keys do not move between root keys by themselves."""
        self._refused(kms, stranger.wrap(key, context=_CONTEXT), _CONTEXT, key)

    def test_a_wrapped_key_does_not_show_the_key(self, kms: KMS, key: bytes) -> None:
        """Not even a quarter of it."""
        wrapped = kms.wrap(key, context=_CONTEXT)
        assert all(key[start : start + 8] not in wrapped for start in range(0, 32, 8))
        assert key.hex() not in repr(kms)

    def test_many_are_unwrapped_in_order(self, kms: KMS) -> None:
        """More than a vendor's batch holds, the same one twice, or none."""
        keys = [os.urandom(32) for _ in range(600)]
        items = []
        for number, each in enumerate(keys):
            context = {**_CONTEXT, "tenant": f"tenant {number}"}
            items.append(WrappedKey(kms.wrap(each, context=context), context))
        assert list(kms.unwrap_many(items)) == keys
        assert list(kms.unwrap_many([items[3], items[1], items[3]])) == [keys[3], keys[1], keys[3]]
        assert list(kms.unwrap_many([])) == []

    def test_of_many_each_meets_its_own_error(self, kms: KMS) -> None:
        """One bad item spoils no other."""
        keys = [os.urandom(32) for _ in range(4)]
        good = [WrappedKey(kms.wrap(key, context=_CONTEXT), _CONTEXT) for key in keys]
        moved = good[1]._replace(context={**_CONTEXT, "tenant": "globex"})
        changed = good[2]._replace(wrapped=good[2].wrapped[:-1] + bytes([good[2].wrapped[-1] ^ 1]))
        answers = kms.unwrap_many([good[0], moved, changed, WrappedKey(b"", {}), good[3]])
        assert [answers[0], answers[4]] == [keys[0], keys[3]]
        for answer in answers[1:4]:
            assert isinstance(answer, KMSError)
            assert not isinstance(answer, KMSUnavailable)

    def test_many_threads_are_served_at_once(self, kms: KMS) -> None:
        """Each gets its own answer."""

        def work() -> None:
            for _ in range(20):
                key, context = os.urandom(32), {**_CONTEXT, "tenant": os.urandom(4).hex()}
                wrapped = kms.wrap(key, context=context)
                assert kms.unwrap(wrapped, context=context) == key
                assert kms.unwrap_many([WrappedKey(wrapped, context)]) == [key]

        together([work] * THREADS)

    def test_a_new_version_of_the_root_key_opens_what_older_ones_wrapped(
        self, kms: KMS, elsewhere: KMS, key: bytes
    ) -> None:
        """And other processes open what it wraps, without being told."""
        if not isinstance(kms, RootKeyRotation):
            pytest.skip("this KMS does not rotate its root key")
        old = kms.wrap(key, context=_CONTEXT)
        first, second = kms.rotate_root_key(), kms.rotate_root_key()
        assert second > first
        new = kms.wrap(key, context=_CONTEXT)
        for each in (kms, elsewhere):
            assert each.unwrap(old, context=_CONTEXT) == each.unwrap(new, context=_CONTEXT) == key

    def test_a_check_says_what_was_reached(self, kms: KMS) -> None:
        """One line for a person."""
        said = kms.check()
        assert said
        assert "\n" not in said

    def test_closing_twice_is_fine(self, kms: KMS) -> None:
        """Whoever cleans up does not have to remember."""
        kms.close()
        kms.close()

    def _refused(self, kms: KMS, wrapped: bytes, context: dict[str, str], key: bytes) -> None:
        with pytest.raises(KMSError) as caught:
            kms.unwrap(wrapped, context=context)
        assert not isinstance(caught.value, KMSUnavailable), "an outage is something else"
        for text in told_by(caught.value):
            assert key.hex() not in text
            assert repr(key)[2:-1] not in text

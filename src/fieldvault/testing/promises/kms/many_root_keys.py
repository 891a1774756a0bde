"""Many root keys, or versions of one that are disabled each by itself: each has a name of its own."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from fieldvault.errors import KMSKeyDisabled
from fieldvault.keys.protocols import KMS, ManyRootKeys
from fieldvault.testing.promises.kms.samples import CONTEXT, TellsNothing, met_by

__all__ = ["ManyRootKeysPromises"]


class ManyRootKeysPromises:
    """Naming what it takes to unwrap a key (``ManyRootKeys``); skipped for a KMS that does not."""

    def test_what_is_refused_by_itself_has_a_name_of_its_own(
        self,
        *,
        kms: KMS,
        key: bytes,
        rotate: Callable[[], object],
        disable_one: Callable[[bytes], None],
        tells_nothing: TellsNothing,
    ) -> None:
        """Once a lease one key of each name is unwrapped again; what shares its name goes by its answer."""
        old = kms.wrap(key, context=CONTEXT)
        rotate()
        new = kms.wrap(key, context=CONTEXT)
        many = _many(kms)
        assert many.root_key_of(old, context=CONTEXT) != many.root_key_of(new, context=CONTEXT)
        for each in (old, new):
            assert kms.unwrap(each, context=CONTEXT) == key
        disable_one(old)
        met_by(lambda: kms.unwrap(old, context=CONTEXT), KMSKeyDisabled, tells_nothing)
        assert kms.unwrap(new, context=CONTEXT) == key

    def test_the_name_of_a_root_key_is_the_same_everywhere(
        self, kms: KMS, elsewhere: KMS, key: bytes
    ) -> None:
        """It is a property of the wrapped key."""
        wrapped = kms.wrap(key, context=CONTEXT)
        name = _many(kms).root_key_of(wrapped, context=CONTEXT)
        assert isinstance(name, str)
        assert _many(elsewhere).root_key_of(wrapped, context=CONTEXT) == name

    def test_the_name_of_a_root_key_is_known_in_an_outage(
        self, kms: KMS, key: bytes, break_connection: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Nobody is asked for it."""
        wrapped = kms.wrap(key, context=CONTEXT)
        name = _many(kms).root_key_of(wrapped, context=CONTEXT)
        with break_connection():
            assert _many(kms).root_key_of(wrapped, context=CONTEXT) == name


def _many(kms: KMS) -> ManyRootKeys:
    if not isinstance(kms, ManyRootKeys):
        pytest.skip("this KMS has one root key")
    return kms

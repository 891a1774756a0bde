"""Root keys: rotated, unknown, disabled, enabled again, and deleted."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from fieldvault.errors import ConfigurationError, KMSKeyDisabled
from fieldvault.keys.protocols import KMS, RootKeyRotation
from fieldvault.testing.promises.kms.samples import CONTEXT, TellsNothing, all_met_by, served

__all__ = ["RootKeyPromises"]


class RootKeyPromises:
    """What becomes of wrapped keys when something becomes of the root key."""

    def test_a_new_version_of_the_root_key_opens_what_older_ones_wrapped(
        self, kms: KMS, elsewhere: KMS, key: bytes, rotate: Callable[[], object]
    ) -> None:
        """And other processes open what it wraps, without being told."""
        old = kms.wrap(key, context=CONTEXT)
        if isinstance(kms, RootKeyRotation):
            assert kms.rotate_root_key() < kms.rotate_root_key()
        rotate()
        new = kms.wrap(key, context=CONTEXT)
        for each in (kms, elsewhere):
            assert each.unwrap(old, context=CONTEXT) == each.unwrap(new, context=CONTEXT) == key

    def test_a_root_key_that_is_not_there_is_told_as_such(
        self, open_unknown: Callable[[], KMS], key: bytes, tells_nothing: TellsNothing
    ) -> None:
        """When the KMS is opened, or else when it is used; no key is made in its place."""
        with (
            pytest.raises((ConfigurationError, KMSKeyDisabled)) as caught,
            closing(open_unknown()) as unknown,
        ):
            unknown.wrap(key, context=CONTEXT)
        tells_nothing(caught.value)
        with pytest.raises((ConfigurationError, KMSKeyDisabled)), closing(open_unknown()) as unknown:
            unknown.check()

    def test_a_disabled_root_key_serves_nobody_until_it_is_enabled(
        self,
        *,
        kms: KMS,
        open_kms: Callable[[], KMS],
        key: bytes,
        disable: Callable[[], None],
        enable: Callable[[], None],
        tells_nothing: TellsNothing,
    ) -> None:
        """Neither who uses it already nor who comes later; and nothing is lost by it."""
        wrapped = served(kms, key)
        disable()
        all_met_by(kms, wrapped, key, KMSKeyDisabled, tells_nothing)
        with pytest.raises(KMSKeyDisabled), closing(open_kms()) as late:
            late.unwrap(wrapped, context=CONTEXT)
        enable()
        assert kms.unwrap(wrapped, context=CONTEXT) == key
        assert kms.unwrap(kms.wrap(key, context=CONTEXT), context=CONTEXT) == key
        kms.check()

    def test_a_deleted_root_key_serves_nobody(
        self,
        kms: KMS,
        open_kms: Callable[[], KMS],
        key: bytes,
        delete: Callable[[], None],
        tells_nothing: TellsNothing,
    ) -> None:
        """The error is not that of an outage, for waiting does not help."""
        wrapped = served(kms, key)
        delete()
        all_met_by(kms, wrapped, key, KMSKeyDisabled, tells_nothing)
        with pytest.raises((ConfigurationError, KMSKeyDisabled)), closing(open_kms()) as late:
            late.unwrap(wrapped, context=CONTEXT)

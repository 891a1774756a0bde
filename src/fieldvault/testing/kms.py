"""The conformance kit of KMS backends."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing

import pytest

from fieldvault.errors import ConfigurationError, DecryptionError, FieldVaultError, KMSError
from fieldvault.keys.protocols import KMS, RootKeyRotation
from fieldvault.testing.promises.kms.binding import BindingPromises
from fieldvault.testing.promises.kms.many_root_keys import ManyRootKeysPromises
from fieldvault.testing.promises.kms.outages import OutagePromises
from fieldvault.testing.promises.kms.rewrapping import RewrappingPromises
from fieldvault.testing.promises.kms.root_keys import RootKeyPromises
from fieldvault.testing.promises.kms.samples import TellsNothing
from fieldvault.testing.promises.kms.secrecy import SecrecyPromises
from fieldvault.testing.promises.kms.sharing import SharingPromises
from fieldvault.testing.promises.kms.wrapping import WrappingPromises
from fieldvault.testing.promises.mapping import MappingPromises
from fieldvault.testing.samples import shows, told_by

__all__ = ["KMSConformance"]


class KMSConformance(
    WrappingPromises,
    BindingPromises,
    RewrappingPromises,
    RootKeyPromises,
    ManyRootKeysPromises,
    OutagePromises,
    MappingPromises,
    SharingPromises,
    SecrecyPromises,
):
    """Every promise of the ``KMS`` protocol, as a test.

    A subclass overrides the fixtures ``open_kms`` and ``vendor_errors`` (with ``meaning_of``, unless that is
    empty), and of the others those that it can bring about; a test whose fixture is not overridden is
    skipped, and says so.
    """

    meanings: tuple[type[FieldVaultError], ...] = (KMSError, DecryptionError, ConfigurationError)
    """What an error of the vendor's may be told as: one of these, or of their subclasses."""

    # -- to override ----------------------------------------------------------------------------------------

    @pytest.fixture
    def open_kms(self) -> Callable[[], KMS]:
        """A function that opens the KMS under test; each call the same root key, as another process would."""
        raise NotImplementedError("override the fixture open_kms")

    @pytest.fixture
    def stranger(self) -> KMS:
        """A KMS of the same kind under another root key."""
        pytest.skip("no second root key to test with")

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """What the KMS under test was opened with and must never show: tokens, PINs, passphrases."""
        return ()

    @pytest.fixture
    def open_unknown(self) -> Callable[[], KMS]:
        """A function that opens a KMS whose root key does not exist, under a name that was never taken.

        Opening it, or the first use, raises ``KMSKeyDisabled`` or ``ConfigurationError``.
        """
        pytest.skip("no way to name a root key that is not there")

    @pytest.fixture
    def disable(self) -> Callable[[], None]:
        """A function that disables the root key under test, and returns once the server heeds it.

        All calls raise ``KMSKeyDisabled`` then. Override ``enable`` with it.
        """
        pytest.skip("no way to disable the root key")

    @pytest.fixture
    def enable(self) -> Callable[[], None]:
        """A function that undoes what ``disable`` did, and returns once the server heeds it."""
        pytest.skip("no way to enable the root key again")

    @pytest.fixture
    def delete(self) -> Callable[[], None]:
        """A function that deletes the root key under test, or schedules its deletion where that is all.

        All calls raise ``KMSKeyDisabled`` then. The key is not needed after the test.
        """
        pytest.skip("no way to delete the root key")

    @pytest.fixture
    def rotate(self, kms: KMS) -> Callable[[], object]:
        """A function that rotates the root key under test, and returns once ``wrap`` goes by the new one.

        By ``rotate_root_key`` where the KMS has it; override it where only the server can.
        """
        if not isinstance(kms, RootKeyRotation):
            pytest.skip("no way to rotate the root key")
        return kms.rotate_root_key

    @pytest.fixture
    def disable_one(self) -> Callable[[bytes], None]:
        """A function that disables the root key, or the version, which wrapped what it is given; no other.

        To unwrap that raises ``KMSKeyDisabled`` then. Override it for a KMS that has ``root_key_of``.
        """
        pytest.skip("no way to disable one root key among several")

    @pytest.fixture
    def break_connection(self) -> Callable[[], AbstractContextManager[None]]:
        """A function whose context manager keeps the KMS under test from reaching its server."""
        pytest.skip("no connection to break")

    @pytest.fixture
    def slow_down(self) -> Callable[[], AbstractContextManager[None]]:
        """A function whose context manager has the server take longer than the KMS under test waits."""
        pytest.skip("no server to slow down")

    @pytest.fixture
    def deny(self) -> Callable[[], AbstractContextManager[None]]:
        """A function whose context manager takes from this caller the right to use the root key."""
        pytest.skip("no right to take away")

    @pytest.fixture
    def patience(self) -> float:
        """Seconds within which each call ends in an outage, and within which the KMS recovers after one."""
        return 10.0

    # -- what the tests are written with --------------------------------------------------------------------

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

    @pytest.fixture
    def tells_nothing(self, key: bytes, secrets: Sequence[str]) -> TellsNothing:
        """Asserts that an error, and what it came from, shows neither the data key nor a secret."""
        hidden = (key.hex(), repr(key)[2:-1], base64.b64encode(key).decode(), *secrets)

        def look(error: BaseException) -> None:
            for text in told_by(error):
                assert not any(shows(text, secret) for secret in hidden)

        return look

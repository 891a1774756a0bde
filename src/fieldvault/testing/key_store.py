"""The conformance kit of key stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing

import pytest

from fieldvault.errors import ConfigurationError, FieldVaultError, KeyStoreError
from fieldvault.keys.protocols import KeyStore
from fieldvault.testing.promises.copying import CopyPromises
from fieldvault.testing.promises.creation import CreationPromises
from fieldvault.testing.promises.erasure import ErasurePromises
from fieldvault.testing.promises.listing import ListingPromises
from fieldvault.testing.promises.mapping import MappingPromises
from fieldvault.testing.promises.outages import OutagePromises
from fieldvault.testing.promises.racing import RacingPromises
from fieldvault.testing.promises.reading import ReadingPromises
from fieldvault.testing.promises.sharing import SharingPromises
from fieldvault.testing.promises.staleness import StalenessPromises
from fieldvault.testing.promises.states import StatePromises
from fieldvault.testing.promises.uses import UsesPromises

__all__ = ["KeyStoreConformance"]


class KeyStoreConformance(
    CreationPromises,
    ReadingPromises,
    StatePromises,
    UsesPromises,
    ErasurePromises,
    StalenessPromises,
    RacingPromises,
    ListingPromises,
    CopyPromises,
    SharingPromises,
    OutagePromises,
    MappingPromises,
):
    """Every promise of the ``KeyStore`` protocol, as a test.

    A subclass overrides the fixtures ``open_store`` and ``vendor_errors`` (with ``meaning_of``, unless that
    is empty), and of the others those that it can bring about; a test whose fixture is not overridden is
    skipped, and says so. What it does not test: a process killed in the middle of a call.
    """

    meanings: tuple[type[FieldVaultError], ...] = (KeyStoreError, ConfigurationError)
    """What an error of the vendor's may be told as: one of these, or of their subclasses."""

    # Every failure of a store is the same to its caller.
    each_by_itself = False

    @pytest.fixture
    def open_store(self) -> Callable[[], KeyStore]:
        """A function that opens the store under test, empty at the start of each test.

        Called again within a test it opens the same content once more, the way another process would.
        """
        raise NotImplementedError("override the fixture open_store")

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """What the store under test was opened with and must never show: passwords, keys of access."""
        return ()

    @pytest.fixture
    def break_connection(self) -> Callable[[], AbstractContextManager[None]]:
        """A function whose context manager keeps the store under test from reaching its storage."""
        pytest.skip("no connection to break")

    @pytest.fixture
    def slow_down(self) -> Callable[[], AbstractContextManager[None]]:
        """A function whose context manager has the storage take longer than the store under test waits."""
        pytest.skip("no storage to slow down")

    @pytest.fixture
    def deny(self) -> Callable[[], AbstractContextManager[None]]:
        """A function whose context manager takes from this caller the right to use the storage."""
        pytest.skip("no right to take away")

    @pytest.fixture
    def patience(self) -> float:
        """Seconds within which each call ends in an outage, and within which the store recovers after one."""
        return 10.0

    @pytest.fixture
    def store(self, open_store: Callable[[], KeyStore]) -> Iterator[KeyStore]:
        """The store under test."""
        with closing(open_store()) as store:
            yield store

    @pytest.fixture
    def elsewhere(self, open_store: Callable[[], KeyStore]) -> Iterator[KeyStore]:
        """The same store, as another process would see it."""
        with closing(open_store()) as elsewhere:
            yield elsewhere

    @pytest.fixture
    def handles(
        self, open_store: Callable[[], KeyStore], store: KeyStore, elsewhere: KeyStore
    ) -> Iterator[Sequence[KeyStore]]:
        """The same store, as three processes would see it: who races in one process only sees nothing."""
        with closing(open_store()) as third:
            yield store, elsewhere, third

"""The conformance kit of key stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from fieldvault.keys.protocols import KeyStore
from fieldvault.testing.promises.copying import CopyPromises
from fieldvault.testing.promises.creation import CreationPromises
from fieldvault.testing.promises.erasure import ErasurePromises
from fieldvault.testing.promises.listing import ListingPromises
from fieldvault.testing.promises.reading import ReadingPromises
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
    ListingPromises,
    CopyPromises,
):
    """Every promise of the ``KeyStore`` protocol, as a test.

    A subclass overrides the fixture ``open_store``. What it does not test: a process killed in the middle of
    a call, and a storage that fails; only the backend's author can bring these about.
    """

    @pytest.fixture
    def open_store(self) -> Callable[[], KeyStore]:
        """A function that opens the store under test, empty at the start of each test.

        Called again within a test it opens the same content once more, the way another process would.
        """
        raise NotImplementedError("override the fixture open_store")

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

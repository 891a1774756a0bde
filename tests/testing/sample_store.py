"""A key store in memory that can be out of reach, and the kit with all that it can look at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any, ClassVar

import pytest

from fieldvault.errors import KeyStoreError, KeyStoreRefused
from fieldvault.keys.protocols import KeyStore
from fieldvault.keystores import MemoryKeyStore
from fieldvault.testing import KeyStoreConformance
from fieldvault.testing.vendors import Meaning, VendorError

PASSWORD = "passwordPASSWORD"
PATIENCE = 0.4
PAGE = 50


class Trouble(Exception):
    """What the storage's own library raises."""


class OtherTrouble(Exception):
    """Another one, with no base class in common."""


class RemoteStore(MemoryKeyStore):
    """Every call first has to reach the storage."""

    trouble: type[KeyStoreError] | None = None

    def reach(self) -> None:
        """Or fail."""
        if self.trouble:
            raise self.trouble("the key store failed")

    @contextmanager
    def troubled(self, trouble: type[KeyStoreError] = KeyStoreError) -> Iterator[None]:
        """Out of reach, or not for this caller."""
        self.trouble = trouble
        yield
        self.trouble = None


def _reaching(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: RemoteStore, *arguments: Any, **named: Any) -> Any:
        self.reach()
        return method(self, *arguments, **named)

    return call


for name in dir(KeyStore):
    if not name.startswith("_") and name != "close":
        setattr(RemoteStore, name, _reaching(getattr(MemoryKeyStore, name)))


class SampleStoreConformance(KeyStoreConformance):
    """The kit over a store in memory, as if that had a vendor."""

    page = PAGE
    dies_with_its_process = True

    store_class: ClassVar[type[MemoryKeyStore]] = RemoteStore

    @pytest.fixture
    def the_store(self) -> MemoryKeyStore:
        """The only one there is."""
        return self.store_class()

    @pytest.fixture
    def open_store(self, the_store: MemoryKeyStore) -> Callable[[], KeyStore]:
        """The same object."""
        return lambda: the_store

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """The password."""
        return [PASSWORD]

    @pytest.fixture
    def break_connection(self, the_store: RemoteStore) -> Callable[[], AbstractContextManager[None]]:
        """Nobody is there."""
        return the_store.troubled

    @pytest.fixture
    def slow_down(self, the_store: RemoteStore) -> Callable[[], AbstractContextManager[None]]:
        """Nobody answers."""
        return the_store.troubled

    @pytest.fixture
    def deny(self, the_store: RemoteStore) -> Callable[[], AbstractContextManager[None]]:
        """Not for this caller."""
        return partial(the_store.troubled, KeyStoreRefused)

    @pytest.fixture
    def patience(self) -> float:
        """Not much, where somebody is to lose it."""
        return 10.0 if self.store_class is RemoteStore else PATIENCE

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """Two classes and a code."""
        return [Trouble, OtherTrouble, "StorageFull"]

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """All are failures of the store."""
        return dict.fromkeys((Trouble, OtherTrouble, "StorageFull"), KeyStoreError).get

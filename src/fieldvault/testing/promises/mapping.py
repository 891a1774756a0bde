"""Mapping: each error that the vendor's library knows has a meaning here, said by somebody."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest

from fieldvault.errors import ConfigurationError, FieldVaultError
from fieldvault.testing.vendors import Meaning, VendorError

__all__ = ["MappingPromises"]


class MappingPromises:
    """What the vendor's library raises, and what its server answers with."""

    meanings: tuple[type[FieldVaultError], ...] = (ConfigurationError,)
    """What an error of the vendor's may be told as; the kit says more."""

    each_by_itself = True
    """Whether a class is mapped by itself, and not by way of its base class."""

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """Every exception class of the vendor's library, and every code that its server answers with.

        Listed from the library itself, as ``fieldvault.testing.vendors`` does; empty where there is none.
        """
        raise NotImplementedError(
            "override the fixture vendor_errors; an empty collection says that there is no vendor's library"
        )

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """A function that tells what the caller of the backend gets for one of them.

        Of a key store: where it can do nothing else about it. For one that nobody has seen to it answers
        ``None``, or raises ``LookupError``.
        """
        return dict[VendorError, type[FieldVaultError]]().get

    def test_every_error_of_the_vendor_is_mapped(
        self, vendor_errors: Collection[VendorError], meaning_of: Meaning
    ) -> None:
        """A release of the library with one more makes this fail, and somebody has to say what it means."""
        wrong = {}
        for error in vendor_errors:
            told = _told(error, meaning_of)
            if not (isinstance(told, type) and issubclass(told, self.meanings)):
                wrong[_name(error)] = "is not mapped" if told is None else f"is told as {told!r}"
        assert wrong == {}

    def test_an_error_that_nobody_heard_of_is_not_mapped(
        self, vendor_errors: Collection[VendorError], meaning_of: Meaning
    ) -> None:
        """Else whatever a release adds would have a meaning by chance, and the test above no end."""
        if not vendor_errors:
            pytest.skip("no vendor's library behind this backend")
        for error in self._unheard_of(vendor_errors):
            assert _told(error, meaning_of) is None, f"{_name(error)} is made up"

    def _unheard_of(self, vendor_errors: Collection[VendorError]) -> Iterator[VendorError]:
        if any(isinstance(each, str) for each in vendor_errors):
            yield "UnheardOfException"
        classes = [each for each in vendor_errors if not isinstance(each, str)]
        if classes:
            yield type("UnheardOf", (Exception,), {})
        for each in classes if self.each_by_itself else ():
            yield type("UnheardOf", (each,), {})


def _told(error: VendorError, meaning_of: Meaning) -> object:
    try:
        return meaning_of(error)
    except LookupError:
        return None


def _name(error: VendorError) -> str:
    return error if isinstance(error, str) else f"{error.__module__}.{error.__qualname__}"

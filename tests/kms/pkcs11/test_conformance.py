"""A token keeps every promise of the public kit."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any

import pkcs11.exceptions
import pytest
from pkcs11 import Attribute

from fieldvault.keys.protocols import KMS
from fieldvault.kms import PKCS11KMS
from fieldvault.kms.pkcs11.meaning import MEANINGS
from fieldvault.testing import KMSConformance
from fieldvault.testing.vendors import Meaning, VendorError, exceptions_of
from tests.kms.pkcs11.conftest import Opening
from tests.servers.softhsm import PIN, SoftHSM

AsAdministrator = Callable[[Callable[[Any], object]], None]


class TestPKCS11KMS(KMSConformance):
    """SoftHSM."""

    @pytest.fixture
    def open_kms(self, opening: Opening, root_key: str) -> Callable[[], KMS]:
        """The test's root key, opened once more."""
        return partial(opening, key_label=root_key)

    @pytest.fixture
    def stranger(self, opening: Opening, softhsm: SoftHSM) -> Iterator[KMS]:
        """Another root key of the token."""
        with closing(opening(make=PKCS11KMS.create, key_label=softhsm.key_label())) as stranger:
            yield stranger

    @pytest.fixture
    def break_connection(self, softhsm: SoftHSM) -> Callable[[], AbstractContextManager[None]]:
        """The tokens are gone for a while."""
        return softhsm.without_tokens

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """The PIN."""
        return (PIN,)

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """Those of python-pkcs11."""
        return exceptions_of(pkcs11.exceptions)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """The table that answers go by."""
        return MEANINGS.__getitem__  # type: ignore[return-value]  # a code is no key of it

    @pytest.fixture
    def open_unknown(self, opening: Opening) -> Callable[[], KMS]:
        """A label that no key has."""
        return partial(opening, key_label="no such key")

    @pytest.fixture
    def disable(self, as_administrator: AsAdministrator) -> Callable[[], None]:
        """No version may encrypt or decrypt."""
        return partial(as_administrator, partial(_allow, allowed=False))

    @pytest.fixture
    def enable(self, as_administrator: AsAdministrator) -> Callable[[], None]:
        """Every version may."""
        return partial(as_administrator, partial(_allow, allowed=True))

    @pytest.fixture
    def disable_one(self, as_administrator: AsAdministrator) -> Callable[[bytes], None]:
        """The version that wrapped it may not decrypt."""

        def disabled(wrapped: bytes) -> None:
            def look(key: Any) -> None:
                if key[Attribute.ID] in wrapped[1:]:
                    key[Attribute.DECRYPT] = False

            as_administrator(look)

        return disabled

    @pytest.fixture
    def delete(self, as_administrator: AsAdministrator) -> Callable[[], None]:
        """All versions are destroyed."""
        return partial(as_administrator, lambda key: key.destroy())


def _allow(key: Any, *, allowed: bool) -> None:
    key[Attribute.ENCRYPT] = key[Attribute.DECRYPT] = allowed

"""The KMS of the house keeps every promise of the public kit."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import pytest

from fieldvault.keys.protocols import KMS
from fieldvault.kms import LocalKMS
from fieldvault.testing import KMSConformance
from fieldvault.testing.vendors import VendorError


class TestLocalKMS(KMSConformance):
    """One file, with a passphrase and without."""

    @pytest.fixture
    def open_kms(self, root_file: Path, passphrase: str | None) -> Callable[[], KMS]:
        """Another reader of the same file."""
        return lambda: LocalKMS(root_file, passphrase)

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """It is its own vendor."""
        return ()

    @pytest.fixture
    def stranger(self, tmp_path: Path) -> KMS:
        """Another file."""
        return LocalKMS.create(tmp_path / "other.keys")

    @pytest.fixture
    def secrets(self, passphrase: str | None) -> Sequence[str]:
        """The passphrase, where there is one."""
        return () if passphrase is None else (passphrase,)

    @pytest.fixture
    def open_unknown(self, tmp_path: Path) -> Callable[[], KMS]:
        """A file that is not there."""
        return partial(LocalKMS, tmp_path / "missing.keys")

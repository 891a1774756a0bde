"""Two members in files, each behind a fake whose trouble is made to order."""

from pathlib import Path

import pytest

from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS


@pytest.fixture
def east(tmp_path: Path) -> FaultyKMS:
    """The member that is preferred."""
    return FaultyKMS(LocalKMS.create(tmp_path / "east.keys"))


@pytest.fixture
def west(tmp_path: Path) -> FaultyKMS:
    """The other one."""
    return FaultyKMS(LocalKMS.create(tmp_path / "west.keys"))

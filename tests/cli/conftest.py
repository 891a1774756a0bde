"""A folder of its own for each test, with a vault in it where a test asks for one."""

from pathlib import Path

import pytest

from tests.cli.calling import call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with nothing in the environment that the command line heeds.

    Nor with an unbuffered stdout, to which Python does not tell that a pipe broke in the middle of a write.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("FIELDVAULT_CONFIG", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def vault_folder(folder: Path) -> Path:
    """Work in a folder with a new vault, no tenant in it."""
    assert call("init").code == 0
    return folder

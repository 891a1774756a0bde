"""``fieldvault doctor`` looks who may read the files that hold secrets."""

from pathlib import Path
from typing import Any

import pytest

from fieldvault.cli.secretfiles import secret_files
from fieldvault.kms import LocalKMS
from fieldvault.settings import Section, Source
from tests.cli.calling import call


def section(folder: Path, members: dict[str, Any]) -> Section:
    """A section of a configuration in a folder."""
    return Section(members, ("kms",), Source("fieldvault.toml", folder, None))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that anyone may read."""
    path = tmp_path / "secret"
    path.write_text("7431\n")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(
    "members",
    [
        {"pin_file": "secret"},
        {"secret_id_file": "secret"},
        {"token_file": "secret"},
        {"url_file": "secret"},
        {"client_key": "secret"},
        {"private_key": "secret"},
        {"members": {"safe": {"passphrase_file": "secret"}}},
        {"members": {"hsm": {"pin_file": "secret"}, "bao": {"ca_file": "x"}}},
    ],
    ids=str,
)
def test_a_secret_that_others_may_read_is_a_warning(
    secret: Path, tmp_path: Path, members: dict[str, Any]
) -> None:
    """Whatever the backend calls it."""
    finding = secret_files(section(tmp_path, members))
    assert finding is not None
    assert finding.document() == {
        "check": "secret files",
        "level": "warning",
        "detail": "1 of 1 file with secrets are open to others",
        "remedy": "chmod 600, or see that nobody else is on this machine, as in a container",
        "items": [f"{secret} has mode 0644"],
    }
    secret.chmod(0o440)
    finding = secret_files(section(tmp_path, members))
    assert finding is not None
    assert (finding.level.value, finding.detail) == ("ok", "1 file, none of them open to others")


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize(
    "members",
    [
        {},
        {"ca_file": "secret", "jwt_file": "secret"},
        {"pin_file": 7},
        {"members": 7},
        {"members": {"here": 7}},
        {"path": "root.keys", "passphrase_file": "secret"},
    ],
    ids=str,
)
def test_what_is_no_secret_or_no_file_is_passed_over(tmp_path: Path, members: dict[str, Any]) -> None:
    """A mistake is told where the vault is opened; the embedded KMS has a check of its own."""
    assert secret_files(section(tmp_path, members)) is None


def test_a_secret_that_is_not_there_is_told_by_who_opens_it(tmp_path: Path) -> None:
    """Nobody reads it."""
    finding = secret_files(section(tmp_path, {"pin_file": "nowhere"}))
    assert finding is not None
    assert finding.level.value == "ok"


def test_doctor_names_the_file_and_goes_on(folder: Path) -> None:
    """A warning is no problem."""
    (folder / "url").write_text("sqlite:///keys.db\n")
    (folder / "url").chmod(0o604)
    LocalKMS.create("root.keys").close()
    (folder / "fieldvault.toml").write_text(
        '[kms]\ntype = "local"\npath = "root.keys"\n[key_store]\ntype = "sql"\nurl_file = "url"\n'
    )
    assert call("keystore", "create").code == 0
    answer = call("doctor", "--json")
    assert answer.code == 0
    (check,) = (each for each in answer.document["checks"] if each["check"] == "secret files")
    assert check["level"] == "warning"
    assert check["items"] == ["url has mode 0604"]

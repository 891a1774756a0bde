"""``examples/custom_kms`` installs, passes the public kit, and is found by its name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_kms"

CONFIGURATION = """
[kms]
type = "multi"

[kms.members.daily]
type = "local"
path = "root.keys"

[kms.members.recovery]
type = "recovery"
public_key = "recovery.pub"

[key_store]
type = "sql"
url = "sqlite:///keys.db"
"""

DISASTER = """
[kms]
type = "multi"

[kms.members.recovery]
type = "recovery"
public_key = "recovery.pub"
private_key = "recovery.key"

[key_store]
type = "sql"
url = "sqlite:///keys.db"
"""

PROGRAM = """
import sys
from pathlib import Path
from fieldvault import Vault
from fieldvault.kms import LocalKMS
from recovery_kms import RecoveryKMS

LocalKMS.create("root.keys")
RecoveryKMS.create("recovery.pub", "recovery.key")
Path("recovery.key").rename("safe")
with Vault.open("fieldvault.toml") as vault:
    sealed = vault.encrypt("x", field="a.b", tenant="acme")
Path("root.keys").unlink()
Path("safe").rename("recovery.key")
with Vault.open("disaster.toml") as vault:
    print(vault.decrypt(sealed, field="a.b", tenant="acme"), vault.kms.check())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install the example into a folder of its own, with nothing from any network."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run([*command, *options, str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (target / "recovery_kms.py").is_file()
    return {**os.environ, "PYTHONPATH": str(target)}


def test_it_passes_the_public_kit(environment: Mapping[str, str]) -> None:
    """Its own tests are the kit, and a few more."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 40, done.stdout


def test_a_configuration_names_it(environment: Mapping[str, str], tmp_path: Path) -> None:
    """Beside a KMS of the house; and alone, on the day that that one is lost."""
    (tmp_path / "fieldvault.toml").write_text(CONFIGURATION)
    (tmp_path / "disaster.toml").write_text(DISASTER)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("x recovery: recovery key recovery.pub, with its private key")


def test_its_page_says_how_the_two_keys_are_made(environment: Mapping[str, str], tmp_path: Path) -> None:
    """In the command that is shown."""
    shown = re.search(r"^\$ python3 -c '(.+)'$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    assert shown is not None
    subprocess.run([sys.executable, "-c", shown[1]], cwd=tmp_path, env=environment, check=True)
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == {"recovery.pub": 0o644, "recovery.key": 0o600}


def test_where_it_is_not_installed_its_name_is_unknown(tmp_path: Path) -> None:
    """And the error says which are."""
    (tmp_path / "fieldvault.toml").write_text('[kms]\ntype = "recovery"\n[key_store]\ntype = "memory"\n')
    with pytest.raises(ConfigurationError, match="is 'recovery'; installed are: "):
        Vault.open(tmp_path / "fieldvault.toml")

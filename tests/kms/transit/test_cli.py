"""The commands of an operator whose root key is in transit."""

from pathlib import Path

import pytest

from fieldvault import Vault
from tests.cli.calling import call
from tests.kms.transit.conftest import Tenancy


@pytest.fixture
def shop(tenancy: Tenancy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A folder with a configuration, a key store and a token; a sealed value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FIELDVAULT_CONFIG", raising=False)
    Path("token").write_text(tenancy.token("The application", "The operator"))
    Path("fieldvault.toml").write_text(
        f'[kms]\ntype = "transit"\nurl = "{tenancy.server.url}"\nkey = "{tenancy.key}"\n'
        'token_file = "token"\n'
        '[key_store]\ntype = "sql"\nurl = "sqlite:///keys.db"\n'
    )
    with Vault.open("fieldvault.toml") as vault:
        return vault.encrypt("ann@example.com", field="customers.email", tenant="acme")


def _kms_check() -> dict[str, str]:
    (check,) = (each for each in call("doctor", "--json").document["checks"] if each["check"] == "KMS")
    return {"level": check["level"], "detail": check["detail"]}


@pytest.mark.usefixtures("shop")
def test_doctor_asks_the_server(tenancy: Tenancy) -> None:
    """It says what was reached, and what is wrong with it."""
    assert _kms_check() == {
        "level": "ok",
        "detail": f"transit key {tenancy.key} version 1, mount transit, at {tenancy.server.url}",
    }
    with tenancy.server.sealed():
        check = _kms_check()
    assert check["level"] == "problem"
    assert "sealed" in check["detail"]


def test_after_a_rotation_rewrap_leaves_the_old_version_unused(tenancy: Tenancy, shop: bytes) -> None:
    """Each key once; then the old version may go, and what was sealed is still read."""
    transit = tenancy.server.admin.secrets.transit
    transit.rotate_key(tenancy.key)
    answer = call("rewrap", "--json").document
    assert (len(answer["rewrapped"]), answer["current"]) == (1, 0)
    answer = call("rewrap", "--json").document
    assert (len(answer["rewrapped"]), answer["current"]) == (0, 1)
    transit.update_key_configuration(tenancy.key, min_decryption_version=2)
    with Vault.open("fieldvault.toml") as vault:
        assert vault.decrypt(shop, field="customers.email", tenant="acme") == "ann@example.com"

"""``fieldvault tenants`` lists who has keys."""

from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.cli.census import each_tenant
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from tests.cli.calling import call, give_keys, give_subject_keys, records


@pytest.mark.usefixtures("vault_folder")
def test_nobody_has_a_key_at_first() -> None:
    """A person is told how keys come about; a machine gets an empty list."""
    assert "first value" in call("tenants").out
    assert call("tenants", "--json").document == {"tenants": []}


@pytest.mark.usefixtures("vault_folder")
def test_each_tenant_comes_with_its_state_and_data_key() -> None:
    """Live, shredded, and one that only has subjects' keys."""
    give_keys("acme", "gone")
    give_subject_keys("subjects only", "ann")
    assert call("rotate", "acme").code == 0
    assert call("shred", "gone", "--yes", "--reason", "left").code == 0
    acme, gone, only = call("tenants", "--json").document["tenants"]
    assert (acme["tenant"], acme["state"], acme["data_key"]["version"]) == ("acme", "live", 2)
    assert (gone["tenant"], gone["state"], gone["data_key"]["state"]) == ("gone", "shredded", "destroyed")
    assert (only["tenant"], only["state"], only["data_key"]) == ("subjects only", "live", None)
    active = next(record for record in records("acme") if record.version == 2)
    assert acme["data_key"]["key_id"] == active.key_id.hex()
    assert acme["data_key"]["created_at"] == active.created_at.isoformat()
    lines = call("tenants").out.splitlines()
    assert [line.split()[0] for line in lines] == ["TENANT", "acme", "gone", "subjects"]
    assert "shredded" in lines[2]


@pytest.mark.usefixtures("vault_folder")
def test_a_suspended_data_key_shows() -> None:
    """Suspension is easily forgotten."""
    give_keys("acme")
    with Vault.open("fieldvault.toml") as vault:
        vault.suspend(vault.keys("acme")[0].key_id)
    assert call("tenants", "--json").document["tenants"][0]["data_key"]["state"] == "suspended"
    assert "v1 suspended" in call("tenants").out


@pytest.mark.parametrize("count", [499, 500, 1001])
def test_none_is_lost_between_batches(tmp_path: Path, count: int) -> None:
    """Tenants are read in batches of 500."""
    names = [f"t{number:04}" for number in range(count)]
    with Vault(kms=LocalKMS.create(tmp_path / "root.keys"), key_store=MemoryKeyStore()) as vault:
        for name in names:
            vault.encrypt(1, field="a.b", tenant=name)
        assert [tenant.name for tenant in each_tenant(vault.key_store)] == names


HOSTILE = ["[red]shop[/red]", "茶庄 北京", "متجر", ":smile:", "evil\u202etxt", "a" * 255]


@pytest.mark.usefixtures("vault_folder")
def test_names_are_printed_as_they_are() -> None:
    """No markup, no emoji code, nothing cut; what would turn the text around is spelled out."""
    give_keys(*HOSTILE)
    out = call("tenants").out
    for name in HOSTILE:
        assert name.replace("\u202e", "\\u202e") in out
    assert "\u202e" not in out
    assert {each["tenant"] for each in call("tenants", "--json").document["tenants"]} == set(HOSTILE)


@pytest.mark.usefixtures("vault_folder")
@pytest.mark.parametrize("columns", ["80", "40", "12"])
def test_a_narrow_terminal_cuts_nothing(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """Every character of names and key ids is there, and no line is wider than the terminal."""
    give_keys("茶庄北京", "acme")
    wide = call("keys", "acme").out.splitlines()[1].split()[0]
    monkeypatch.setenv("COLUMNS", columns)
    joined = "".join(call("keys", "acme").out.split())
    assert wide in joined.replace("KEYID", "")
    assert all(letter in call("tenants").out for letter in "茶庄北京")
    assert max(map(len, call("keys", "acme").out.splitlines())) <= int(columns)

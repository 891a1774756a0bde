"""``fieldvault status`` counts what is there."""

from pathlib import Path

import pytest

from fieldvault import Vault
from tests.cli.calling import call, give_keys, give_subject_keys, records


@pytest.mark.usefixtures("vault_folder")
def test_an_empty_vault_has_figures_too() -> None:
    """Zeros, and no oldest key."""
    document = call("status", "--json").document
    assert document["tenants"] == document["shredded_tenants"] == 0
    assert document["oldest_active_key"] is None
    assert document["keys"] == {"active": 0, "retired": 0, "suspended": 0, "destroyed": 0}


@pytest.mark.usefixtures("vault_folder")
def test_tenants_subjects_and_keys_are_counted() -> None:
    """A shredded tenant takes its subjects' keys with it."""
    give_keys("acme", "gone", "held")
    give_subject_keys("acme", "ann", "bob")
    give_subject_keys("gone", "carl")
    assert call("rotate", "acme").code == 0
    assert call("shred", "gone", "--yes", "--reason", "left").code == 0
    assert call("shred", "acme", "--subject", "ann", "--yes", "--reason", "asked").code == 0
    with Vault.open("fieldvault.toml") as vault:
        vault.suspend(vault.keys("held")[0].key_id)
    document = call("status", "--json").document
    assert (document["tenants"], document["shredded_tenants"]) == (2, 1)
    assert (document["subjects"], document["shredded_subjects"]) == (1, 2)
    # Active: the data and the wrap key of acme, and bob's. Destroyed: gone's three, and ann's.
    assert document["keys"] == {"active": 3, "retired": 1, "suspended": 1, "destroyed": 4}
    oldest = min(each.created_at for each in records("acme") if each.state == "active")
    assert document["oldest_active_key"] == oldest.isoformat()


def test_the_policies_are_those_of_the_configuration(vault_folder: Path) -> None:
    """And not the defaults."""
    with (vault_folder / "fieldvault.toml").open("a") as file:
        file.write("[cache]\nlease = 7\ngrace = 0\n[rotation]\nmax_age_days = 90\n")
    document = call("status", "--json").document
    assert document["cache"] == {"max_keys": 10_000, "ttl": 300.0, "lease": 7.0, "grace": 0.0}
    assert document["rotation"] == {"max_age": 90 * 86_400.0, "max_uses": 2**32}
    out = call("status").out
    assert "lease 7 s" in out
    assert "after 90 days" in out


@pytest.mark.usefixtures("vault_folder")
def test_backends_are_named() -> None:
    """What was reached, in the backends' own words."""
    give_keys("acme")
    out = call("status").out
    assert "root.keys" in out
    assert "keys.db, 1 keys" in out
    assert "0 days ago" in out


def test_what_is_not_there_is_to_be_found_again_before_anything_new_is_made(vault_folder: Path) -> None:
    """A process that looks in the wrong place, most likely; an empty key store opens nothing."""
    (vault_folder / "keys.db").rename(vault_folder / "elsewhere.db")
    answer = call("status")
    assert answer.code == 5
    assert "restore it from its backup, or correct its URL: a new, empty one opens nothing" in answer.err
    (vault_folder / "fieldvault.toml").unlink()
    answer = call("status")
    assert answer.code == 3
    assert answer.err == (
        f"Error: there is no fieldvault.toml in {vault_folder.resolve()}; name it with --config or "
        "FIELDVAULT_CONFIG, or, for a new vault, run `fieldvault init`\n"
    )

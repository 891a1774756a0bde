"""``fieldvault rotate`` makes new data keys, one tenant's or all."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fieldvault import Vault
from tests.cli.calling import call, give_keys, give_subject_keys, records

Failing = Callable[[str], None]


@pytest.fixture
def failing(vault_folder: Path) -> Failing:
    """Let the key store's database fail to store new keys of a tenant."""

    def fail(tenant: str) -> None:
        with closing(sqlite3.connect(vault_folder / "keys.db")) as database:
            # An error while the statement runs, and not a violated constraint, which would be tried again.
            database.execute(
                f"CREATE TRIGGER broken BEFORE INSERT ON fieldvault_keys WHEN NEW.tenant = '{tenant}' "
                "BEGIN SELECT json('broken'); END"
            )
            database.commit()

    return fail


def versions(tenant: str) -> list[tuple[int, str]]:
    """Return version and state of each data key of a tenant itself."""
    return [(each.version, each.state) for each in records(tenant) if each.subject is None]


@pytest.mark.usefixtures("vault_folder")
def test_a_tenant_gets_a_new_key_and_reads_on() -> None:
    """What the old key sealed still opens."""
    with Vault.open("fieldvault.toml") as vault:
        blob = vault.encrypt("x", field="a.b", tenant="acme")
    document = call("rotate", "acme", "--json").document
    assert [(key["tenant"], key["version"], key["state"]) for key in document["rotated"]] == [
        ("acme", 2, "active")
    ]
    assert versions("acme") == [(1, "retired"), (2, "active")]
    with Vault.open("fieldvault.toml") as vault:
        assert vault.decrypt(blob, field="a.b", tenant="acme") == "x"


@pytest.mark.usefixtures("vault_folder")
def test_the_new_key_is_named() -> None:
    """For the log of whoever rotates."""
    give_keys("[acme]")
    out = call("rotate", "[acme]").out
    assert out == f"Rotated [acme]: version 2, key {records('[acme]')[1].key_id.hex()}\n"


@pytest.mark.usefixtures("vault_folder")
def test_a_subject_is_rotated_alone() -> None:
    """Its tenant's key stays."""
    give_keys("acme")
    give_subject_keys("acme", "ann")
    assert "ann of acme" in call("rotate", "acme", "--subject", "ann").out
    states = [(each.version, each.state) for each in records("acme") if each.subject == "ann"]
    assert states == [(1, "retired"), (2, "active")]
    assert (2, "active") not in versions("acme")


@pytest.mark.usefixtures("vault_folder")
def test_a_first_data_key_is_no_rotation() -> None:
    """A tenant all of whose data is its subjects' had none."""
    give_subject_keys("acme", "ann")
    out = call("rotate", "acme").out
    (key,) = (each for each in records("acme") if each.subject is None and each.purpose == "data")
    assert out == f"Made the first data key of acme: version 1, key {key.key_id.hex()}\n"
    assert call("rotate", "acme").out.startswith("Rotated acme: version 2, ")


@pytest.mark.usefixtures("vault_folder")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nobody",), "there is no tenant 'nobody' in the key store"),
        (("nobody", "--subject", "ann"), "there is no tenant 'nobody' in the key store"),
        (("acme", "--subject", "nobody"), "subject 'nobody' of tenant 'acme' has no key to rotate"),
    ],
)
def test_who_has_no_key_gets_none(arguments: tuple[str, ...], told: str) -> None:
    """A mistyped name must not become a tenant; the one that is not known is named."""
    give_keys("acme")
    answer = call("rotate", *arguments)
    assert (answer.code, answer.out, answer.err) == (7, "", f"Error: {told}\n")
    assert [each["tenant"] for each in call("tenants", "--json").document["tenants"]] == ["acme"]


@pytest.mark.usefixtures("vault_folder")
def test_a_shredded_tenant_is_not_rotated() -> None:
    """It never gets a key again."""
    give_keys("gone")
    assert call("shred", "gone", "--yes", "--reason", "left").code == 0
    assert call("rotate", "gone").code == 7
    assert versions("gone") == [(1, "destroyed")]


@pytest.mark.usefixtures("vault_folder")
def test_all_rotates_everyone_it_may_and_says_whom_it_passed_over() -> None:
    """Shredded, suspended, and without a data key; none of them is a failure."""
    give_keys("acme", "gone", "held", "shop")
    give_subject_keys("subjects only", "ann")
    assert call("shred", "gone", "--yes", "--reason", "left").code == 0
    with Vault.open("fieldvault.toml") as vault:
        vault.suspend(vault.keys("held")[0].key_id)
    answer = call("rotate", "--all", "--json")
    assert answer.code == 0
    assert [key["tenant"] for key in answer.document["rotated"]] == ["acme", "shop"]
    assert answer.document["skipped"] == [
        {"tenant": "gone", "why": "shredded"},
        {"tenant": "held", "why": "suspended"},
        {"tenant": "subjects only", "why": "has no data key"},
    ]
    assert answer.document["failed"] == []
    assert versions("held") == [(1, "suspended")]
    assert "Rotated 2, failed 0, skipped 3." in call("rotate", "--all").out


def test_all_goes_on_after_a_tenant_that_fails(failing: Failing) -> None:
    """It names the tenant and the reason at the end, and ends with 1."""
    give_keys("a", "broken", "z")
    failing("broken")
    answer = call("rotate", "--all", "--json")
    assert answer.code == 1
    assert [key["tenant"] for key in answer.document["rotated"]] == ["a", "z"]
    (failed,) = answer.document["failed"]
    assert (failed["tenant"], failed["kind"]) == ("broken", "KeyStoreError")
    assert versions("a")[-1] == versions("z")[-1] == (2, "active")
    assert versions("broken") == [(1, "active")]
    answer = call("rotate", "--all")
    assert answer.code == 1
    assert "malformed JSON" in answer.out
    assert "failed 1" in answer.out


def test_one_tenant_that_fails_ends_with_the_code_of_its_error(failing: Failing) -> None:
    """There is nobody to go on with."""
    give_keys("broken")
    failing("broken")
    assert call("rotate", "broken").code == 5
    assert versions("broken") == [(1, "active")]

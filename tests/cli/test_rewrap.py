"""``fieldvault rewrap`` brings the keys under the present root keys."""

import os
import re
import signal
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.errors import KMSUnavailable
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS
from tests.cli.calling import call, give_keys, give_subject_keys, records


@pytest.fixture
def rotated(vault_folder: Path) -> Path:
    """Two tenants with keys, one with a subject, and a new root key since."""
    give_keys("acme", "other")
    give_subject_keys("acme", "ann")
    LocalKMS(vault_folder / "root.keys").rotate_root_key()
    return vault_folder


def root_versions(tenant: str) -> list[int]:
    """Return the version of the root key that each of a tenant's own keys is wrapped under."""
    return [record.wrapped[4] for record in records(tenant) if record.subject is None and record.wrapped]


@pytest.mark.usefixtures("rotated")
def test_all_keys_are_rewrapped_and_again_there_is_nothing_to_do() -> None:
    """It may be started any number of times."""
    document = call("rewrap", "--json").document
    assert sorted((key["tenant"], key["purpose"]) for key in document.pop("rewrapped")) == [
        ("acme", "data"),
        ("acme", "wrap"),
        ("other", "data"),
    ]
    assert document == {
        "dry_run": False,
        "due": [],
        "current": 0,
        "overtaken": 0,
        "incomplete": [],
        "absent": {},
        "failed": [],
        "interrupted": False,
    }
    assert {*root_versions("acme"), *root_versions("other")} == {2}
    assert call("rewrap").out == "Rewrapped 0 keys; current already: 3; tenants that failed: 0.\n"
    assert call("rewrap", "--every").out == "Rewrapped 3 keys; current already: 0; tenants that failed: 0.\n"


@pytest.mark.usefixtures("rotated")
def test_what_was_sealed_is_read_without_the_old_root_key() -> None:
    """That is what it is for."""
    with Vault.open("fieldvault.toml") as vault:
        blob = vault.encrypt("x", field="a.b", tenant="acme", subject="ann")
    assert call("rewrap").code == 0
    with Vault.open("fieldvault.toml") as vault:
        assert vault.decrypt(blob, field="a.b", tenant="acme", subject="ann") == "x"


@pytest.mark.usefixtures("rotated")
def test_a_dry_run_says_what_there_is_to_do() -> None:
    """And does nothing."""
    answer = call("rewrap", "--dry-run", "--json")
    assert answer.code == 0
    assert (len(answer.document["due"]), answer.document["rewrapped"]) == (3, [])
    assert answer.document["dry_run"] is True
    out = call("rewrap", "--dry-run").out
    assert out.startswith("To rewrap: 3 keys; ")
    assert "None counts as current: all are due, or the KMS cannot, or to this caller will not, tell" in out
    assert {*root_versions("acme"), *root_versions("other")} == {1}


@pytest.mark.usefixtures("rotated")
def test_one_tenant_is_rewrapped_alone() -> None:
    """A mistyped one is refused."""
    assert call("rewrap", "--tenant", "other").out.startswith("Rewrapped 1 key; ")
    assert (root_versions("acme"), root_versions("other")) == ([1, 1], [2])
    answer = call("rewrap", "--tenant", "othr")
    assert (answer.code, answer.err) == (7, "Error: there is no tenant 'othr' in the key store\n")


@pytest.mark.usefixtures("rotated")
def test_ctrl_c_ends_it_between_two_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says exactly what was done; started again, it does the rest."""
    whole = LocalKMS.rewrap

    def pressed(kms: LocalKMS, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        monkeypatch.setattr(LocalKMS, "rewrap", whole)
        os.kill(os.getpid(), signal.SIGINT)
        return whole(kms, wrapped, context=context)

    monkeypatch.setattr(LocalKMS, "rewrap", pressed)
    answer = call("rewrap", "--json")
    assert answer.code == 130
    assert answer.document["interrupted"] is True
    first = {key["tenant"] for key in answer.document["rewrapped"]}
    assert len(first) == 1
    assert {key["tenant"] for key in call("rewrap", "--json").document["rewrapped"]} == {
        "acme",
        "other",
    } - first


def damage(folder: Path) -> None:
    """Damage the first tenant's data key."""
    with closing(sqlite3.connect(folder / "keys.db")) as database:
        database.execute(
            "UPDATE fieldvault_keys SET wrapped = zeroblob(53) WHERE tenant = 'acme' AND purpose = 'data' "
            "AND subject = ''"
        )
        database.commit()


def test_it_goes_on_after_a_tenant_that_fails(rotated: Path) -> None:
    """It names the tenant and the reason at the end, and ends with 1."""
    damage(rotated)
    answer = call("rewrap", "--json")
    assert answer.code == 1
    (failed,) = answer.document["failed"]
    assert (failed["tenant"], failed["kind"]) == ("acme", "KMSError")
    assert "other" in [key["tenant"] for key in answer.document["rewrapped"]]
    answer = call("rewrap")
    assert answer.code == 1
    assert "FAILED" in answer.out
    assert "tenants that failed: 1." in answer.out


def test_one_tenant_that_fails_ends_with_the_code_of_its_error(rotated: Path) -> None:
    """There is nobody to go on with."""
    damage(rotated)
    assert call("rewrap", "--tenant", "acme").code == 4


Heal = Callable[[], None]


@pytest.fixture
def heal(rotated: Path, monkeypatch: pytest.MonkeyPatch) -> Heal:
    """A vault under two KMSs, of which the second is out until this is called."""
    LocalKMS.create(rotated / "there.keys").close()
    config = rotated / "fieldvault.toml"
    config.write_text(
        config.read_text().replace(
            '[kms]\ntype = "local"\npath = "root.keys"\n',
            '[kms]\ntype = "multi"\nrequired = 1\n\n'
            '[kms.members.here]\ntype = "local"\npath = "root.keys"\n\n'
            '[kms.members.there]\ntype = "local"\npath = "there.keys"\n',
        )
    )
    whole = LocalKMS.wrap

    def failing(kms: LocalKMS, key: bytes, *, context: Mapping[str, str]) -> bytes:
        if "there.keys" in repr(kms):
            raise KMSUnavailable("no route")
        return whole(kms, key, context=context)

    monkeypatch.setattr(LocalKMS, "wrap", failing)
    return partial(monkeypatch.setattr, LocalKMS, "wrap", whole)


def test_a_kms_of_several_that_took_no_part_is_named(heal: Heal) -> None:
    """And it ends with 1; once that one is back, the same command does the rest."""
    answer = call("rewrap", "--json")
    assert answer.code == 1
    assert answer.document["rewrapped"] == answer.document["failed"] == []
    assert [key["tenant"] for key in answer.document["incomplete"]] == ["acme", "acme", "other"]
    assert answer.document["incomplete"][0]["missed"] == {
        "there": {"kind": "KMSUnavailable", "message": "no route"}
    }
    answer = call("rewrap", "--every")
    assert answer.code == 1
    assert "Rewrapped 0 keys; current already: 0; tenants that failed: 0." in answer.out
    assert re.search("there +3 +no route", answer.out)
    assert "Not by every KMS: 3 keys;" in answer.out
    assert "run fieldvault rewrap --every again." in answer.out
    heal()
    assert call("rewrap").out == "Rewrapped 3 keys; current already: 0; tenants that failed: 0.\n"
    assert call("doctor", "--wraps").code == 0


@pytest.mark.usefixtures("heal")
def test_where_a_kms_cannot_tell_what_is_current_the_next_run_takes_every_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what it missed would pass for current."""
    # Neither of the two is one of these.
    monkeypatch.setattr("fieldvault.cli.commands.rewrap.Rewrapping", FaultyKMS)
    answer = call("rewrap")
    assert answer.code == 1
    assert "run fieldvault rewrap --every again." in answer.out

"""``fieldvault keys`` lists the keys of a tenant, without their material."""

from pathlib import Path

import pytest

from tests.cli.calling import call, give_keys, give_subject_keys, records


@pytest.fixture
def shop(vault_folder: Path) -> Path:
    """A tenant with two data keys and two subjects."""
    give_keys("acme")
    give_subject_keys("acme", "ann", "[bob]")
    assert call("rotate", "acme").code == 0
    return vault_folder


def listed(*arguments: str) -> list[tuple[str, str, int, str]]:
    """Return subject, purpose, version and state of each key that a call lists."""
    return [
        (key["subject"] or "", key["purpose"], key["version"], key["state"])
        for key in call("keys", *arguments, "--json").document["keys"]
    ]


@pytest.mark.usefixtures("shop")
def test_a_tenants_own_keys_come_without_its_subjects() -> None:
    """There may be a million of those."""
    own = [("", "data", 1, "retired"), ("", "data", 2, "active"), ("", "wrap", 1, "active")]
    assert listed("acme") == own
    assert listed("acme", "--subjects") == [
        *own,
        ("[bob]", "data", 1, "active"),
        ("ann", "data", 1, "active"),
    ]
    assert listed("acme", "--subject", "ann") == [("ann", "data", 1, "active")]


@pytest.mark.usefixtures("shop")
def test_the_table_has_what_the_document_has() -> None:
    """Key ids in full, subjects by name."""
    out = call("keys", "acme", "--subjects").out
    assert all(record.key_id.hex() in out for record in records("acme"))
    assert "[bob]" in out
    assert "SUBJECT" in out
    assert "SUBJECT" not in call("keys", "acme").out


@pytest.mark.usefixtures("shop")
def test_a_shred_is_told_with_who_and_why() -> None:
    """Of the subject, and of the tenant."""
    assert call("shred", "acme", "--subject", "ann", "--yes", "--actor", "me", "--reason", "asked").code == 0
    assert "by me: asked" in call("keys", "acme", "--subject", "ann").out
    shredded = call("keys", "acme", "--subject", "ann", "--json").document["shredded"]
    assert (shredded["actor"], shredded["reason"]) == ("me", "asked")
    assert call("keys", "acme", "--json").document["shredded"] is None


@pytest.mark.usefixtures("shop")
def test_a_shredded_tenants_subjects_have_no_usable_keys() -> None:
    """Their records keep their state, and what wraps them is gone."""
    usable = [key["usable"] for key in call("keys", "acme", "--subjects", "--json").document["keys"]]
    assert usable == [True] * 5
    assert call("shred", "acme", "--yes", "--reason", "left").code == 0
    for arguments in (("--subjects",), ("--subject", "ann")):
        document = call("keys", "acme", *arguments, "--json").document
        assert not any(key["usable"] for key in document["keys"])
        assert ("ann", "active") in {(key["subject"], key["state"]) for key in document["keys"]}
        out = call("keys", "acme", *arguments).out
        assert "The tenant acme was shredded" in out
        assert "unusable" in out
        assert " active " not in out


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("arguments", [("nobody",), ("acme", "--subject", "nobody"), ("Acme",)])
def test_who_has_no_key_is_not_found(arguments: tuple[str, ...]) -> None:
    """A mistyped name is no empty list."""
    answer = call("keys", *arguments)
    assert (answer.code, answer.out) == (7, "")


@pytest.mark.usefixtures("vault_folder")
def test_a_subject_shredded_before_it_had_a_key_is_told_so() -> None:
    """The fence is all there is."""
    give_keys("acme")
    assert call("shred", "acme", "--subject", "new", "--yes", "--reason", "asked").code == 0
    assert call("keys", "acme", "--subject", "new", "--json").document["keys"] == []
    assert "was shredded" in call("keys", "acme", "--subject", "new").out

"""``fieldvault shred`` destroys keys after the name was typed, and never otherwise."""

import os
import pwd
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.errors import KeyShredded
from tests.cli.calling import call, give_keys, give_subject_keys, records

WHY = ("--reason", "contract ended")


@pytest.fixture
def shop(vault_folder: Path) -> Path:
    """Two tenants, one with two subjects."""
    give_keys("acme", "other")
    give_subject_keys("acme", "ann", "bob")
    return vault_folder


def states(tenant: str) -> set[tuple[str, str]]:
    """Return subject and state of each key."""
    return {(each.subject or "", each.state) for each in records(tenant)}


UNTOUCHED = {("", "active"), ("ann", "active"), ("bob", "active")}


@pytest.mark.usefixtures("shop")
def test_the_tenants_name_typed_destroys_its_keys() -> None:
    """And no other tenant's."""
    answer = call("shred", "acme", *WHY, typed="acme\n")
    assert answer.code == 0, answer.err
    assert "Type the tenant's name" in answer.err
    assert ("", "destroyed") in states("acme")
    assert states("other") == {("", "active")}
    with Vault.open("fieldvault.toml") as vault, pytest.raises(KeyShredded):
        vault.encrypt("x", field="a.b", tenant="acme", subject="ann")


@pytest.mark.usefixtures("shop")
def test_the_subjects_name_typed_destroys_its_keys() -> None:
    """The tenant and its other subjects keep theirs."""
    answer = call("shred", "acme", "--subject", "ann", *WHY, typed="ann\n")
    assert answer.code == 0, answer.err
    assert "Type the subject's name" in answer.err
    assert states("acme") == {("", "active"), ("ann", "destroyed"), ("bob", "active")}


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "typed", ["", "\n", "y\n", "yes\n", "Acme\n", "acme \n", " acme\n", "ann\n", "acme\nacme"]
)
def test_anything_else_changes_nothing(typed: str) -> None:
    """Nor does the end of the input; `acme` in the second line comes too late."""
    answer = call("shred", "acme", *WHY, typed="x" + typed if typed.startswith("acme\n") else typed)
    assert (answer.code, answer.out) == (6, "")
    assert "nothing was changed" in answer.err
    assert states("acme") == UNTOUCHED


@pytest.mark.usefixtures("shop")
def test_for_a_subject_the_tenants_name_is_not_enough() -> None:
    """What is typed is what goes."""
    assert call("shred", "acme", "--subject", "ann", *WHY, typed="acme\n").code == 6
    assert states("acme") == UNTOUCHED


@pytest.mark.usefixtures("vault_folder")
@pytest.mark.parametrize("name", ["茶庄 北京", "متجر", "[red]", "a\u202eb"])
def test_names_in_any_script_can_be_typed(name: str) -> None:
    """As they are, whatever the question shows."""
    give_keys(name)
    answer = call("shred", name, *WHY, "--json", typed=f"{name}\n")
    assert answer.code == 0, answer.err
    assert answer.document["tenant"] == name


@pytest.mark.usefixtures("shop")
def test_yes_does_not_ask() -> None:
    """For deletion workflows."""
    answer = call("shred", "acme", *WHY, "--yes")
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.usefixtures("shop")
def test_the_receipt_says_who_why_what_and_until_when() -> None:
    """In JSON, exactly; the longest lease and grace that a process declared is what may still be read."""
    ids = [each.key_id.hex() for each in records("acme") if each.subject is None]
    before = datetime.now(UTC)
    receipt = call("shred", "acme", *WHY, "--actor", "dpo@example.com", "--yes", "--json").document
    assert receipt["actor"] == "dpo@example.com"
    assert receipt["reason"] == "contract ended"
    assert receipt["key_ids"] == ids
    until = datetime.fromisoformat(receipt["unreadable_after"])
    assert before + timedelta(seconds=90) <= until <= datetime.now(UTC) + timedelta(seconds=90)


@pytest.mark.usefixtures("shop")
def test_a_person_reads_the_same_and_never_too_early_a_time() -> None:
    """The second is rounded up."""
    before = datetime.now(UTC)
    out = call("shred", "acme", "--reason", "asked [bold]", "--actor", "[red]", "--yes").out
    rows = dict(line.split("  ", 1) for line in out.splitlines() if not line.startswith(" "))
    assert rows["Reason"].strip() == "asked [bold]"
    assert rows["Actor"].strip() == "[red]"
    until = datetime.strptime(rows["Readable until"].strip()[:23], "%Y-%m-%d %H:%M:%S %Z").replace(tzinfo=UTC)
    assert until >= before + timedelta(seconds=90)
    assert all(each.key_id.hex() in out for each in records("acme") if each.subject is None)


@pytest.mark.usefixtures("shop")
def test_the_actor_is_the_login_user_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one at the terminal, not who sudo made of them; without a terminal, the process's user."""
    monkeypatch.setattr(os, "getlogin", lambda: "mei")
    assert call("shred", "acme", "--subject", "ann", *WHY, "--yes", "--json").document["actor"] == "mei"

    def no_terminal() -> str:
        raise OSError

    monkeypatch.setattr(os, "getlogin", no_terminal)
    me = pwd.getpwuid(os.getuid()).pw_name
    assert call("shred", "acme", "--subject", "bob", *WHY, "--yes", "--json").document["actor"] == me
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    document = call("shred", "acme", *WHY, "--yes", "--json").document
    assert document["actor"] == f"uid {2**31 - 7}"


@pytest.mark.usefixtures("shop")
def test_a_second_shred_keeps_the_first_receipts_words() -> None:
    """Safe to repeat; who asked first stays on record."""
    first = call("shred", "acme", "--reason", "first", "--actor", "a", "--yes", "--json").document
    again = call("shred", "acme", "--reason", "second", "--actor", "b", "--yes", "--json").document
    assert (again["actor"], again["reason"]) == ("a", "first")
    assert (again["fenced_at"], again["key_ids"]) == (first["fenced_at"], first["key_ids"])


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_subject_without_keys_is_told_and_does_not_look_like_success(flags: tuple[str, ...]) -> None:
    """On stderr, so that a deletion workflow's log has it; the receipt stays what it is."""
    answer = call("shred", "acme", "--subject", "nope", *WHY, "--yes", *flags)
    assert answer.code == 0
    assert answer.err == (
        "Warning: subject 'nope' of acme had no keys; nothing was destroyed. Is the name right? "
        "It is fenced now, and never gets a key.\n"
    )
    assert "Warning" not in answer.out
    assert states("acme") == UNTOUCHED


@pytest.mark.usefixtures("shop")
def test_the_question_counts_the_keys_and_says_where_there_are_none() -> None:
    """Whoever mistyped a subject may still turn back."""
    one = call("shred", "acme", "--subject", "ann", *WHY, typed="no\n").err
    assert one.startswith("This destroys the 1 key of the subject ann of the tenant acme, for good: ")
    none = call("shred", "acme", "--subject", "nope", *WHY, typed="no\n")
    assert none.code == 6
    assert none.err.startswith(
        "The subject nope of the tenant acme has no keys, so nothing is destroyed. Is the name right? "
    )
    assert "This destroys the 2 keys of the tenant acme" in call("shred", "acme", *WHY, typed="no\n").err


@pytest.mark.usefixtures("shop")
def test_an_unknown_tenant_is_not_fenced() -> None:
    """A mistyped name would shut out a tenant to come; nobody is asked for it either."""
    answer = call("shred", "amce", *WHY, typed="amce\n")
    assert (answer.code, answer.out) == (7, "")
    assert "Type" not in answer.err
    assert len(call("tenants", "--json").document["tenants"]) == 2


@pytest.mark.usefixtures("shop")
def test_control_characters_in_a_reason_do_not_reach_the_terminal() -> None:
    """They are spelled out."""
    out = call("shred", "acme", "--reason", "a\x1b[2Jb", "--yes").out
    assert "\x1b" not in out
    assert "a\\u001b[2Jb" in out

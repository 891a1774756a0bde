"""``fieldvault rotate`` makes new data keys, one tenant's or all."""

import shlex
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.cli.exits import ExitCode
from fieldvault.keys.loading import KeyLoader
from fieldvault.keys.records import KeyInfo, KeyRecord
from fieldvault.keystores.sql import reading
from tests.cli.calling import Answer, call, give_keys, give_subject_keys, records

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


def subject_versions(tenant: str) -> dict[str, list[tuple[int, str]]]:
    """Return version and state of each key of each subject of a tenant."""
    found: dict[str, list[tuple[int, str]]] = {}
    for each in records(tenant):
        if each.subject is not None:
            found.setdefault(each.subject, []).append((each.version, each.state))
    return found


def resumed(answer: Answer) -> Answer:
    """Call what an answer says is left."""
    program, *arguments = shlex.split(answer.document["resume"])
    assert program == "fieldvault"
    return call(*arguments, "--json")


ONCE = [(1, "retired"), (2, "active")]


@pytest.mark.usefixtures("vault_folder")
def test_subjects_are_rotated_with_their_tenants() -> None:
    """All of them, but for those that were shredded or are suspended; what they sealed still opens."""
    give_keys("acme", "gone")
    give_subject_keys("acme", "ann", "bob", "carl", "dora")
    give_subject_keys("subjects only", "emil")
    give_subject_keys("gone", "fay")
    assert call("shred", "gone", "--yes", "--reason", "left").code == 0
    assert call("shred", "acme", "--subject", "bob", "--yes", "--reason", "asked").code == 0
    with Vault.open("fieldvault.toml") as vault:
        vault.suspend(vault.keys("acme", "carl")[0].key_id)
        blob = vault.encrypt("x", field="a.b", tenant="acme", subject="ann")
    answer = call("rotate", "--all", "--subjects", "--json")
    assert answer.code == 0
    assert [(key["tenant"], key["subject"]) for key in answer.document["rotated"]] == [("acme", None)]
    assert answer.document["subjects"] == {
        "rotated": 3,
        "newer": 0,
        "suspended": 1,
        "shredded": 1,
        "overtaken": 0,
    }
    assert answer.document["resume"] is None
    assert subject_versions("acme") == {
        "ann": ONCE,
        "bob": [(1, "destroyed")],
        "carl": [(1, "suspended")],
        "dora": ONCE,
    }
    assert subject_versions("subjects only") == {"emil": ONCE}
    assert [version for version, _ in subject_versions("gone")["fay"]] == [1]
    with Vault.open("fieldvault.toml") as vault:
        assert vault.decrypt(blob, field="a.b", tenant="acme", subject="ann") == "x"
        sealed = vault.encrypt("y", field="a.b", tenant="acme", subject="ann")
        assert sealed[3:19] == vault.keys("acme", "ann")[-1].key_id
    out = call("rotate", "--all", "--subjects").out
    assert "Subjects: rotated 3, suspended 1, shredded 1." in out


@pytest.mark.usefixtures("vault_folder")
def test_one_tenant_s_subjects_are_rotated_alone() -> None:
    """A tenant without a data key of its own gets none by it."""
    give_subject_keys("acme", "ann")
    give_subject_keys("other", "bob")
    answer = call("rotate", "acme", "--subjects", "--json")
    assert answer.code == 0
    assert answer.document["rotated"] == []
    assert answer.document["skipped"] == [{"tenant": "acme", "why": "has no data key"}]
    assert answer.document["subjects"]["rotated"] == 1
    assert (subject_versions("acme"), subject_versions("other")) == ({"ann": ONCE}, {"bob": [(1, "active")]})
    assert call("rotate", "acme", "--json").document["subjects"] is None


@pytest.mark.usefixtures("vault_folder")
def test_a_tenant_that_is_gone_or_never_was_has_no_subjects_to_rotate() -> None:
    """The one that was named is to be there; of all, who is gone is passed over."""
    give_keys("gone")
    assert call("shred", "gone", "--yes", "--reason", "left").code == 0
    for tenant in ("gone", "nobody"):
        answer = call("rotate", tenant, "--subjects")
        assert (answer.code, answer.out) == (ExitCode.NO_KEY, "")
        assert repr(tenant) in answer.err


@pytest.mark.usefixtures("vault_folder")
def test_subjects_are_listed_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is rotated once, wherever a page ends."""
    names = [f"s{number}" for number in range(5)]
    give_subject_keys("acme", *names)
    for page in (1, 2, 3):
        monkeypatch.setattr(reading, "PAGE", page)
        assert call("rotate", "acme", "--subjects", "--json").document["subjects"]["rotated"] == len(names)
    assert {len(versions) for versions in subject_versions("acme").values()} == {4}


def test_subjects_that_failed_are_rotated_by_the_command_that_the_answer_has(
    vault_folder: Path, failing: Failing
) -> None:
    """And nobody twice."""
    give_keys("acme", "other")
    give_subject_keys("acme", "ann", "zoe")
    give_subject_keys("other", "bob")
    failing("acme")
    answer = call(
        "rotate", "--all", "--subjects", "--json", "--config", str(vault_folder / "fieldvault.toml")
    )
    assert answer.code == ExitCode.PROBLEM
    assert answer.document["resume"].endswith(f" --config {vault_folder / 'fieldvault.toml'}")
    assert [each["tenant"] for each in answer.document["failed"]] == ["acme"]
    assert subject_versions("other") == {"bob": ONCE}
    told = call("rotate", "acme", "--subjects").out
    assert "What is left: fieldvault rotate acme --subjects --made-before " in told
    with closing(sqlite3.connect(vault_folder / "keys.db")) as database:
        database.execute("DROP TRIGGER broken")
    again = resumed(answer)
    counts = again.document["subjects"]
    assert (again.code, counts["rotated"], counts["newer"]) == (0, 2, 1)
    assert {"tenant": "other", "why": "newer"} in again.document["skipped"]
    for tenant in ("acme", "other"):
        assert [each for each in versions(tenant) if each[0] > 1] == [(2, "active")]
        assert set(map(tuple, subject_versions(tenant).values())) == {tuple(ONCE)}
    assert resumed(answer).document["subjects"] == {**counts, "rotated": 0, "newer": 3}


@pytest.mark.usefixtures("vault_folder")
def test_ctrl_c_between_two_subjects_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one at work is done first; the rest is left to the command that the answer has."""
    give_keys("a b")
    names = [f"s{number}" for number in range(6)]
    give_subject_keys("a b", *names)
    seen: list[str | None] = []
    replace = KeyLoader.replace

    def interrupted(self: KeyLoader, key: KeyInfo) -> KeyRecord | None:
        seen.append(key.subject)
        if key.subject == "s2":
            signal.raise_signal(signal.SIGINT)
        return replace(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(KeyLoader, "replace", interrupted)
        answer = call("rotate", "a b", "--subjects", "--json")
    assert answer.code == ExitCode.INTERRUPTED
    assert seen == [None, "s0", "s1", "s2"]
    assert answer.document["interrupted"] is True
    assert answer.document["resume"].startswith("fieldvault rotate 'a b' --subjects --made-before ")
    assert resumed(answer).code == 0
    assert subject_versions("a b") == dict.fromkeys(names, ONCE)
    assert [each for each in versions("a b") if each[0] > 1] == [(2, "active")]


@pytest.mark.usefixtures("vault_folder")
def test_only_keys_of_before_a_time_are_rotated() -> None:
    """For a rotation of everything that is older than a policy allows."""
    give_keys("acme")
    give_subject_keys("acme", "ann")
    for time in ("2001-01-01", "2001-01-01T00:00Z", "2001-01-01T00:00:00+08:00"):
        document = call("rotate", "--all", "--subjects", "--made-before", time, "--json").document
        assert (document["rotated"], document["subjects"]["newer"]) == ([], 1)
    made = records("acme")[0].created_at.isoformat()
    assert call("rotate", "--all", "--made-before", made, "--json").document["rotated"] == []
    later = call("rotate", "--all", "--made-before", "2999-01-01", "--json").document
    assert [key["version"] for key in later["rotated"]] == [2]


@pytest.mark.usefixtures("vault_folder")
@pytest.mark.parametrize(
    "arguments",
    [
        ("acme", "--subject", "ann", "--subjects"),
        ("--all", "--subject", "ann"),
        ("acme", "--made-before", "2026-01-01"),
        ("--all", "--made-before", "yesterday"),
        ("--subjects",),
    ],
)
def test_options_that_do_not_go_together_are_not_understood(arguments: tuple[str, ...]) -> None:
    """And nothing is rotated."""
    give_keys("acme")
    assert call("rotate", *arguments).code == ExitCode.USAGE
    assert versions("acme") == [(1, "active")]

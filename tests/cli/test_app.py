"""The global options, the exit codes, and how errors end."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from fieldvault import errors
from fieldvault.cli.app import fieldvault
from fieldvault.cli.exits import ExitCode, Refused, exit_code_of
from tests.cli.calling import call, give_keys

COMMANDS = [
    "init", "status", "doctor", "tenants", "keys", "rotate", "rewrap", "shred", "index", "keystore",
    "completion",
]  # fmt: skip
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_help_names_every_command_and_every_exit_code() -> None:
    """In the order in which an operator comes to need the commands."""
    out = call("--help").out
    listed = out[out.index("Commands:") : out.index("Exit codes:")]
    assert [line.split()[0] for line in listed.splitlines()[1:] if line.strip()] == COMMANDS
    assert all(f"{code:>3}  {code.meaning}" in out for code in ExitCode)


def test_the_page_documents_every_command_and_every_exit_code() -> None:
    """docs/cli.md is where a script's author looks them up."""
    text = PAGE.read_text(encoding="utf-8")
    assert [f"fieldvault {name}" for name in COMMANDS if f"## fieldvault {name}" not in text] == []
    assert [
        f"| {code} | {code.meaning}" for code in ExitCode if f"| {code} | {code.meaning}" not in text
    ] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_takes_the_global_options(command: str) -> None:
    """No line of it is cut off in the list of commands."""
    answer = call(command, "--help")
    assert answer.code == 0
    assert "--config" in answer.out
    assert "--json" in answer.out
    assert "..." not in call("--help").out.split("Commands:")[1]


def test_version_is_the_packages() -> None:
    """One line that says program and version."""
    assert call("--version").out.startswith("fieldvault 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", "v/fieldvault.toml", "tenants", "--json"),
        ("--json", "tenants", "--config", "v/fieldvault.toml"),
    ],
)
def test_global_options_stand_before_or_behind_the_command(folder: Path, arguments: tuple[str, ...]) -> None:
    """People type them where they think of them."""
    (folder / "v").mkdir()
    assert call("--config", "v/fieldvault.toml", "init").code == 0
    give_keys("acme", config="v/fieldvault.toml")
    assert call(*arguments).document["tenants"][0]["tenant"] == "acme"


def test_the_environment_names_the_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option stands above it."""
    (folder / "v").mkdir()
    monkeypatch.setenv("FIELDVAULT_CONFIG", "v/fieldvault.toml")
    assert call("init").code == 0
    assert (folder / "v" / "fieldvault.toml").exists()
    assert call("status").code == 0
    assert call("status", "--config", "fieldvault.toml").code == 3


def error_classes() -> list[type[Exception]]:
    """Return every error of the public tree."""
    return [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", error_classes())
def test_every_error_has_a_code_that_says_something(kind: type[errors.FieldVaultError]) -> None:
    """None ends in success, and none in the code of a command that was not understood."""
    assert exit_code_of(kind.__new__(kind)) not in (ExitCode.OK, ExitCode.USAGE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigurationError(""), 3),
        (errors.NotYet(""), 8),
        (errors.KMSUnavailable(""), 4),
        (errors.KMSDenied(""), 4),
        (errors.KeyStoreError(""), 5),
        (errors.UnfinishedCopy(), 5),
        (errors.ErasureBlocked(""), 6),
        (Refused(""), 6),
        (errors.KeyNotFound(""), 7),
        (errors.KeyShredded(""), 7),
    ],
)
def test_the_codes_stay_what_they_are(error: errors.FieldVaultError | Refused, code: int) -> None:
    """Scripts rely on them."""
    assert exit_code_of(error) == code


def test_an_error_is_one_line_on_stderr(vault_folder: Path) -> None:
    """Nothing on stdout, no traceback."""
    answer = call("keys", "nobody")
    assert (answer.code, answer.out) == (7, "")
    assert answer.err == "Error: there is no tenant 'nobody' in the key store\n"
    assert (vault_folder / "keys.db").exists()


@pytest.mark.usefixtures("vault_folder")
def test_with_json_an_error_is_a_document_too() -> None:
    """Machines read stdout; the line on stderr stays for the log."""
    answer = call("keys", "nobody", "--json")
    assert answer.document == {
        "error": {
            "kind": "KeyNotFound",
            "message": "there is no tenant 'nobody' in the key store",
            "exit_code": 7,
        }
    }
    assert answer.err.startswith("Error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("rotate",),
        ("rotate", "acme", "--all"),
        ("rotate", "--all", "--subject", "ann"),
        ("keys",),
        ("keys", "acme", "--subject", "ann", "--subjects"),
        ("shred", "acme", "--yes"),
        ("shred", "acme", "--yes", "--reason", ""),
        ("shred", "acme", "--yes", "--reason", "r" * 1001),
        ("shred", "acme", "--yes", "--reason", "r", "--actor", ""),
        ("completion", "powershell"),
    ],
)
def test_what_is_not_understood_ends_with_2(vault_folder: Path, arguments: tuple[str, ...]) -> None:
    """And does nothing: the tenant keeps its key."""
    give_keys("acme")
    before = (vault_folder / "keys.db").read_bytes()
    answer = call(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert (vault_folder / "keys.db").read_bytes() == before


@pytest.mark.usefixtures("vault_folder")
@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[31mb", "x" * 256, "\udcff"])
def test_names_that_cannot_be_are_not_understood(name: str) -> None:
    """Refused before the vault is opened; bytes that are no UTF-8 come as surrogates."""
    answer = call("keys", name)
    assert answer.code == 2
    assert "a tenant " in answer.err
    assert "\x1b" not in answer.err


def test_without_a_configuration_the_way_to_one_is_told(folder: Path) -> None:
    """The commonest mistake: the wrong folder."""
    for command in ("status", "tenants"):
        answer = call(command)
        assert answer.code == 3
        assert "fieldvault init" in answer.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", [("status",), ("tenants",), ("rotate", "--all"), ("keys", "acme")])
def test_a_lost_key_store_is_not_replaced_by_an_empty_one(
    vault_folder: Path, command: tuple[str, ...]
) -> None:
    """Opening an SQLite file makes it; an operator has to hear that it was gone."""
    (vault_folder / "keys.db").unlink()
    answer = call(*command)
    assert answer.code == 5
    assert "restore it" in answer.err
    assert not (vault_folder / "keys.db").exists()


def test_a_broken_configuration_names_the_line(vault_folder: Path) -> None:
    """And ends with the code of configurations."""
    with (vault_folder / "fieldvault.toml").open("a") as file:
        file.write("[cache]\nlaese = 3\n")
    answer = call("status")
    assert answer.code == 3
    assert "line 11" in answer.err
    assert "laese" in answer.err


@pytest.mark.usefixtures("vault_folder")
def test_ctrl_c_has_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """130, as shells have it, and a word in place of a traceback."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fieldvault.cli.commands.status.Census.count", interrupted)
    give_keys("acme")
    result = CliRunner().invoke(fieldvault, ["status", "--json"])
    assert result.exit_code == 130
    assert result.stderr == "Error: interrupted\n"
    assert '"exit_code": 130' in result.stdout

"""``fieldvault keystore`` copies a key store to another one, and makes tables where that is asked for."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.cli.exits import ExitCode
from fieldvault.errors import KeyStoreError
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.settings import Section
from fieldvault.testing.samples import acme, first_key, successor
from tests.cli.calling import call, give_keys, give_subject_keys, records, run


@pytest.fixture
def moved(vault_folder: Path) -> Path:
    """A vault with tenants, one of them shredded, and a configuration of the key store to come."""
    give_keys("acme", "gone", "茶庄")
    give_subject_keys("acme", "ann", "bob")
    assert call("rotate", "acme").code == 0
    assert call("shred", "gone", "--yes", "--reason", "left").code == 0
    assert call("shred", "acme", "--subject", "bob", "--yes", "--reason", "asked").code == 0
    text = (vault_folder / "fieldvault.toml").read_text()
    (vault_folder / "moved.toml").write_text(text.replace("keys.db", "moved.db"))
    return vault_folder


@pytest.mark.usefixtures("moved")
def test_a_key_store_is_copied_and_opened() -> None:
    """Two calls: one while the vault is in use, and one once it is stopped."""
    with Vault.open("fieldvault.toml") as vault:
        sealed = vault.encrypt("x", field="a.b", tenant="acme", subject="ann")
        first = call("keystore", "copy", "--to", "moved.toml")
    assert first.code == 0
    assert "Equal by now. The copy serves nobody yet" in first.out
    assert "Tenants         3          3" in first.out
    assert call("--config", "moved.toml", "tenants").code == ExitCode.KEY_STORE
    status = call("--config", "moved.toml", "status")
    assert status.code == ExitCode.KEY_STORE
    assert "fieldvault keystore copy --finish" in status.err
    doctor = call("--config", "moved.toml", "doctor", "--json")
    assert doctor.code == ExitCode.PROBLEM
    (check,) = (each for each in doctor.document["checks"] if each["check"] == "key store")
    assert "unfinished copy" in check["detail"]
    assert "fieldvault keystore copy --to moved.toml --finish" in check["remedy"]
    assert "backup" not in check["remedy"]
    commands = (
        ("tenants", "--json"),
        ("keys", "acme", "--subjects", "--json"),
        ("keys", "gone", "--json"),
    )
    before = [call(*command) for command in commands]
    last = call("keystore", "copy", "--to", "moved.toml", "--finish")
    assert last.code == 0
    assert "Written to the copy: 0 records." in last.out
    assert "Equal: nothing was lost or brought back." in last.out
    with Vault.open("moved.toml") as vault:
        assert vault.decrypt(sealed, field="a.b", tenant="acme", subject="ann") == "x"
    assert [call("--config", "moved.toml", *command) for command in commands] == before


@pytest.mark.usefixtures("moved")
def test_the_old_key_store_is_closed_until_it_is_opened_again() -> None:
    """Whoever was not stopped is told where to go; the way back asks."""
    assert call("keystore", "copy", "--to", "moved.toml", "--finish").code == 0
    late = call("rotate", "acme")
    assert late.code == ExitCode.KEY_STORE
    assert "have the configuration name the copy" in late.err
    with pytest.raises(KeyStoreError), Vault.open("fieldvault.toml") as vault:
        vault.encrypt("x", field="a.b", tenant="new")
    asked = call("keystore", "reopen", typed="yes\n")
    assert asked.code == ExitCode.REFUSED
    assert "is lost to whatever opens this key store" in asked.err
    assert call("rotate", "acme").code == ExitCode.KEY_STORE
    assert call("keystore", "reopen", typed="reopen\n").out == "The key store serves again.\n"
    assert call("rotate", "acme").code == 0
    assert call("keystore", "reopen", "--yes", "--json").document == {"reopened": False}


@pytest.mark.usefixtures("moved")
def test_a_copy_that_was_begun_by_mistake_is_given_up() -> None:
    """It is an empty key store again; one that is in use is left alone."""
    assert call("keystore", "copy", "--to", "moved.toml").code == 0
    asked = call("--config", "moved.toml", "keystore", "give-up", typed="\n")
    assert asked.code == ExitCode.REFUSED
    assert call("--config", "moved.toml", "tenants").code == ExitCode.KEY_STORE
    told = call("--config", "moved.toml", "keystore", "give-up", typed="give up\n")
    assert told.out == "The copy was given up: the key store is empty, and serves as a new one.\n"
    give_keys("new", config="moved.toml")
    assert call("--config", "moved.toml", "tenants", "--json").code == 0
    refused = call("keystore", "give-up", "--yes")
    assert refused.code == ExitCode.REFUSED
    assert "no unfinished copy" in refused.err
    assert call("tenants").code == 0


@pytest.mark.usefixtures("moved")
def test_a_key_store_in_memory_is_no_place_to_copy_to() -> None:
    """It would be gone, proven, when the command ends; the old one serves on."""
    Path("memory.toml").write_text('[key_store]\ntype = "memory"\n')
    answer = call("keystore", "copy", "--to", "memory.toml", "--finish")
    assert answer.code == ExitCode.CONFIGURATION
    assert "gone when this command ends" in answer.err
    assert call("tenants").code == 0


@pytest.mark.usefixtures("moved")
def test_the_account_is_a_document() -> None:
    """With the figures of both stores, and nothing of a key."""
    answer = call("keystore", "copy", "--to", "moved.toml", "--finish", "--json")
    told = answer.document
    assert told["finished"] is True
    assert told["written"] == 7 + 2
    assert told["differing"] == told["unsteady"] == []
    assert told["source"] == told["target"]
    assert told["source"]["tenants"] == 3
    assert told["source"]["fences"] == 2
    assert sum(told["source"]["keys"].values()) == 7
    assert told["source"]["keys"]["destroyed"] == 2
    assert len(told["source"]["sha256"]) == 64
    for tenant in ("acme", "茶庄"):
        for key in records(tenant):
            assert key.wrapped is None or key.wrapped.hex() not in answer.out


@pytest.mark.usefixtures("moved")
def test_a_finished_copy_may_be_copied_once_more_until_it_is_used() -> None:
    """Then it is left alone."""
    for _ in range(2):
        assert call("keystore", "copy", "--to", "moved.toml", "--finish").code == 0
    give_keys("new", config="moved.toml")
    before = records("acme", "moved.toml")
    assert call("keystore", "reopen", "--yes").code == 0
    assert call("rotate", "acme").code == 0
    refused = call("keystore", "copy", "--to", "moved.toml", "--finish")
    assert refused.code == ExitCode.REFUSED
    assert "copy to an empty one" in refused.err
    assert records("acme", "moved.toml") == before
    assert call("--config", "moved.toml", "tenants").code == 0


@pytest.mark.usefixtures("moved")
def test_a_key_store_is_not_copied_to_itself() -> None:
    """Nothing happens to it."""
    answer = call("keystore", "copy", "--to", "fieldvault.toml", "--finish")
    assert answer.code == ExitCode.REFUSED
    assert call("tenants").code == 0


@pytest.mark.usefixtures("moved")
def test_a_key_store_that_changes_meanwhile_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenants are named, and the call ends with the code of what is not yet so."""
    store = SQLKeyStore("sqlite:///keys.db")

    def read_on(self: SQLKeyStore, tenant: str) -> object:
        if tenant == "acme":
            (active,) = (
                key for key in store.keys("acme", None) if key.state == "active" and key.purpose == "data"
            )
            store.reserve([active.key_id], 1, limit=2**32)
        return listed(self, tenant)

    listed = SQLKeyStore.all_keys
    with monkeypatch.context() as patch:
        patch.setattr(SQLKeyStore, "all_keys", read_on)
        answer = call("keystore", "copy", "--to", "moved.toml")
        document = call("keystore", "copy", "--to", "moved.toml", "--json").document
    assert answer.code == ExitCode.NOT_YET
    assert "acme    changed meanwhile" in answer.out
    assert "Stop what uses it before you say --finish" in answer.out
    assert document["unsteady"] == ["acme"]
    assert document["finished"] is False
    store.close()
    assert call("keystore", "copy", "--to", "moved.toml", "--finish").code == 0


@pytest.mark.usefixtures("moved")
def test_a_copy_that_differs_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that loses what it is given."""
    take_over = SQLKeyStore.take_over
    monkeypatch.setattr(
        SQLKeyStore,
        "take_over",
        lambda self, keys, fences, **more: take_over(
            self, [key for key in keys if key.subject != "ann"], fences, **more
        ),
    )
    answer = call("keystore", "copy", "--to", "moved.toml", "--finish")
    assert answer.code == ExitCode.PROBLEM
    assert "acme    differs" in answer.out
    assert "Not equal: the copy stays closed." in answer.out
    assert call("--config", "moved.toml", "tenants").code == ExitCode.KEY_STORE


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--to", "nowhere.toml"), ExitCode.CONFIGURATION, "there is no nowhere.toml in"),
        (("--to", "empty.toml"), ExitCode.CONFIGURATION, "key_store is missing"),
        (("--to", "unreachable.toml"), ExitCode.KEY_STORE, "unable to open database file"),
        (
            ("--to", "moved.toml", "--config", "nowhere.toml"),
            ExitCode.CONFIGURATION,
            "there is no nowhere.toml",
        ),
        (("--to", "moved.toml", "--config", "lost.toml"), ExitCode.KEY_STORE, "there is no key store"),
        ((), ExitCode.USAGE, "--to"),
    ],
)
def test_what_cannot_be_copied_is_refused(
    moved: Path, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    """And no store is made on the way."""
    (moved / "empty.toml").write_text("")
    for name, url in (("lost", "sqlite:///lost.db"), ("unreachable", "sqlite:///no/where/keys.db")):
        (moved / f"{name}.toml").write_text(f'[key_store]\ntype = "sql"\nurl = "{url}"\n')
    answer = call("keystore", "copy", *arguments)
    assert answer.code == code
    assert said in answer.err
    assert not (moved / "lost.db").exists()
    assert not (moved / "moved.db").exists()


def test_the_key_store_to_copy_to_needs_no_kms(moved: Path) -> None:
    """Of its configuration only the one section is read; the KMS of neither is called."""
    (moved / "only.toml").write_text('[key_store]\ntype = "sql"\nurl = "sqlite:///moved.db"\n')
    (moved / "root.keys").unlink()
    assert call("keystore", "copy", "--to", "only.toml", "--finish").code == 0


@pytest.mark.usefixtures("moved")
def test_the_installed_program_copies() -> None:
    """Through the one door that people use."""
    assert run("keystore", "copy", "--to", "moved.toml", "--finish").code == 0


class _Table(MemoryKeyStore):
    """A store whose table is made by command."""

    @classmethod
    def from_config(cls, section: Section) -> "_Table":
        """Open it, table or not."""
        section.text("type")
        section.finish()
        return cls()

    def create_table(self) -> str:
        """See ``Provisioned``."""
        return "table fieldvault-keys"


def test_a_table_is_made_by_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a store that wants it."""
    point = EntryPoint("table", f"{__name__}:_Table", "fieldvault.key_stores")
    monkeypatch.setattr("fieldvault.settings.entry_points", lambda **_: [point])
    monkeypatch.setattr(EntryPoint, "load", lambda _: _Table)
    (folder / "fieldvault.toml").write_text('[key_store]\ntype = "table"\n')
    assert call("keystore", "create").out == "table fieldvault-keys\n"
    assert call("keystore", "create", "--json").document == {"key_store": "table fieldvault-keys"}


def test_a_store_in_a_database_makes_its_tables_itself(folder: Path) -> None:
    """Nothing is wrong with asking, also a second time, with keys in it."""
    (folder / "fieldvault.toml").write_text('[key_store]\ntype = "sql"\nurl = "sqlite:///keys.db"\n')
    out = call("keystore", "create").out
    assert out.startswith("The key store is there: ")
    assert "keys.db, 0 keys" in out
    assert "makes its tables by itself when it is opened" in out
    store = SQLKeyStore("sqlite:///keys.db")
    successor(store, first_key(store, acme()))
    store.close()
    assert "2 keys" in call("keystore", "create").out
    assert call("keystore", "create", "--config", "nowhere.toml").code == ExitCode.CONFIGURATION

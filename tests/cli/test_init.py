"""``fieldvault init`` makes a vault, all of it or nothing, and overwrites nothing."""

import fcntl
import os
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fieldvault import Vault
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from tests.cli.calling import PROGRAM, call, give_keys


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_makes_a_vault_that_opens_and_seals(folder: Path) -> None:
    """Three files, no more, and the vault that they describe works."""
    answer = call("init")
    assert answer.code == 0, answer.err
    assert sorted(contents(folder)) == ["fieldvault.toml", "keys.db", "root.keys"]
    with Vault.open("fieldvault.toml") as vault:
        assert vault.decrypt(vault.encrypt("x", field="a.b", tenant="t"), field="a.b", tenant="t") == "x"


def test_the_root_key_file_is_its_owners_alone(folder: Path) -> None:
    """Whatever the umask allows to others."""
    before = os.umask(0)
    try:
        assert call("init").code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "root.keys").stat().st_mode) == 0o600


def test_json_says_what_was_made(folder: Path) -> None:
    """The document names the files and whether each is new."""
    assert call("init", "--json").document == {
        "config": "fieldvault.toml",
        "root_keys": {"path": "root.keys", "created": True},
        "key_store": {"reached": "sqlite:///keys.db, 0 keys", "created": True},
    }
    assert (folder / "fieldvault.toml").exists()


def test_a_second_init_is_refused_and_changes_no_byte(vault_folder: Path) -> None:
    """Nothing is overwritten, and the person is told where to look."""
    give_keys("acme")
    before = contents(vault_folder)
    answer = call("init", "--root-keys", "other.keys", "--key-store", "sqlite:///other.db")
    assert (answer.code, answer.out) == (6, "")
    assert "fieldvault.toml exists" in answer.err
    assert contents(vault_folder) == before


def test_a_configuration_without_its_parts_is_left_alone(folder: Path) -> None:
    """One that came out of version control, say: nobody knows what it belongs to."""
    (folder / "fieldvault.toml").write_text("[kms]\n")
    answer = call("init")
    assert answer.code == 6
    assert "begin anew" in answer.err
    assert contents(folder) == {"fieldvault.toml": b"[kms]\n"}


def test_a_dangling_link_is_no_free_place(folder: Path) -> None:
    """What a link points to may come back, on a volume that is not mounted say."""
    (folder / "fieldvault.toml").symlink_to(folder / "elsewhere" / "fieldvault.toml")
    assert call("init").code == 6
    assert (folder / "fieldvault.toml").is_symlink()


@pytest.mark.parametrize("made", [("root.keys",), ("keys.db",), ("root.keys", "keys.db")])
def test_an_init_that_was_cut_short_is_completed(folder: Path, made: tuple[str, ...]) -> None:
    """Whatever a killed init left is kept, and the rest comes to it."""
    assert call("init").code == 0
    before = contents(folder)
    for path in folder.iterdir():
        if path.name not in made:
            path.unlink()
    answer = call("init", "--json")
    assert answer.code == 0, answer.err
    assert answer.document["root_keys"]["created"] is ("root.keys" not in made)
    assert answer.document["key_store"]["created"] is ("keys.db" not in made)
    assert all(contents(folder)[name] == before[name] for name in made)
    assert call("doctor").code == 0


def test_a_lost_configuration_is_written_again(vault_folder: Path) -> None:
    """Root-key file and key store are there and belong together: only the configuration is missing."""
    give_keys("acme")
    (vault_folder / "fieldvault.toml").unlink()
    assert call("init").code == 0
    assert call("doctor").code == 0


def test_keys_without_their_root_keys_get_no_new_ones(vault_folder: Path) -> None:
    """A new root-key file beside an old key store would look well and read nothing."""
    give_keys("acme")
    (vault_folder / "fieldvault.toml").unlink()
    (vault_folder / "root.keys").unlink()
    answer = call("init")
    assert answer.code == 6
    assert "restore it" in answer.err
    assert sorted(contents(vault_folder)) == ["keys.db"]


def test_another_vaults_root_keys_are_refused(vault_folder: Path) -> None:
    """They do not open the keys that are there."""
    give_keys("acme")
    (vault_folder / "fieldvault.toml").unlink()
    (vault_folder / "root.keys").unlink()
    LocalKMS.create("root.keys")
    answer = call("init")
    assert answer.code == 6
    assert "does not open the keys" in answer.err
    assert not (vault_folder / "fieldvault.toml").exists()


def test_what_cannot_be_completed_is_taken_back(folder: Path) -> None:
    """The root-key file cannot be made, so there is no key store either."""
    answer = call("init", "--root-keys", "missing/root.keys")
    assert (answer.code, answer.out) == (3, "")
    assert contents(folder) == {}


def test_a_key_store_that_cannot_be_reached_leaves_nothing(folder: Path) -> None:
    """No root-key file that belongs to no vault."""
    answer = call("init", "--key-store", "sqlite:///missing/keys.db")
    assert answer.code == 5, answer.err
    assert contents(folder) == {}


def test_a_configuration_that_cannot_be_written_leaves_nothing(folder: Path) -> None:
    """Not even the root-key file that was made by then."""
    name = "n" * 250 + ".toml"  # its draft's name is too long for the file system
    answer = call("init", "--config", name)
    assert answer.code == 3, answer.err
    assert "cannot be written" in answer.err
    assert contents(folder) == {}


def test_a_folder_that_is_not_there_is_no_vault(folder: Path) -> None:
    """The error names it."""
    answer = call("init", "--config", "missing/fieldvault.toml")
    assert answer.code == 3
    assert "missing" in answer.err
    assert contents(folder) == {}


def test_paths_are_relative_to_the_configuration(folder: Path) -> None:
    """A vault can be moved with its folder."""
    (folder / "shop").mkdir()
    assert call("init", "--config", "shop/fieldvault.toml").code == 0
    assert sorted(contents(folder / "shop")) == ["fieldvault.toml", "keys.db", "root.keys"]
    (folder / "shop").rename(folder / "moved")
    assert call("--config", "moved/fieldvault.toml", "doctor").code == 0


def test_a_passphrase_protects_the_root_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration names the variable, and the file opens with its content alone."""
    monkeypatch.setenv("VAULT_WORDS", "correct horse")
    assert call("init", "--passphrase-env", "VAULT_WORDS").code == 0
    text = (folder / "fieldvault.toml").read_text()
    assert tomllib.loads(text)["kms"]["passphrase_env"] == "VAULT_WORDS"
    assert "correct horse" not in text
    assert call("status").code == 0
    monkeypatch.setenv("VAULT_WORDS", "wrong")
    answer = call("status")
    assert (answer.code, answer.out) == (4, "")


def test_a_passphrase_can_come_from_a_file(folder: Path) -> None:
    """Relative to the configuration's folder, as all paths."""
    (folder / "words").write_text("correct horse\n")
    (folder / "words").chmod(0o600)
    assert call("init", "--passphrase-file", "words").code == 0
    LocalKMS("root.keys", "correct horse").close()


def test_a_passphrase_that_is_not_set_stops_it(folder: Path) -> None:
    """An unset variable is no passphrase, and no reason to go without one."""
    answer = call("init", "--passphrase-env", "NOT_SET_ANYWHERE")
    assert answer.code == 3
    assert "NOT_SET_ANYWHERE" in answer.err
    assert contents(folder) == {}


@pytest.mark.parametrize(
    "options",
    [
        ("--passphrase-env", "A", "--passphrase-file", "b"),
        ("--key-store", "sqlite:///a.db", "--key-store-env", "B"),
    ],
)
def test_two_answers_to_one_question_are_not_understood(folder: Path, options: tuple[str, ...]) -> None:
    """One of them would be ignored."""
    assert call("init", *options).code == 2
    assert contents(folder) == {}


@pytest.mark.parametrize("url", ["me:hunter2@localhost/x", "me@localhost/x?password=hunter2"])
def test_a_password_does_not_get_into_the_configuration(folder: Path, url: str) -> None:
    """Nor into the message that says so."""
    answer = call("init", "--key-store", f"postgresql+psycopg://{url}")
    assert answer.code == 3
    assert "--key-store-env" in answer.err
    assert "hunter2" not in answer.err
    assert contents(folder) == {}


def test_a_url_that_is_none_is_refused(folder: Path) -> None:
    """By the key store, whose message says what one looks like."""
    answer = call("init", "--key-store", "keys.db")
    assert answer.code == 3
    assert "sqlite:///keys.db" in answer.err
    assert contents(folder) == {}


def test_the_key_store_can_be_any_database(
    folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its URL comes from the environment and stays there."""
    monkeypatch.setenv("KEYS_URL", database_url)
    assert call("init", "--key-store-env", "KEYS_URL").code == 0
    assert str(make_url(database_url).database) not in (folder / "fieldvault.toml").read_text()
    give_keys("acme")
    assert call("tenants", "--json").document["tenants"][0]["tenant"] == "acme"
    assert call("doctor").code == 0
    store = SQLKeyStore(database_url)
    assert list(store.tenants()) == ["acme"]
    store.close()


def test_it_waits_for_another_init_in_the_folder(folder: Path) -> None:
    """What either finds half made, and takes back on an error, has to be its own."""
    holder = os.open(folder, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    waiting = subprocess.Popen([PROGRAM, "init"], stdout=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=4)
    assert contents(folder) == {}
    os.close(holder)
    assert waiting.wait(timeout=60) == 0


def test_of_two_at_once_one_makes_the_vault(folder: Path) -> None:
    """The other finds it there, and takes nothing of it away."""
    started = [
        subprocess.Popen([PROGRAM, "init"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert sorted(each.wait(timeout=60) for each in started) == [0, 6, 6]
    assert sorted(contents(folder)) == ["fieldvault.toml", "keys.db", "root.keys"]
    assert call("doctor").code == 0


def test_for_another_kms_it_says_what_makes_the_key_store(folder: Path) -> None:
    """It would have nothing to do but to found a vault with the embedded one."""
    (folder / "fieldvault.toml").write_text(
        '[kms]\ntype = "transit"\n[key_store]\ntype = "sql"\nurl = "sqlite:///keys.db"\n'
    )
    answer = call("init")
    assert answer.code == 6
    assert "its KMS is transit" in answer.err
    assert "for a new vault, run `fieldvault keystore create`, then `fieldvault doctor`" in answer.err


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    """SQLite itself says that some file cannot be opened."""
    answer = call("init", "--key-store", "sqlite:///nowhere/keys.db")
    assert answer.code == 5
    assert "unable to open database file nowhere/keys.db; its folder has to be there" in answer.err
    assert contents(folder) == {}


def test_names_that_toml_has_to_quote_come_back(folder: Path) -> None:
    """Quotes, backslashes, Chinese and DEL in a file's name."""
    name = 'root "a" \\ 钥匙\x7f.keys'
    assert call("init", "--root-keys", name).code == 0
    assert tomllib.loads((folder / "fieldvault.toml").read_text(encoding="utf-8"))["kms"]["path"] == name
    assert call("status").code == 0

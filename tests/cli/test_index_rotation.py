"""``fieldvault index rotate``, ``status``, ``rebuild`` and ``drop``."""

import sqlite3
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.cli.exits import ExitCode
from fieldvault.keys import indexing
from fieldvault.lifecycle import index_keys
from tests.cli.calling import call

MODELS = """
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fieldvault.sqlalchemy import BlindIndex, Encrypted, KeyScope


class Base(DeclarativeBase):
    pass


class Reader(Base):
    __tablename__ = "readers"
    __vault__ = KeyScope(tenant="library")
    id: Mapped[int] = mapped_column(primary_key=True)
    library: Mapped[str] = mapped_column(String(20))
    email: Mapped[str] = mapped_column(Encrypted(String(80)))
    email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="email"), unique=True)
"""

WRITE = """
from library_models import Base, Reader
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from fieldvault import Vault
from fieldvault.cli.exits import ExitCode
from fieldvault.sqlalchemy import protect

engine = create_engine("sqlite:///library.db")
Base.metadata.create_all(engine)
vault = Vault.open("fieldvault.toml")
protect(Base, vault)
with Session(engine) as session:
    session.add_all([Reader(id=n, library="jena", email=f"n{n}@example.com") for n in range(1, 4)])
    session.commit()
engine.dispose()
vault.close()
"""

DATABASE = ("--models", "library_models:Base", "--database", "sqlite:///library.db")


@pytest.fixture
def library(vault_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a vault, models, and a database of three rows."""
    (vault_folder / "library_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(vault_folder)
    monkeypatch.delitem(sys.modules, "library_models", raising=False)
    exec(compile(WRITE, "write", "exec"), {})  # noqa: S102 - the application
    return vault_folder


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process have learned of the new key."""
    for module in (indexing, index_keys):
        monkeypatch.setattr(module, "SETTLING", -timedelta(days=1))


@pytest.mark.usefixtures("library")
def test_before_every_process_knows_the_new_key_nothing_is_rebuilt() -> None:
    """The answers say when it may be."""
    before = call("index", "status", "jena", "--json").document
    assert (before["former"], before["settled"], before["settled_at"]) == ([], True, None)
    assert "none under way" in call("index", "status", "jena").out
    answer = call("index", "rotate", "jena")
    assert answer.code == 0
    assert "rebuild after" in answer.out
    begun = call("index", "status", "jena", "--json").document
    assert [key["key_id"] for key in begun["former"]] == [before["active"]["key_id"]]
    assert begun["settled"] is False
    for command in (
        ("rebuild", "jena", *DATABASE),
        ("drop", "jena", "--yes", "--unchecked"),
        ("rotate", "jena"),
    ):
        refused = call("index", *command)
        assert refused.code == ExitCode.NOT_YET
        assert "former" in refused.err


@pytest.mark.usefixtures("library", "settled")
def test_rows_are_rebuilt_and_the_former_key_is_dropped() -> None:
    """Then there is one key again."""
    assert call("index", "rotate", "jena").code == 0
    assert "every process writes under the active key" in call("index", "status", "jena").out
    document = call("index", "rebuild", "jena", *DATABASE, "--json").document
    assert document == {
        "rows": 3,
        "rewritten": 3,
        "cleared": 0,
        "left": 0,
        "lost": 0,
        "pending": False,
        "conflicts": [],
    }
    again = call("index", "rebuild", "jena", *DATABASE)
    assert again.code == 0
    assert "No row of this database needs the former key any more." in again.out
    declined = call("index", "drop", "jena", *DATABASE, typed="no\n")
    assert declined.code != 0
    assert call("index", "status", "jena", "--json").document["former"]
    dropped = call("index", "drop", "jena", *DATABASE, typed="jena\n")
    assert dropped.code == 0
    assert "Destroyed 1 former index key of jena." in dropped.out
    with Vault.open("fieldvault.toml") as vault:
        assert vault.index_rotation("jena").former == ()
    assert call("index", "drop", "jena", "--json").document["destroyed"] == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--models", "nowhere:Base"), "there is no module 'nowhere'"),
        (("--models", ":Base"), "name a module and the declarative base"),
        (("--models", "library_models"), "name a module and the declarative base"),
        (("--models", "library_models:Reader2"), "name a module and the declarative base"),
        (("--database", "nonsense"), "no URL of a database"),
        (("--database", "nodb://x"), "no URL of a database"),
        (("--database", "sqlite:///elsewhere.db"), "there is no file elsewhere.db"),
        (
            ("--database", "postgresql+psycopg://u:hidden@127.0.0.1:1/db"),
            "cannot be reached: OperationalError",
        ),
        (("--patience", "-1"), "--patience"),
    ],
)
@pytest.mark.usefixtures("library")
def test_what_cannot_be_found_is_named(changed: tuple[str, str], says: str) -> None:
    """Before anything is opened."""
    answer = call("index", "rebuild", "jena", *DATABASE, *changed)
    assert answer.code == 2
    assert says in " ".join(answer.err.split())
    assert "hidden" not in answer.err
    assert not Path("elsewhere.db").exists()


def test_a_module_that_raises_is_told_without_its_words(library: Path) -> None:
    """They may hold what the module knows."""
    (library / "broken_models.py").write_text("raise ValueError('the password is hidden')")
    answer = call("index", "rebuild", "jena", *DATABASE, "--models", "broken_models:Base")
    assert answer.code == 2
    assert "'broken_models' raises ValueError" in " ".join(answer.err.split())
    assert "hidden" not in answer.err


@pytest.mark.usefixtures("library", "settled")
def test_a_database_that_fails_ends_with_one() -> None:
    """A table of the models is not there: the driver's words, in one line."""
    assert call("index", "rotate", "jena").code == 0
    sqlite3.connect("empty.db").close()
    answer = call("index", "rebuild", "jena", *DATABASE, "--database", "sqlite:///empty.db", "--json")
    assert answer.code == ExitCode.PROBLEM
    assert answer.document["error"]["message"].endswith("OperationalError: no such table: readers")


@pytest.mark.usefixtures("library", "settled")
def test_a_writer_from_before_is_waited_for_and_then_told() -> None:
    """It ends with the code of what is not yet so, and goes through when the writer has ended."""
    assert call("index", "rotate", "jena").code == 0
    quick = (*DATABASE, "--database", "sqlite:///library.db?timeout=0.01", "--patience", "0")
    writer = sqlite3.connect("library.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    answer = call("index", "rebuild", "jena", *quick)
    assert answer.code == ExitCode.NOT_YET
    assert "has not ended" in answer.out
    assert "No row of this database" not in answer.out
    assert call("index", "rebuild", "jena", *quick, "--json").document["pending"] is True
    writer.close()
    assert call("index", "rebuild", "jena", *quick).code == 0


@pytest.mark.usefixtures("library")
def test_a_tenant_without_an_index_key_is_told() -> None:
    """There is nothing to rotate."""
    answer = call("index", "rotate", "weimar")
    assert answer.code == ExitCode.NO_KEY
    assert "'weimar' has no active index key" in answer.err


@pytest.mark.usefixtures("library", "settled")
def test_a_key_is_not_dropped_before_somebody_looked_through_the_rows() -> None:
    """Or said that it need not be; looking brings them under the new key."""
    assert call("index", "rotate", "jena").code == 0
    refused = call("index", "drop", "jena", "--yes")
    assert refused.code == 2
    assert "--unchecked" in refused.err
    assert call("index", "drop", "jena", "--yes", *DATABASE).code == 0
    assert call("index", "rebuild", "jena", *DATABASE, "--json").document["rewritten"] == 0
    assert call("index", "rotate", "jena").code == 0
    assert call("index", "drop", "jena", "--yes", "--unchecked").code == 0


@pytest.mark.usefixtures("library")
def test_a_rotation_under_way_is_told_with_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """By status and by doctor, until the former key is dropped: a warning, for it never ends by itself."""
    assert call("status", "--json").document["index_rotations"] == []
    assert "index keys" not in call("doctor").out
    assert call("index", "rotate", "jena").code == 0
    settled_at = call("index", "status", "jena", "--json").document["settled_at"]
    (told,) = call("status", "--json").document["index_rotations"]
    assert (told["tenant"], told["settled"], told["settled_at"]) == ("jena", False, settled_at)
    assert told["next"].endswith(" UTC: fieldvault index rebuild jena")
    assert f"jena: {told['next']}" in call("status").out
    for module in (indexing, index_keys):
        monkeypatch.setattr(module, "SETTLING", -timedelta(days=1))
    (told,) = call("status", "--json").document["index_rotations"]
    assert (told["settled"], told["next"]) == (
        True,
        "fieldvault index rebuild jena, for every database; then fieldvault index drop jena",
    )
    answer = call("doctor", "--json")
    assert (answer.code, answer.document["healthy"]) == (0, True)
    (check,) = (each for each in answer.document["checks"] if each["check"] == "index keys")
    assert check["level"] == "warning"
    assert check["items"] == [f"jena: {told['next']}"]
    assert "fieldvault index status" in check["remedy"]
    assert call("index", "drop", "jena", "--yes", *DATABASE).code == 0
    assert call("status", "--json").document["index_rotations"] == []
    assert "index keys" not in call("doctor").out


@pytest.mark.usefixtures("vault_folder")
def test_of_many_rotations_some_are_shown() -> None:
    """A person sees ten; the document has them all. Names are as a shell wants them."""
    names = [f"t {number:02}" for number in range(12)]
    with Vault.open("fieldvault.toml") as vault:
        for name in names:
            vault.ring.index_keys(name)
            vault.rotate_index(name)
    told = call("status", "--json").document["index_rotations"]
    assert [each["tenant"] for each in told] == names
    assert told[0]["next"].endswith("fieldvault index rebuild 't 00'")
    out = call("status").out
    assert "t 09: " in out
    assert "t 10: " not in out
    assert "and 2 more" in out

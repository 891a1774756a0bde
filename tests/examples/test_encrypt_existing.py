"""``examples/encrypt_existing.py``: a database is encrypted in place, provably, or left as it was."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fieldvault import KeyScope, Vault
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import Encrypted, protect

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "encrypt_existing.py"
CHINOOK = ROOT.parent / "shared" / "data" / "chinook.sqlite"

CONFIGURATION = """
[kms]
type = "local"
path = "root.keys"

[key_store]
type = "sql"
url = "sqlite:///keys.db"
"""
DESCRIPTION = """
[people]
tenant = "shop"
subject = "id"
columns = ["name", "phone", "born", "note", "photo"]
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A vault and a shop's database with names, NULLs, a date, a number in a text column and bytes."""
    (tmp_path / "fieldvault.toml").write_text(CONFIGURATION)
    (tmp_path / "columns.toml").write_text(DESCRIPTION)
    LocalKMS.create(tmp_path / "root.keys")
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, shop TEXT, name TEXT, phone VARCHAR(30), "
            "born DATETIME, note TEXT, photo BLOB)"
        )
        connection.executemany(
            "INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    number,
                    ("north", "south")[number % 2],
                    f"Customer Number {number}",
                    f"+86 1380013{number:04}",
                    "1990-05-17 00:00:00.000000",
                    None if number % 3 else "愿意收到 newsletter",
                    b"\x89PNG not really" if number % 2 else None,
                )
                for number in range(1, 131)
            ],
        )
        connection.execute("CREATE INDEX people_name ON people (name)")
        connection.execute("DELETE FROM people WHERE id > 120")
    connection.close()
    return tmp_path


@pytest.fixture
def run(shop: Path) -> Run:
    """The script, as an operator starts it, in the shop's folder."""

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), *(arguments or ("shop.db", "columns.toml"))]
        return subprocess.run(command, cwd=shop, capture_output=True, text=True, check=False, timeout=120)

    return start


def rows(database: Path) -> list[tuple[Any, ...]]:
    """The table as it lies in the file."""
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT * FROM people ORDER BY id").fetchall()
    finally:
        connection.close()


def script() -> ModuleType:
    """The script as a module, to call its parts."""
    spec = spec_from_file_location("encrypt_existing", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["encrypt_existing"] = module
    spec.loader.exec_module(module)
    return module


def test_every_value_reads_back_and_no_plaintext_is_left(shop: Path, run: Run) -> None:
    """Values are sealed in place under their row's own keys, and the file's bytes hold none of them."""
    before = rows(shop / "shop.db")

    done = run()

    assert done.returncode == 0, done.stderr
    assert "0 are left behind" in done.stdout
    content = (shop / "shop.db").read_bytes()
    assert b"Customer Number" not in content
    assert b"+86 1380013" not in content
    after = rows(shop / "shop.db")
    assert [row[:2] for row in after] == [row[:2] for row in before]
    with Vault.open(shop / "fieldvault.toml") as vault:
        for old, new in zip(before[:50], after[:50], strict=True):
            for place, field in (
                (2, "people.name"),
                (3, "people.phone"),
                (5, "people.note"),
                (6, "people.photo"),
            ):
                assert (
                    vault.decrypt(new[place], field=field, tenant=str(old[1]), subject=str(old[0]))
                    == old[place]
                )


def test_rows_under_uuids_are_read_by_the_applications_own_model(shop: Path, run: Run) -> None:
    """A subject that SQLite keeps as 32 digits is the UUID's text to the model, and so to the keys."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop", subject="id")
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = mapped_column(Encrypted(String))

    number = uuid.uuid4()
    with sqlite3.connect(shop / "uuids.db") as connection:
        connection.execute("CREATE TABLE people (id CHAR(32) PRIMARY KEY, shop TEXT, name TEXT)")
        connection.execute("INSERT INTO people VALUES (?, 'north', 'Zoë')", [number.hex])
    connection.close()
    (shop / "columns.toml").write_text(
        '[people]\ntenant = "shop"\nsubject = "id"\nuuids = ["id"]\ncolumns = ["name"]\n'
    )

    done = run("uuids.db", "columns.toml")

    assert done.returncode == 0, done.stderr
    engine = create_engine(f"sqlite:///{shop / 'uuids.db'}")
    with Vault.open(shop / "fieldvault.toml") as vault, Session(engine) as session:
        protect(Base, vault)
        assert session.get_one(Person, number).name == "Zoë"
    engine.dispose()


def test_it_is_safe_to_repeat(shop: Path, run: Run) -> None:
    """A second run changes no cell and proves the same again."""
    assert run().returncode == 0
    sealed = rows(shop / "shop.db")

    again = run()

    assert again.returncode == 0, again.stderr
    assert rows(shop / "shop.db") == sealed


@pytest.mark.parametrize("after", [0.4, 0.8, 1.2, 1.6])
def test_a_kill_leaves_the_old_rows_or_the_new(shop: Path, run: Run, after: float) -> None:
    """SIGKILL in mid-work never leaves half a table encrypted; a second run completes it."""
    before = rows(shop / "shop.db")
    command = [sys.executable, str(SCRIPT), "shop.db", "columns.toml"]
    process = subprocess.Popen(command, cwd=shop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()

    names = {type(row[2]) for row in rows(shop / "shop.db")}
    assert names in ({str}, {bytes})
    if names == {str}:
        assert rows(shop / "shop.db") == before
    assert run().returncode == 0


def test_what_is_left_behind_is_found(shop: Path) -> None:
    """The search that proves the outcome finds plaintext where there is some."""
    module = script()
    with Vault.open(shop / "fieldvault.toml") as vault:
        migration = module.Migration(shop / "shop.db", module.described(shop / "columns.toml"), vault)
        migration.run()
        migration.rebuild()
        assert migration.left() == ([], [])
        with (shop / "shop.db").open("ab") as file:
            file.write(b"Customer Number 77 ")
        assert migration.left()[0] == [b"Customer Number 7", b"Customer Number 77"]


@pytest.mark.parametrize(
    ("description", "complaint"),
    [
        ('[nobody]\ntenant = "shop"\ncolumns = ["name"]', "no table nobody"),
        ('[people]\ntenant = "shop"\ncolumns = ["nick"]', "no column nick"),
        ('[people]\ntenant = "shop"\ncolumns = ["shop"]', "has to stay readable"),
        ('[people]\ntenant = "shop"\ncolumns = ["id"]', "has to stay readable"),
        ('[people]\ncolumns = ["name"]', 'table people has no tenant; write tenant = "column"'),
        ('[people]\ntenant = "shop"', 'table people has no columns; write columns = ["column", …]'),
        ('[people]\ntenant = "shop"\ncolumns = "name"', 'columns: write columns = ["column", …]'),
        ('[people]\ntenant = "shop"\ncolumns = []', 'columns: write columns = ["column", …]'),
        ('[people]\ntenant = 3\ncolumns = ["name"]', 'tenant: write tenant = "column"'),
        ('[people]\ntenant = "shop"\ncolumns = ["name"]\npadding = 32', "has padding, which is not known"),
        ("people = 3", "people is no table; write [people]"),
        ("[people", "is not TOML"),
        ("", "names no table"),
        ('[people]\ntenant = "note"\ncolumns = ["name"]', "give it one first"),
    ],
)
def test_a_description_that_cannot_work_changes_nothing(
    shop: Path, run: Run, description: str, complaint: str
) -> None:
    """Each mistake is refused with its reason, exit code 2, and the database as it was."""
    (shop / "columns.toml").write_text(description)
    before = (shop / "shop.db").read_bytes()

    done = run()

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert (shop / "shop.db").read_bytes() == before


def test_a_missing_database_is_refused(run: Run) -> None:
    """A mistyped name makes no empty database."""
    done = run("shoq.db", "columns.toml")

    assert done.returncode == 2
    assert "no database" in done.stderr


@pytest.mark.skipif(not CHINOOK.exists(), reason="the Chinook sample database is not beside this checkout")
def test_chinook_is_encrypted_whole(shop: Path, run: Run) -> None:
    """A database that nobody of this project shaped: 59 customers, 8 employees, 412 invoices."""
    shutil.copyfile(CHINOOK, shop / "chinook.sqlite")

    done = run("chinook.sqlite", str(ROOT / "examples" / "chinook.toml"))

    assert done.returncode == 0, done.stderr
    table = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line[:1].isupper()}
    assert table["Customer"] == ["59", "460", "130", "0", "590"]
    assert table["Employee"] == ["8", "80", "0", "0", "80"]
    assert table["Invoice"] == ["412", "1418", "230", "0", "1648"]
    assert "0 are left behind" in done.stdout
    content = (shop / "chinook.sqlite").read_bytes()
    assert "Gonçalves".encode() not in content
    assert b"luisg@embraer.com.br" not in content

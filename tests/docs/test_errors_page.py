"""The page on errors has every class, and says of each when it comes and what to do."""

import re
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import String, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fieldvault import Vault, errors
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import Encrypted, protect
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`\n\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_every_error_has_a_section_of_its_own_and_no_section_is_left_over() -> None:
    """Whoever meets an error finds it, and the page names none that cannot be met."""
    assert sorted(SECTIONS) == sorted(errors.__all__)


def test_every_section_says_when_the_error_comes_and_what_to_do() -> None:
    """At three in the morning nobody reads on."""
    form = re.compile(r"\*\*When\.\*\* \S.{20,}\n\n\*\*Do\.\*\* \S.{20,}\n+", re.DOTALL)
    assert [name for name, section in SECTIONS.items() if not form.fullmatch(section)] == []


def test_the_page_says_that_no_error_is_raised_only_of_those_that_nothing_raises() -> None:
    """An error that is there for later is marked so, until something raises it."""
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src").rglob("*.py")
        if path.name not in ("errors.py", "exits.py")
    )
    unraised = {
        name
        for name in errors.__all__
        if not re.search(rf"\b{name}(\.of_scope)?\(|raise {name}\b|kind = {name} if", sources)
    }
    marked = {
        name
        for name, section in SECTIONS.items()
        if re.search(r"[Nn]othing in this release raises|Never raised", section)
    }
    assert marked == unraised


@pytest.mark.parametrize("storage", ["binary", "text"])
def test_the_rows_that_are_no_ciphertexts_are_found(
    database_url: str, tmp_path: Path, storage: Literal["binary", "text"]
) -> None:
    """By the statements of the page, on each database: plaintext, and neither NULL nor a ciphertext."""

    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str | None] = mapped_column(Encrypted(String(80), storage=storage))

    engine = create_engine(database_url)
    with Vault(
        kms=LocalKMS.create(tmp_path / "root.keys"), key_store=MemoryKeyStore(), default_tenant="acme"
    ) as vault:
        protect(Base, vault)
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Customer(id=1, email="ann@example.com"), Customer(id=2, email=None)])
            session.commit()
    known = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MariaDB", "mariadb": "MariaDB"}
    label = '`storage="text"`, all' if storage == "text" else f"binary, {known[engine.dialect.name]}"
    (statement,) = re.findall(rf"^\| {re.escape(label)} \| `(.+)` \|$", PAGE, re.MULTILINE)
    plain: object = "bob@example.com" if storage == "text" else b"bob@example.com"
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO customers (id, email) VALUES (3, :plain)"), {"plain": plain})
        assert connection.execute(text(statement.replace(":", "\\:"))).all() == [(3,)]
    engine.dispose()

"""``exactly``: names that differ are different, also where the database's collation takes them for one."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    create_engine,
    delete,
    insert,
    not_,
    select,
    update,
)
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fieldvault import KeyScope
from fieldvault.sqlalchemy import BlindIndex, Encrypted
from fieldvault.sqlalchemy.exactly import exactly
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World

NAMES = ["acme", "ACME", "acme ", "Acme", "ácme"]


class House(DeclarativeBase):
    pass


class Guest(House):
    __tablename__ = "guests"
    __vault__ = KeyScope(tenant="house")
    id: Mapped[int] = mapped_column(primary_key=True)
    house: Mapped[str] = mapped_column(String(20))
    note: Mapped[str | None] = mapped_column(Encrypted(String(40)))
    badge: Mapped[str | None] = mapped_column(Encrypted(String(40), deterministic=True))
    name: Mapped[str | None] = mapped_column(Encrypted(String(40)))
    name_index: Mapped[bytes | None] = mapped_column(BlindIndex("name", bits=2))


class Resident(House):
    """Whose key is text, too."""

    __tablename__ = "residents"
    __vault__ = KeyScope(tenant="house", subject="id")
    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    house: Mapped[str] = mapped_column(String(20))
    note: Mapped[str | None] = mapped_column(Encrypted(String(40)))


def _as_most_have_it(url: str) -> str:
    """Give a database the collation that MariaDB comes with; the tests' server has another."""
    if url.startswith(("mysql", "mariadb")):
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
        engine.dispose()
    return url


@pytest.fixture
def house(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield a row of each house, on each database in turn."""
    engine = create_engine(_as_most_have_it(database_url))
    world = world_of(House, engine, make_vault())
    world.save(
        *(
            Guest(id=number, house=name, note=f"of {name}", badge="A", name="Ada")
            for number, name in enumerate(NAMES, 1)
        )
    )
    yield world
    engine.dispose()


def _notes(world: World) -> list[str]:
    with world.session() as session:
        return [str(each.note) for each in session.scalars(select(Guest).order_by(Guest.id))]


def test_names_of_other_letters_are_others(database_url: str) -> None:
    """A value, and a column; the statement is cached, and its value is not."""
    engine = create_engine(_as_most_have_it(database_url))
    table = Table(
        "names",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("one", String(20)),
        Column("other", String(20)),
        Column("uuid", Uuid),
    )
    key = uuid.UUID(int=7)
    with engine.begin() as connection:
        table.create(connection)
        rows = [
            {"id": number, "one": name, "other": "acme", "uuid": key} for number, name in enumerate(NAMES)
        ]
        connection.execute(insert(table), rows)

        def found(condition: Any) -> list[int]:
            return list(connection.scalars(select(table.c.id).where(condition).order_by(table.c.id)))

        for number, name in enumerate(NAMES):
            assert found(exactly(table.c.one, name)) == [number]
        assert found(exactly(table.c.one, table.c.other)) == [0]
        assert found(not_(exactly(table.c.one, "acme"))) == [1, 2, 3, 4]
        assert found(exactly(table.c.id, 3)) == [3]
        assert found(exactly(table.c.uuid, key)) == [0, 1, 2, 3, 4]
    engine.dispose()


def test_a_column_may_have_a_character_set_of_its_own(mariadb_url: str) -> None:
    """The same character has other bytes there."""
    engine = create_engine(mariadb_url)
    table = Table(
        "names",
        MetaData(),
        Column("one", VARCHAR(20, charset="latin1", collation="latin1_swedish_ci")),
        Column("other", VARCHAR(20, charset="utf8mb4", collation="utf8mb4_general_ci")),
    )
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table), [{"one": "café", "other": name} for name in ("café", "CAFÉ")])
        one, other = table.c.one, table.c.other
        assert connection.scalars(select(other).where(exactly(one, "café"))).all() == ["café", "CAFÉ"]
        assert connection.scalars(select(other).where(exactly(one, other))).all() == ["café"]
    engine.dispose()


def test_an_update_in_a_scope_reaches_that_tenant_s_rows_only(house: World) -> None:
    """What it writes is sealed for that tenant; the others' rows stay as they are."""
    with house.vault.scope(tenant="acme"):
        house.execute(update(Guest).values(note="new"))
    assert _notes(house) == ["new", "of ACME", "of acme ", "of Acme", "of ácme"]


def test_an_update_in_a_subject_s_scope_reaches_that_subject_s_rows_only(house: World) -> None:
    """The same for the other column that chooses keys."""
    house.save(Resident(id="LI", house="acme", note="old"))
    with house.vault.scope(tenant="acme", subject="li"):
        house.execute(update(Resident).values(note="new"))
    with house.session() as session:
        assert session.scalars(select(Resident)).one().note == "old"


def test_a_search_finds_that_tenant_s_rows_only(house: World) -> None:
    """Whatever it is that a value is not, and where short tokens of several tenants are the same."""
    with house.vault.scope(tenant="acme"), house.session() as session:
        assert session.scalars(select(Guest.id).where(Guest.badge != "B")).all() == [1]
        assert [each.id for each in session.scalars(select(Guest).where(Guest.name == "Ada"))] == [1]
    with house.vault.scope(tenant="acme"):
        house.execute(delete(Guest).where(Guest.badge != "B"))
    assert _notes(house) == ["of ACME", "of acme ", "of Acme", "of ácme"]


def test_an_update_that_names_a_tenant_reaches_that_one_only(house: World) -> None:
    """Also where the database's collation takes others for the same."""
    table: Any = Guest.__table__
    house.execute(update(table).where(table.c.house == "acme").values(note="new"))
    assert _notes(house) == ["new" if name == "acme" else f"of {name}" for name in NAMES]

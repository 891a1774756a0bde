"""Upserts that meet a row whose values are another's: it stays as it is."""

from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, UniqueConstraint, create_engine, insert, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.sqlalchemy import Encrypted
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World


class Base(DeclarativeBase):
    pass


class Person(Base):
    """A person's values under that person's keys, and one of them bound to the row."""

    __tablename__ = "people"
    __vault__ = KeyScope(tenant="shop", subject="person")
    __table_args__ = (UniqueConstraint("number"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shop: Mapped[str] = mapped_column(String(20))
    person: Mapped[str] = mapped_column(String(20))
    number: Mapped[int]
    name: Mapped[str | None] = mapped_column(Encrypted(String(40)))
    card: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))
    visits: Mapped[int] = mapped_column(default=0)


class Child(Person):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    school: Mapped[str | None] = mapped_column(Encrypted(String(40)))


PEOPLE: Any = Person.__table__
ADA = {"id": 1, "shop": "acme", "person": "ada", "number": 7, "name": "Ada", "card": "4111"}


@pytest.fixture
def people(database_url: str, make_vault: MakeVault) -> Any:
    """Yield one person of acme's, on each database in turn."""
    engine = create_engine(database_url)
    world = world_of(Base, engine, make_vault())
    world.execute(insert(PEOPLE), [ADA])
    yield world
    engine.dispose()


def upsert(people: World, row: dict[str, Any], names: tuple[str, ...], on: str = "id", **values: Any) -> None:
    """Insert a row, or take some of its columns into the one that is there."""
    statement: Any
    if people.engine.dialect.name in ("mysql", "mariadb"):
        statement = mysql.insert(PEOPLE)
        put = {name: statement.inserted[name] for name in names} | values
        statement = statement.on_duplicate_key_update(put)
    else:
        dialect: Any = {"sqlite": sqlite, "postgresql": postgresql}[people.engine.dialect.name]
        statement = dialect.insert(PEOPLE)
        put = {name: statement.excluded[name] for name in names} | values
        statement = statement.on_conflict_do_update(index_elements=[on], set_=put)
    people.execute(statement, [row])


def there(people: World) -> list[tuple[Any, ...]]:
    """Return the rows, opened."""
    columns = PEOPLE.c
    return people.read(
        select(columns.id, columns.shop, columns.person, columns.name, columns.card, columns.visits)
    )


def test_its_own_row_is_updated(people: World) -> None:
    """Encrypted or not, to a value of its own or to what was to be inserted."""
    upsert(people, {**ADA, "name": "Countess", "card": None}, ("name", "card", "shop"), visits=3)
    assert there(people) == [(1, "acme", "ada", "Countess", None, 3)]
    upsert(people, {**ADA, "id": 2, "person": "bob", "number": 8, "name": "Bob"}, ("name", "card"))
    assert [row[3] for row in there(people)] == ["Countess", "Bob"]


@pytest.mark.parametrize(
    ("another", "on", "names"),
    [
        ({"shop": "globex"}, "id", ("name", "shop", "visits")),
        ({"person": "bob"}, "id", ("name", "person")),
        ({"id": 2, "card": "4222"}, "number", ("card",)),
    ],
    ids=["another tenant's", "another subject's", "another row's"],
)
def test_a_row_that_is_anothers_stays_as_it_is(
    people: World, another: dict[str, Any], on: str, names: tuple[str, ...]
) -> None:
    """What was to be inserted was sealed for somebody else, and nobody could read it there."""
    upsert(people, {**ADA, "name": "Eve", "visits": 9, **another}, names, on)
    assert there(people) == [(1, "acme", "ada", "Ada", "4111", 0)]


def test_what_sets_nothing_encrypted_is_left_alone(people: World) -> None:
    """It is the application's own business."""
    upsert(people, {**ADA, "person": "bob", "visits": 5}, ("visits",))
    assert there(people) == [(1, "acme", "ada", "Ada", "4111", 5)]


def test_where_another_table_says_whose_rows_are_it_is_refused(people: World) -> None:
    """The row that is met may be anybody's."""
    children: Any = Child.__table__
    statement: Any
    if people.engine.dialect.name in ("mysql", "mariadb"):
        statement = mysql.insert(children)
        statement = statement.on_duplicate_key_update(school=statement.inserted.school)
    else:
        dialect: Any = {"sqlite": sqlite, "postgresql": postgresql}[people.engine.dialect.name]
        statement = dialect.insert(children)
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"school": statement.excluded.school}
        )
    with (
        people.vault.scope(tenant="acme", subject="ada"),
        pytest.raises(errors.UnsupportedQuery, match="another table"),
    ):
        people.execute(statement, [{"id": 1, "school": "Hogwarts"}])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"shop": "globex"}, ("name",)),
        ({"person": "bob"}, ("name", "card")),
        ({"id": 5}, ("card",)),
        ({"id": 5}, ()),
    ],
    ids=["tenant", "subject", "key", "key alone"],
)
def test_it_does_not_make_a_row_anothers(
    people: World, values: dict[str, Any], names: tuple[str, ...]
) -> None:
    """Values that it leaves as they are would stay sealed for whom the row was."""
    with pytest.raises(errors.UnsupportedQuery, match="on which the keys of its encrypted values depend"):
        upsert(people, ADA, names, **values)
    assert there(people) == [(1, "acme", "ada", "Ada", "4111", 0)]


def test_what_only_takes_the_proposed_tenant_along_leaves_others_rows_alone(people: World) -> None:
    """Although it sets nothing that is encrypted."""
    upsert(people, {**ADA, "shop": "globex", "visits": 9}, ("shop", "visits"))
    upsert(people, {**ADA, "id": 7, "visits": 9}, ("id", "visits"), "number")
    assert there(people) == [(1, "acme", "ada", "Ada", "4111", 0)]
    upsert(people, {**ADA, "visits": 9}, ("shop", "visits"))
    assert there(people) == [(1, "acme", "ada", "Ada", "4111", 9)]

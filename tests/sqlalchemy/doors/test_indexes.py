"""Doors of blind indexes: whatever writes fills them, and whatever asks by them finds.

``Place.stored`` holds each token against the value beside it, here as in every other door's test.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Session

from tests.sqlalchemy.doors import indexed
from tests.sqlalchemy.doors.indexed import ADA, BORN, LI, OLD, READERS, TWO, Reader, found
from tests.sqlalchemy.doors.place import Place, plain


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The readers."""
    return indexed.Base


Write = Callable[[Place, Session], Any]


def _old(place: Place) -> None:
    place.save(Reader(id=1, shop="acme", name=OLD), Reader(id=2, shop="nordwind", name=OLD, born=BORN))


def _add(_: Place, session: Session) -> None:
    session.add_all(Reader(**row) for row in TWO)


def _change(place: Place, session: Session) -> None:
    _old(place)
    for row in TWO:
        reader = session.get_one(Reader, row["id"])
        reader.name, reader.born = row["name"], row["born"]


def _merge(place: Place, session: Session) -> None:
    place.save(Reader(id=1, shop="acme", name=OLD))
    for row in TWO:
        session.merge(Reader(**row))


def _savepoint(_: Place, session: Session) -> None:
    gone = session.begin_nested()
    session.add(Reader(id=3, shop="acme", name=OLD))
    session.flush()
    gone.rollback()
    with session.begin_nested():
        session.add_all(Reader(**row) for row in TWO)


def _returning(_: Place, session: Session) -> None:
    statement = insert(Reader).returning(Reader)
    assert {each.id: each.name for each in session.scalars(statement, TWO)} == {1: LI, 2: ADA}


def _insertmanyvalues(_: Place, session: Session) -> None:
    connection = session.connection(execution_options={"insertmanyvalues_page_size": 1})
    assert len(connection.execute(insert(READERS).returning(READERS.c.id), TWO).all()) == 2


def _upsert(place: Place, session: Session) -> None:
    _old(place)
    names = ("name", "name_index", "born", "both_index")
    statement: Any
    if place.dialect == "mysql":
        statement = mysql.insert(READERS)
        statement = statement.on_duplicate_key_update({name: statement.inserted[name] for name in names})
    else:
        dialect: Any = sqlite if place.dialect == "sqlite" else postgresql
        statement = dialect.insert(READERS)
        chosen = {name: statement.excluded[name] for name in names}
        statement = statement.on_conflict_do_update(index_elements=["id"], set_=chosen)
    session.connection().execute(statement, TWO)


def _in_scopes(place: Place, write: Callable[[dict[str, Any]], Any]) -> None:
    _old(place)
    for row in TWO:
        with place.vault.scope(tenant=row["shop"]):
            write(row)


def _core_update(place: Place, session: Session) -> None:
    def write(row: dict[str, Any]) -> None:
        statement = update(READERS).where(READERS.c.id == row["id"]).values(name=row["name"], born=BORN)
        session.connection().execute(statement)

    _in_scopes(place, write)


def _core_update_of_many(place: Place, session: Session) -> None:
    def write(row: dict[str, Any]) -> None:
        statement = update(READERS).where(READERS.c.id == bindparam("key"))
        statement = statement.values(name=bindparam("to"), born=bindparam("day"))
        session.connection().execute(statement, [{"key": row["id"], "to": row["name"], "day": BORN}])

    _in_scopes(place, write)


def _orm_update(place: Place, session: Session) -> None:
    _in_scopes(
        place,
        lambda row: session.execute(
            update(Reader).where(Reader.shop == row["shop"]).values(name=row["name"], born=BORN)
        ),
    )


def _update_returning(place: Place, session: Session) -> None:
    def write(row: dict[str, Any]) -> None:
        statement = update(Reader).where(Reader.id == row["id"]).values(name=row["name"], born=BORN)
        assert session.scalars(statement.returning(Reader.name)).all() == [row["name"]]

    _in_scopes(place, write)


def _by_primary_key(place: Place, session: Session) -> None:
    _old(place)
    session.execute(update(Reader), TWO)


def _moved(place: Place, session: Session) -> None:
    place.save(*(Reader(**{**row, "shop": "elsewhere"}) for row in TWO))
    for row in TWO:
        session.get_one(Reader, row["id"]).shop = row["shop"]


WRITES: Mapping[str, Write] = {
    "index: add": _add,
    "index: change": _change,
    "index: merge": _merge,
    "index: savepoint": _savepoint,
    "index: another tenant": _moved,
    "index: bulk_save_objects": lambda _, session: session.bulk_save_objects([Reader(**row) for row in TWO]),
    "index: bulk_insert_mappings": lambda _, session: session.bulk_insert_mappings(Reader.__mapper__, TWO),
    "index: ORM bulk insert": lambda _, session: session.execute(insert(Reader), TWO),
    "index: ORM insert of one row": lambda _, session: [
        session.execute(insert(Reader).values(**row)) for row in TWO
    ],
    "index: ORM insert returning entities": _returning,
    "index: Core insert": lambda _, session: [
        session.connection().execute(insert(READERS).values(**row)) for row in TWO
    ],
    "index: Core executemany": lambda _, session: session.connection().execute(insert(READERS), TWO),
    "index: insertmanyvalues": _insertmanyvalues,
    "index: upsert": _upsert,
    "index: Core update": _core_update,
    "index: Core update of many": _core_update_of_many,
    "index: ORM update": _orm_update,
    "index: ORM update by primary key": _by_primary_key,
}


def _check(place: Place, session: Session) -> None:
    session.commit()
    stored = place.stored(READERS)
    assert {key: (cells["name"], cells["born"]) for key, cells in stored.items()} == {
        1: (("acme", None, LI), ("acme", None, BORN)),
        2: (("nordwind", None, ADA), ("nordwind", None, BORN)),
    }
    assert {cells["card"] for cells in stored.values()} == {
        ("acme", None, plain("card")),
        ("nordwind", None, plain("card")),
    }
    for tenant, name, other in (("acme", LI, ADA), ("nordwind", ADA, LI)):
        (key,) = (row["id"] for row in TWO if row["shop"] == tenant)
        assert found(place, session, Reader.name == name.upper(), tenant=tenant) == [key]
        assert found(place, session, Reader.both_index == (name, BORN), tenant=tenant) == [key]
        assert found(place, session, Reader.card == plain("card"), tenant=tenant) == [key]
        for gone in (other, OLD):
            assert found(place, session, Reader.name == gone, tenant=tenant) == []


@pytest.mark.door(*WRITES)
def test_a_write(place: Place, session: Session, door: str) -> None:
    """Tokens of one column, of two, and of a default; found by its own tenant, and by the new value only."""
    WRITES[door](place, session)
    _check(place, session)


@pytest.mark.door("index: update returning")
def test_update_returning(place: Place, session: Session) -> None:
    """Where the database can."""
    _update_returning(place, session)
    _check(place, session)


@pytest.mark.door("index: AsyncSession")
async def test_async_session(place: Place) -> None:
    """What a session does, awaited; a search that has to fetch its index key does not block."""
    async with AsyncSession(place.asynchronous) as session:
        session.add(Reader(**TWO[0]))
        await session.flush()
        await session.execute(insert(Reader), TWO[1:])
        await session.commit()
        await session.run_sync(lambda inner: _check(place, inner))


@pytest.mark.door("index: NULL")
def test_null(place: Place, session: Session) -> None:
    """A value that goes takes its tokens along, also those that it shares."""
    place.save(*(Reader(**row) for row in TWO))
    session.get_one(Reader, 1).name = None
    session.commit()
    with place.vault.scope(tenant="nordwind"):
        session.execute(update(Reader).where(Reader.id == 2).values(name=None, born=None))
    session.commit()
    assert [place.stored(READERS)[key]["name"] for key in (1, 2)] == [None, None]
    assert found(place, session, Reader.name == LI) == []
    assert found(place, session, Reader.name.is_(None)) == [1, 2]


@pytest.mark.door("index: from_select")
def test_from_select(place: Place, session: Session) -> None:
    """A copied token would be another tenant's."""
    place.save(Reader(**TWO[0]))
    columns = READERS.c.shop, READERS.c.name_index
    with place.refuses("select the rows and insert them"):
        session.connection().execute(
            insert(READERS).from_select(["shop", "name_index"], session.query(*columns).statement)
        )


@pytest.mark.door("index: written by the application")
def test_written_by_the_application(place: Place, session: Session) -> None:
    """What is in an index is what its column says; a token beside its value gives way to the right one."""
    forged = b"x" * 32
    with place.refuses("filled from the columns"):
        session.execute(insert(Reader), [{"id": 1, "shop": "acme", "name_index": forged}])
    with place.refuses("filled from the columns"):
        session.connection().execute(insert(READERS).values(id=1, shop="acme", name_index=forged))
    session.execute(insert(Reader), [{**row, "name_index": forged} for row in TWO])
    _check(place, session)


@pytest.mark.door("index: part of a compound one")
def test_part_of_a_compound_index(place: Place, session: Session) -> None:
    """The other part is in the database, sealed: the statement could not make the token."""
    _old(place)
    with place.vault.scope(tenant="acme"), place.refuses("give all"):
        session.execute(update(Reader).where(Reader.id == 1).values(name=LI))

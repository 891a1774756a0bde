"""Doors of searches: questions that a blind index answers, and those that it does not."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import and_, delete, exists, func, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Session, aliased, joinedload, selectinload, with_loader_criteria

from fieldvault.errors import ScopeRequired
from tests.sqlalchemy.doors import indexed
from tests.sqlalchemy.doors.indexed import ADA, BORN, LI, NOBODY, READERS, Loan, Reader, found
from tests.sqlalchemy.doors.place import Place

BOSS = aliased(Reader)


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The readers."""
    return indexed.Base


@pytest.fixture(autouse=True)
def readers(place: Place) -> None:
    """Readers of two tenants, two of them of one name; one without a name."""
    rows = (
        Reader(id=1, shop="acme", name=LI, born=BORN, loans=[Loan(id=1)]),
        Reader(id=2, shop="nordwind", name=LI, born=BORN, loans=[Loan(id=2)]),
        Reader(id=3, shop="acme", name=ADA, loans=[Loan(id=3)]),
        Reader(id=4, shop="acme", name=None),
    )
    place.run(lambda: place.save(*rows))


def _cte() -> Any:
    named = select(Reader.id).where(Reader.name == LI).cte()
    return select(named.c.id)


# door: what is asked inside the scope of acme, and the ids that are found
SEARCHES: Mapping[str, tuple[Callable[[], Any], list[int]]] = {
    "index: ==": (lambda: select(Reader.id).where(Reader.name == LI.upper()), [1]),
    "index: value == column": (lambda: select(Reader.id).where(operator.eq(LI, Reader.name)), [1]),
    "index: !=": (lambda: select(Reader.id).where(Reader.name != LI, Reader.shop == "acme"), [3]),
    "index: in_": (lambda: select(Reader.id).where(Reader.name.in_([LI, ADA, NOBODY])), [1, 3]),
    "index: in_ of nothing": (lambda: select(Reader.id).where(Reader.name.in_([])), []),
    "index: not_in": (
        lambda: select(Reader.id).where(Reader.name.not_in([LI, NOBODY]), Reader.shop == "acme"),
        [3],
    ),
    "index: filter_by": (lambda: select(Reader.id).filter_by(name=LI), [1]),
    "index: and, or, not": (
        lambda: select(Reader.id).where(
            or_(Reader.name == ADA, and_(Reader.name == LI, not_(Reader.name == NOBODY)))
        ),
        [1, 3],
    ),
    "index: several columns": (lambda: select(Reader.id).where(Reader.both_index == (LI, BORN)), [1]),
    "index: Core": (lambda: select(READERS.c.id).where(READERS.c.name == LI), [1]),
    "index: aliased": (lambda: select(BOSS.id).where(BOSS.name == LI), [1]),
    "index: join": (
        lambda: select(Loan.id).join(Reader, and_(Reader.id == Loan.reader_id, Reader.name == LI)),
        [1],
    ),
    "index: criteria of a relationship": (
        lambda: select(Loan.id).join(Loan.reader.and_(Reader.name.in_([LI, NOBODY]))),
        [1],
    ),
    "index: with_loader_criteria": (
        lambda: select(Reader.id).options(with_loader_criteria(Reader, Reader.name == LI)),
        [1],
    ),
    "index: has": (lambda: select(Loan.id).where(Loan.reader.has(Reader.name == LI)), [1]),
    "index: subquery": (
        lambda: select(Loan.id).where(Loan.reader_id.in_(select(Reader.id).where(Reader.name == LI))),
        [1],
    ),
    "index: exists": (
        lambda: select(Loan.id).where(exists().where(Reader.id == Loan.reader_id, Reader.name == LI)),
        [1],
    ),
    "index: CTE": (_cte, [1]),
    "index: count": (lambda: select(func.count()).select_from(Reader).where(Reader.name == LI), [1]),
}


@pytest.mark.door(*SEARCHES)
def test_a_search(place: Place, session: Session, door: str) -> None:
    """Of the scope's tenant only, though another has the same value; the database sees tokens."""
    question, expected = SEARCHES[door]
    with place.vault.scope(tenant="acme"):
        assert sorted(session.scalars(question())) == expected


@pytest.mark.door("index: entities")
def test_entities(place: Place, session: Session) -> None:
    """What is found is loaded as ever, with its relationships."""
    with place.vault.scope(tenant="acme"):
        for load in (joinedload(Reader.loans), selectinload(Reader.loans)):
            reader = session.scalars(select(Reader).filter_by(name=LI).options(load)).unique().one()
            assert (reader.name, reader.born, [loan.id for loan in reader.loans]) == (LI, BORN, [1])
            session.expunge_all()
        assert [each.name for each in session.query(Reader).filter(Reader.name == ADA)] == [ADA]


@pytest.mark.door("index: criteria of an eager load")
def test_criteria_of_an_eager_load(place: Place, session: Session) -> None:
    """The index stands for the same alias as its column."""
    with place.vault.scope(tenant="acme"):
        for load in (joinedload, selectinload):
            option = load(Loan.reader.and_(Reader.name == LI))
            loans = session.scalars(select(Loan).where(Loan.id != 2).options(option)).unique()
            assert {loan.id: loan.reader is not None for loan in loans} == {1: True, 3: False}
            session.expunge_all()


@pytest.mark.door("index: update where")
def test_update_where(place: Place, session: Session) -> None:
    """The other tenant's row of the same name stays as it is."""
    for value, city in ((LI, "Jena"), (NOBODY, "Ulm")):
        with place.vault.scope(tenant="acme"):
            session.execute(
                update(Reader).where(Reader.name == value).values(city=city),
                execution_options={"synchronize_session": "fetch"},
            )
    session.commit()
    assert [row["city"] for row in sorted(place.raw(READERS), key=lambda row: row["id"])] == [
        "Jena",
        None,
        None,
        None,
    ]


@pytest.mark.door("index: delete where")
def test_delete_where(place: Place, session: Session) -> None:
    """The other tenant's row of the same name stays."""
    session.execute(delete(Loan))
    with place.vault.scope(tenant="acme"):
        session.execute(
            delete(Reader).where(Reader.name == LI), execution_options={"synchronize_session": "fetch"}
        )
    session.commit()
    assert sorted(place.stored(READERS)) == [2, 3, 4]


@pytest.mark.door("index: AsyncSession search")
async def test_async_search(place: Place) -> None:
    """Awaited, by value and by list."""
    async with AsyncSession(place.asynchronous) as session, place.vault.scope(tenant="acme"):
        reader = (await session.scalars(select(Reader).where(Reader.name == LI))).one()
        assert (reader.id, reader.name) == (1, LI)
        streamed = await session.stream_scalars(select(Reader.id).where(Reader.name.in_([LI, ADA])))
        assert sorted([each async for each in streamed]) == [1, 3]


@pytest.mark.door("index: after a rotation")
def test_after_a_rotation(place: Place, session: Session) -> None:
    """A new data key leaves the tokens as they are."""
    before = place.raw(READERS)
    place.vault.rotate("acme")
    assert place.raw(READERS) == before
    assert found(place, session, Reader.name == LI) == [1]
    session.get_one(Reader, 3).name = LI
    session.commit()
    assert found(place, session, Reader.name == LI) == [1, 3]


@pytest.mark.door("index: search without a scope")
def test_search_without_a_scope(place: Place, session: Session) -> None:
    """Tokens are a tenant's: it is not said whose rows are looked for."""
    with place.refuses(r"vault\.scope\(tenant=…\)", ScopeRequired):
        session.scalars(select(Reader.id).where(Reader.name == LI)).all()


REFUSED: Mapping[str, Callable[[], Any]] = {
    "index: LIKE": lambda: select(Reader.id).where(Reader.name.like("%a%")),
    "index: <": lambda: select(Reader.id).where(Reader.name < LI),
    "index: between": lambda: select(Reader.id).where(Reader.name.between(LI, ADA)),
    "index: order_by": lambda: select(Reader.id).order_by(Reader.name),
    "index: function": lambda: select(Reader.id).where(func.lower(Reader.name) == LI),
    "index: column == column": lambda: select(Reader.id).join(BOSS, BOSS.name == Reader.name),
}


@pytest.mark.door(*REFUSED)
def test_a_question_that_no_index_answers(place: Place, session: Session, door: str) -> None:
    """Equality is all that tokens tell."""
    with place.vault.scope(tenant="acme"), place.refuses("encrypted"):
        session.execute(REFUSED[door]()).all()

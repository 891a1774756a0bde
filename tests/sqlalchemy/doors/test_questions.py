"""Questions that ciphertexts cannot answer: each is refused before a statement is sent."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import (
    String,
    any_,
    bindparam,
    case,
    cast,
    collate,
    desc,
    distinct,
    except_,
    func,
    intersect,
    literal,
    nulls_last,
    select,
    tuple_,
    union,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.schema import ForeignKey

from fieldvault import KeyScope
from fieldvault.sqlalchemy import Encrypted
from tests.sqlalchemy.doors.place import Place, plain

LI, ADA = plain("li"), plain("ada")

WAY_OUT = r"(?s)\.name is encrypted.*(in Python|other columns|union_all|is_\(None\))"


class Base(DeclarativeBase):
    pass


class Person(Base):
    """Encrypted columns of one type, and a plain one."""

    __tablename__ = "persons"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("persons.id"))
    city: Mapped[str | None] = mapped_column(String(200))
    name: Mapped[str | None] = mapped_column(Encrypted(String))
    other_name: Mapped[str | None] = mapped_column(Encrypted(String))
    boss: Mapped["Person | None"] = relationship(remote_side="Person.id", back_populates="team")
    team: Mapped[list["Person"]] = relationship(back_populates="boss", order_by="Person.name")


PERSONS = Base.metadata.tables["persons"]


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The models of this module."""
    return Base


Question = Callable[[Any], Any]


def _criterion(criterion: Question) -> Question:
    """Put a criterion into a SELECT of another column."""
    return lambda column: select(Person.id).where(criterion(column))


def _subquery(column: Any) -> Any:
    inner = select(Person.id, column.label("inner_name")).subquery()
    return select(inner.c.id).where(inner.c.inner_name == LI)


def _by_name(column: Any) -> Any:
    return select(Person.id, column).order_by("name")


def _joined(column: Any) -> Any:
    other = PERSONS.alias("other")
    return select(Person.id).join(other, column == other.c.name)


QUESTIONS: Mapping[str, Question] = {
    "==": _criterion(lambda column: column == LI),
    "value == column": _criterion(lambda column: LI == column),  # noqa: SIM300 - the other way round
    "literal == column": _criterion(lambda column: literal(LI) == column),
    "bindparam == column": _criterion(lambda column: bindparam("b", LI) == column),
    "column == column": _criterion(lambda column: column == Person.other_name),
    "plain == encrypted": _criterion(lambda column: Person.city == column),
    "filter_by": lambda _: select(Person.id).filter_by(name=LI),
    "in_": _criterion(lambda column: column.in_([LI, ADA])),
    "in_ of a subquery": _criterion(lambda column: column.in_(select(PERSONS.c.city))),
    "in_ of encrypted": _criterion(lambda column: Person.city.in_(select(column))),
    "== subquery": _criterion(lambda column: Person.city == select(column).limit(1).scalar_subquery()),
    "tuple_": _criterion(lambda column: tuple_(Person.id, column).in_([(1, LI)])),
    "<": _criterion(lambda column: column < LI),
    "between": _criterion(lambda column: column.between(LI, ADA)),
    "LIKE": _criterion(lambda column: column.like("%a%")),
    "order_by": lambda column: select(Person.id).order_by(column),
    "order_by desc": lambda column: select(Person.id).order_by(column.desc()),
    "desc and nulls_last": lambda column: select(Person.id).order_by(nulls_last(desc(column))),
    "order_by by name": _by_name,
    "group_by": lambda column: select(column, func.count()).group_by(column),
    "distinct column": lambda column: select(column).distinct(),
    "having": lambda column: select(func.count()).group_by(Person.shop).having(func.min(column) > LI),
    "count distinct": lambda column: select(func.count(column.distinct())),
    "count of distinct()": lambda column: select(func.count(distinct(column))),
    "intersect": lambda column: intersect(select(column), select(column)),
    "except_": lambda column: except_(select(column), select(column)),
    "union of a column": lambda column: union(select(column), select(column)),
    "function": lambda column: select(func.lower(column)),
    "function in WHERE": _criterion(lambda column: func.lower(column) == LI),
    "aggregate": lambda column: select(func.max(column)),
    "string aggregate": lambda column: select(func.aggregate_strings(column, ",")),
    "coalesce": lambda column: select(func.coalesce(column, LI)),
    "window": lambda column: select(func.row_number().over(order_by=column)),
    "collate": lambda column: select(Person.id).order_by(collate(column, "C")),
    "lag": lambda column: select(func.lag(column).over(order_by=Person.id)),
    "partition_by": lambda column: select(func.row_number().over(partition_by=column)),
    "cast": lambda column: select(cast(column, String(80))),
    "case": lambda column: select(case((Person.id == 1, column), else_=LI)),
    "case of a column": lambda column: select(case({LI: 1}, value=column, else_=2)),
    "concat": lambda column: select(column + "!"),
    "JSON path": lambda column: select(column["key"]),
    "subquery == value": _subquery,
    "join on encrypted": _joined,
}


@pytest.fixture(autouse=True)
def persons(place: Place) -> None:
    """A person of each of two tenants."""
    people = Person(id=1, shop="acme", name=LI, city="x"), Person(id=2, shop="nordwind", name=ADA)
    place.run(lambda: place.save(*people))


@pytest.mark.door(*QUESTIONS)
def test_a_question(place: Place, session: Session, door: str) -> None:
    """Of the model's attribute and of the table's column; inside a scope, so that it is no matter of keys."""
    for column in (Person.name, PERSONS.c.name):
        with place.vault.scope(tenant="acme"), place.refuses(WAY_OUT):
            session.execute(QUESTIONS[door](column)).all()


@pytest.mark.door("any_")
def test_any(place: Place, session: Session) -> None:
    """The value on the left, the column within the function on the right."""
    for column in (Person.name, PERSONS.c.name):
        with place.vault.scope(tenant="acme"), place.refuses(WAY_OUT):
            session.execute(select(Person.id).where(literal(LI) == any_(column)))


@pytest.mark.door("distinct on")
@pytest.mark.filterwarnings("ignore:Passing expression to ``distinct``")
def test_distinct_on(place: Place, session: Session) -> None:
    """As SQLAlchemy 2.0 writes it, and as 2.1 does."""
    for column in (Person.name, PERSONS.c.name):
        statement: Any = select(Person.id)
        with place.vault.scope(tenant="acme"), place.refuses(WAY_OUT):
            session.execute(statement.distinct(column))
        if hasattr(postgresql, "distinct_on"):
            with place.vault.scope(tenant="acme"), place.refuses(WAY_OUT):
                session.execute(statement.ext(postgresql.distinct_on(column)))


@pytest.mark.door("order_by of a relationship")
def test_order_by_of_a_relationship(place: Place, session: Session) -> None:
    """The collection is not loaded in an order that means nothing."""
    li = session.get_one(Person, 1)
    with place.refuses(WAY_OUT):
        _ = li.team

"""Statements that would have the database compute with ciphertexts."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import (
    ForeignKey,
    LargeBinary,
    String,
    between,
    case,
    cast,
    desc,
    distinct,
    event,
    exists,
    extract,
    func,
    insert,
    literal,
    nulls_last,
    select,
    tuple_,
    type_coerce,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    lazyload,
    mapped_column,
    relationship,
    selectinload,
)

from fieldvault import errors
from fieldvault.sqlalchemy import Encrypted, protect
from tests.sqlalchemy.shop import MEMOS, SECRET, Customer, Memo
from tests.sqlalchemy.world import World

REFUSED: Mapping[str, Callable[[], Any]] = {
    "order by": lambda: select(Memo).order_by(Memo.body),
    "order by desc": lambda: select(Memo.id).order_by(desc(Memo.body)),
    "order by nulls last": lambda: select(Memo.id).order_by(nulls_last(desc(MEMOS.c.body))),
    "order by label": lambda: select(Memo.id, Memo.body.label("what")).order_by("what"),
    "order by alias": lambda: select((memo := aliased(Memo)).id).order_by(memo.body),
    "order by in a subquery": lambda: select(
        select(MEMOS.c.id).order_by(MEMOS.c.body).limit(1).subquery().c.id
    ),
    "group by": lambda: select(func.count()).select_from(Memo).group_by(Memo.body),
    "distinct": lambda: select(Memo.body).distinct(),
    "count distinct": lambda: select(func.count(distinct(Memo.body))),
    "union": lambda: union(select(MEMOS.c.body), select(MEMOS.c.body)),
    "lower": lambda: select(func.lower(Memo.body)),
    "max": lambda: select(func.max(Memo.body)),
    "length in WHERE": lambda: select(Memo.id).where(func.length(MEMOS.c.body) > 3),
    "coalesce": lambda: select(func.coalesce(Memo.body, "none")),
    "function of a function": lambda: select(func.upper(func.trim(Memo.body))),
    "cast": lambda: select(cast(Memo.body, LargeBinary)),
    "extract": lambda: select(extract("year", Customer.birthday)),
    "literal on the left": lambda: select(Memo.id).where(literal(SECRET) == Memo.body),
    "plain column on the left": lambda: select(Customer.id).where(Customer.city == Customer.name),
    "between": lambda: select(Memo.id).where(between(literal("b"), Memo.body, Memo.body)),
    "case of it": lambda: select(case((literal(1) == 1, 1), value=Memo.body)),
    "tuple": lambda: select(Memo.id).where(tuple_(MEMOS.c.body, MEMOS.c.id).in_([("x", 1)])),
    "window": lambda: select(func.row_number().over(partition_by=Memo.body)),
    "window order": lambda: select(func.row_number().over(order_by=Memo.body)),
    "in a subquery of it": lambda: select(Customer.id).where(Customer.city.in_(select(MEMOS.c.body))),
    "update where": lambda: update(MEMOS).values(seen_at=None).where(func.lower(MEMOS.c.body) == "x"),
    "exists where": lambda: select(Memo.id).where(exists().where(func.lower(Memo.body) == "x")),
    "scalar subquery": lambda: select(Memo.id).where(
        literal("x") == select(Memo.body).limit(1).scalar_subquery()
    ),
    "returning a function of it": lambda: insert(MEMOS).values(id=5).returning(func.lower(MEMOS.c.body)),
}

ALLOWED: Mapping[str, Callable[[], Any]] = {
    "entities": lambda: select(Memo).order_by(Memo.id),
    "distinct entities": lambda: select(Memo).distinct(),
    "distinct core rows with their key": lambda: select(MEMOS).distinct(),
    "union of entities": lambda: union(select(MEMOS), select(MEMOS)),
    "union all": lambda: union_all(select(MEMOS.c.body), select(MEMOS.c.body)),
    "count": lambda: select(func.count(Memo.body)),
    "is null": lambda: select(Memo.id).where(Memo.body.is_not(None)),
    "label": lambda: select(Memo.body.label("what")),
    "scalar subquery": lambda: select(select(Memo.body).limit(1).scalar_subquery()),
    "exists": lambda: select(select(Memo.body).exists()),
    "case result": lambda: select(case((MEMOS.c.id > 0, MEMOS.c.body))),
    "raw ciphertext": lambda: select(type_coerce(MEMOS.c.body, LargeBinary)),
    "function of another column": lambda: select(Memo.body, func.abs(Memo.id)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_computation_on_ciphertexts_is_not_sent(world: World, name: str) -> None:
    """The error names the field and the way out, and says nothing of the value."""
    sent: list[str] = []
    event.listen(world.engine, "after_cursor_execute", lambda *args: sent.append(args[2]))
    for _ in range(2):
        with (
            world.vault.scope(tenant="acme"),
            Session(world.engine) as session,
            pytest.raises(errors.UnsupportedQuery, match=r"is encrypted.*(Python|of its own)") as caught,
        ):
            session.execute(REFUSED[name]())
        assert SECRET not in str(caught.value)
    assert sent == []


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_database_can_answer_is_sent(world: World, name: str) -> None:
    """Selecting, counting, NULL or not, and rows that are distinct by their key."""
    with world.vault.scope(tenant="acme"), Session(world.engine) as session:
        session.add(Memo(id=1, body=SECRET))
        session.commit()
        answer = session.execute(ALLOWED[name]()).all()
    assert len(answer) >= 1
    if name not in {"is null", "count", "exists", "raw ciphertext"}:
        (found,) = {getattr(each, "body", each) for each in answer[-1] if not isinstance(each, int)} - {None}
        assert found == SECRET


def test_the_ordering_of_an_eager_load_is_seen(world: World) -> None:
    """It is in no statement that the application wrote."""

    class Own(DeclarativeBase):
        pass

    class Parent(Own):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship(order_by="Child.name")

    class Child(Own):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))
        name: Mapped[str] = mapped_column(Encrypted(String))

    protect(Own, world.vault)
    Own.metadata.create_all(world.engine)
    with world.vault.scope(tenant="acme"), Session(world.engine) as session:
        session.add(Parent(id=1, children=[Child(id=1, name=SECRET)]))
        session.commit()
        for load in (selectinload, joinedload, lazyload):
            session.expire_all()
            with pytest.raises(errors.UnsupportedQuery, match=r"children\.name is encrypted.*ORDER BY"):
                _ = session.scalars(select(Parent).options(load(Parent.children))).unique().one().children

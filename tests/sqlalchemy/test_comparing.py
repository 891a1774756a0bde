"""What a query may ask of an encrypted column: whether there is a value."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import Column, func, literal, null, select
from sqlalchemy.orm import aliased

from fieldvault import errors
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, SECRET, Customer, Memo
from tests.sqlalchemy.world import World

QUESTIONS: Mapping[str, Callable[[Any], Any]] = {
    "eq": lambda column: column == SECRET,
    "eq reversed": lambda column: SECRET == column,  # noqa: SIM300 - the other way round is the point
    "ne": lambda column: column != SECRET,
    "eq literal": lambda column: column == literal(SECRET),
    "is_": lambda column: column.is_(SECRET),
    "is_ true": lambda column: column.is_(True),
    "is_not": lambda column: column.is_not(SECRET),
    "is_distinct_from": lambda column: column.is_distinct_from(SECRET),
    "lt": lambda column: column < SECRET,
    "ge": lambda column: column >= SECRET,
    "like": lambda column: column.like("%a%"),
    "ilike": lambda column: column.ilike("%a%"),
    "not_like": lambda column: column.not_like("%a%"),
    "startswith": lambda column: column.startswith("a"),
    "endswith": lambda column: column.endswith("a"),
    "contains": lambda column: column.contains("a"),
    "icontains": lambda column: column.icontains("a"),
    "match": lambda column: column.match("a"),
    "regexp_match": lambda column: column.regexp_match("a"),
    "between": lambda column: column.between("a", "b"),
    "in_": lambda column: column.in_([SECRET]),
    "in_ nothing": lambda column: column.in_([]),
    "not_in": lambda column: column.not_in([SECRET]),
    "desc": lambda column: column.desc(),
    "asc": lambda column: column.asc(),
    "nulls_first": lambda column: column.nulls_first(),
    "collate": lambda column: column.collate("C"),
    "distinct": lambda column: column.distinct(),
    "concat": lambda column: column.concat("a"),
    "add": lambda column: column + "a",
    "add reversed": lambda column: "a" + column,
    "sub reversed": lambda column: 1 - column,
    "neg": lambda column: -column,
    "not": lambda column: ~column,
    "index": lambda column: column["a"],
    "op": lambda column: column.op("||")("a"),
    "bool_op": lambda column: column.bool_op("@>")("a"),
    "bitwise": lambda column: column.bitwise_and(1),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(
    "column",
    [MEMOS.c.body, Memo.body, aliased(Memo).body, MEMOS.alias().c.body],
    ids=["Core", "ORM", "aliased", "alias"],
)
def test_a_question_that_ciphertexts_cannot_answer_is_refused(column: Any, name: str) -> None:
    """As it is asked, with the way out, without the value that was asked for."""
    with pytest.raises(
        errors.UnsupportedQuery, match=r"body is encrypted.*compare in Python, ask is_\(None\)"
    ) as caught:
        QUESTIONS[name](column)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "criterion",
    [
        lambda: Customer.name == Customer.email,
        lambda: Customer.name != Customer.city,
        lambda: CUSTOMERS.c.name == CUSTOMERS.c.email,
        lambda: CUSTOMERS.c.name == func.lower(CUSTOMERS.c.city),
        lambda: CUSTOMERS.c.name == select(CUSTOMERS.c.city).scalar_subquery(),
    ],
    ids=["attribute", "another attribute", "column", "function", "subquery"],
)
def test_a_comparison_with_a_column_is_refused_in_a_statement(world: World, criterion: Any) -> None:
    """SQLAlchemy itself compares columns to find them in lists, so only a statement is refused."""
    with world.session() as session, pytest.raises(errors.UnsupportedQuery, match="is encrypted"):
        session.execute(select(Customer.id).where(criterion()))


def test_columns_are_found_in_lists_and_dictionaries() -> None:
    """By what they are, as columns that are not encrypted."""
    columns: list[Column[Any]] = list(CUSTOMERS.c)
    assert CUSTOMERS.c.email in columns
    assert MEMOS.c.body not in columns
    assert {column: place for place, column in enumerate(columns)}[CUSTOMERS.c.email] == 3
    assert {Customer.__table__.c.name._annotate({"a": 1}): 1}[CUSTOMERS.c.name] == 1


def test_whether_there_is_a_value_can_be_asked(world: World) -> None:
    """In every way that SQLAlchemy has to say NULL."""
    with world.vault.scope(tenant="acme"):
        world.save(Memo(id=1, body=None), Memo(id=2, body=""))
    for column in (Memo.body, MEMOS.c.body, aliased(Memo).body):
        for absent in (column == None, column.is_(None), column == null(), column.is_(null())):  # noqa: E711
            assert "IS NULL" in str(absent)
        for present in (column != None, column.is_not(None), column.is_not(null())):  # noqa: E711
            assert "IS NOT NULL" in str(present)
    assert world.read(select(MEMOS.c.id).where(MEMOS.c.body.is_(None))) == [(1,)]
    assert world.read(select(MEMOS.c.id).where(MEMOS.c.body != None)) == [(2,)]  # noqa: E711
    assert world.read(select(func.count(MEMOS.c.body))) == [(1,)]

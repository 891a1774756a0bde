"""What stands beside an encrypted column in a query: its index and its tenant, of the same row."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, and_, create_engine, select, union_all
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    foreign,
    joinedload,
    mapped_column,
    relationship,
    remote,
    selectinload,
    with_polymorphic,
)

from fieldvault import KeyScope
from fieldvault.sqlalchemy import BlindIndex, Encrypted
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World


class Tree(DeclarativeBase):
    pass


class Node(Tree):
    """Its parent may be another tenant's."""

    __tablename__ = "nodes"
    __vault__ = KeyScope(tenant="shop")
    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "node"}  # noqa: RUF012 - as SQLAlchemy has it
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20))
    up: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    plan: Mapped[str | None] = mapped_column(Encrypted(String(20), deterministic=True))
    email: Mapped[str | None] = mapped_column(Encrypted(String(20)))
    email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email"))
    kids: Mapped[list["Node"]] = relationship()
    others: Mapped[list["Node"]] = relationship(
        primaryjoin=lambda: and_(remote(foreign(Node.up)) == Node.id, remote(Node.plan) != "gold"),
        viewonly=True,
    )


class Leaf(Node):
    __tablename__ = "leaves"
    __mapper_args__: Any = {"polymorphic_identity": "leaf"}  # noqa: RUF012 - as SQLAlchemy has it
    id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True)


@pytest.fixture
def tree(sqlite_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield a node of each of two tenants, and three of each below each."""
    engine = create_engine(sqlite_url)
    world = world_of(Tree, engine, make_vault())
    values: dict[str, Any] = {"plan": "gold", "email": "a"}
    world.save(Leaf(id=1, shop="acme", **values), Leaf(id=2, shop="globex", **values))
    world.save(
        *(
            Leaf(id=10 * up + number, shop=shop, up=up, plan=plan, email=plan)
            for up in (1, 2)
            for number, (shop, plan) in enumerate(
                [("acme", "gold"), ("acme", "lead"), ("globex", "gold"), ("globex", "lead")]
            )
        )
    )
    yield world
    engine.dispose()


def _queries() -> Iterator[Any]:
    """Queries for nodes that are not of gold, under any node of gold."""
    node, leaf = aliased(Node), aliased(Leaf)
    poly = with_polymorphic(Node, [Leaf], aliased=True)
    one, other = select(Node).subquery(), select(Leaf).subquery()
    pair = select(Node.shop, Node.plan, node.id, node.shop.label("s2"), node.plan.label("p2"))
    two = pair.join(Node.kids.of_type(node)).subquery()
    three = select(two).subquery()
    both = aliased(Node, union_all(select(Node), select(Node).where(Node.id < 0)).subquery())
    yield select(Leaf.id).where(Leaf.plan != "gold")
    yield select(leaf.id).where(leaf.plan != "gold")
    yield select(leaf.id).where(leaf.email != "gold", leaf.email != "a")
    yield select(poly.id).where(poly.plan != "gold")
    yield select(one.c.id).where(one.c.plan != "gold")
    yield select(other.c.id).where(other.c.plan != "gold")
    yield select(both.id).where(both.plan != "gold")
    yield select(two.c.id).where(two.c.p2 != "gold")
    yield select(three.c.id).where(three.c.p2 != "gold")
    yield select(node.id).join(Node.kids.of_type(node)).where(node.plan != "gold")
    yield select(node.id).join(Node.kids.of_type(node).and_(node.plan != "gold"))
    yield select(node.id).join(Node.others.of_type(node))


@pytest.mark.parametrize("number", range(12))
def test_the_tenant_is_that_of_the_row_whose_value_is_compared(tree: World, number: int) -> None:
    """And not that of another row in the same query."""
    assert len(list(_queries())) == 12
    with tree.vault.scope(tenant="acme"), tree.session() as session:
        found = session.scalars(list(_queries())[number]).all()
    assert sorted(found) == [11, 21]


@pytest.mark.parametrize("load", [joinedload, selectinload])
def test_what_is_loaded_along_is_the_tenant_s(tree: World, load: Any) -> None:
    """By a condition of the loader, and by one of the relationship."""
    with tree.vault.scope(tenant="acme"), tree.session() as session:
        tops = select(Node).where(Node.id == 1)
        top = session.scalars(tops.options(load(Node.kids.and_(Node.plan != "gold")))).unique().one()
        assert [each.id for each in top.kids] == [11]
        top = session.scalars(tops.options(load(Node.others))).unique().one()
        assert [each.id for each in top.others] == [11]
    with tree.vault.scope(tenant="acme"), tree.session() as session:
        some = select(Node.id).where(Node.kids.any(Node.plan != "gold"), Node.id < 3)
        assert sorted(session.scalars(some)) == [1, 2]
        assert sorted(session.scalars(select(Node.id).where(Node.others.any()))) == [1, 2]

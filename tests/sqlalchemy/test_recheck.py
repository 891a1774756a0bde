"""Truncated indexes: what only looks alike is left out of what is found, or the question is refused."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import String, create_engine, delete, exists, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.sqlalchemy import BlindIndex, Encrypted
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World

PEOPLE = 64
"""So many that half a bit of index finds dozens of wrong ones."""


class Base(DeclarativeBase):
    pass


class Guest(Base):
    """One bit tells two kinds of e-mail apart."""

    __tablename__ = "guests"
    __vault__ = KeyScope(tenant="hotel")
    id: Mapped[int] = mapped_column(primary_key=True)
    hotel: Mapped[int]
    email: Mapped[str | None] = mapped_column(Encrypted(String(80)))
    email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="casefold", bits=1))
    city: Mapped[str | None] = mapped_column(Encrypted(String(80)))
    both_index: Mapped[bytes | None] = mapped_column(
        BlindIndex(("email", "city"), normalize=("casefold", "casefold"), bits=8)
    )


@pytest.fixture
def hotel(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield two hotels with guests of the same names, on each database in turn."""
    engine = create_engine(database_url)
    world = world_of(Base, engine, make_vault())
    world.save(
        *(
            Guest(id=number + hotel, hotel=hotel, email=f"g{number}@example.com", city="Jena")
            for hotel in (100, 200)
            for number in range(PEOPLE)
        ),
        Guest(id=300, hotel=100, email=None),
    )
    yield world
    engine.dispose()


ASKED: Mapping[str, tuple[Callable[[Any], Any], set[int]]] = {
    "==": (lambda guest: guest.email == "G7@example.com", {107}),
    "in_": (lambda guest: guest.email.in_(["g1@example.com", "g63@example.com", "no"]), {101, 163}),
    "and": (lambda guest: (guest.email == "g7@example.com") & (guest.id > 0), {107}),
    "twice": (
        lambda guest: (
            (guest.email == "g7@example.com") & guest.email.in_(["g7@example.com", "g8@example.com"])
        ),
        {107},
    ),
    "contradiction": (
        lambda guest: (guest.email == "g7@example.com") & (guest.email == "g8@example.com"),
        set(),
    ),
    "index": (lambda guest: guest.email_index == "g9@EXAMPLE.com", {109}),
    "nothing": (lambda guest: guest.email.in_([]), set()),
}


@pytest.mark.parametrize("asked", ASKED)
def test_only_what_matches_comes_back(hotel: World, asked: str) -> None:
    """However it is fetched: all, one by one, in pages all of which are left out."""
    criterion, expected = ASKED[asked]
    guest = aliased(Guest)
    with hotel.vault.scope(tenant="100"), hotel.session() as session:
        query = select(Guest).where(criterion(Guest))
        assert {each.id for each in session.scalars(query)} == expected
        session.expunge_all()
        assert {each.id for each in session.scalars(query.execution_options(yield_per=2))} == expected
        result = session.execute(select(Guest.id, Guest.email).where(criterion(Guest)))
        assert {row.id for page in result.partitions(3) for row in page} == expected
        one = session.execute(query.order_by(Guest.id.desc())).first()
        assert (one is None) == (not expected)
        assert one is None or one[0].id == max(expected)
        assert {each.id for each in session.scalars(select(guest).where(criterion(guest)))} == expected
        joined = select(guest.id, guest.email).join(Guest, Guest.id == guest.id).where(criterion(guest))
        assert {row.id for row in session.execute(joined)} == expected


def test_the_database_alone_would_find_more(hotel: World) -> None:
    """Otherwise nothing here tests anything."""
    stored = {
        bytes(row[0]) for row in hotel.raw("SELECT email_index FROM guests WHERE email_index IS NOT NULL")
    }
    assert stored == {b"\x00", b"\x80"}


REFUSED: Mapping[str, Callable[[], Any]] = {
    "!=": lambda: select(Guest).where(Guest.email != "g7@example.com"),
    "not": lambda: select(Guest).where(~(Guest.email == "g7@example.com")),
    "or": lambda: select(Guest).where((Guest.email == "g7@example.com") | (Guest.id == 1)),
    "limit": lambda: select(Guest).where(Guest.email == "g7@example.com").limit(5),
    "offset": lambda: select(Guest).where(Guest.email == "g7@example.com").offset(5),
    "count": lambda: select(func.count(Guest.id)).where(Guest.email == "g7@example.com"),
    "not selected": lambda: select(Guest.id).where(Guest.email == "g7@example.com"),
    "another alias is selected": lambda: select((guest := aliased(Guest)).email).where(
        Guest.email == "g7@example.com", guest.id == Guest.id
    ),
    "exists": lambda: select(Guest).where(exists().where(Guest.email == "g7@example.com")),
    "subquery": lambda: select(select(Guest).where(Guest.email == "g7@example.com").subquery().c.email),
    "several columns": lambda: select(Guest).where(Guest.both_index == ("g7@example.com", "Jena")),
    "update": lambda: update(Guest).where(Guest.email == "g7@example.com").values(email="x", city="y"),
    "delete": lambda: delete(Guest).where(Guest.email == "g7@example.com"),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_cannot_be_compared_again_is_refused(hotel: World, asked: str) -> None:
    """Before it is sent: the rows that only look alike would be counted, cut off or changed."""
    with hotel.vault.scope(tenant="100"), hotel.session() as session, hotel.statements() as sent:
        with pytest.raises(errors.UnsupportedQuery, match="truncated index"):
            session.execute(REFUSED[asked]().execution_options(synchronize_session=False))
        assert [each for each in sent if "WHERE" in each] == sent
    assert hotel.raw("SELECT count(*) FROM guests WHERE city IS NOT NULL")[0][0] == 2 * PEOPLE

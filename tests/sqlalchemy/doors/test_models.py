"""Doors of models: mixins, abstract classes, annotations, dataclasses, names."""

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Session

from tests.sqlalchemy.doors import family
from tests.sqlalchemy.doors.family import Cart, Courier, Dated, Keyed, Supplier, Wish, acme, nordwind
from tests.sqlalchemy.doors.place import Place, plain

LI, ADA = plain("li"), plain("ada")


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The family."""
    return family.Base


@pytest.mark.door("mixin")
def test_mixin(place: Place, session: Session) -> None:
    """Each table has its own fields."""
    place.save(Cart(id=1, shop="acme", note=LI, remark=ADA), Wish(id=1, shop="nordwind", note=ADA))
    assert place.stored(Cart) == {1: {"note": acme(LI), "remark": acme(ADA)}}
    assert place.stored(Wish) == {1: {"note": nordwind(ADA), "remark": None}}
    cart, wish = session.get_one(Cart, 1), session.get_one(Wish, 1)
    assert (cart.note, cart.remark, wish.note) == (LI, ADA, ADA)


@pytest.mark.door("abstract base", "Annotated")
def test_abstract_base(place: Place, session: Session, door: str) -> None:
    """One annotation for two columns, one abstract class for two tables: four fields."""
    place.save(Supplier(id=1, shop="acme", phone=LI, fax=ADA))
    session.add(Courier(id=1, shop="nordwind", phone=ADA, fax=LI))
    session.commit()
    assert place.stored(Supplier) == {1: {"phone": acme(LI), "fax": acme(ADA)}}
    assert place.stored(Courier) == {1: {"phone": nordwind(ADA), "fax": nordwind(LI)}}
    supplier, courier = session.get_one(Supplier, 1), session.get_one(Courier, 1)
    assert (supplier.phone, supplier.fax, courier.phone, courier.fax) == (LI, ADA, ADA, LI), door


@pytest.mark.door("dataclass")
def test_dataclass(place: Place, session: Session) -> None:
    """The constructor, defaults and comparison are a dataclass's."""
    place.save(Dated(id=1, shop="acme", name=LI), Dated(id=2, shop="nordwind", name=ADA, nick=ADA))
    assert place.stored(Dated) == {
        1: {"name": acme(LI), "nick": None},
        2: {"name": nordwind(ADA), "nick": nordwind(ADA)},
    }
    assert session.get_one(Dated, 1) == Dated(id=1, shop="acme", name=LI)
    assert LI not in repr(session.get_one(Dated, 1))


@pytest.mark.door("column key")
def test_column_key(place: Place, session: Session) -> None:
    """Each interface knows the column by the name that it has there."""
    session.add(Keyed(id="1", shop="acme", name=LI))
    session.flush()
    session.execute(insert(Keyed), [{"id": "2", "shop": "nordwind", "name": ADA}])
    session.connection().execute(insert(Keyed.__table__), {"id_key": "3", "shop_key": "acme", "name_key": LI})
    session.commit()
    assert place.stored(Keyed) == {
        "1": {"NAME_ENC": acme(LI)},
        "2": {"NAME_ENC": nordwind(ADA)},
        "3": {"NAME_ENC": acme(LI)},
    }
    assert [each.name for each in session.scalars(select(Keyed).order_by(Keyed.id))] == [LI, ADA, LI]


@pytest.mark.door("AsyncAttrs")
async def test_async_attrs(place: Place) -> None:
    """An expired attribute is awaited."""
    async with AsyncSession(place.asynchronous) as session:
        supplier = Supplier(id=1, shop="acme", phone=LI, fax=ADA)
        session.add(supplier)
        await session.commit()
        assert await supplier.awaitable_attrs.phone == LI
        assert supplier.fax == ADA
        assert await session.run_sync(lambda _: place.stored(Supplier)) == {
            1: {"phone": acme(LI), "fax": acme(ADA)}
        }

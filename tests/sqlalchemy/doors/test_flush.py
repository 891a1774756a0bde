"""Doors of the unit of work, and the legacy bulk interfaces beside it."""

import pytest
from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fieldvault.errors import ScopeRequired
from tests.sqlalchemy.doors.place import Place, plain
from tests.sqlalchemy.shop import Customer, Memo, Order
from tests.sqlalchemy.world import carriers_in

LI, ADA = plain("li"), plain("ada")


@pytest.mark.door("add")
def test_add(place: Place, session: Session) -> None:
    """Each row leaves under its own tenant and subject, related rows with it."""
    session.add_all(
        [
            Customer(id="li", shop="acme", name=LI, email=LI, profile={"note": LI}),
            Customer(id="ada", shop="nordwind", name=ADA, orders=[Order(id=1, shop="nordwind", address=ADA)]),
        ]
    )
    with place.vault.scope(tenant="acme"):
        assert place.stored(Customer) == {}
    session.commit()
    assert place.stored(Customer) == {
        "li": {
            "name": ("acme", "li", LI),
            "email": ("acme", "li", LI),
            "birthday": None,
            "profile": ("acme", "li", {"note": LI}),
        },
        "ada": {"name": ("nordwind", "ada", ADA), "email": None, "birthday": None, "profile": None},
    }
    assert place.stored(Order) == {1: {"address": ("nordwind", None, ADA)}}
    assert session.get_one(Customer, "li").profile == {"note": LI}
    assert session.get_one(Customer, "ada").orders[0].address == ADA


@pytest.mark.door("change")
def test_change(place: Place, session: Session) -> None:
    """The changed cell is sealed anew; the others stay byte for byte."""
    place.save(
        Customer(id="li", shop="acme", name=plain("x"), email=LI),
        Customer(id="ada", shop="nordwind", name=plain("x")),
    )
    emails = [row["email"] for row in place.raw(Customer.__table__)]  # type: ignore[arg-type]
    session.get_one(Customer, "li").name = LI
    session.get_one(Customer, "ada").name = ADA
    session.commit()
    stored = place.stored(Customer)
    assert (stored["li"]["name"], stored["ada"]["name"]) == (("acme", "li", LI), ("nordwind", "ada", ADA))
    assert [row["email"] for row in place.raw(Customer.__table__)] == emails  # type: ignore[arg-type]
    assert (session.get_one(Customer, "li").name, session.get_one(Customer, "ada").name) == (LI, ADA)


@pytest.mark.door("merge")
def test_merge(place: Place, session: Session) -> None:
    """A merged row is changed, or new; one that says what is stored emits no UPDATE."""
    place.save(Order(id=1, shop="acme", address=plain("x")))
    session.merge(Order(id=1, shop="acme", address=LI))
    session.merge(Order(id=2, shop="nordwind", address=ADA))
    session.commit()
    sent = len(place.sent)
    session.merge(Order(id=1, shop="acme", address=LI))
    session.flush()
    assert [statement for statement, _ in place.sent[sent:] if statement.startswith("UPDATE")] == []
    assert place.stored(Order) == {
        1: {"address": ("acme", None, LI)},
        2: {"address": ("nordwind", None, ADA)},
    }
    assert session.get_one(Order, 2).address == ADA


@pytest.mark.door("delete an object")
def test_delete(place: Place, session: Session) -> None:
    """The row goes, the others stay."""
    place.save(Order(id=1, shop="acme", address=LI), Order(id=2, shop="nordwind", address=ADA))
    session.delete(session.get_one(Order, 1))
    session.commit()
    assert place.stored(Order) == {2: {"address": ("nordwind", None, ADA)}}


@pytest.mark.door("savepoint")
def test_savepoint(place: Place, session: Session) -> None:
    """What a savepoint takes back is gone; what it keeps is sealed as ever."""
    order = Order(id=1, shop="acme", address=plain("x"))
    session.add(order)
    with session.begin_nested():
        order.address = LI
    lost = Order(id=2, shop="nordwind", address=ADA)
    savepoint = session.begin_nested()
    session.add(lost)
    session.flush()
    savepoint.rollback()
    assert (lost.address, carriers_in(lost), carriers_in(order)) == (ADA, [], [])
    session.commit()
    assert place.stored(Order) == {1: {"address": ("acme", None, LI)}}
    assert order.address == LI


@pytest.mark.door("rollback")
def test_rollback(place: Place, session: Session) -> None:
    """The database has what it had, and the objects too."""
    place.save(Order(id=1, shop="acme", address=LI))
    order = session.get_one(Order, 1)
    order.address = plain("x")
    new = Order(id=2, shop="nordwind", address=ADA)
    session.add(new)
    session.flush()
    session.rollback()
    assert (order.address, new.address, carriers_in(new)) == (LI, ADA, [])
    session.add(new)
    session.commit()
    assert place.stored(Order) == {
        1: {"address": ("acme", None, LI)},
        2: {"address": ("nordwind", None, ADA)},
    }


@pytest.mark.door("failed flush")
def test_failed_flush(place: Place, session: Session) -> None:
    """Nothing encrypted stays in the objects, the error quotes nothing, and a second try works."""
    place.save(Order(id=1, shop="acme", address=plain("x")))
    clash, other = Order(id=1, shop="acme", address=LI), Order(id=2, shop="nordwind", address=ADA)
    session.add_all([other, clash])
    with pytest.raises(IntegrityError) as caught:
        session.flush()
    session.rollback()
    assert LI not in str(caught.value)
    assert (clash.address, other.address) == (LI, ADA)
    assert carriers_in(clash) == carriers_in(other) == []
    clash.id = 3
    session.add_all([other, clash])
    session.commit()
    assert {key: cells["address"] for key, cells in place.stored(Order).items()} == {
        1: ("acme", None, plain("x")),
        2: ("nordwind", None, ADA),
        3: ("acme", None, LI),
    }


@pytest.mark.door("bulk_save_objects")
def test_bulk_save_objects(place: Place, session: Session) -> None:
    """New objects, and inside the scope changed ones; they hold their values."""
    place.save(Order(id=1, shop="acme", address=plain("x")))
    known = session.get_one(Order, 1)
    known.address = LI
    new, more = Order(id=2, shop="nordwind", address=ADA), Order(id=3, shop="acme", address=None)
    session.bulk_save_objects([new, more])
    with place.vault.scope(tenant="acme"):
        session.bulk_save_objects([known])
    session.commit()
    assert (new.address, carriers_in(new), carriers_in(known)) == (ADA, [], [])
    assert place.stored(Order) == {
        1: {"address": ("acme", None, LI)},
        2: {"address": ("nordwind", None, ADA)},
        3: {"address": None},
    }


@pytest.mark.door("bulk_save_objects without a scope")
def test_bulk_save_objects_without_a_scope(place: Place, session: Session) -> None:
    """SQLAlchemy sends what changed and the primary key, and not whose the row is."""
    place.save(Order(id=1, shop="acme", address=plain("x")))
    known = session.get_one(Order, 1)
    known.address = LI
    with session.no_autoflush, place.refuses("change the loaded object and flush it", ScopeRequired):
        session.bulk_save_objects([known])
    session.rollback()
    assert (known.address, carriers_in(known)) == (plain("x"), [])


@pytest.mark.door("bulk_insert_mappings")
def test_bulk_insert_mappings(place: Place, session: Session) -> None:
    """Each dictionary says whose it is."""
    session.bulk_insert_mappings(
        Customer.__mapper__,
        [{"id": "li", "shop": "acme", "name": LI}, {"id": "ada", "shop": "nordwind", "name": ADA}],
    )
    session.commit()
    stored = place.stored(Customer)
    assert (stored["li"]["name"], stored["ada"]["name"]) == (("acme", "li", LI), ("nordwind", "ada", ADA))
    assert session.get_one(Customer, "li").name == LI


@pytest.mark.door("bulk_update_mappings")
def test_bulk_update_mappings(place: Place, session: Session) -> None:
    """By primary key, where the scope says whose the rows are."""
    with place.vault.scope(tenant="acme"):
        place.save(Memo(id=1, body=plain("x")), Memo(id=2, body=plain("x")))
        session.bulk_update_mappings(Memo.__mapper__, [{"id": 1, "body": LI}, {"id": 2, "body": ADA}])
        session.commit()
        assert place.stored(Memo) == {1: {"body": ("acme", None, LI)}, 2: {"body": ("acme", None, ADA)}}
        assert session.get_one(Memo, 2).body == ADA


@pytest.mark.door("expression as a value")
def test_expression_as_a_value(place: Place, session: Session) -> None:
    """What the database would compute, it would see."""
    place.save(Order(id=1, shop="acme", address=LI))
    order = session.get_one(Order, 1)
    order.address = func.lower(ADA)
    with place.refuses("assign a value"):
        session.flush()

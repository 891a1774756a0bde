"""The unit of work: mixed tenants in one flush, defaults, moves, and flushes that fail."""

from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    event,
    literal,
    null,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    defer,
    mapped_column,
    relationship,
)

from fieldvault import KeyScope, errors
from fieldvault.envelope import Envelope, from_text, to_text
from fieldvault.sqlalchemy import Encrypted, protect
from tests.sqlalchemy.shop import OTHER_SECRET, SECRET, Customer, Memo, Order
from tests.sqlalchemy.world import World, carriers_in


def owners(world: World) -> dict[str, tuple[str, str | None]]:
    """Return whose key sealed each customer's name, from the bytes in the database."""
    keys = {
        key.key_id: (key.tenant, key.subject)
        for tenant in world.vault.tenants()
        for key in world.vault.keys(tenant)
    }
    return {
        row[0]: keys[Envelope.parse(row[1]).key_id] for row in world.raw("SELECT id, name FROM customers")
    }


def test_one_flush_seals_each_row_under_its_own_tenant_and_subject(world: World) -> None:
    """Rows of two shops and four people leave in one flush, each with that person's key."""
    rows = {f"p{number}": "acme" if number % 2 else "nordwind" for number in range(4)}
    world.save(*(Customer(id=key, shop=shop, name=SECRET) for key, shop in rows.items()))
    assert owners(world) == {key: (shop, key) for key, shop in rows.items()}
    assert not world.holds(SECRET)


def test_what_was_added_comes_back_as_it_was(any_world: World) -> None:
    """A new session reads what an old one wrote, on every database."""
    any_world.save(
        Customer(id="li", shop="acme", name="李雷", email="li@example.com", profile={"vip": True}),
        Customer(
            id="ada", shop="nordwind", name="", email=None, orders=[Order(shop="nordwind", address=SECRET)]
        ),
    )
    with any_world.session() as session:
        li, ada = session.get_one(Customer, "li"), session.get_one(Customer, "ada")
        assert (li.name, li.email, li.profile, li.birthday) == ("李雷", "li@example.com", {"vip": True}, None)
        assert (ada.name, ada.email, ada.orders[0].address) == ("", None, SECRET)
    ((name, email),) = any_world.raw("SELECT name, email FROM customers WHERE id = 'li'")
    assert Envelope.parse(bytes(name)).serialize() == bytes(name)
    assert to_text(Envelope.parse(from_text(email)).serialize()) == email


def test_a_flushed_object_holds_plain_values_and_no_carrier(world: World) -> None:
    """Between flush and commit the application reads what it wrote."""
    with world.session() as session:
        customer = Customer(shop="acme", name=SECRET, profile={"a": 1})
        session.add(customer)
        session.flush()
        assert (customer.name, customer.profile, carriers_in(customer)) == (SECRET, {"a": 1}, [])
        customer.name = OTHER_SECRET
        session.flush()
        assert (customer.name, carriers_in(customer)) == (OTHER_SECRET, [])
        assert not session.is_modified(customer)


def test_a_default_in_python_names_the_subject_before_the_row_is_sealed(world: World) -> None:
    """The id that uuid4 makes is the subject, though nobody set it."""
    customer = Customer(shop="acme", name=SECRET)
    world.save(customer)
    ((identity, owner),) = owners(world).items()
    assert owner == ("acme", identity)


def test_a_tenant_that_a_relationship_supplies_is_known_in_time(world: World) -> None:
    """A foreign key that the flush itself copies may be the tenant."""

    class Base(DeclarativeBase):
        pass

    class Tenant(Base):
        __tablename__ = "tenants"
        id: Mapped[int] = mapped_column(primary_key=True)
        people: Mapped[list["Person"]] = relationship(back_populates="tenant")

    class Person(Base):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="tenant_id")
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
        name: Mapped[str] = mapped_column(Encrypted(String))
        tenant: Mapped[Tenant] = relationship(back_populates="people")

    protect(Base, world.vault)
    Base.metadata.create_all(world.engine)
    world.save(Tenant(id=7, people=[Person(name=SECRET)]), Person(name=OTHER_SECRET, tenant=Tenant(id=8)))
    assert sorted(world.vault.tenants()) == ["7", "8"]
    with world.session() as session:
        assert {person.tenant_id: person.name for person in session.scalars(select(Person))} == {
            7: SECRET,
            8: OTHER_SECRET,
        }


def test_a_subject_that_the_database_makes_comes_too_late(world: World) -> None:
    """The error says what to do about it, and nothing is written."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop", subject="id")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = mapped_column(Encrypted(String))

    protect(Base, world.vault)
    Base.metadata.create_all(world.engine)
    with pytest.raises(errors.ScopeRequired, match="give the column a default in Python"):
        world.save(Person(shop="acme", name=SECRET))
    assert world.raw("SELECT * FROM people") == []


@pytest.mark.parametrize("early", [True, False], ids=["in a flush before", "in the same flush"])
def test_an_update_of_one_attribute_seals_that_one_alone(world: World, early: bool) -> None:
    """The other ciphertexts stay byte for byte as they are."""
    world.save(Customer(id="li", shop="acme", name=SECRET, email="li@example.com"))
    ((name, email),) = world.raw("SELECT name, email FROM customers")
    with world.session() as session:
        customer = session.get_one(Customer, "li")
        if early:
            session.flush()
        customer.name = OTHER_SECRET
        session.commit()
    ((new_name, new_email),) = world.raw("SELECT name, email FROM customers")
    assert new_name != name
    assert new_email == email
    assert owners(world)["li"] == ("acme", "li")


@pytest.mark.parametrize("known", ["loaded", "expired"])
def test_a_row_that_moves_to_another_tenant_is_sealed_anew(world: World, known: str) -> None:
    """All its values are, also where nobody looked at the former tenant."""
    world.save(Order(id=1, shop="acme", address=SECRET))
    with world.session() as session:
        order = session.get_one(Order, 1)
        if known == "expired":
            session.commit()
        order.shop = "nordwind"
        session.commit()
    ((blob,),) = world.raw("SELECT address FROM orders")
    assert world.vault.decrypt(blob, field="orders.address", tenant="nordwind") == SECRET
    with world.session() as session:
        assert session.get_one(Order, 1).address == SECRET


def test_a_row_that_moves_to_another_subject_is_sealed_anew(world: World) -> None:
    """A new primary key that is the subject takes the values along."""
    world.save(Customer(id="li", shop="acme", name=SECRET, email=None, profile={"a": [1]}))
    with world.session() as session:
        session.get_one(Customer, "li").id = "lei"
        session.commit()
    assert owners(world) == {"lei": ("acme", "lei")}
    with world.session() as session:
        lei = session.get_one(Customer, "lei")
        assert (lei.name, lei.email, lei.profile) == (SECRET, None, {"a": [1]})


def test_a_moving_row_takes_deferred_values_along(world: World) -> None:
    """What the session had not loaded is loaded under the former scope and sealed under the new one."""
    world.save(Order(id=1, shop="acme", address=SECRET))
    with world.session() as session:
        order = session.scalars(select(Order).options(defer(Order.address))).one()
        order.shop = "nordwind"
        session.commit()
        assert order.address == SECRET


def test_a_value_that_did_not_change_emits_no_update(world: World) -> None:
    """Equal values are written back at no cost; a ciphertext never makes a row dirty."""
    world.save(Customer(id="li", shop="acme", name=SECRET, email="e", profile={"a": 1}))
    with world.session() as session:
        customer = session.get_one(Customer, "li")
        with world.statements() as seen:
            customer.name, customer.email, customer.profile = SECRET, "e", {"a": 1}
            customer.shop = "acme"
            session.flush()
        assert seen == []
        assert carriers_in(customer) == []


def test_null_by_every_name_is_null(world: World) -> None:
    """None and null() are stored as NULL."""
    world.save(Customer(id="a", shop="acme", name=None), Customer(id="b", shop="acme", name=null()))
    assert world.raw("SELECT name FROM customers") == [(None,), (None,)]
    with world.session() as session:
        assert session.scalars(select(Customer.name).where(Customer.name.is_(None))).all() == [None, None]


@pytest.mark.parametrize("expression", [literal(SECRET), text("'x'"), Customer.city])
def test_an_expression_is_no_value(world: World, expression: object) -> None:
    """What the database would compute, it would see."""
    with pytest.raises(errors.UnsupportedQuery, match=r"Customer\.name is encrypted.*assign a value"):
        world.save(Customer(shop="acme", name=expression))
    world.save(Customer(id="li", shop="acme", name="x"))
    with world.session() as session:
        session.get_one(Customer, "li").name = expression  # type: ignore[assignment]
        with pytest.raises(errors.UnsupportedQuery):
            session.flush()
    assert not world.holds(SECRET)


# -- flushes that fail -----------------------------------------------------------------------------------


def duplicate(world: World) -> Customer:
    """Return a customer whose id is taken."""
    world.save(Customer(id="taken", shop="acme", name="x"))
    return Customer(id="taken", shop="acme", name=SECRET, email="new@example.com")


def test_after_a_flush_that_failed_the_objects_hold_their_values(world: World) -> None:
    """Several objects, those already written and those not yet: none keeps a carrier."""
    clash = duplicate(world)
    others = [Customer(shop="acme", name=OTHER_SECRET), Customer(shop="nordwind", name=OTHER_SECRET)]
    memo = Order(shop="acme", address=OTHER_SECRET)
    with world.session() as session:
        session.add_all([*others, clash, memo])
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
    for each in (*others, clash, memo):
        assert carriers_in(each) == []
    assert clash.name == SECRET
    assert [other.name for other in others] == [OTHER_SECRET] * 2
    assert memo.address == OTHER_SECRET


def test_a_flush_that_failed_can_be_repeated(world: World) -> None:
    """The same objects, mended, are written with what they held."""
    clash = duplicate(world)
    with world.session() as session:
        session.add(clash)
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        clash.id = "free"
        session.add(clash)
        session.commit()
    with world.session() as session:
        assert session.get_one(Customer, "free").name == SECRET


def test_an_autoflush_that_failed_leaves_no_carrier(world: World) -> None:
    """A query that flushes first is no exception."""
    clash = duplicate(world)
    with world.session() as session:
        session.add(clash)
        with pytest.raises(IntegrityError):
            session.scalars(select(Memo)).all()
        assert carriers_in(clash) == []
        assert clash.name == SECRET


def test_a_savepoint_rolled_back_leaves_no_carrier(world: World) -> None:
    """Nested transactions restore their own objects; what was flushed before them stays."""
    clash = duplicate(world)
    with world.session() as session:
        first = Customer(id="first", shop="acme", name=OTHER_SECRET)
        session.add(first)
        savepoint = session.begin_nested()
        session.add(clash)
        with pytest.raises(IntegrityError):
            session.begin_nested()
        savepoint.rollback()
        first.name = SECRET
        session.commit()
        assert carriers_in(clash) == carriers_in(first) == []
        assert clash.name == SECRET
    with world.session() as session:
        assert {each.id: each.name for each in session.scalars(select(Customer))} == {
            "taken": "x",
            "first": SECRET,
        }


def test_an_update_that_failed_leaves_no_carrier(world: World) -> None:
    """A dirty object of a failed flush reads what the database has."""
    clash = duplicate(world)
    world.save(Customer(id="li", shop="acme", name="before"))
    with world.session() as session:
        customer = session.get_one(Customer, "li")
        customer.name = SECRET
        session.add(clash)
        with pytest.raises(IntegrityError):
            session.flush()
        assert carriers_in(customer) == []
        session.rollback()
        assert customer.name == "before"


def test_one_object_without_a_scope_fails_the_flush_and_spoils_no_other(world: World) -> None:
    """The error comes before anything is written, and the other objects hold their values."""
    good, bad = Customer(shop="acme", name=SECRET), Memo(body=OTHER_SECRET)
    with world.session() as session:
        session.add_all([good, bad])
        with pytest.raises(errors.ScopeRequired, match="no tenant is known for a row of memos"):
            session.flush()
        assert carriers_in(good) == carriers_in(bad) == []
        assert (good.name, bad.body) == (SECRET, OTHER_SECRET)
    assert world.raw("SELECT * FROM customers") == []


def test_a_connection_lost_in_the_flush_leaves_no_carrier(world: World) -> None:
    """Also where the rollback fails, which SQLAlchemy's rollback events do not report."""
    customer = Customer(id="li", shop="acme", name=SECRET)

    def lose(*_: object) -> None:
        raise ConnectionError

    with world.session() as session:
        session.add(customer)
        event.listen(world.engine, "before_cursor_execute", lose)
        event.listen(world.engine, "rollback", lose)
        try:
            with pytest.raises(ConnectionError):
                session.flush()
        finally:
            event.remove(world.engine, "before_cursor_execute", lose)
            event.remove(world.engine, "rollback", lose)
        assert carriers_in(customer) == []
        assert customer.name == SECRET


def test_an_object_expunged_in_the_midst_of_a_flush_holds_its_values(world: World) -> None:
    """An event handler of the application may take it out of the session."""
    customer = Customer(shop="acme", name=SECRET)

    def leave(_: object, __: object, target: Customer) -> None:
        session = Session.object_session(target)
        assert session is not None
        session.expunge(target)

    event.listen(Customer, "after_insert", leave, insert=True)
    try:
        with world.session() as session:
            session.add(customer)
            session.flush()
    finally:
        event.remove(Customer, "after_insert", leave)
    assert carriers_in(customer) == []
    assert customer.name == SECRET


def test_handlers_of_the_application_see_values_after_the_statement(world: World) -> None:
    """Whether they listened before the models were protected or later."""
    seen: list[str | None] = []

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str | None] = mapped_column(Encrypted(String))

    def note(_: object, __: object, target: Person) -> None:
        seen.append(target.name)

    event.listen(Person, "after_insert", note)
    protect(Base, world.vault)
    event.listen(Person, "after_update", note)
    Base.metadata.create_all(world.engine)
    with world.vault.scope(tenant="acme"), world.session() as session:
        person = Person(name=SECRET)
        session.add(person)
        session.flush()
        person.name = OTHER_SECRET
        session.flush()
    assert seen == [SECRET, OTHER_SECRET]


def test_handlers_of_the_application_that_came_first_may_change_values(world: World) -> None:
    """What before_insert and before_update make of a value is what is sealed."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str | None]
        name: Mapped[str] = mapped_column(Encrypted(String))

    def tidy(_: object, __: object, target: Person) -> None:
        target.shop, target.name = "acme", target.name.upper()

    event.listen(Person, "before_insert", tidy)
    event.listen(Person, "before_update", tidy)
    protect(Base, world.vault)
    Base.metadata.create_all(world.engine)
    with world.session() as session:
        person = Person(name="li")
        session.add(person)
        session.commit()
        assert person.name == "LI"
        person.name = "lei"
        session.commit()
        assert person.name == "LEI"
    assert list(world.vault.tenants()) == ["acme"]


# -- objects between sessions ----------------------------------------------------------------------------


def test_merge_takes_a_detached_object_s_changes(world: World) -> None:
    """A changed value, and a changed tenant, of a detached object are written as if it had been loaded."""
    world.save(Order(id=1, shop="acme", address="before"))
    with world.session() as session:
        order = session.get_one(Order, 1)
    order.address, order.shop = SECRET, "nordwind"
    with world.session() as session:
        merged = session.merge(order)
        session.commit()
        assert (merged.address, carriers_in(merged), carriers_in(order)) == (SECRET, [], [])
    assert list(world.vault.tenants()) == ["acme", "nordwind"]


def test_a_single_attribute_is_refreshed_under_its_object_s_own_scope(world: World) -> None:
    """The statement selects the value alone; the object knows whose it is."""
    world.save(Customer(id="li", shop="acme", name=SECRET, email="e"))
    with world.session() as session:
        customer = session.get_one(Customer, "li")
        session.expire(customer, ["name"])
        assert customer.name == SECRET
        session.refresh(customer, ["email"])
        assert customer.email == "e"
        session.refresh(customer)
        assert customer.name == SECRET


def test_a_deferred_attribute_is_loaded_under_its_object_s_own_scope(world: World) -> None:
    """And only under that: a value moved here from another row is refused."""
    world.save(Order(id=1, shop="acme", address=SECRET), Order(id=2, shop="nordwind", address="x"))
    with world.session() as session:
        orders = session.scalars(select(Order).options(defer(Order.address)).order_by(Order.id)).all()
        assert [order.address for order in orders] == [SECRET, "x"]
    world.raw_execute("UPDATE orders SET address = (SELECT address FROM orders WHERE id = 1) WHERE id = 2")
    with world.session() as session:
        order = session.scalars(select(Order).options(defer(Order.address)).where(Order.id == 2)).one()
        with pytest.raises(errors.TenantMismatch):
            _ = order.address


def test_a_mutable_value_is_written_when_it_changes_within(world: World) -> None:
    """MutableDict tracks an encrypted JSON column as it does a plain one."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True)
        profile: Mapped[dict[str, str]] = mapped_column(MutableDict.as_mutable(Encrypted(JSON)))

    protect(Base, world.vault)
    Base.metadata.create_all(world.engine)
    with world.vault.scope(tenant="acme"):
        world.save(Person(id=1, profile={"a": "b"}))
        with world.session() as session:
            person = session.get_one(Person, 1)
            person.profile["name"] = SECRET
            session.commit()
        with world.session() as session:
            assert session.get_one(Person, 1).profile == {"a": "b", "name": SECRET}
    assert not world.holds(SECRET)


def test_a_model_of_two_tables_and_of_two_protected_bases_is_written(world: World) -> None:
    """Each value once, under its row's own key."""

    class Own(DeclarativeBase):
        pass

    heads = Table(
        "heads",
        Own.metadata,
        Column("id", Integer, primary_key=True),
        Column("shop", String(20)),
        Column("name", Encrypted(String(20))),
    )
    tails = Table(
        "tails",
        Own.metadata,
        Column("id", ForeignKey("heads.id"), primary_key=True),
        Column("note", Encrypted(String(20))),
    )

    class Whole(Own):
        __table__ = heads.join(tails)
        __vault__ = KeyScope(tenant="shop")
        id = column_property(heads.c.id, tails.c.id)

    class Derived(Own):
        __abstract__ = True
        metadata = MetaData()

    class Part(Derived):
        __tablename__ = "parts"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(20))
        name: Mapped[str] = mapped_column(Encrypted(String(20)))

    for base in (Own, Derived):
        base.metadata.create_all(world.engine)
        protect(base, world.vault)
    world.save(Whole(id=1, shop="acme", name="Kopf", note="Schweif"), Part(id=1, shop="acme", name="Stück"))
    with world.session() as session:
        whole: Any = session.get_one(Whole, 1)
        assert (whole.name, whole.note, session.get_one(Part, 1).name) == ("Kopf", "Schweif", "Stück")
    assert not world.holds("Kopf", "Schweif", "Stück")

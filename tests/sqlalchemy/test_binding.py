"""Each column has its own field, each metadata its own vault, and no cache mixes them."""

import copy
import pickle
import threading
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Enum,
    ForeignKey,
    Integer,
    String,
    Table,
    Uuid,
    insert,
    select,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    declarative_base,
    declared_attr,
    deferred,
    mapped_column,
    registry,
    relationship,
)

from fieldvault import KeyScope, errors
from fieldvault.sqlalchemy import Encrypted, protect
from fieldvault.sqlalchemy.binding import name_of
from fieldvault.sqlalchemy.carrier import Carrier
from tests.sqlalchemy.conftest import MakeVault
from tests.sqlalchemy.shop import CUSTOMERS, OTHER_SECRET, SECRET, Base, Customer, Memo, Order
from tests.sqlalchemy.world import World

SHARED = Encrypted(String)
Name = Annotated[str, mapped_column(Encrypted(String(80)))]


def fields(table: Any) -> list[str | None]:
    """Return the fields of a table's encrypted columns."""
    return [column.type.field for column in table.c if isinstance(column.type, Encrypted)]


# -- one declaration, several columns --------------------------------------------------------------------


def test_one_instance_serves_several_columns_and_tables(world: World) -> None:
    """Each column seals under its own name, and a value of one does not open in the other."""

    class Model(DeclarativeBase):
        pass

    for name in ("a", "b"):
        Table(
            name,
            Model.metadata,
            Column("id", Integer, primary_key=True),
            Column("x", SHARED),
            Column("y", SHARED),
        )
    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    a, b = Model.metadata.tables["a"], Model.metadata.tables["b"]
    assert fields(a) + fields(b) == ["a.x", "a.y", "b.x", "b.y"]
    with world.vault.scope(tenant="acme"):
        for _ in range(2):
            for table in (a, b):
                world.execute(insert(table), {"x": SECRET, "y": OTHER_SECRET})
        for table in (a, b, a, b):
            assert world.read(select(table.c.x, table.c.y)) == [(SECRET, OTHER_SECRET)] * 2
        for move in ("UPDATE a SET x = y", "UPDATE a SET x = (SELECT x FROM b)"):
            world.raw_execute(move)
            with pytest.raises(errors.DecryptionError):
                world.read(select(a.c.x))


def test_annotated_types_mixins_and_abstract_bases_bind_to_each_model(world: World) -> None:
    """However a column is declared, its field is its own table's."""

    class Model(DeclarativeBase):
        pass

    class Named:
        name: Mapped[Name]

        @declared_attr
        def nick(self) -> Mapped[str | None]:
            return mapped_column(SHARED, nullable=True)

    class Person(Model):
        __abstract__ = True
        id: Mapped[int] = mapped_column(primary_key=True)
        phone: Mapped[str | None] = mapped_column(SHARED)

    class Buyer(Named, Person):
        __tablename__ = "buyers"
        second: Mapped[Name]

    class Seller(Named, Person):
        __tablename__ = "sellers"

    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    assert set(fields(Buyer.__table__)) == {"buyers.name", "buyers.nick", "buyers.phone", "buyers.second"}
    assert set(fields(Seller.__table__)) == {"sellers.name", "sellers.nick", "sellers.phone"}
    with world.vault.scope(tenant="acme"):
        world.save(
            Buyer(id=1, name="a", second="b", nick="c", phone="d"),
            Seller(id=1, name="e", nick="f", phone="g"),
        )
        with world.session() as session:
            buyer, seller = session.get_one(Buyer, 1), session.get_one(Seller, 1)
            assert [buyer.name, buyer.second, buyer.nick, buyer.phone] == ["a", "b", "c", "d"]
            assert [seller.name, seller.nick, seller.phone] == ["e", "f", "g"]


def test_a_pinned_field_outlives_a_rename(world: World) -> None:
    """field= names what values are bound to, whatever table and column are called."""

    class Model(DeclarativeBase):
        pass

    class Client(Model):
        __tablename__ = "clients"
        id: Mapped[int] = mapped_column(primary_key=True)
        full_name: Mapped[str] = mapped_column(Encrypted(String, field="customers.name"))

    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    blob = world.vault.encrypt(SECRET, field="customers.name", tenant="acme")
    world.raw_execute("INSERT INTO clients (full_name) VALUES (?)", (blob,))
    with world.vault.scope(tenant="acme"):
        assert world.read(select(Client.full_name)) == [(SECRET,)]


# -- several vaults --------------------------------------------------------------------------------------


def twin(engine: Any, vault: Any, *, scope: KeyScope | None = None) -> Any:
    """Return a model like every other twin, of a base of its own."""

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        __vault__ = scope
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str | None]
        name: Mapped[str] = mapped_column(Encrypted(String))

    protect(Model, vault)
    Model.metadata.create_all(engine)
    return Person


def test_two_bases_on_one_engine_keep_their_vaults_apart(world: World, make_vault: MakeVault) -> None:
    """Same table names, same statements, one cache: interleaved, each seals and opens with its own vault."""
    vaults = [make_vault(default_tenant=f"t{number}") for number in range(3)]
    twins = [twin(world.engine, vault) for vault in vaults]
    for round_ in range(3):
        for number, person in enumerate(twins):
            world.save(person(id=10 * round_ + number, name=f"by {number}"))
            world.execute(
                insert(person.__table__), [{"id": 100 * round_ + 90 + number, "name": f"by {number}"}]
            )
    for number, person in [*enumerate(twins), *enumerate(twins)]:
        own = person.id % 10 == number
        assert world.read(select(person.name).where(own)) == [(f"by {number}",)] * 6
        with world.session() as session:
            assert {each.name for each in session.scalars(select(person).where(own))} == {f"by {number}"}
            with pytest.raises(errors.KeyNotFound):
                session.scalars(select(person).where(~own)).all()
    assert [list(vault.tenants()) for vault in vaults] == [["t0"], ["t1"], ["t2"]]


def test_statements_that_name_no_table_are_told_apart_too(world: World, make_vault: MakeVault) -> None:
    """Where all that differs is the vault behind a type, the cache of statements sees that."""
    vaults = [make_vault(default_tenant=f"t{number}") for number in range(2)]
    twins = [twin(world.engine, vault) for vault in vaults]
    for number, person in enumerate(twins):
        world.save(person(id=number, name=f"by {number}"))
    for number, person in [*enumerate(twins), *enumerate(twins)]:
        statement = text("SELECT name FROM people WHERE id = :id").columns(name=person.__table__.c.name.type)
        with world.engine.connect() as connection:
            assert connection.execute(statement, {"id": number}).all() == [(f"by {number}",)]


def test_two_bases_may_know_their_rows_differently(world: World) -> None:
    """One's rows say whose they are, the other's leave it to the scope; no cache mixes that either."""
    own, ambient = (
        twin(world.engine, world.vault, scope=KeyScope(tenant="shop")),
        twin(world.engine, world.vault),
    )
    for _ in range(2):
        with world.vault.scope(tenant="nordwind"):
            world.save(ambient(shop="acme", name="ambient"))
        world.save(own(shop="acme", name="own"))
    with world.session() as session:
        for _ in range(2):
            assert [each.name for each in session.scalars(select(own).where(own.id % 2 == 0))] == ["own"] * 2
            with pytest.raises(errors.ScopeRequired):
                session.scalars(select(ambient)).all()
            with pytest.raises(errors.TenantMismatch):
                session.scalars(select(own)).all()


def test_threads_of_two_tenants_share_statements_and_nothing_else(world: World) -> None:
    """Each thread has its own scope; what each wrote is under its own tenant."""
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        tenant = f"t{number % 2}"
        try:
            start.wait()
            with world.vault.scope(tenant=tenant):
                for turn in range(20):
                    key = number * 100 + turn
                    world.save(Memo(id=key, body=f"{tenant} {key}"))
                    with world.session() as session:
                        assert session.get_one(Memo, key).body == f"{tenant} {key}"
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in range(4):
        for key, blob in world.raw(f"SELECT id, body FROM memos WHERE id / 100 = {number}"):
            assert (
                world.vault.decrypt(blob, field="memos.body", tenant=f"t{number % 2}")
                == f"t{number % 2} {key}"
            )


def test_protecting_again_rebinds_cached_statements(world: World, make_vault: MakeVault) -> None:
    """The same statements then use the other vault; going back, the first one's values open again."""
    other = make_vault()
    with world.vault.scope(tenant="acme"), other.scope(tenant="acme"):
        world.save(Memo(id=1, body="first"))
        assert world.read(select(Memo.body)) == [("first",)]
        protect(Base, other)
        with pytest.raises(errors.KeyNotFound):
            world.read(select(Memo.body))
        world.save(Memo(id=2, body="second"))
        assert world.read(select(Memo.body).where(Memo.id == 2)) == [("second",)]
        protect(Base, world.vault)
        assert world.read(select(Memo.body).where(Memo.id == 1)) == [("first",)]
        with pytest.raises(errors.KeyNotFound):
            world.read(select(Memo.body).where(Memo.id == 2))


# -- models and when they are defined --------------------------------------------------------------------


def test_a_model_defined_after_protect_is_bound_too(world: World) -> None:
    """Also while it has relationships to models that are not there yet."""

    class Model(DeclarativeBase):
        pass

    protect(Model, world.vault)

    class Person(Model):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = mapped_column(Encrypted(String))
        pets: Mapped[list["Pet"]] = relationship(back_populates="owner")

    class Pet(Model):
        __tablename__ = "pets"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = mapped_column(Encrypted(String))
        owner_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
        owner: Mapped[Person] = relationship(back_populates="pets")

    Model.metadata.create_all(world.engine)
    world.save(Person(id=1, shop="acme", name=SECRET, pets=[Pet(id=1, shop="nordwind", name=OTHER_SECRET)]))
    with world.session() as session:
        person = session.get_one(Person, 1)
        assert (person.name, person.pets[0].name) == (SECRET, OTHER_SECRET)
        session.commit()
        person.shop = "fabrikam"
        session.commit()
        assert person.name == SECRET
    assert list(world.vault.tenants()) == ["acme", "fabrikam", "nordwind"]


def test_models_that_were_configured_before_protect_move_their_rows_too(world: World) -> None:
    """Where the former tenant is not loaded, it is loaded to see the move."""

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = mapped_column(Encrypted(String))

    Model.registry.configure()
    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    world.save(Person(id=1, shop="acme", name=SECRET))
    with world.session() as session:
        person = session.get_one(Person, 1)
        session.commit()
        person.shop = "nordwind"
        session.commit()
        assert person.name == SECRET
    ((blob,),) = world.raw("SELECT name FROM people")
    assert world.vault.decrypt(blob, field="people.name", tenant="nordwind") == SECRET


def test_models_without_a_vault_say_so(world: World) -> None:
    """Neither written nor read, by ORM or Core."""

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(Encrypted(String))

    Model.metadata.create_all(world.engine)
    world.raw_execute("INSERT INTO people (name) VALUES (?)", (b"x",))
    people: Any = Person.__table__
    for action in (
        lambda: world.save(Person(name=SECRET)),
        lambda: world.execute(insert(people), {"name": SECRET}),
        lambda: world.read(select(Person.name)),
    ):
        with pytest.raises(errors.ConfigurationError, match=r"call protect\(Base, vault\)"):
            action()
    assert not world.holds(SECRET)


def test_a_base_made_by_a_function_is_protected_too(world: World) -> None:
    """declarative_base() is still in use."""
    model: Any = declarative_base()
    person: Any = type(
        "Person",
        (model,),
        {
            "__tablename__": "people",
            "__vault__": KeyScope(tenant="shop"),
            "id": Column(Integer, primary_key=True),
            "shop": Column(String),
            "name": Column(Encrypted(String)),
        },
    )
    protect(model, world.vault)
    model.metadata.create_all(world.engine)
    world.save(person(shop="acme", name=SECRET))
    assert list(world.vault.tenants()) == ["acme"]


@pytest.mark.parametrize("bad", [object(), None, "vault.toml"], ids=repr)
def test_protect_wants_a_vault(bad: Any) -> None:
    """And says what it was given."""
    with pytest.raises(errors.ConfigurationError, match="wants a Vault, not"):
        protect(Base, bad)


@pytest.mark.parametrize("bad", [object, registry(), None], ids=["class", "registry", "None"])
def test_protect_wants_a_base(world: World, bad: Any) -> None:
    """A declarative one."""
    with pytest.raises(errors.ConfigurationError, match="wants a declarative base"):
        protect(bad, world.vault)


def with_scope(vault: Any, scope: Any, *, early: bool) -> None:
    """Define a model with a scope, before or after its base is protected."""

    class Model(DeclarativeBase):
        pass

    if early:
        protect(Model, vault)

    class Person(Model):
        __tablename__ = "people"
        __vault__ = scope
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(Encrypted(String))

    protect(Model, vault)


@pytest.mark.parametrize("early", [True, False], ids=["protected first", "protected later"])
@pytest.mark.parametrize(
    ("scope", "problem"),
    [
        ("shop", r"Person\.__vault__ is a KeyScope, not str"),
        (KeyScope(tenant="shop"), r"names 'shop', which is no mapped column"),
        (KeyScope(subject="metadata"), r"names 'metadata', which is no mapped column"),
        (KeyScope(tenant="name"), r"names 'name', which is encrypted itself"),
    ],
    ids=["class", "tenant", "subject", "encrypted"],
)
def test_a_scope_that_cannot_work_is_refused_with_its_model(
    world: World, scope: Any, problem: str, early: bool
) -> None:
    """As the model is defined, or as its base is protected."""
    with pytest.raises(errors.ConfigurationError, match=problem):
        with_scope(world.vault, scope, early=early)


def test_two_models_of_one_table_agree_on_its_scope(world: World) -> None:
    """A table's rows have their scope in one place."""

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        __mapper_args__ = {  # noqa: RUF012 - as SQLAlchemy has it
            "polymorphic_on": "kind",
            "polymorphic_identity": "person",
        }
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        shop: Mapped[str | None]
        name: Mapped[str | None] = mapped_column(Encrypted(String))

    protect(Model, world.vault)
    with pytest.raises(errors.ConfigurationError, match="two models of the table people"):
        type(
            "Buyer",
            (Person,),
            {"__mapper_args__": {"polymorphic_identity": "b"}, "__vault__": KeyScope(tenant="shop")},
        )


def test_a_scope_on_the_base_asks_nothing_of_models_without_encrypted_columns(world: World) -> None:
    """A table of tenants has no tenant of its own."""

    class Model(DeclarativeBase):
        __vault__ = KeyScope(tenant="shop")

    class Shop(Model):
        __tablename__ = "shops"
        id: Mapped[str] = mapped_column(primary_key=True)

    class Person(Model):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = mapped_column(Encrypted(String))

    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    world.save(Shop(id="acme"), Person(shop="acme", name=SECRET))
    assert list(world.vault.tenants()) == ["acme"]
    with world.session() as session:
        session.get_one(Shop, "acme").id = "nordwind"
        session.commit()
    assert world.raw("SELECT id FROM shops") == [("nordwind",)]


# -- names of scopes -------------------------------------------------------------------------------------


IDENTITY = uuid.uuid4()

NAMES: list[tuple[Any, Any, str]] = [
    (Integer(), 7, "7"),
    (BigInteger(), -(2**40), str(-(2**40))),
    (Uuid(), IDENTITY, str(IDENTITY)),
    (Uuid(native_uuid=False), IDENTITY, str(IDENTITY)),
    (Uuid(as_uuid=False), str(IDENTITY), str(IDENTITY)),
    (String(40), "Łódź 李", "Łódź 李"),
    (Enum("acme", "nordwind", name="shops"), "acme", "acme"),
]


def test_tenants_and_subjects_are_text_integers_or_uuids(any_world: World) -> None:
    """The names are the same on writing and reading, on every database."""
    for place, (type_, value, name) in enumerate(NAMES):

        class Model(DeclarativeBase):
            pass

        class Person(Model):
            __tablename__ = f"people_{place}"
            __vault__ = KeyScope(tenant="shop", subject="id")
            id: Mapped[Any] = mapped_column(type_, primary_key=True, autoincrement=False)
            shop: Mapped[Any] = mapped_column(type_)
            name: Mapped[str] = mapped_column(Encrypted(String))

        protect(Model, any_world.vault)
        Model.metadata.create_all(any_world.engine)
        any_world.save(Person(id=value, shop=value, name=SECRET))
        with any_world.session() as session:
            assert session.get_one(Person, value).name == SECRET
        assert any_world.read(select(Person.shop, Person.id, Person.name)) == [(value, value, SECRET)]
        assert {(key.tenant, key.subject) for key in any_world.vault.keys(name, name)} == {(name, name)}
        # What a row holds names the same keys on the vault's own calls.
        assert any_world.vault.keys(value, value) == any_world.vault.keys(name, name)


@pytest.mark.parametrize(
    "value", [1.5, b"acme", True, ["acme"], object()], ids=["float", "bytes", "bool", "list", "object"]
)
def test_nothing_else_names_a_scope(value: Any) -> None:
    """A class whose text could differ between writers is refused by its name."""
    with pytest.raises(
        errors.ConfigurationError, match=rf"text, an integer or a UUID, not {type(value).__name__}"
    ):
        name_of(value, "the tenant of a row")


# -- inheritance -----------------------------------------------------------------------------------------


def family(world: World, *, joined: bool) -> tuple[Any, Any, Any]:
    """Return a base model and two that inherit from it, with encrypted columns on both levels."""

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        __mapper_args__ = {  # noqa: RUF012 - as SQLAlchemy has it
            "polymorphic_on": "kind",
            "polymorphic_identity": "person",
        }
        __vault__ = KeyScope(tenant="shop", subject="id")
        id: Mapped[str] = mapped_column(primary_key=True)
        shop: Mapped[str]
        kind: Mapped[str]
        name: Mapped[str | None] = mapped_column(Encrypted(String))

    def child(name: str, column: str) -> Any:
        body: dict[str, Any] = {
            "__module__": __name__,
            "__mapper_args__": {"polymorphic_identity": name},
            column: mapped_column(Encrypted(String), nullable=True),
        }
        if joined:
            body |= {"__tablename__": name, "id": mapped_column(ForeignKey("people.id"), primary_key=True)}
        return type(name.title(), (Person,), body)

    buyer, seller = child("buyer", "address"), child("seller", "account")
    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    return Person, buyer, seller


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "single table"])
def test_models_that_inherit_seal_and_open_on_both_levels(world: World, joined: bool) -> None:
    """Values of both levels under the row's own scope, read across tenants without one."""
    person, buyer, seller = family(world, joined=joined)
    world.save(
        person(id="p", shop="acme", name="a"),
        buyer(id="b", shop="nordwind", name="b", address=SECRET),
        seller(id="s", shop="acme", name="c", account=OTHER_SECRET),
    )
    assert {
        (key.tenant, key.subject) for tenant in ("acme", "nordwind") for key in world.vault.keys(tenant)
    } >= {
        ("acme", "p"),
        ("nordwind", "b"),
        ("acme", "s"),
    }
    other = aliased(buyer)
    for statement in (select(buyer), select(other)):
        with world.session() as session:
            (found,) = session.scalars(statement)
            assert (found.name, found.address) == ("b", SECRET)
    with world.session() as session:
        everyone = {each.id: each for each in session.scalars(select(person))}
        assert {key: each.name for key, each in everyone.items()} == {"p": "a", "b": "b", "s": "c"}
        assert (everyone["b"].address, everyone["s"].account) == (SECRET, OTHER_SECRET)
        everyone["b"].address = "moved"
        session.commit()
        assert everyone["b"].address == "moved"
        everyone["b"].shop = "acme"
        session.commit()
        assert (everyone["b"].address, everyone["b"].name) == ("moved", "b")
    assert not world.holds(SECRET, OTHER_SECRET)


def test_a_model_that_adds_nothing_encrypted_has_its_parent_s_scope(world: World) -> None:
    """The columns are the parent's, and so is where the rows have their scope."""

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop", subject="id")
        id: Mapped[str] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = mapped_column(Encrypted(String))

    class Guest(Person):
        __tablename__ = "guests"
        id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
        room: Mapped[int]

    # A class that is mapped in the same registry and is no model of the base.
    Model.registry.map_imperatively(
        type("Room", (), {}), Table("rooms", Model.metadata, Column("id", Integer, primary_key=True))
    )
    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    world.save(Guest(id="li", shop="acme", name=SECRET, room=7))
    with world.session() as session:
        guest = session.get_one(Guest, "li")
        assert (guest.name, guest.room) == (SECRET, 7)
        guest.name = OTHER_SECRET
        session.commit()
        assert guest.name == OTHER_SECRET
    assert {key.subject for key in world.vault.keys("acme")} == {None, "li"}


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "single table"])
def test_a_value_moved_between_rows_that_inherit_is_refused(world: World, joined: bool) -> None:
    """On the upper level and on the lower one."""
    _, buyer, __ = family(world, joined=joined)
    world.save(
        *(buyer(id=key, shop=shop, name=key, address=key) for key, shop in (("x", "acme"), ("y", "nordwind")))
    )
    lower = "buyer" if joined else "people"
    for table, column in (("people", "name"), (lower, "address")):
        ((before,),) = world.raw(f"SELECT {column} FROM {table} WHERE id = 'x'")
        world.raw_execute(
            f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE id = 'y') WHERE id = 'x'"
        )
        with world.session() as session, pytest.raises((errors.TenantMismatch, errors.DecryptionError)):
            session.get(buyer, "x")
        world.raw_execute(f"UPDATE {table} SET {column} = ? WHERE id = 'x'", (before,))


def test_two_of_a_family_in_one_row_want_the_scope(world: World) -> None:
    """Which upper row belongs to which lower one cannot be told, so it is not guessed."""
    _, buyer, __ = family(world, joined=True)
    world.save(
        buyer(id="a", shop="acme", name="a", address="x"), buyer(id="b", shop="acme", name="b", address="y")
    )
    other = aliased(buyer)
    statement = select(buyer, other).join(other, other.id > buyer.id)
    with world.session() as session:
        with pytest.raises(errors.ScopeRequired):
            session.execute(statement).all()
        with world.vault.scope(tenant="acme"):
            ((first, second),) = session.execute(statement).all()
            assert (first.address, second.address) == ("x", "y")


def test_a_table_that_leaves_its_scope_to_another_says_so_in_core(world: World) -> None:
    """Core knows no model: a joined table's rows want the scope."""
    _, buyer, __ = family(world, joined=True)
    world.save(buyer(id="b", shop="acme", name="b", address="x"))
    world.raw_execute("DELETE FROM buyer")
    row = {"id": "b", "address": SECRET}
    with pytest.raises(errors.ScopeRequired):
        world.execute(insert(buyer.__table__), row)
    with world.vault.scope(tenant="acme", subject="b"):
        world.execute(insert(buyer.__table__), row)
    with world.session() as session:
        assert session.get_one(buyer, "b").address == SECRET


def test_a_deferred_column_may_be_encrypted(world: World) -> None:
    """It is loaded when it is asked for, under its object's scope."""

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str]
        name: Mapped[str] = deferred(mapped_column(Encrypted(String)))

    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    world.save(Person(id=1, shop="acme", name=SECRET), Person(id=2, shop="nordwind", name=OTHER_SECRET))
    with world.session() as session:
        assert [each.name for each in session.scalars(select(Person).order_by(Person.id))] == [
            SECRET,
            OTHER_SECRET,
        ]


# -- copies of objects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [lambda each: pickle.loads(pickle.dumps(each)), copy.copy, copy.deepcopy],  # noqa: S301 - made here
    ids=["pickle", "copy", "deepcopy"],
)
def test_a_loaded_object_is_copied_with_its_values_alone(world: World, copied: Callable[[Any], Any]) -> None:
    """No key, no vault; the copy reads what the object read."""
    world.save(Customer(id="li", shop="acme", name=SECRET, orders=[Order(shop="acme", address=OTHER_SECRET)]))
    with world.session() as session:
        customer = session.get_one(Customer, "li")
        assert customer.orders[0].address == OTHER_SECRET
        session.expunge_all()
    twin_ = copied(customer)
    assert twin_.name == SECRET
    pickled = pickle.dumps(customer)
    assert not any(word in pickled for word in (b"fieldvault", b"Vault", b"Secret", b"Carrier"))


def test_a_pickled_object_goes_on_in_another_session(world: World) -> None:
    """Its changes are written."""
    world.save(Customer(id="li", shop="acme", name="before"))
    with world.session() as session:
        pickled = pickle.dumps(session.get_one(Customer, "li"))
    customer = pickle.loads(pickled)  # noqa: S301 - made above
    customer.name = SECRET
    with Session(world.engine) as session:
        session.add(customer)
        session.commit()
    assert world.read(select(CUSTOMERS.c.shop, CUSTOMERS.c.id, CUSTOMERS.c.name)) == [("acme", "li", SECRET)]


def test_a_carrier_shows_and_gives_nothing() -> None:
    """Whatever logs, prints or pickles a parameter list meets no plaintext."""
    carrier = Carrier(SECRET, "acme", None)
    assert repr(carrier) == f"{carrier!r}" == "<sealed>"
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            action(carrier)
    for text_of in (str, "{}".format):
        with pytest.raises(TypeError, match="not text"):
            text_of(carrier)

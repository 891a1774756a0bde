"""Core and bulk statements: each row under its own scope, and no way to have plaintext written."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from sqlalchemy import (
    Column,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    literal,
    null,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.envelope import Envelope
from fieldvault.sqlalchemy import Encrypted, protect
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, OTHER_SECRET, SECRET, Customer, Memo
from tests.sqlalchemy.world import World, carriers_in

ROWS: list[dict[str, Any]] = [
    {"id": "li", "shop": "acme", "name": SECRET, "profile": {"a": 1}},
    {"id": "ada", "shop": "nordwind", "name": OTHER_SECRET, "profile": None},
    {"id": "eve", "shop": "acme", "name": "", "profile": {}},
]

Owners = dict[Any, tuple[str, str | None]]


def owners(world: World, column: str, table: str, key: str = "id") -> Owners:
    """Return whose key sealed each row's value, from the bytes in the database."""
    infos = [key for tenant in world.vault.tenants() for key in world.vault.keys(tenant)]
    keys = {info.key_id: (info.tenant, info.subject) for info in infos}
    rows = world.raw(f"SELECT {key}, {column} FROM {table}")
    return {row[0]: keys[Envelope.parse(bytes(row[1])).key_id] for row in rows if row[1] is not None}


def by_list(world: World) -> None:
    """Core, a list of rows."""
    world.execute(CUSTOMERS.insert(), ROWS)


def by_bulk_list(world: World) -> None:
    """ORM bulk insert."""
    with world.session() as session:
        session.execute(insert(Customer), ROWS)
        session.commit()


def by_bulk_returning(world: World) -> None:
    """ORM bulk insert that returns the entities."""
    with world.session() as session:
        found = session.scalars(insert(Customer).returning(Customer), ROWS).all()
        assert {each.id: each.name for each in found} == {row["id"]: row["name"] for row in ROWS}
        session.commit()


def one_by_one(world: World) -> None:
    """Core, parameters of one row."""
    for row in ROWS:
        world.execute(CUSTOMERS.insert(), row)


def by_values(world: World) -> None:
    """Values in the statement, by name and by column."""
    world.execute(CUSTOMERS.insert().values(**ROWS[0]))
    world.execute(insert(CUSTOMERS).values({CUSTOMERS.c[name]: value for name, value in ROWS[1].items()}))
    with world.session() as session:
        session.execute(insert(Customer).values(**ROWS[2]))
        session.commit()


def by_values_and_rows(world: World) -> None:
    """Some values in the statement, others with the rows."""
    for shop in ("acme", "nordwind"):
        rows = [
            {"id": row["id"], "name": row["name"], "profile": row["profile"]}
            for row in ROWS
            if row["shop"] == shop
        ]
        world.execute(CUSTOMERS.insert().values(shop=shop), rows)


def by_named_parameters(world: World) -> None:
    """The application's own parameter names."""
    statement = insert(CUSTOMERS).values(
        id=bindparam("i"), shop=bindparam("s"), name=bindparam("n"), profile=bindparam("p")
    )
    rows = [{"i": row["id"], "s": row["shop"], "n": row["name"], "p": row["profile"]} for row in ROWS]
    world.execute(statement, rows[:2])
    world.execute(statement, rows[2])


def by_bulk_save(world: World) -> None:
    """Session.bulk_save_objects."""
    objects = [Customer(**row) for row in ROWS]
    with world.session() as session:
        session.bulk_save_objects(objects)
        session.commit()
    assert [(each.name, carriers_in(each)) for each in objects] == [(row["name"], []) for row in ROWS]


def by_bulk_mappings(world: World) -> None:
    """Session.bulk_insert_mappings."""
    rows = [dict(row) for row in ROWS]
    with world.session() as session:
        session.bulk_insert_mappings(Customer.__mapper__, rows)
        session.commit()
    assert rows == ROWS


DOORS = [
    by_list,
    by_bulk_list,
    one_by_one,
    by_values,
    by_values_and_rows,
    by_named_parameters,
    by_bulk_save,
    by_bulk_mappings,
]


def check_rows(world: World) -> None:
    """Each row was sealed under its own tenant and subject, and reads back."""
    assert owners(world, "name", "customers") == {row["id"]: (row["shop"], row["id"]) for row in ROWS}
    found = world.read(select(CUSTOMERS.c.id, CUSTOMERS.c.shop, CUSTOMERS.c.name, CUSTOMERS.c.profile))
    assert sorted(found) == sorted((row["id"], row["shop"], row["name"], row["profile"]) for row in ROWS)


@pytest.mark.parametrize("door", [*DOORS, by_bulk_returning], ids=lambda door: door.__doc__.rstrip("."))
def test_every_door_seals_each_row_under_its_own_scope(world: World, door: Callable[[World], None]) -> None:
    """Two shops and three people in one statement; nothing of it is in the file in the clear."""
    door(world)
    check_rows(world)
    assert not world.holds(SECRET, OTHER_SECRET)


def test_doors_lead_into_every_database(any_world: World) -> None:
    """Dialects bind and fetch each in their own way."""
    for door in (by_list, by_bulk_list, by_values):
        door(any_world)
        check_rows(any_world)
        any_world.raw_execute("DELETE FROM customers")


def test_the_rows_given_stay_as_they_were(world: World) -> None:
    """Carriers go into copies: the application's own dictionaries keep their values."""
    rows = [dict(row) for row in ROWS]
    world.execute(CUSTOMERS.insert(), rows)
    assert rows == ROWS


def test_defaults_in_python_choose_keys_and_are_sealed(world: World) -> None:
    """Keys, tenants and values that a column's default makes are those that are written, on every door."""
    numbers = iter(range(1000))

    class Model(DeclarativeBase):
        pass

    class Person(Model):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop", subject="id")
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        shop: Mapped[str] = mapped_column(default="acme")
        number: Mapped[int] = mapped_column(Encrypted(Integer), default=lambda: next(numbers))
        greeting: Mapped[str] = mapped_column(
            Encrypted(String), default=lambda context: f"to {context.get_current_parameters()['shop']}"
        )

    protect(Model, world.vault)
    Model.metadata.create_all(world.engine)
    people: Any = Person.__table__
    world.execute(insert(people), [{"number": -1}, {"number": -2}])
    world.execute(insert(people), {"greeting": "hello"})
    world.execute(insert(people).values(greeting="hello"))
    world.execute(insert(people))
    with world.session() as session:
        session.execute(insert(Person), [{"greeting": "hello"}, {"greeting": "hello"}])
        session.execute(insert(Person).values(greeting="hello"))
        session.add_all([Person(), Person(number=5)])
        session.commit()
        found = session.scalars(select(Person)).all()
    assert len(found) == 10
    assert {person.shop for person in found} == {"acme"}
    assert {person.greeting for person in found} == {"hello", "to acme"}
    assert sorted(person.number for person in found) == [-2, -1, 0, 1, 2, 3, 4, 5, 5, 6]
    written = owners(world, "number", "people")
    assert {uuid.UUID(key) for key in written} == {person.id for person in found}
    assert all(owner == ("acme", str(uuid.UUID(key))) for key, owner in written.items())


def test_values_lists_are_refused_where_rows_have_scopes(world: World) -> None:
    """The error names the way out."""
    with pytest.raises(errors.UnsupportedQuery, match=r"execute\(insert\(…\), \[\{…\}, …\]\)"):
        world.execute(insert(CUSTOMERS).values(ROWS))
    with world.session() as session, pytest.raises(errors.UnsupportedQuery):
        session.execute(insert(Customer).values(ROWS))
    assert world.raw("SELECT * FROM customers") == []


@pytest.mark.parametrize(
    "values",
    [
        [{"body": SECRET}, {"body": OTHER_SECRET}],
        [{MEMOS.c.body: SECRET}, {MEMOS.c.body: OTHER_SECRET}],
        [(1, SECRET, None), (2, OTHER_SECRET, None)],
    ],
    ids=["by name", "by column", "in order"],
)
def test_values_lists_are_right_where_the_scope_is_ambient(world: World, values: Any) -> None:
    """All rows are the scope's."""
    with world.vault.scope(tenant="acme"):
        world.execute(insert(MEMOS).values(values))
        assert world.read(select(MEMOS.c.body)) == [(SECRET,), (OTHER_SECRET,)]
    assert not world.holds(SECRET, OTHER_SECRET)


def test_a_select_cannot_be_inserted(world: World) -> None:
    """It would copy ciphertexts under foreign names, or plaintext."""
    statement = insert(MEMOS).from_select(["body"], select(literal(SECRET)))
    with world.vault.scope(tenant="acme"), pytest.raises(errors.UnsupportedQuery, match="from_select"):
        world.execute(statement)


EXPRESSIONS: Mapping[str, Callable[[], Any]] = {
    "function": lambda: func.lower(SECRET),
    "literal": lambda: literal(SECRET),
    "parameter with a value": lambda: bindparam("x", SECRET),
    "typed parameter": lambda: bindparam("x", SECRET, type_=String()),
    "type_coerce": lambda: type_coerce(SECRET, String()),
    "text": lambda: text(f"'{SECRET}'"),
    "column": lambda: CUSTOMERS.c.city,
    "subquery": lambda: select(literal(SECRET)).scalar_subquery(),
    "another column's parameter": lambda: bindparam("x", SECRET, type_=CUSTOMERS.c.email.type),
}


@pytest.mark.parametrize(
    "statement",
    [
        lambda value: insert(MEMOS).values(body=value),
        lambda value: insert(MEMOS).values({MEMOS.c.body: value}),
        lambda value: insert(MEMOS).values([{"body": value}]),
        lambda value: insert(Memo).values(body=value),
        lambda value: update(MEMOS).values(body=value),
        lambda value: update(MEMOS).ordered_values((MEMOS.c.body, value)),
        lambda value: update(cast(Any, MEMOS.alias())).values(body=value),
        lambda value: update(Memo).values(body=value),
        lambda value: update(Memo).values({Memo.body: value}),
    ],
    ids=[
        "insert",
        "insert by column",
        "list",
        "ORM insert",
        "update",
        "ordered",
        "alias",
        "ORM update",
        "ORM by column",
    ],
)
def test_an_expression_is_no_value_in_any_statement(world: World, statement: Any) -> None:
    """What the database would compute, it would see: refused before anything is sent."""
    with world.vault.scope(tenant="acme"):
        world.save(Memo(body="x"))
        with world.statements() as seen, world.session() as session:
            for expression in EXPRESSIONS.values():
                with pytest.raises(errors.UnsupportedQuery, match=r"memos\.body is encrypted"):
                    session.execute(statement(expression()))
        assert seen == []


def test_an_expression_among_the_parameters_is_no_value(world: World) -> None:
    """It is refused by its class."""
    with world.vault.scope(tenant="acme"):
        for value in (func.lower(SECRET), null()):
            with pytest.raises(
                errors.UnsupportedValue, match=r"memos\.body is Encrypted\(Text\) and takes no"
            ):
                world.execute(insert(MEMOS), {"body": value})


def test_null_is_a_value(world: World) -> None:
    """None and null() reach the database as NULL through every form."""
    with world.vault.scope(tenant="acme"):
        world.execute(insert(MEMOS).values(body=null()))
        world.execute(insert(MEMOS), {"body": None})
        world.execute(insert(MEMOS), [{"body": None}, {"body": SECRET}])
        world.execute(insert(MEMOS).values([{"body": None}, {"body": null()}]))
        assert [row[0] is None for row in world.raw("SELECT body FROM memos")] == [
            True,
            True,
            True,
            False,
            True,
            True,
        ]
        world.execute(update(MEMOS).values(body=null()))
        assert world.raw("SELECT DISTINCT body FROM memos") == [(None,)]


def test_a_value_that_is_given_twice_is_refused(world: World) -> None:
    """Under a column and under its name: which one is meant cannot be told."""
    with world.vault.scope(tenant="acme"), pytest.raises(errors.UnsupportedQuery, match="body"):
        world.execute(insert(MEMOS).values({MEMOS.c.body: SECRET, "body": OTHER_SECRET}))


@pytest.mark.parametrize("default", [lambda: None, func.now()], ids=["nothing", "the database's"])
def test_a_default_that_python_cannot_tell_chooses_no_keys(world: World, default: Any) -> None:
    """A tenant that nobody knows before the statement is none."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(default=default)
        name: Mapped[str] = mapped_column(Encrypted(String))

    protect(Base, world.vault)
    Base.metadata.create_all(world.engine)
    people: Any = Person.__table__
    with pytest.raises(errors.ScopeRequired):
        world.save(Person(name=SECRET))
    with pytest.raises(errors.ScopeRequired):
        world.execute(insert(people), {"name": SECRET})
    assert world.raw("SELECT * FROM people") == []


# -- update ----------------------------------------------------------------------------------------------


UPDATES: Mapping[str, Callable[[Session], Any]] = {
    "Core": lambda session: session.connection().execute(update(MEMOS).values(body=SECRET)),
    "Core parameters": lambda session: session.connection().execute(update(MEMOS), {"body": SECRET}),
    "ordered": lambda session: session.connection().execute(update(MEMOS).ordered_values(("body", SECRET))),
    "alias": lambda session: session.connection().execute(
        update(cast(Any, MEMOS.alias("m"))).values(body=SECRET)
    ),
    "alias parameters": lambda session: session.connection().execute(
        update(cast(Any, MEMOS.alias("m"))), {"body": SECRET}
    ),
    "named parameter": lambda session: session.connection().execute(
        update(MEMOS).values(body=bindparam("b")).where(MEMOS.c.id == bindparam("i")), [{"b": SECRET, "i": 1}]
    ),
    "named parameters": lambda session: session.connection().execute(
        update(MEMOS).values(body=bindparam("b")).where(MEMOS.c.id == bindparam("i")),
        [{"b": SECRET, "i": 1}, {"b": SECRET, "i": 2}],
    ),
    "many": lambda session: session.connection().execute(
        update(MEMOS).where(MEMOS.c.id == bindparam("i")),
        [{"body": SECRET, "i": 1}, {"body": SECRET, "i": 2}],
    ),
    "ORM": lambda session: session.execute(update(Memo).values(body=SECRET)),
    "ORM by key": lambda session: session.execute(update(Memo), [{"id": 1, "body": SECRET}]),
    "bulk mappings": lambda session: session.bulk_update_mappings(
        Memo.__mapper__, [{"id": 1, "body": SECRET}]
    ),
}


@pytest.mark.parametrize("form", UPDATES)
def test_an_update_seals_under_the_ambient_scope(world: World, form: str) -> None:
    """It does not say to which rows its values go, so the scope has to."""
    with world.vault.scope(tenant="acme"):
        world.save(Memo(id=1, body="before"))
        with world.session() as session:
            UPDATES[form](session)
            session.commit()
        assert world.read(select(MEMOS.c.body)) == [(SECRET,)]
    assert not world.holds(SECRET)
    assert owners(world, "body", "memos") == {1: ("acme", None)}


@pytest.mark.parametrize("form", UPDATES)
def test_an_update_without_a_scope_writes_nothing(world: World, form: str) -> None:
    """No tenant, no ciphertext; and no plaintext in place of it."""
    with world.vault.scope(tenant="acme"):
        world.save(Memo(id=1, body="before"))
    with world.session() as session, pytest.raises(errors.ScopeRequired):
        UPDATES[form](session)
    with world.vault.scope(tenant="acme"):
        assert world.read(select(MEMOS.c.body)) == [("before",)]


def test_an_orm_update_brings_loaded_objects_along(world: World) -> None:
    """Objects in the session hold the new plaintext, not what was sent."""
    with world.vault.scope(tenant="acme"), world.session() as session:
        memo = Memo(id=1, body="before")
        session.add(memo)
        session.flush()
        session.execute(update(Memo).where(Memo.id == 1).values(body=SECRET))
        assert (memo.body, carriers_in(memo)) == (SECRET, [])
        session.commit()
        assert memo.body == SECRET


def test_an_update_of_rows_with_scopes_wants_them_in_the_ambient_scope(world: World) -> None:
    """The error asks for the part that is missing; with it the value is right."""
    world.save(Customer(id="li", shop="acme", name="x", city="Jena"))
    statement = update(CUSTOMERS).where(CUSTOMERS.c.city == "Jena").values(name=SECRET)
    with pytest.raises(errors.ScopeRequired, match=r"vault\.scope\(tenant=…\)"):
        world.execute(statement)
    with (
        world.vault.scope(tenant="acme"),
        pytest.raises(errors.ScopeRequired, match=r"vault\.scope\(subject=…\)"),
    ):
        world.execute(statement)
    with world.vault.scope(tenant="acme", subject="li"):
        world.execute(statement)
    assert world.read(select(CUSTOMERS.c.shop, CUSTOMERS.c.id, CUSTOMERS.c.name)) == [("acme", "li", SECRET)]


@pytest.mark.parametrize("how", ["values", "parameters", "alias", "ORM"])
def test_an_update_whose_condition_names_its_rows_needs_no_scope(world: World, how: str) -> None:
    """By equality of what says whose they are; a parameter's own name says nothing."""
    people = (("li", "acme"), ("wu", "acme"), ("ada", "nordwind"))
    world.save(*(Customer(id=id_, shop=shop, name=id_) for id_, shop in people))
    table: Any = CUSTOMERS.alias() if how == "alias" else CUSTOMERS
    named = (table.c.id == "li", table.c.shop == "acme")
    if how == "parameters":
        where = (table.c.id == bindparam("x"), table.c.shop == bindparam("customers_id"))
        rows = [
            {"x": "li", "customers_id": "acme", "new": "li!"},
            {"x": "wu", "customers_id": "acme", "new": "wu!"},
        ]
        world.execute(update(table).where(*where).values(name=bindparam("new")), rows)
    elif how == "ORM":
        with world.session() as session:
            session.execute(
                update(Customer).where(Customer.id == "li", Customer.shop == "acme").values(name="li!")
            )
            session.commit()
    else:
        world.execute(update(table).where(*named).values(name="li!"))
    with world.session() as session:
        names = {each.id: each.name for each in session.scalars(select(Customer))}
    assert names == {"li": "li!", "wu": "wu!" if how == "parameters" else "wu", "ada": "ada"}


def test_an_update_of_other_columns_needs_no_scope(world: World) -> None:
    """Nor does it touch the ciphertexts."""
    world.save(Customer(id="li", shop="acme", name=SECRET))
    before = world.raw("SELECT name FROM customers")
    world.execute(update(CUSTOMERS).values(city="Łódź"))
    assert world.raw("SELECT name FROM customers") == before


# -- upsert ----------------------------------------------------------------------------------------------


def upsert(world: World, body: Any = "excluded") -> Insert:
    """Return an upsert of memo 1 for the world's database."""
    if world.engine.dialect.name in ("mysql", "mariadb"):
        mine = mysql.insert(MEMOS).values(id=1, body=SECRET)
        return mine.on_duplicate_key_update(body=mine.inserted.body if body == "excluded" else body)
    dialect: Any = postgresql if world.engine.dialect.name == "postgresql" else sqlite
    other = dialect.insert(MEMOS).values(id=1, body=SECRET)
    changed: Insert = other.on_conflict_do_update(
        index_elements=["id"], set_={"body": other.excluded.body if body == "excluded" else body}
    )
    return changed


def test_an_upsert_takes_the_value_of_its_own_row(any_world: World) -> None:
    """What was to be inserted replaces what is there, sealed."""
    with any_world.vault.scope(tenant="acme"):
        any_world.execute(insert(MEMOS), {"id": 1, "body": "before"})
        any_world.execute(upsert(any_world))
        assert any_world.read(select(MEMOS.c.body)) == [(SECRET,)]
        any_world.execute(upsert(any_world, None))
    assert any_world.raw("SELECT body FROM memos") == [(None,)]


def test_an_upsert_takes_no_other_value(any_world: World) -> None:
    """A value would have no row, an expression would be plaintext."""
    with any_world.vault.scope(tenant="acme"):
        for value in (SECRET, func.lower(SECRET), literal(SECRET)):
            with pytest.raises(errors.UnsupportedQuery, match=r"statement\.excluded"):
                any_world.execute(upsert(any_world, value))


# -- columns and attributes by other names ---------------------------------------------------------------


def test_a_column_with_a_key_of_its_own_is_known_by_it(world: World) -> None:
    """Name in the database, key in Core and attribute of the model may all differ."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __table__ = Table(
            "people",
            Base.metadata,
            Column("id", Integer, primary_key=True),
            Column("SHOP_NO", Integer, key="shop_key"),
            Column("NAME_ENC", Encrypted(String), key="name_key"),
        )
        __vault__ = KeyScope(tenant="shop")
        shop: Any = __table__.c.shop_key
        name: Any = __table__.c.name_key

    protect(Base, world.vault)
    Base.metadata.create_all(world.engine)
    people: Any = Person.__table__
    world.execute(insert(people), [{"shop_key": 1, "name_key": SECRET}, {"shop_key": 2, "name_key": SECRET}])
    world.execute(insert(people).values(shop_key=3, name_key=SECRET))
    with world.session() as session:
        session.add(Person(shop=4, name=SECRET))
        session.execute(insert(Person), [{"shop": 5, "name": SECRET}, {"shop": 6, "name": SECRET}])
        session.execute(insert(Person).values(shop=7, name=SECRET))
        session.commit()
        found = session.scalars(select(Person).order_by(Person.shop)).all()
        assert [(each.shop, each.name) for each in found] == [(shop, SECRET) for shop in range(1, 8)]
    assert sorted(world.vault.tenants()) == [str(shop) for shop in range(1, 8)]
    ((blob,),) = world.raw('SELECT "NAME_ENC" FROM people WHERE "SHOP_NO" = 4')
    assert world.vault.decrypt(blob, field="people.NAME_ENC", tenant="4") == SECRET


def test_statements_on_other_tables_pass_untouched(world: World) -> None:
    """What holds nothing encrypted is no business of the vault's."""
    plain = Table("plain", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))
    plain.create(world.engine)
    world.execute(insert(plain), [{"name": "a"}, {"name": "b"}])
    world.execute(insert(plain).values(name=func.lower("C")))
    world.execute(insert(plain).from_select(["name"], select(plain.c.name)))
    world.execute(update(plain).values(name=func.upper(plain.c.name)))
    assert len(world.read(select(plain))) == 6

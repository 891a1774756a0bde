"""Ways around ``Encrypted``: each is closed, and nothing that was to be written that way is there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import (
    Column,
    Date,
    Engine,
    LargeBinary,
    String,
    Table,
    Uuid,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fieldvault import KeyScope, Vault
from fieldvault.errors import ConfigurationError, FieldVaultError, TenantMismatch, UnsupportedQuery
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import Encrypted, protect
from fieldvault.sqlalchemy.statements import refuse_unsupported

SECRET = "PLAINTEXT-OF-A-CUSTOMER"


class Base(DeclarativeBase):
    """The models of this module."""


class Customer(Base):
    """A model with tenant and subject in its rows."""

    __tablename__ = "customers"
    __vault__ = KeyScope(tenant="shop", subject="id")
    id: Mapped[str] = mapped_column(primary_key=True)
    shop: Mapped[str]
    name: Mapped[str | None] = mapped_column(Encrypted(String))


class Member(Base):
    """A model whose subject is a UUID kept as text."""

    __tablename__ = "members"
    __vault__ = KeyScope(tenant="shop", subject="id")
    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    shop: Mapped[str]
    name: Mapped[str] = mapped_column(Encrypted(String))


renamed = Table(
    "renamed",
    Base.metadata,
    Column("id", String, primary_key=True),
    Column("full_name", Encrypted(String), key="name"),
)
customers = cast("Table", Customer.__table__)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A vault that the models are bound to."""
    with Vault(kms=LocalKMS.create(tmp_path / "root.keys"), key_store=MemoryKeyStore()) as vault:
        protect(Base, vault)
        yield vault


@pytest.fixture
def engine(tmp_path: Path, vault: Vault) -> Iterator[Engine]:  # noqa: ARG001 - binds the models
    """An application's database, searched for plaintext in the end."""
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()
    assert SECRET.encode() not in (tmp_path / "app.db").read_bytes()


def test_an_upsert_takes_no_parameter_for_an_encrypted_column(engine: Engine) -> None:
    """A parameter with a type of its own would reach the database as it is."""
    for type_ in (String, None):
        statement = sqlite.insert(customers).values(id="1", shop="acme")
        upsert = statement.on_conflict_do_update(
            index_elements=["id"], set_={"name": bindparam("n", type_=type_)}
        )
        with engine.begin() as connection, pytest.raises(UnsupportedQuery, match=r"customers\.name"):
            connection.execute(upsert, {"n": SECRET})


def test_an_upsert_knows_a_column_by_its_name_in_the_database(engine: Engine, vault: Vault) -> None:
    """SQLAlchemy writes a key that it does not know as it stands."""
    statement = sqlite.insert(renamed).values(id="1")
    upsert = statement.on_conflict_do_update(index_elements=["id"], set_={"full_name": SECRET})
    with engine.begin() as connection, vault.scope(tenant="acme"), pytest.raises(UnsupportedQuery):
        connection.execute(upsert)


@pytest.mark.parametrize(
    "inner",
    [
        insert(customers).values(id="1", shop="acme", name=literal(SECRET.encode(), LargeBinary)),
        update(customers).values(name=func.upper(SECRET)),
    ],
    ids=["insert", "update"],
)
def test_a_statement_within_a_statement_is_not_sent(engine: Engine, inner: object) -> None:
    """Rows of a nested INSERT or UPDATE pass everything that carries rows: it is refused, unsent."""
    statement = select(inner.returning(customers.c.id).cte())  # type: ignore[attr-defined]
    compiled = statement.compile(engine)

    class Context:
        pass

    context = Context()
    context.compiled = compiled  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedQuery, match="of its own"):
        refuse_unsupported(None, None, "", (), context, False)  # type: ignore[arg-type]
    assert event.contains(Engine, "before_cursor_execute", refuse_unsupported)


def test_a_subject_is_named_as_its_row_will_have_it(engine: Engine, vault: Vault) -> None:
    """A UUID in capitals is stored in small letters; its keys, and their shredding, go by what is stored."""
    number = str(uuid.uuid4())
    with Session(engine) as session:
        session.add(Member(id=number.upper(), shop="acme", name="Ann"))
        session.commit()
    with Session(engine) as session:
        stored = session.scalars(select(Member)).one()
        assert (stored.id, stored.name) == (number, "Ann")
    assert vault.shred("acme", number, actor="dpo", reason="asked").key_ids
    with Session(engine) as session:
        assert session.scalars(select(Member)).one().name is None
    with Session(engine) as session:
        session.add(Member(id="no uuid", shop="acme", name="Ann"))
        with pytest.raises(ConfigurationError, match="no such text"):
            session.flush()


def test_tables_of_one_name_in_two_schemas_are_two_fields() -> None:
    """A value copied from ``hr.people`` into ``people`` stands in another field."""

    class Other(DeclarativeBase):
        pass

    here = Table(
        "people", Other.metadata, Column("id", String, primary_key=True), Column("name", Encrypted(String))
    )
    columns = [Column("id", String, primary_key=True), Column("name", Encrypted(String))]
    there = Table("people", Other.metadata, *columns, schema="hr")
    fields = [cast("Encrypted", table.c.name.type).field for table in (here, there)]
    assert fields == ["people.name", "hr.people.name"]


def test_a_listener_that_makes_text_of_a_value_in_flight_fails(engine: Engine) -> None:
    """It would store the stand-in's text in place of the value; the object keeps its value."""

    def tidy(_mapper: object, _connection: object, target: Customer) -> None:
        target.name = f"{target.name}".strip()

    event.listen(Customer, "before_insert", tidy)
    try:
        customer = Customer(id="1", shop="acme", name=SECRET)
        with Session(engine) as session:
            session.add(customer)
            with pytest.raises(TypeError, match="before protect"):
                session.flush()
            session.rollback()
        assert customer.name == SECRET
    finally:
        event.remove(Customer, "before_insert", tidy)


def test_a_text_statement_that_fails_shows_no_plaintext(engine: Engine, vault: Vault) -> None:
    """Parameters of text() with an encrypted type are sealed, and blank where a neighbour fails to bind."""
    statement = text("INSERT INTO customers (id, shop, name) VALUES (:id, :day, :n)").bindparams(
        bindparam("n", type_=customers.c.name.type), bindparam("day", type_=Date)
    )
    row = {"id": "1", "day": "no day", "n": SECRET}
    scope = vault.scope(tenant="acme", subject="1")
    with engine.begin() as connection, scope, pytest.raises(StatementError) as caught:
        connection.execute(statement, row)
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.params}"


def test_an_update_that_names_its_rows_seals_for_those_rows(engine: Engine, vault: Vault) -> None:
    """A bulk update by primary key goes by the tenant in its rows, and refuses another than the scope's."""
    with Session(engine) as session:
        session.add_all(
            [Customer(id="1", shop="acme", name="Ann"), Customer(id="2", shop="globex", name="Bob")]
        )
        session.commit()
        with vault.scope(tenant="acme", subject="1"):
            session.execute(update(Customer), [{"id": "1", "shop": "acme", "name": "Anna"}])
        with vault.scope(tenant="acme", subject="2"), pytest.raises(TenantMismatch):
            session.execute(update(Customer), [{"id": "2", "shop": "globex", "name": "Bobby"}])
        session.commit()
    with Session(engine) as session:
        assert [each.name for each in session.scalars(select(Customer).order_by(Customer.id))] == [
            "Anna",
            "Bob",
        ]


def test_a_damaged_key_store_is_not_taken_for_an_erasure(vault: Vault) -> None:
    """A wrapped key that is gone from a key that was never destroyed is damage, and no customer's wish."""
    store = vault.key_store
    assert isinstance(store, MemoryKeyStore)
    blob = vault.encrypt("x", field="f", tenant="acme")
    (record,) = (each for each in store.keys("acme", None) if each.purpose == "data")
    store._keys[record.key_id] = replace(record, wrapped=None)
    vault.ring.cache.drop(None)
    with pytest.raises(FieldVaultError, match="damaged"):
        vault.decrypt(blob, field="f", tenant="acme")

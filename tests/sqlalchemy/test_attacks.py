"""Ways past the layer that were found by attacking it, each closed."""

import traceback
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import ForeignKey, String, TypeDecorator, bindparam, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.sqlalchemy import Encrypted, protect
from tests.sqlalchemy.conftest import MakeVault
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, SECRET, Customer, Memo
from tests.sqlalchemy.world import World, caught


def test_parameters_in_a_list_of_values_are_refused(world: World) -> None:
    """SQLAlchemy types those of the first row only."""
    rows = [{"id": 2, "body": bindparam("a")}, {"id": 3, "body": bindparam("z")}]
    with world.vault.scope(tenant="acme"), pytest.raises(errors.UnsupportedQuery, match="list itself"):
        world.execute(insert(MEMOS).values(rows), {"a": SECRET, "z": SECRET})
    assert world.raw("SELECT * FROM memos") == []
    assert not world.holds(SECRET)


@pytest.mark.parametrize("other", ["email", "city"])
@pytest.mark.parametrize("make", [insert, update])
def test_one_parameter_is_not_sealed_for_two_columns(world: World, make: Any, other: str) -> None:
    """Each column has ciphertexts of its own."""
    statement = make(CUSTOMERS).values({"name": bindparam("x"), other: bindparam("x")})
    with (
        world.vault.scope(tenant="acme", subject="li"),
        pytest.raises(errors.UnsupportedQuery, match="shares the parameter 'x'"),
    ):
        world.execute(statement, {"x": SECRET})


def test_a_statement_from_before_the_models_were_protected_is_checked_all_the_same(
    world: World, make_vault: MakeVault
) -> None:
    """SQLAlchemy keeps it compiled; what it reads is worked out anew."""

    class Late(DeclarativeBase):
        pass

    class Note(Late):
        __tablename__ = "late_notes"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(64))
        text: Mapped[str] = mapped_column(Encrypted(String))

    Late.metadata.create_all(world.engine)
    query = select(Note.id, Note.shop, Note.text)
    assert world.read(query) == []
    protect(Late, make_vault())
    world.save(Note(id=1, shop="acme", text="acme's"), Note(id=2, shop="globex", text="globex's"))
    assert world.read(query) == [(1, "acme", "acme's"), (2, "globex", "globex's")]
    world.raw_execute("UPDATE late_notes SET text = (SELECT text FROM late_notes WHERE id = 1) WHERE id = 2")
    with pytest.raises(errors.TenantMismatch):
        world.read(query)


def test_a_row_that_names_a_part_of_its_scope_is_taken_at_its_word(
    world: World, make_vault: MakeVault
) -> None:
    """Joined inheritance: the tenant stands in the parent's row, the subject in both."""

    class Own(DeclarativeBase):
        pass

    class Person(Own):
        __tablename__ = "own_people"
        __vault__ = KeyScope(tenant="shop", subject="id")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012
        id: Mapped[str] = mapped_column(String(64), primary_key=True)
        kind: Mapped[str] = mapped_column(String(20))
        shop: Mapped[str] = mapped_column(String(64))
        name: Mapped[str] = mapped_column(Encrypted(String))

    class Patient(Person):
        __tablename__ = "own_patients"
        __mapper_args__ = {"polymorphic_identity": "patient"}  # noqa: RUF012
        id: Mapped[str] = mapped_column(ForeignKey("own_people.id"), primary_key=True)
        extra: Mapped[str] = mapped_column(Encrypted(String))

    vault = make_vault()
    protect(Own, vault)
    Own.metadata.create_all(world.engine)
    rows = [{"id": "5", "shop": "acme", "name": "Ada", "extra": "blood"}]
    with vault.scope(tenant="acme", subject="2"), Session(world.engine) as session:
        session.execute(insert(Patient), rows)
        session.commit()
    with vault.scope(tenant="acme"), Session(world.engine) as session:
        patient = session.scalars(select(Patient)).one()
        assert (patient.name, patient.extra) == ("Ada", "blood")
    assert {key.subject for key in vault.keys("acme")} == {None, "5"}
    with Session(world.engine) as session:
        session.execute(insert(Patient), [{"id": "6", "shop": "globex", "name": "Bob", "extra": "x"}])
        session.commit()
        assert session.get_one(Patient, "6").extra == "x"
    with world.engine.begin() as connection, pytest.raises(errors.ScopeRequired, match="own_people"):
        connection.execute(insert(Own.metadata.tables["own_patients"]), [{"id": "7", "extra": "x"}])


@pytest.mark.skipif(
    not sqlalchemy.__version__.startswith("2.0"), reason="SQLAlchemy 2.1 executes no compiled statement"
)
def test_a_statement_that_was_compiled_by_hand_is_refused(world: World) -> None:
    """Nothing joins its parameters to rows any more."""
    compiled: Any = insert(CUSTOMERS).compile(world.engine)
    with (
        world.vault.scope(tenant="acme", subject="li"),
        pytest.raises(errors.UnsupportedQuery, match="compiled"),
    ):
        world.execute(compiled, {"id": "li", "shop": "globex", "name": SECRET})


def test_an_update_that_moves_rows_takes_all_their_values_along(world: World) -> None:
    """Those it leaves out could not be opened any more; and it stays within the scope."""
    world.save(Customer(id="li", shop="acme", name="Li"))
    whole = {"name": "Li", "email": None, "birthday": None, "profile": None}
    with world.vault.scope(tenant="acme", subject="li"):
        for values in ({"shop": "globex"}, {"shop": "globex", "name": "Li"}):
            with pytest.raises(errors.UnsupportedQuery, match="which chooses their keys"):
                world.execute(update(CUSTOMERS).values(values))
        with pytest.raises(errors.TenantMismatch):
            world.execute(update(CUSTOMERS).values(shop="globex", **whole))
    with world.vault.scope(subject="li"):
        world.execute(update(CUSTOMERS).values(shop="globex", **whole))
    with world.session() as session:
        assert session.get_one(Customer, "li").name == "Li"


class _Upper(TypeDecorator[str]):
    """Changes what is written, and leaves reading alone."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:  # noqa: ARG002
        return None if value is None else value.upper()


class _Title(TypeDecorator[str]):
    """Changes what is read, and leaves writing alone."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: object) -> str | None:  # noqa: ARG002
        return None if value is None else value.title()


@pytest.mark.parametrize(("type_", "read"), [(_Upper, "ADA KING"), (_Title, "Ada King")])
def test_a_type_of_the_applications_own_may_do_one_direction_only(
    world: World, make_vault: MakeVault, type_: type[TypeDecorator[str]], read: str
) -> None:
    """As SQLAlchemy lets it."""

    class Own(DeclarativeBase):
        pass

    class Thing(Own):
        __tablename__ = "own_things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(Encrypted(type_))

    vault = make_vault()
    protect(Own, vault)
    Own.metadata.create_all(world.engine)
    with vault.scope(tenant="acme"), Session(world.engine) as session:
        session.add(Thing(id=1, name="ada king"))
        session.commit()
        assert session.get_one(Thing, 1).name == read


def test_the_frames_of_a_page_that_fails_show_nothing_of_what_was_opened(world: World) -> None:
    """A crash reporter prints the locals of every frame."""
    with world.vault.scope(tenant="acme"):
        world.save(Memo(id=1, body=SECRET), Memo(id=2, body="x"))
        world.raw_execute("UPDATE memos SET body = x'01' WHERE id = 2")
        with world.engine.connect() as connection:
            error = caught(connection.execute(select(MEMOS.c.id, MEMOS.c.body).order_by(MEMOS.c.id)).all)
    assert isinstance(error, errors.DecryptionError | errors.MalformedCiphertext)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert not [line for line in shown.format() if SECRET in line]


@pytest.mark.parametrize(
    ("how", "value"),
    [(how, value) for how in ("values", "ORM", "alias") for value in ("new", None)] + [("rows", "new")],
)
def test_an_update_in_a_scope_reaches_the_rows_of_that_scope_only(
    world: World, how: str, value: str | None
) -> None:
    """What it writes is sealed for the scope; in another's row nobody could read it any more."""
    for name, shop in (("li", "acme"), ("wu", "acme"), ("ada", "nordwind")):
        world.save(Customer(id=name, shop=shop, name=name))
    with world.vault.scope(tenant="acme", subject="li"):
        if how == "ORM":
            with world.session() as session:
                session.execute(update(Customer).values(name=value))
                session.commit()
        else:
            table: Any = CUSTOMERS.alias() if how == "alias" else CUSTOMERS
            statement = update(table)
            world.execute(
                *(statement, [{"name": value}]) if how == "rows" else (statement.values(name=value),)
            )
    with world.session() as session:
        names = {each.id: each.name for each in session.scalars(select(Customer))}
    assert names == {"li": value, "wu": "wu", "ada": "ada"}

"""``deterministic=True``: the database compares, joins, groups and keeps unique, inside one tenant."""

import uuid
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Date,
    DateTime,
    Numeric,
    String,
    UniqueConstraint,
    Uuid,
    create_engine,
    delete,
    distinct,
    func,
    insert,
    not_,
    select,
    union,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column, with_loader_criteria

from fieldvault import KeyScope, errors
from fieldvault.envelope import Envelope, from_text
from fieldvault.keys.records import Purpose
from fieldvault.sqlalchemy import Encrypted, NotUnique, protect
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World


class Mail(DeclarativeBase):
    pass


class Box(Mail):
    """One mailbox an address and shop; plans are few values that many have."""

    __tablename__ = "boxes"
    __vault__ = KeyScope(tenant="shop")
    __table_args__ = (UniqueConstraint("address", name="one_box"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    address: Mapped[str | None] = mapped_column(
        Encrypted(String(80), deterministic=True, field="address", storage="text")
    )
    plan: Mapped[str | None] = mapped_column(Encrypted(String(20), deterministic=True, padding=16))
    since: Mapped[date | None] = mapped_column(Encrypted(Date, deterministic=True), index=True)
    token: Mapped[uuid.UUID | None] = mapped_column(Encrypted(Uuid, deterministic=True))
    note: Mapped[str | None] = mapped_column(Encrypted(String(80)))


class Letter(Mail):
    """Joined to its box by the address, which is the same field here."""

    __tablename__ = "letters"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    to: Mapped[str | None] = mapped_column(
        "recipient", Encrypted(String(80), deterministic=True, field="address", storage="text")
    )
    plan: Mapped[str | None] = mapped_column(Encrypted(String(20), deterministic=True))


BOXES: Any = Mail.metadata.tables["boxes"]
ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture
def mail(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield two shops' mailboxes and letters, on each database in turn."""
    engine = create_engine(database_url)
    world = world_of(Mail, engine, make_vault())
    world.save(
        Box(id=1, shop="acme", address=ADA, plan="gold", since=date(2026, 1, 1), token=uuid.UUID(int=7)),
        Box(id=2, shop="acme", address=BOB, plan="gold"),
        Box(id=3, shop="acme", address=None, plan="lead"),
        Box(id=4, shop="globex", address=ADA, plan="gold", since=date(2026, 1, 1)),
        Letter(id=1, shop="acme", to=ADA, plan="gold"),
        Letter(id=2, shop="acme", to=ADA),
        Letter(id=3, shop="globex", to=ADA),
    )
    yield world
    engine.dispose()


def found(mail: World, statement: Any, tenant: str = "acme") -> list[Any]:
    """Return what a statement finds in a tenant's scope, in no order."""
    with mail.vault.scope(tenant=tenant), mail.session() as session:
        rows = [tuple(row) for row in session.execute(statement)]
    return sorted(rows, key=repr)


def test_equal_values_of_a_tenant_have_one_ciphertext(mail: World) -> None:
    """AES-256-SIV, under the tenant's index key; of another tenant, or another field, they have another."""
    cells = dict(mail.raw("SELECT id, plan FROM boxes"))
    envelopes = {row: Envelope.parse(bytes(cell)) for row, cell in cells.items()}
    assert cells[1] == cells[2] != cells[3]
    assert cells[1] != cells[4]
    assert {each.suite for each in envelopes.values()} == {2}
    keys = {key.key_id: key for key in mail.vault.keys("acme")}
    assert keys[envelopes[1].key_id].purpose is Purpose.INDEX
    letters = dict(mail.raw("SELECT id, recipient FROM letters"))
    addresses = dict(mail.raw("SELECT id, address FROM boxes"))
    assert letters[1] == letters[2] == addresses[1]
    assert from_text(letters[3]) == from_text(addresses[4])
    plan = dict(mail.raw("SELECT id, plan FROM letters"))[1]
    assert bytes(plan) != bytes(cells[1])
    assert len(cells[1]) == len(cells[3]) == 19 + 16 + 16


def test_the_database_tells_cells_apart_by_every_letter(mail: World) -> None:
    """Text form has large and small ones, which some collations take for the same."""
    cell = dict(mail.raw("SELECT id, address FROM boxes"))[1]
    assert mail.raw(f"SELECT id FROM boxes WHERE address = '{cell}'") == [(1,)]
    assert mail.raw(f"SELECT id FROM boxes WHERE address = '{cell.swapcase()}'") == []


def test_criteria_of_relationships_and_loaders_are_asked_as_well(mail: World) -> None:
    """SQLAlchemy takes those apart, and puts them together again for aliases."""
    assert found(mail, select(Box.id).options(with_loader_criteria(Box, Box.address == ADA))) == [(1,)]
    statement = select(Letter.id, Box.id).outerjoin(Box, (Box.address == Letter.to) & (Box.plan == "gold"))
    assert found(mail, statement.where(Letter.shop == "acme")) == [(1, 1), (2, 1)]


EQUALITY: dict[str, tuple[Callable[[], Any], list[int]]] = {
    "==": (lambda: Box.address == ADA, [1]),
    "!=": (lambda: Box.plan != "gold", [3]),
    "in": (lambda: Box.address.in_([ADA, BOB, "eve@example.com"]), [1, 2]),
    "in nothing": (lambda: Box.address.in_([]), []),
    "not in": (lambda: Box.address.not_in([ADA]), [2]),
    "a date": (lambda: Box.since == date(2026, 1, 1), [1]),
    "a UUID": (lambda: Box.token == uuid.UUID(int=7), [1]),
    "another case": (lambda: Box.address == ADA.upper(), []),
    "NULL": (lambda: Box.address.is_(None), [3]),
    "not NULL": (lambda: Box.address.is_not(None) & (Box.shop == "acme"), [1, 2]),
    "in what another query finds": (lambda: Box.address.in_(select(Letter.to)), [1]),
}


@pytest.mark.parametrize("question", EQUALITY)
def test_equality_is_asked_of_the_ciphertexts(mail: World, question: str) -> None:
    """Exactly, as SQL does: what is looked for is sealed when the query is executed."""
    criterion, ids = EQUALITY[question]
    statement = select(Box.id).where(criterion(), Box.shop == "acme")
    assert found(mail, statement) == [(id_,) for id_ in ids]


def test_a_query_looks_in_one_tenant(mail: World) -> None:
    """The scope's, whose keys it is made with; without one nobody knows them."""
    statement = select(Box.id).where(Box.address == ADA)
    assert found(mail, statement) == [(1,)]
    assert found(mail, statement, "globex") == [(4,)]
    with pytest.raises(errors.ScopeRequired):
        mail.read(statement)


def test_what_is_not_a_value_is_looked_for_in_one_tenant(mail: World) -> None:
    """Other tenants' ciphertexts are never those of the scope's, whatever they hold."""
    other = aliased(Box)
    inner = select(Box.id, Box.shop, Box.plan).subquery()
    boxes = BOXES.alias()
    for statement in (
        select(Box.id).where(Box.plan != "gold"),
        select(Box.id).where(Box.plan.not_in(["gold"])),
        select(Box.id).where(not_(Box.plan == "gold")),
        select(Box.id).where(not_(Box.plan.in_(["gold"]))),
        select(Box.id).where(not_(not_(Box.plan != "gold"))),
        select(other.id).where(other.plan != "gold"),
        select(inner.c.id).where(inner.c.plan != "gold"),
        select(boxes.c.id).where(boxes.c.plan != "gold"),
        select(Letter.id + 2).join(other, other.plan != "gold").where(Letter.id == 1),
        select(Box.id).options(with_loader_criteria(Box, Box.plan != "gold")),
        select(other.id).options(with_loader_criteria(Box, Box.plan != "gold", include_aliases=True)),
    ):
        assert found(mail, statement) == [(3,)], statement
    # Nothing is not among no values.
    assert found(mail, select(Box.id).where(Box.plan.not_in([]))) == [(1,), (2,), (3,)]
    assert found(mail, select(Box.id).where(not_(Box.plan != "gold"))) == [(1,), (2,)]
    assert found(mail, select(Box.id).where(Box.plan != "lead"), tenant="globex") == [(4,)]


def test_an_update_or_a_delete_of_all_but_some_leaves_other_tenants_rows_alone(mail: World) -> None:
    """By Core and by the ORM, whose session hears of it."""
    with mail.vault.scope(tenant="globex"), mail.session() as session:
        boxes = session.scalars(select(Box).where(Box.shop == "globex")).all()
        session.execute(update(Box).where(Box.plan != "lead").values(plan="tin"))
        session.commit()
        assert [box.plan for box in boxes] == ["tin"]
    with mail.vault.scope(tenant="globex"):
        mail.execute(delete(BOXES).where(BOXES.c.plan != "lead"))
    assert sorted(mail.raw("SELECT id FROM boxes")) == [(1,), (2,), (3,)]
    assert found(mail, select(Box.plan, Box.id)) == [("gold", 1), ("gold", 2), ("lead", 3)]


def test_rows_are_joined_grouped_and_made_distinct(mail: World) -> None:
    """Inside one tenant; values come back opened."""
    other = aliased(Letter)
    joined = select(Box.id, Letter.id).join(Letter, Box.address == Letter.to).where(Box.shop == "acme")
    assert found(mail, joined) == [(1, 1), (1, 2)]
    same = select(Letter.id, other.id).where(
        Letter.to == other.to, Letter.id < other.id, other.shop == "acme"
    )
    assert found(mail, same) == [(1, 2)]
    of_acme = Box.shop == "acme"
    assert found(mail, select(Box.plan, func.count()).where(of_acme).group_by(Box.plan)) == [
        ("gold", 2),
        ("lead", 1),
    ]
    assert found(mail, select(Box.plan).where(of_acme).distinct()) == [("gold",), ("lead",)]
    assert found(mail, select(func.count(distinct(Box.plan))).where(of_acme)) == [(2,)]
    both = union(
        select(Box.address).where(of_acme, Box.address.is_not(None)),
        select(Letter.to).where(Letter.shop == "acme"),
    )
    assert found(mail, both) == [(ADA,), (BOB,)]


def test_a_comparison_of_rows_wants_a_tenant(mail: World) -> None:
    """Across tenants equal values have other ciphertexts, and a group would be half of one."""
    for statement in (
        select(Box.plan, func.count()).group_by(Box.plan),
        select(Box.plan).distinct(),
        select(func.count(distinct(Box.plan))),
        select(Box.id).join(Letter, Box.address == Letter.to),
        select(Box.plan).union(select(Box.plan)),
    ):
        with mail.statements() as sent, pytest.raises(errors.UnsupportedQuery, match="shop is equal to one"):
            found(mail, statement)
        assert sent == []
    with pytest.raises(errors.ScopeRequired):
        mail.read(select(Box.plan, func.count()).where(Box.shop == "acme").group_by(Box.plan))


def test_a_unique_constraint_holds_inside_a_tenant(mail: World) -> None:
    """With an error that names the field; NULLs do not meet."""
    with pytest.raises(NotUnique) as caught:
        mail.save(Box(id=9, shop="acme", address=ADA))
    assert caught.value.fields == ("address",)
    assert ADA not in str(caught.value)
    mail.save(Box(id=9, shop="acme", address=None), Box(id=10, shop="nordwind", address=ADA))


def test_updates_write_and_find_them(mail: World) -> None:
    """By a flush, by statements, and by rows."""
    with mail.session() as session:
        session.get_one(Box, 1).plan = "lead"
        session.commit()
    with mail.vault.scope(tenant="acme"):
        mail.execute(update(BOXES).where(BOXES.c.plan == "gold").values(plan="tin"))
        mail.execute(insert(BOXES), [{"id": 11, "shop": "acme", "plan": "tin"}])
    statement = select(Box.id).where(Box.plan == "tin")
    assert found(mail, statement) == [(11,), (2,)]
    assert found(mail, select(Box.id).where(Box.plan == "lead")) == [(1,), (3,)]


REFUSED: dict[str, Callable[[], Any]] = {
    "LIKE": lambda: select(Box.id).where(Box.address.like("a%")),
    "<": lambda: select(Box.id).where(Box.since < date(2026, 1, 1)),
    "ORDER BY": lambda: select(Box.id).order_by(Box.plan),
    "lower()": lambda: select(func.lower(Box.address)),
    "max()": lambda: select(func.max(Box.since)),
    "another field": lambda: select(Box.id).where(Box.address == Box.plan),
    "a column in the clear": lambda: select(Box.id).where(Box.address == Box.shop),
    "what is not deterministic": lambda: select(Box.id).where(Box.address == Box.note),
    "in another field": lambda: select(Box.id).where(Box.address.in_(select(Letter.plan))),
    "GROUP BY of what is not": lambda: select(func.count()).group_by(Box.note),
}


@pytest.mark.parametrize("question", REFUSED)
def test_what_ciphertexts_cannot_answer_is_refused(mail: World, question: str) -> None:
    """Before a statement is sent."""
    with mail.statements() as sent, pytest.raises(errors.UnsupportedQuery):
        found(mail, REFUSED[question]())
    assert sent == []


@pytest.mark.parametrize("option", [{"padding": 32}, {"storage": "text"}], ids=["padding", "storage"])
def test_columns_whose_cells_look_different_are_not_compared(
    sqlite_url: str, make_vault: MakeVault, option: dict[str, Any]
) -> None:
    """The same value has another ciphertext there: a join would find nothing."""

    class Own(DeclarativeBase):
        pass

    class One(Own):
        __tablename__ = "ones"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str]
        plan: Mapped[str] = mapped_column(Encrypted(String(20), deterministic=True, field="plan"))
        same: Mapped[str] = mapped_column(Encrypted(String(90), deterministic=True, field="plan"))
        other: Mapped[str] = mapped_column(Encrypted(String(20), deterministic=True, field="plan", **option))

    engine = create_engine(sqlite_url)
    world = world_of(Own, engine, make_vault())
    world.save(One(id=1, shop="acme", plan="gold", same="gold", other="gold"))
    acme = select(One.id).where(One.shop == "acme")
    assert found(world, acme.where(One.plan == One.same)) == [(1,)]
    conditions: list[Callable[[], Any]] = [
        lambda: One.plan == One.other,
        lambda: One.other.in_(select(One.plan)),
    ]
    for condition in conditions:
        with pytest.raises(errors.UnsupportedQuery, match="plan is encrypted"):
            found(world, acme.where(condition()))
    engine.dispose()


def test_a_moved_value_is_refused(mail: World) -> None:
    """It is authenticated like any other: for its tenant and field."""
    mail.swap("boxes", "plan", "id = 1", "id = 4")
    with mail.session() as session, pytest.raises(errors.TenantMismatch):
        session.get_one(Box, 1)


def test_within_a_subjects_scope_it_is_refused(mail: World) -> None:
    """No subject's shred would reach it."""

    class Own(DeclarativeBase):
        pass

    class Note(Own):
        __tablename__ = "own_notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(Encrypted(String(20), deterministic=True))

    Own.metadata.create_all(mail.engine)
    protect(Own, mail.vault)
    with (
        mail.vault.scope(tenant="acme", subject="ada"),
        pytest.raises(errors.UnsupportedQuery, match="shred"),
    ):
        mail.save(Note(id=1, text="x"))
    with mail.vault.scope(tenant="acme"):
        mail.save(Note(id=1, text="x"))
        assert mail.read(select(Note.text).where(Note.text == "x")) == [("x",)]


@pytest.mark.parametrize(
    ("type_", "options", "message"),
    [
        (Numeric(10, 2), {}, "several encodings"),
        (JSON(), {}, "several encodings"),
        (DateTime(timezone=True), {}, "several encodings"),
        (String(9), {"suite": "AES-256-GCM"}, "is the suite AES-256-SIV"),
        (String(9), {"bind_row": True}, "bind_row"),
    ],
)
def test_what_would_part_equal_values_is_refused(type_: Any, options: dict[str, Any], message: str) -> None:
    """When the column is declared."""
    with pytest.raises(errors.ConfigurationError, match=message):
        Encrypted(type_, deterministic=True, **options)


def test_a_model_with_subjects_is_refused(make_vault: MakeVault) -> None:
    """And a deterministic column as a key, which a rotation would have to change."""

    class Own(DeclarativeBase):
        pass

    class Patient(Own):
        __tablename__ = "patients"
        __vault__ = KeyScope(tenant="clinic", subject="id")
        id: Mapped[str] = mapped_column(primary_key=True)
        clinic: Mapped[str]
        illness: Mapped[str] = mapped_column(Encrypted(String(20), deterministic=True))

    assert repr(Patient.__table__.c.illness.type) == "Encrypted(String(length=20), deterministic=True)"
    with pytest.raises(errors.ConfigurationError, match="BlindIndex instead"):
        protect(Own, make_vault())
    with pytest.raises(errors.ConfigurationError, match="is a key"):

        class Key(Own):
            __tablename__ = "keys"
            id: Mapped[str] = mapped_column(Encrypted(String(20), deterministic=True), primary_key=True)

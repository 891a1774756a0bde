"""``bind_row=True``: a value opens in its own row only, whichever door it was written and is read by."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, UniqueConstraint, create_engine, delete, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, defer, mapped_column, relationship, selectinload

from fieldvault import KeyScope, errors
from fieldvault.sqlalchemy import Encrypted, protect
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World


class Bank(DeclarativeBase):
    pass


class Account(Bank):
    """Bound by a key that Python makes."""

    __tablename__ = "accounts"
    __vault__ = KeyScope(tenant="bank")
    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "plain"}  # noqa: RUF012 - as SQLAlchemy has it
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    bank: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20), default="plain")
    iban: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))
    note: Mapped[str | None] = mapped_column(Encrypted(String(40)))
    transfers: Mapped[list["Transfer"]] = relationship(back_populates="account")


class Savings(Account):
    """Joined: bound by the key of its own table, which is the parent's."""

    __tablename__ = "savings"
    __mapper_args__: Any = {"polymorphic_identity": "savings"}  # noqa: RUF012 - as SQLAlchemy has it
    id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    goal: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))
    rank: Mapped[int] = mapped_column(default=0)


class Transfer(Bank):
    """Bound by a key of two parts."""

    __tablename__ = "transfers"
    __vault__ = KeyScope(tenant="bank")
    __table_args__ = (UniqueConstraint("reference"),)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    bank: Mapped[str] = mapped_column(String(20))
    reference: Mapped[str | None] = mapped_column(String(20))
    payee: Mapped[str | None] = mapped_column(Encrypted(String(40), storage="text", bind_row=True))
    account_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("accounts.id"))
    account: Mapped[Account | None] = relationship(back_populates="transfers")


class Counted(Bank):
    """Bound by a key that the database would make."""

    __tablename__ = "counted"
    __vault__ = KeyScope(tenant="bank")
    id: Mapped[int] = mapped_column(primary_key=True)
    bank: Mapped[str] = mapped_column(String(20))
    iban: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))


TRANSFERS: Any = Transfer.__table__
ACCOUNTS: Any = Account.__table__
LI, WU = uuid.UUID(int=1), uuid.UUID(int=2)


@pytest.fixture
def bank(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield the bank on each database in turn."""
    engine = create_engine(database_url)
    yield world_of(Bank, engine, make_vault())
    engine.dispose()


def _transfer(number: int, **changes: Any) -> dict[str, Any]:
    return {"day": "2026-11-01", "number": number, "bank": "acme", "payee": f"payee {number}", **changes}


def _flush(bank: World) -> None:
    bank.save(*(Transfer(**_transfer(number)) for number in (1, 2)))


def _flush_update(bank: World) -> None:
    bank.save(*(Transfer(**_transfer(number, payee="former")) for number in (1, 2)))
    with bank.session() as session:
        for each in session.scalars(select(Transfer)):
            each.payee = f"payee {each.number}"
        session.commit()


def _moved(bank: World) -> None:
    bank.save(*(Transfer(**_transfer(number, day="2025-01-01")) for number in (1, 2)))
    with bank.session() as session:
        for each in session.scalars(select(Transfer)):
            each.day = "2026-11-01"
        session.commit()


def _merge(bank: World) -> None:
    _flush_update(bank)
    with bank.session() as session:
        for number in (1, 2):
            session.merge(Transfer(**_transfer(number)))
        session.commit()


def _bulk(bank: World) -> None:
    with bank.session() as session:
        session.execute(insert(Transfer), [_transfer(1), _transfer(2)])
        session.commit()


def _bulk_update(bank: World) -> None:
    bank.save(*(Transfer(**_transfer(number, payee="former")) for number in (1, 2)))
    with bank.session() as session:
        session.execute(update(Transfer), [_transfer(1), _transfer(2)])
        session.commit()


def _returning(bank: World) -> None:
    if not bank.engine.dialect.insert_returning:
        _bulk(bank)
        return
    with bank.session() as session:
        made = session.scalars(insert(Transfer).returning(Transfer), [_transfer(1), _transfer(2)]).all()
        assert sorted(str(each.payee) for each in made) == ["payee 1", "payee 2"]
        session.commit()


def _core(bank: World) -> None:
    bank.execute(insert(TRANSFERS), [_transfer(1), _transfer(2)])


def _core_values(bank: World) -> None:
    for number in (1, 2):
        bank.execute(insert(TRANSFERS).values(_transfer(number)))


DOORS: dict[str, Callable[[World], None]] = {
    "flush": _flush,
    "flush of a change": _flush_update,
    "a row that gets another key": _moved,
    "merge": _merge,
    "bulk insert": _bulk,
    "bulk update by primary key": _bulk_update,
    "insert returning": _returning,
    "Core executemany": _core,
    "Core values": _core_values,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_that_writes_binds_to_the_row(bank: World, door: str) -> None:
    """What it wrote is read back, and refused in another row."""
    DOORS[door](bank)
    with bank.session() as session:
        assert [each.payee for each in session.scalars(select(Transfer).order_by(Transfer.number))] == [
            "payee 1",
            "payee 2",
        ]
    bank.swap("transfers", "payee", "number = 1", "number = 2")
    with bank.session() as session, pytest.raises(errors.DecryptionError):
        session.scalars(select(Transfer)).all()


def _save_two(bank: World) -> None:
    bank.save(
        Account(id=LI, bank="acme", iban="DE01", note="first"),
        Savings(id=WU, bank="acme", iban="DE02", note="second", goal="a boat"),
        *(Transfer(**_transfer(number, account_id=LI)) for number in (1, 2)),
    )


def _asked_later(bank: World) -> list[Any]:
    with bank.session() as session:
        accounts = session.scalars(select(Account).options(defer(Account.iban)).order_by(Account.id)).all()
        return [each.iban for each in accounts]


def _expired(bank: World) -> list[Any]:
    with bank.session() as session:
        accounts = session.scalars(select(Account).order_by(Account.id)).all()
        session.expire_all()
        return [each.iban for each in accounts]


def _refreshed(bank: World) -> list[Any]:
    with bank.session() as session:
        accounts = session.scalars(select(Account).order_by(Account.id)).all()
        for each in accounts:
            session.refresh(each, ["iban"])
        return [each.iban for each in accounts]


def _of_an_alias(bank: World) -> list[Any]:
    other = aliased(Account)
    with bank.session() as session:
        return list(session.scalars(select(other.iban, other.id).order_by(other.id)))


def _of_a_subquery(bank: World) -> list[Any]:
    inner = select(Account.id, Account.iban, Account.bank).subquery()
    with bank.session() as session:
        return [each.iban for each in session.execute(select(inner).order_by(inner.c.id))]


def _of_core(bank: World) -> list[Any]:
    with bank.engine.connect() as connection:
        return [each.iban for each in connection.execute(select(ACCOUNTS).order_by(ACCOUNTS.c.id))]


READERS: dict[str, Callable[[World], list[Any]]] = {
    "deferred": _asked_later,
    "expired": _expired,
    "refreshed": _refreshed,
    "alias": _of_an_alias,
    "subquery": _of_a_subquery,
    "Core": _of_core,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_door_that_reads_asks_for_the_row(bank: World, reader: str) -> None:
    """A swapped value is refused there too; one that is not bound is still read."""
    _save_two(bank)
    with bank.vault.scope(tenant="acme"):
        assert READERS[reader](bank) == ["DE01", "DE02"]
        bank.swap("accounts", "iban", "kind = 'plain'", "kind = 'savings'")
        with pytest.raises(errors.DecryptionError):
            READERS[reader](bank)


def test_without_it_a_value_may_be_copied_within_tenant_and_column(bank: World) -> None:
    """That is what the option is for."""
    _save_two(bank)
    bank.swap("accounts", "note", "kind = 'plain'", "kind = 'savings'")
    with bank.session() as session:
        assert [each.note for each in session.scalars(select(Account).order_by(Account.id))] == [
            "second",
            "first",
        ]


def test_a_joined_table_and_a_relationship_know_their_rows(bank: World) -> None:
    """The child's table has the parent's key; related rows have their own."""
    _save_two(bank)
    with bank.session() as session:
        session.execute(
            insert(Savings),
            [{"id": uuid.UUID(int=3), "bank": "acme", "iban": "DE03", "goal": "a car", "rank": 1}],
        )
        session.commit()
        savings = session.scalars(select(Savings).order_by(Savings.id)).all()
        assert [(each.iban, each.goal) for each in savings] == [("DE02", "a boat"), ("DE03", "a car")]
        li = session.scalars(select(Account).where(Account.id == LI).options(selectinload(Account.transfers)))
        assert sorted(str(each.payee) for each in li.one().transfers) == ["payee 1", "payee 2"]
        lost = session.execute(
            select(Account, Transfer).outerjoin(Transfer, Transfer.account_id == Account.id)
            .where(Account.id == WU)
        ).one()  # fmt: skip
        assert lost._mapping["Transfer"] is None
    bank.swap("savings", "goal", "rank = 0", "rank = 1")
    with bank.session() as session, pytest.raises(errors.DecryptionError):
        session.scalars(select(Savings)).all()


def test_what_leaves_the_row_open_is_refused(bank: World) -> None:
    """Before anything is sent or shown, with the way out; the rows are as they were."""
    _save_two(bank)
    with bank.vault.scope(tenant="acme"):
        refused: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("say in which row", lambda: bank.execute(update(TRANSFERS).values(payee="x"))),
            ("say in which row", lambda: bank.save(Counted(bank="acme", iban="DE09"))),
            ("sets day", lambda: bank.execute(update(TRANSFERS).values(day="2027-01-01"))),
            ("select that too", lambda: bank.read(select(Account.iban))),
            ("select that too", lambda: bank.read(select(Transfer.day, Transfer.payee))),
        )
        for message, do in refused:
            with pytest.raises(errors.UnsupportedQuery, match=message):
                do()
    with bank.session() as session:
        assert {each.payee for each in session.scalars(select(Transfer))} == {"payee 1", "payee 2"}
    bank.save(Counted(id=7, bank="acme", iban="DE09"))
    with bank.session() as session:
        assert session.get_one(Counted, 7).iban == "DE09"
        session.execute(delete(Counted))
        session.commit()


def test_a_key_that_cannot_name_a_row_is_refused(make_vault: MakeVault) -> None:
    """When the models are joined to a vault."""

    class Own(DeclarativeBase):
        pass

    class Reading(Own):
        __tablename__ = "readings"
        at: Mapped[float] = mapped_column(primary_key=True)
        value: Mapped[str] = mapped_column(Encrypted(String, bind_row=True))

    assert repr(Reading.__table__.c.value.type) == "Encrypted(String(), bind_row=True)"
    with pytest.raises(errors.ConfigurationError, match=r"readings\.value binds values to their rows.*at is"):
        protect(Own, make_vault())

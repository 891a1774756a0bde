"""Blind indexes: filled by whatever writes, asked by ``==``, ``!=`` and ``in_``."""

import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    String,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    literal,
    not_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from fieldvault import Vault, errors
from fieldvault.keys.records import KeySlot, Purpose
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import BlindIndex, Encrypted, NotUnique, protect
from fieldvault.sqlalchemy.matching import Match
from fieldvault.testing.fakes import FaultyKMS
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.members import MEMBERS, Club, Member
from tests.sqlalchemy.world import World

ADA = {
    "email": "Ada@Example.com",
    "mobile": "+86 138-0000-1234",
    "name": "Ada Lovelace",
    "birthday": date(1815, 12, 10),
}
TOKENS = ("email_index", "phone_index", "phone_end", "who_index")


def _row(id_: str, club: str = "acme", **changes: Any) -> dict[str, Any]:
    return {"id": id_, "club": club, **ADA, **changes}


def _core(row: dict[str, Any]) -> dict[str, Any]:
    return {("phone" if key == "mobile" else key): value for key, value in row.items()}


@pytest.fixture
def club(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield the club on each database in turn."""
    engine = create_engine(database_url)
    yield world_of(Club, engine, make_vault())
    engine.dispose()


def tokens(club: World, id_: str) -> dict[str, bytes | None]:
    """Return the stored tokens of a row."""
    row = club.raw(f"SELECT {', '.join(TOKENS)} FROM members WHERE id = '{id_}'")[0]
    return {name: None if cell is None else bytes(cell) for name, cell in zip(TOKENS, row, strict=True)}


def found(club: World, *criteria: Any, tenant: str = "acme") -> list[str]:
    """Return the ids of the rows that a query finds in a tenant's scope."""
    with club.vault.scope(tenant=tenant), club.session() as session:
        return sorted(session.scalars(select(Member.id).where(*criteria)))


def _flush(club: World) -> None:
    club.save(Member(**_row("1")))


def _flush_later(club: World) -> None:
    with club.session() as session:
        member = Member(id="1", club="acme")
        session.add(member)
        session.flush()
        for name, value in ADA.items():
            setattr(member, name, value)
        session.commit()


def _merge(club: World) -> None:
    with club.session() as session:
        session.merge(Member(**_row("1")))
        session.commit()


def _bulk(club: World) -> None:
    with club.session() as session:
        session.execute(insert(Member), [_row("1"), _row("2", "globex")])
        session.commit()


def _bulk_returning(club: World) -> None:
    with club.session() as session:
        session.scalars(insert(Member).returning(Member.id), [_row("1"), _row("2", "globex")]).all()
        session.commit()


def _core_many(club: World) -> None:
    club.execute(insert(MEMBERS), [_core(_row("1")), _core(_row("2", "globex"))])


def _core_values(club: World) -> None:
    club.execute(insert(MEMBERS).values(_core(_row("1"))))


def _orm_update(club: World) -> None:
    club.save(Member(id="1", club="acme"))
    with club.vault.scope(tenant="acme", subject="1"), club.session() as session:
        session.execute(update(Member).where(Member.id == "1").values(ADA))
        session.commit()


def _core_update(club: World) -> None:
    club.save(Member(id="1", club="acme"))
    with club.vault.scope(tenant="acme", subject="1"):
        club.execute(update(MEMBERS).where(MEMBERS.c.id == "1"), _core(dict(ADA)))


def _bulk_update(club: World) -> None:
    club.save(Member(id="1", club="acme"))
    with club.session() as session:
        session.execute(update(Member), [_row("1")])
        session.commit()


def _moved(club: World) -> None:
    club.save(Member(**_row("1", "globex")))
    with club.session() as session:
        session.get_one(Member, "1").club = "acme"
        session.commit()


DOORS: Mapping[str, Callable[[World], None]] = {
    "flush": _flush,
    "flush of changes": _flush_later,
    "merge": _merge,
    "bulk insert": _bulk,
    "bulk insert returning": _bulk_returning,
    "Core insert of many": _core_many,
    "Core insert of values": _core_values,
    "ORM update": _orm_update,
    "Core update": _core_update,
    "bulk update by primary key": _bulk_update,
    "a row that moves to another tenant": _moved,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_fills_the_indexes(club: World, door: str) -> None:
    """With the tokens of the row's own tenant, whatever the door."""
    DOORS[door](club)
    keys = club.vault.ring.index_keys("acme")
    stored = tokens(club, "1")
    assert None not in stored.values()
    assert len(set(stored.values())) == len(TOKENS)
    club.save(Member(**_row("9", email="other@example.com")))
    again = tokens(club, "9")
    assert {name for name in TOKENS if again[name] == stored[name]} == set(TOKENS) - {"email_index"}
    assert found(club, Member.email == "ada@EXAMPLE.com") == ["1"]
    assert found(club, Member.mobile == "0138 0000 1234") == ["1", "9"]
    assert len(keys.usable) == 1


def test_null_has_no_token_and_a_value_that_goes_takes_its_token_with_it(club: World) -> None:
    """The compound index needs all of its parts."""
    club.save(Member(**_row("1", name=None, email=None)))
    assert {name for name, token in tokens(club, "1").items() if token is None} == {
        "email_index",
        "who_index",
    }
    with club.session() as session:
        member = session.get_one(Member, "1")
        member.mobile, member.name = None, "Ada Lovelace"
        session.commit()
    assert {name for name, token in tokens(club, "1").items() if token is None} == {
        "email_index",
        "phone_index",
        "phone_end",
    }


def test_a_part_of_a_compound_index_that_changes_brings_the_others_along(club: World) -> None:
    """They are loaded for it; a statement that knows only a part is refused."""
    club.save(Member(**_row("1")), Member(**_row("2", email=None, name="Augusta Ada King")))
    with club.session() as session:
        session.get_one(Member, "1").name = "Augusta ADA King"
        session.commit()
    assert tokens(club, "1")["who_index"] == tokens(club, "2")["who_index"]
    with (
        club.vault.scope(tenant="acme", subject="1"),
        pytest.raises(errors.UnsupportedQuery, match="who_index"),
    ):
        club.execute(update(MEMBERS).where(MEMBERS.c.id == "1").values(name="Ada"))


def test_tokens_are_of_one_tenant_and_one_index(club: World) -> None:
    """Two tenants' equal values cannot be seen to be equal."""
    club.save(Member(**_row("1")), Member(**_row("2", "globex")))
    mine, theirs = tokens(club, "1"), tokens(club, "2")
    assert set(mine.values()).isdisjoint(theirs.values())
    assert found(club, Member.email == "ada@example.com") == ["1"]
    assert found(club, Member.email == "ada@example.com", tenant="globex") == ["2"]


QUERIES: Mapping[str, tuple[Callable[[], Any], list[str]]] = {
    "==": (lambda: Member.email == "B@example.com", ["2"]),
    "== unknown": (lambda: Member.email == "nobody@example.com", []),
    "== a literal": (lambda: Member.email == literal("b@example.com"), ["2"]),
    "!=": (lambda: Member.email != "b@example.com", ["1", "3"]),
    "in_": (lambda: Member.email.in_(["b@example.com", "A@example.com", None]), ["1", "2"]),
    "in_ nothing": (lambda: Member.email.in_([]), []),
    "not_in": (lambda: Member.email.not_in(["b@example.com", "a@example.com"]), ["3"]),
    "~": (lambda: ~(Member.email == "b@example.com"), ["1", "3"]),
    "or": (lambda: (Member.email == "b@example.com") | (Member.rank == 3), ["2", "3"]),
    "is null": (lambda: Member.email.is_(None), ["4"]),
    "Core": (lambda: MEMBERS.c.email == "b@example.com", ["2"]),
    "another class for the value": (lambda: Member.email == _Text("b@example.com"), ["2"]),
}


class _Text(str):
    __slots__ = ()


def _three(club: World) -> None:
    club.save(
        *(
            Member(**_row(str(rank), email=f"{name}@example.com", rank=rank))
            for rank, name in enumerate("abc", 1)
        ),
        Member(**_row("4", email=None)),
    )


@pytest.mark.parametrize("query", QUERIES)
def test_equality_is_asked_of_the_index(club: World, query: str) -> None:
    """As SQL has it: NULL is neither equal nor different."""
    _three(club)
    ask, expected = QUERIES[query]
    assert found(club, ask()) == expected


def test_aliases_joins_and_subqueries_have_their_own_index_columns(club: World) -> None:
    """The index is that of the table, or the alias of it, that the column is of."""
    _three(club)
    other = aliased(Member)
    with club.vault.scope(tenant="acme"), club.session() as session:
        pairs = select(Member.id, other.id).join(other, other.rank == Member.rank + 1)
        assert session.execute(pairs.where(other.email == "b@example.com")).all() == [("1", "2")]
        inner = select(MEMBERS.c.id, MEMBERS.c.email, MEMBERS.c.email_index).subquery()
        assert session.scalars(select(inner.c.id).where(inner.c.email == "c@example.com")).all() == ["3"]
        without = select(MEMBERS.c.id, MEMBERS.c.email).subquery()
        with pytest.raises(errors.UnsupportedQuery):
            _ = without.c.email == "c@example.com"
        assert session.query(Member).filter_by(email="c@example.com").one().rank == 3
        assert session.scalar(select(func.count()).where(Member.email == "c@example.com")) == 1


def test_one_cached_statement_asks_for_other_values_and_other_tenants(club: World) -> None:
    """The tokens are made when it is executed."""
    _three(club)
    club.save(Member(**_row("5", "globex", email="b@example.com")))
    with club.statements() as sent:
        answers = [
            found(club, Member.email == f"{name}@example.com", tenant=tenant)
            for tenant in ("acme", "globex")
            for name in "abc"
        ]
    assert answers == [["1"], ["2"], ["3"], [], ["5"], []]
    assert len(set(sent)) == 1
    query = select(Member.id).where(Member.email == "b@example.com")
    for tenant, expected in (("acme", ["2"]), ("globex", ["5"])):
        with club.vault.scope(tenant=tenant), club.session() as session:
            assert session.scalars(query).all() == expected


def test_a_search_wants_to_know_whose(club: World) -> None:
    """Tokens are made under a tenant's key."""
    with club.session() as session, pytest.raises(errors.ScopeRequired):
        session.scalars(select(Member).where(Member.email == "a@example.com")).all()


def test_updates_and_deletes_find_their_rows(club: World) -> None:
    """Also those that the session has loaded."""
    _three(club)
    with club.vault.scope(tenant="acme"), club.session() as session:
        members = {member.id: member for member in session.scalars(select(Member))}
        session.execute(update(Member).where(Member.email == "b@example.com").values(rank=20))
        assert [members[each].rank for each in "1234"] == [1, 20, 3, 0]
        session.execute(delete(Member).where(Member.email != "b@example.com"))
        session.commit()
        assert session.scalars(select(Member.id).order_by(Member.id)).all() == ["2", "4"]


def test_what_is_not_a_value_is_looked_for_in_one_tenant(club: World) -> None:
    """Other tenants' tokens are never those of the scope's, whatever they are of."""
    club.save(*(Member(**_row(id_, shop)) for id_, shop in (("1", "acme"), ("2", "globex"))))
    club.save(Member(**_row("3", email="b@example.com")))
    other, members = aliased(Member), MEMBERS.alias()
    for condition in (
        Member.email != "b@example.com",
        Member.email.not_in(["b@example.com", "c@example.com"]),
        not_(Member.email == "b@example.com"),
        Member.who_index != ("Bob", date(1815, 12, 10)),
    ):
        assert {"1"} <= set(found(club, condition)) <= {"1", "3"}, condition
    with club.vault.scope(tenant="acme"), club.session() as session:
        assert session.scalars(select(other.id).where(other.email != "b@example.com")).all() == ["1"]
        one = select(members.c.id).where(members.c.email != "b@example.com")
        assert session.scalars(one).all() == ["1"]
        session.execute(delete(Member).where(Member.email != "b@example.com"))
        session.commit()
    assert sorted(club.raw("SELECT id FROM members")) == [("2",), ("3",)]


def test_a_data_key_rotates_without_the_index_and_both_index_keys_are_searched(club: World) -> None:
    """What is written before every process knows of the new one is written under the former."""
    _three(club)
    before = tokens(club, "1")
    club.vault.rotate("acme")
    assert found(club, Member.email == "a@example.com") == ["1"]
    club.vault.ring.rotate(KeySlot("acme", None, Purpose.INDEX))
    club.save(Member(**_row("7", email="new@example.com")))
    assert tokens(club, "7")["phone_index"] == before["phone_index"]
    assert found(club, Member.email.in_(["a@example.com", "new@example.com"])) == ["1", "7"]
    assert found(club, Member.mobile != "13800001234") == []


def test_a_unique_constraint_on_the_index_keeps_values_unique(club: World) -> None:
    """Within a tenant; another tenant may have the same value."""
    club.save(Member(**_row("1")))
    club.save(Member(**_row("2", "globex")))
    writes: tuple[Callable[[], None], ...] = (
        lambda: club.save(Member(**_row("3", email="ADA@example.com"))),
        lambda: club.execute(insert(MEMBERS), [_core(_row("3")), _core(_row("4"))]),
    )
    for write in writes:
        with pytest.raises(NotUnique, match=r"members\.email: a row of the tenant has this value") as caught:
            write()
        assert isinstance(caught.value, IntegrityError)
        assert caught.value.fields == ("members.email",)
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made in this very line
        assert "members.email" in str(again)
        for shown in (str(caught.value), repr(caught.value), str(again)):
            assert "ada@" not in shown.lower()
    with pytest.raises(IntegrityError, match=r"(?i)id|primary") as other:
        club.save(Member(id="1", club="acme"))
    assert not isinstance(other.value, NotUnique)


def test_of_many_that_write_one_value_at_once_one_succeeds(club: World) -> None:
    """The database decides; nobody looks first and writes later."""
    club.save(Member(**_row("0", email="first@example.com")))

    def sign_up(number: int) -> bool:
        try:
            club.save(Member(**_row(str(number), email="new@example.com")))
        except (NotUnique, OperationalError):
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(sign_up, range(1, 17))) == 1
    assert len(found(club, Member.email == "new@example.com")) == 1


def test_nobody_else_writes_the_index(club: World) -> None:
    """A token that a loaded object carries along is made anew, one without its value is refused."""
    club.save(Member(**_row("1")))
    with club.session() as session:
        member = session.get_one(Member, "1")
        right = member.email_index
        session.expunge(member)
        member.email_index = b"forged"
        member.email = "Ada@example.com"
        session.merge(member)
        session.commit()
    assert tokens(club, "1")["email_index"] == right
    with pytest.raises(errors.UnsupportedQuery, match="filled from the columns"):
        club.execute(insert(MEMBERS).values(id="2", club="acme", email_index=b"forged"))


def test_text_that_would_leave_the_index_as_it_is_is_refused(club: World) -> None:
    """It names a parameter and no column, so nobody knows which index goes with it."""
    club.save(Member(**_row("1")))
    statement = text("UPDATE members SET email = :email").bindparams(
        bindparam("email", type_=MEMBERS.c.email.type)
    )
    with club.vault.scope(tenant="acme"), pytest.raises(errors.UnsupportedQuery, match="blind index"):
        club.execute(statement, {"email": "bob@example.com"})
    assert found(club, Member.email == ADA["email"]) == ["1"]


def test_a_query_shows_nothing_of_what_it_looks_for(club: World) -> None:
    """Neither as text nor pickled, nor in the error of a value that the column does not take."""
    criterion = Member.email == "very-secret@example.com"
    for shown in (str(criterion), repr(criterion), repr(criterion.right), str(criterion.compile())):
        assert "secret" not in shown
    with club.vault.scope(tenant="acme"), pytest.raises(errors.UnsupportedQuery, match="never written"):
        criterion.compile(compile_kwargs={"literal_binds": True})
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(criterion.right.callable)
    with pytest.raises(errors.UnsupportedValue, match=r"members\.email.*takes no list") as caught:
        found(club, Member.email == ["secret"])
    assert "secret" not in str(caught.value)


def test_what_an_index_cannot_answer_is_refused(club: World) -> None:
    """A parameter that gets its value later, a partial index, other operators."""
    del club
    asked: tuple[Callable[[], Any], ...] = (
        lambda: Member.email == bindparam("email"),
        lambda: Member.email.in_(bindparam("emails", expanding=True)),
        lambda: Member.name == "Ada",
        lambda: Member.email.like("a%"),
        lambda: Member.email > "a",
    )
    for ask in asked:
        with pytest.raises(errors.UnsupportedQuery):
            ask()


def test_a_refusal_names_an_index_of_several_columns(club: World) -> None:
    """What could have been asked; and nothing where there is no such index."""
    del club
    with pytest.raises(
        errors.UnsupportedQuery,
        match=r"; members\.who_index indexes it together with members\.birthday: compare that with a tuple",
    ):
        _ = Member.name == "Ada"
    with pytest.raises(errors.UnsupportedQuery, match=r"==, != and in_$"):
        _ = Member.email == bindparam("email")


def test_a_value_from_outside_a_lambda_is_refused(club: World) -> None:
    """SQLAlchemy keeps such a statement with the first value that it saw; one that stands in it is right."""
    club.save(Member(**_row("1")))
    address = "ada@example.com"
    for ask in (lambda: MEMBERS.c.email == address, lambda: MEMBERS.c.email.in_([address])):
        with club.vault.scope(tenant="acme"), pytest.raises(errors.UnsupportedQuery, match="lambda"):
            club.read(select(MEMBERS.c.id).where(ask))
    with club.vault.scope(tenant="acme"):
        constant = select(MEMBERS.c.id).where(lambda: MEMBERS.c.email == "ada@example.com")
        assert club.read(constant) == [("1",)]


def test_an_index_of_what_is_no_encrypted_column_is_refused(make_vault: MakeVault) -> None:
    """When the models are joined to a vault, by name."""
    assert repr(BlindIndex("email", normalize="casefold", bits=16)) == (
        "BlindIndex('email', normalize='casefold', bits=16)"
    )
    for arguments in ({"bits": 0}, {"normalize": "rot13"}, {"normalize": 5}):
        with pytest.raises(errors.ConfigurationError):
            BlindIndex("email", **arguments)
    with pytest.raises(errors.ConfigurationError):
        BlindIndex(())

    class Own(DeclarativeBase):
        pass

    class Lodger(Own):
        __tablename__ = "lodgers"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(String)
        email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email"))
        name: Mapped[str] = mapped_column(Encrypted(String))

    with pytest.raises(errors.ConfigurationError, match="'email', which is no encrypted column there"):
        protect(Own, make_vault())
    assert Lodger.__tablename__ == "lodgers"


def test_a_function_that_keeps_a_part_says_so(make_vault: MakeVault) -> None:
    """Otherwise == of the column would find what only ends alike."""

    class Own(DeclarativeBase):
        pass

    class Guest(Own):
        __tablename__ = "guests_with_ends"
        id: Mapped[int] = mapped_column(primary_key=True)
        phone: Mapped[str] = mapped_column(Encrypted(String))
        phone_end: Mapped[bytes | None] = mapped_column(BlindIndex("phone", normalize=_end, partial=True))

    protect(Own, make_vault())
    beside = (
        r"; guests_with_ends\.phone_end indexes a part of it: compare that, and what it finds with the whole"
    )
    with pytest.raises(errors.UnsupportedQuery, match=beside):
        _ = Guest.phone == "138-0000-1234"
    with pytest.raises(errors.UnsupportedQuery, match=beside):
        Guest.phone.in_(["138-0000-1234"])
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(errors.UnsupportedQuery, match=beside):
        connection.execute(select(Guest.id).where(func.substr(Guest.phone, -4) == "1234"))
    engine.dispose()
    assert isinstance(Guest.phone_end == "1234", Match)
    assert "partial=True" in repr(Guest.__table__.c.phone_end.type)
    assert "phone_end = " in str(Guest.phone_end == Guest.id)


def _end(value: str) -> str:
    return value[-4:]


def test_index_columns_stand_in_updates_as_others_do(club: World) -> None:
    """SQLAlchemy compares columns with each other when it looks for them."""
    club.save(Member(**_row("1")))
    with club.vault.scope(tenant="acme", subject="1"), club.session() as session:
        member = session.get_one(Member, "1")
        statement = update(Member).where(Member.id == "1").values(email=None, email_index=None)
        session.execute(statement)
        session.commit()
        assert member.email is None
    assert tokens(club, "1")["email_index"] is None


def _upsert(club: World, row: dict[str, Any], columns: tuple[str, ...]) -> None:
    values = {"id": "1", "club": "acme", **row}
    statement: Any
    if club.engine.dialect.name in ("mysql", "mariadb"):
        statement = mysql.insert(MEMBERS).values(values)
        statement = statement.on_duplicate_key_update({name: statement.inserted[name] for name in columns})
    else:
        dialect: Any = {"sqlite": sqlite, "postgresql": postgresql}[club.engine.dialect.name]
        statement = dialect.insert(MEMBERS).values(values)
        chosen = {name: statement.excluded[name] for name in columns}
        statement = statement.on_conflict_do_update(index_elements=["id"], set_=chosen)
    club.execute(statement)


def test_an_upsert_takes_the_index_along(club: World) -> None:
    """Or is refused: the row would be found by what it held before, and not by what it holds."""
    club.save(Member(**_row("1")))
    for columns in (
        ("email",),
        ("email_index",),
        ("name", "who_index"),
        ("name", "birthday"),
    ):
        with pytest.raises(errors.UnsupportedQuery, match="blind index"):
            _upsert(club, {"email": "new@example.com", "name": "New", "birthday": None}, columns)
    assert found(club, Member.email == "ada@example.com") == ["1"]
    _upsert(club, {"email": "new@example.com"}, ("email", "email_index"))
    assert found(club, Member.email == "ada@example.com") == []
    assert found(club, Member.email == "NEW@example.com") == ["1"]
    _upsert(club, {"rank": 7}, ("rank",))
    assert found(club, Member.rank == 7) == ["1"]


def test_a_flush_has_its_index_keys_before_its_first_statement(club: World, root_keys: Path) -> None:
    """Of every tenant among its objects: after it nobody waits for a key under a lock."""
    club.save(*(Member(**_row(f"{name}0", name)) for name in ("acme", "globex")))
    kms = FaultyKMS(LocalKMS(root_keys))
    protect(Club, Vault(kms=kms, key_store=club.store))
    asked: list[tuple[int, int]] = []

    def note(*_: Any) -> None:
        asked.append((sum(club.store.asked.values()), len(kms.calls)))

    with club.session() as session:
        session.get_one(Member, "globex0").email = "b@x.org"
        session.add(Member(**_row("acme1", email="b@x.org")))
        event.listen(club.engine, "before_cursor_execute", note)
        session.flush()
        note()
        event.remove(club.engine, "before_cursor_execute", note)
    assert set(asked) == {asked[0]}
    assert asked[0][1] > 0

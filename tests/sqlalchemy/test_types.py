"""``Encrypted`` itself: arguments, columns, storage, and what stands in place of a shredded value."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Column,
    Computed,
    FetchedValue,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.orm import DeclarativeBase

from fieldvault import errors
from fieldvault.batches import seal_many
from fieldvault.envelope import TEXT_PREFIX, Envelope, from_text
from fieldvault.sqlalchemy import RAISE, Encrypted, protect
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.suites import suite_named
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, SECRET
from tests.sqlalchemy.world import World

SUITES = ["AES-256-GCM", "AES-256-SIV", "XChaCha20-Poly1305", "SM4-GCM"]


def bound(world: World, type_: Encrypted, **options: Any) -> Table:
    """Return a table of its own with one encrypted column, made in the database."""

    class Base(DeclarativeBase):
        pass

    table = Table(
        "things", Base.metadata, Column("id", Integer, primary_key=True), Column("value", type_, **options)
    )
    protect(Base, world.vault)
    table.create(world.engine)
    return table


def field(column: Column[Any]) -> str | None:
    """Return the field of an encrypted column."""
    assert isinstance(column.type, Encrypted)
    return column.type.field


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"storage": "blob"}, 'storage is "binary" or "text"'),
        ({"storage": None}, 'storage is "binary" or "text"'),
        ({"suite": "AES-128-GCM"}, "AES-128-GCM"),
        ({"suite": 1}, "suite"),
        ({"padding": 1}, "padding is None or a block"),
        ({"padding": 0}, "padding is None or a block"),
        ({"padding": 65_537}, "padding is None or a block"),
        ({"padding": 16.0}, "padding is None or a block"),
        ({"padding": True}, "padding is None or a block"),
        ({"field": ""}, "a field is not empty"),
        ({"field": 5}, "a field is a str"),
        ({"field": "a\x00b"}, "a field has no control characters"),
        ({"field": "é" * 128}, "a field has at most 255 bytes"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_work_is_refused_at_once(arguments: dict[str, Any], problem: str) -> None:
    """Before there is a table."""
    with pytest.raises(errors.ConfigurationError, match=problem):
        Encrypted(String, **arguments)


def test_a_type_is_encrypted_once() -> None:
    """Encrypted(Encrypted(…)) is a mistake."""
    with pytest.raises(errors.ConfigurationError, match="once is enough"):
        Encrypted(Encrypted(String))


def test_a_variant_would_be_in_the_clear(world: World) -> None:
    """It belongs to the type within."""
    with pytest.raises(errors.ConfigurationError, match="the same on every database"):
        Encrypted(String).with_variant(String(), "sqlite")
    unsealed = String().with_variant(Encrypted(String), "sqlite")
    table = Table("things", MetaData(), Column("value", unsealed))
    table.create(world.engine)
    with pytest.raises(errors.ConfigurationError, match="the type of a table's column only"):
        world.execute(insert(table), {"value": SECRET})


def test_a_field_name_that_is_too_long_is_refused_with_its_table() -> None:
    """A default name of table and column is checked like any other."""
    with pytest.raises(errors.ConfigurationError, match="a field has at most 255 bytes"):
        Table("t" * 200, MetaData(), Column("c" * 100, Encrypted(String)))


COLUMNS: dict[str, tuple[Callable[[], Column[Any]], str]] = {
    "server_default": (
        lambda: Column("value", Encrypted(String), server_default="x"),
        "the database fills in",
    ),
    "server function": (lambda: Column("value", Encrypted(String), server_default=func.now()), "fills in"),
    "identity": (lambda: Column("value", Encrypted(Integer), Identity()), "fills in"),
    "computed": (lambda: Column("value", Encrypted(String), Computed("id")), "fills in"),
    "function": (lambda: Column("value", Encrypted(String), default=func.now()), "fills in"),
    "literal": (lambda: Column("value", Encrypted(String), default=literal("x")), "fills in"),
    "sequence": (lambda: Column("value", Encrypted(Integer), Sequence("numbers")), "fills in"),
    "server_onupdate": (
        lambda: Column("value", Encrypted(String), server_onupdate=FetchedValue()),
        "fills in",
    ),
    "onupdate": (lambda: Column("value", Encrypted(String), onupdate=lambda: "x"), "has an onupdate"),
    "onupdate function": (lambda: Column("value", Encrypted(String), onupdate=func.now()), "has an onupdate"),
    "primary key": (lambda: Column("value", Encrypted(String), primary_key=True), "is a key"),
    "foreign key": (lambda: Column("value", Encrypted(Integer), ForeignKey("things.id")), "is a key"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_that_the_database_would_fill_or_compare_is_refused(kind: str) -> None:
    """With the table, before there is a database."""
    column, problem = COLUMNS[kind]
    with pytest.raises(errors.ConfigurationError, match=rf"things\.value is encrypted and .*{problem}"):
        Table("things", MetaData(), Column("id", Integer, primary_key=True), column())


def test_it_prints_as_it_was_written_and_shows_no_stand_in() -> None:
    """Migration tools write it into files."""
    written = Encrypted(String(80), field="a.b", suite="SM4-GCM", storage="text", padding=16, erased=SECRET)
    assert repr(written) == (
        "Encrypted(String(length=80), field='a.b', suite='SM4-GCM', storage='text', padding=16)"
    )
    assert (
        repr(Encrypted(String)) == repr(MEMOS.c.body.type).replace("Text", "String") == "Encrypted(String())"
    )
    assert repr(RAISE) == "RAISE"
    assert SECRET not in repr(MEMOS)


def test_it_is_the_python_type_within() -> None:
    """Tools that ask for a column's class get that of its values."""
    assert CUSTOMERS.c.name.type.python_type is str


def test_a_value_on_its_way_is_compared_as_what_it_is() -> None:
    """The unit of work asks the type whether a value changed while a carrier stands in its place."""
    type_ = CUSTOMERS.c.name.type
    carrier = Carrier("x", "acme", None)
    assert type_.compare_values(carrier, "x")
    assert type_.compare_values("x", carrier)
    assert not type_.compare_values(carrier, "y")


# -- storage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["binary", "text"])
def test_every_suite_is_stored_in_both_forms(any_world: World, storage: str) -> None:
    """What is in the database is a ciphertext of the suite that was asked for, and opens."""
    values = ["", SECRET, "x" * 70_000]
    for suite in SUITES:
        table = bound(any_world, Encrypted(String, suite=suite, storage=storage))
        with any_world.vault.scope(tenant="acme"):
            any_world.execute(
                insert(table), [{"id": place, "value": each} for place, each in enumerate(values, 1)]
            )
            assert [row[0] for row in any_world.read(select(table.c.value).order_by(table.c.id))] == values
        for (blob,) in any_world.raw("SELECT value FROM things"):
            assert isinstance(blob, str) == (storage == "text")
            sealed = Envelope.parse(from_text(blob) if storage == "text" else bytes(blob))
            assert sealed.suite == suite_named(suite).number
            assert storage == "binary" or blob.startswith(TEXT_PREFIX)
        table.drop(any_world.engine)


@pytest.mark.parametrize("suite", SUITES)
def test_padded_values_have_few_lengths(world: World, suite: str) -> None:
    """Every stored length is the overhead and a multiple of the block; the values are as they were."""
    table = bound(world, Encrypted(String, suite=suite, padding=32))
    values = ["", "x", "x" * 31, "x" * 32, "x" * 63, "ü" * 16, "x\x00", "x\x80"]
    with world.vault.scope(tenant="acme"):
        world.execute(insert(table), [{"id": place, "value": value} for place, value in enumerate(values)])
        assert [row[0] for row in world.read(select(table.c.value).order_by(table.c.id))] == values
    overhead = 19 + suite_named(suite).nonce_size + 16
    lengths = [len(row[0]) - overhead for row in world.raw("SELECT value FROM things ORDER BY id")]
    assert lengths == [32, 32, 32, 64, 64, 64, 32, 32]


def test_a_value_of_two_mebibytes_fits_into_every_database(any_world: World) -> None:
    """MariaDB's plain BLOB would end at 64 KiB."""
    for storage in ("binary", "text"):
        table = bound(any_world, Encrypted(String, storage=storage))
        value = "0123456789abcdef" * 2**17
        with any_world.vault.scope(tenant="acme"):
            any_world.execute(insert(table), {"value": value})
            assert any_world.read(select(table.c.value)) == [(value,)]
        table.drop(any_world.engine)


@pytest.mark.parametrize(
    ("storage", "stored"),
    [
        ("binary", b"plain"),
        ("binary", "plain"),
        ("binary", 5),
        ("binary", b""),
        ("text", "plain"),
        ("text", "$fv1$"),
        ("text", b"plain"),
        ("text", 5.5),
        ("text", ""),
    ],
    ids=repr,
)
def test_what_is_no_ciphertext_is_refused(world: World, storage: str, stored: object) -> None:
    """Plaintext that somebody left in the column is not taken for a value, and not quoted."""
    table = bound(world, Encrypted(String, storage=storage))
    world.raw_execute("INSERT INTO things (value) VALUES (?)", (stored,))
    with world.vault.scope(tenant="acme"), pytest.raises(errors.MalformedCiphertext) as caught:
        world.read(select(table.c.value))
    assert "plain" not in str(caught.value)


def test_ciphertexts_of_every_suite_and_padding_open_whatever_the_column_says_now(world: World) -> None:
    """Arguments say how to write; reading goes by the ciphertext."""
    table = bound(world, Encrypted(String))
    with world.vault.scope(tenant="acme"):
        for suite in SUITES:
            blob = seal_many(world.vault.ring, suite_named(suite), 16, ["x"], "things.value", ("acme", None))[
                0
            ]
            world.raw_execute("INSERT INTO things (value) VALUES (?)", (blob,))
        assert world.read(select(table.c.value)) == [("x",)] * len(SUITES)


# -- erased ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [None, "li"])
@pytest.mark.parametrize("erased", [None, "[erased]", 0])
def test_a_stand_in_is_read_in_place_of_a_shredded_value(
    world: World, subject: str | None, erased: Any
) -> None:
    """After the shred of a subject, and of a whole tenant; other rows read on."""
    table = bound(world, Encrypted(String, erased=erased))
    with world.vault.scope(tenant="acme", subject="li"):
        world.execute(insert(table), [{"id": 1, "value": SECRET}, {"id": 2, "value": None}])
    with world.vault.scope(tenant="nordwind", subject="ada"):
        world.execute(insert(table), {"id": 3, "value": "y"})
    world.vault.shred("acme", subject, actor="test", reason="asked")
    with world.vault.scope(tenant="acme"):
        assert world.read(select(table.c.value).where(table.c.id < 3)) == [(erased,), (None,)]
        assert world.read(select(table.c.value.is_(None)).where(table.c.id == 1)) == [(False,)]
    with world.vault.scope(tenant="nordwind"):
        assert world.read(select(table.c.value).where(table.c.id == 3)) == [("y",)]


def test_a_reader_can_be_told_by_an_error(world: World) -> None:
    """erased=RAISE raises as the value is read."""
    table = bound(world, Encrypted(String, erased=RAISE))
    with world.vault.scope(tenant="acme"):
        world.execute(insert(table), {"value": SECRET})
        world.vault.shred("acme", actor="test", reason="asked")
        with pytest.raises(errors.KeyShredded):
            world.read(select(table.c.value))


def test_nothing_new_is_written_for_a_shredded_scope(world: World) -> None:
    """Also where the stand-in would be a value."""
    table = bound(world, Encrypted(String, erased="[erased]"))
    with world.vault.scope(tenant="acme"):
        world.execute(insert(table), {"value": SECRET})
        world.vault.shred("acme", actor="test", reason="asked")
        with pytest.raises(errors.KeyShredded, match="was shredded"):
            world.execute(insert(table), {"value": SECRET})


def test_rows_do_not_share_a_stand_in_that_can_be_changed(world: World) -> None:
    """Each reader may write into its own."""
    table = bound(world, Encrypted(JSON, erased={"erased": []}))
    with world.vault.scope(tenant="acme"):
        world.execute(insert(table), [{"value": {}}, {"value": {}}])
        world.vault.shred("acme", actor="test", reason="asked")
        (first,), (second,) = world.read(select(table.c.value))
        first["erased"].append(1)
        assert second == {"erased": []}


# -- copies ----------------------------------------------------------------------------------------------


def test_a_copy_for_another_table_has_that_table_s_field(world: World) -> None:
    """Table.to_metadata binds anew; a pinned field stays."""
    table = bound(world, Encrypted(String))
    pinned = Table("more", table.metadata, Column("value", Encrypted(String, field="people.name")))
    other = MetaData()
    copied, renamed = table.to_metadata(other), table.to_metadata(other, name="archive")
    assert field(copied.c.value) == "things.value"
    assert field(renamed.c.value) == "archive.value"
    assert field(pinned.to_metadata(other, name="elsewhere").c.value) == "people.name"
    with pytest.raises(errors.ConfigurationError, match="no vault yet"):
        world.execute(insert(copied), {"value": SECRET})


def test_a_pickled_table_has_no_vault_in_it(world: World) -> None:
    """A vault does not travel; what is unpickled takes nothing."""
    table = bound(world, Encrypted(String, erased=RAISE))
    pickled = pickle.dumps(table)
    assert b"MemoryKeyStore" not in pickled
    again = pickle.loads(pickled)  # noqa: S301 - made a line above
    with pytest.raises(errors.ConfigurationError, match="no vault yet"):
        world.execute(insert(again), {"value": SECRET})


def test_a_copy_of_the_type_is_no_column_s_type() -> None:
    """copy.copy of an unbound type binds like the original."""
    type_ = copy.copy(Encrypted(String))
    table = Table("things", MetaData(), Column("a", type_), Column("b", type_))
    assert (field(table.c.a), field(table.c.b)) == ("things.a", "things.b")
    assert type_.field is None


def test_a_parameter_of_a_column_s_type_is_not_sent(world: World) -> None:
    """Nothing says for which row it is, or whose."""
    statement = select(literal(SECRET, MEMOS.c.body.type))
    with (
        world.vault.scope(tenant="acme"),
        pytest.raises(errors.UnsupportedQuery, match="which row a value is for"),
    ):
        world.read(statement)


# -- literals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        insert(MEMOS).values(body=SECRET),
        update(MEMOS).values(body=SECRET),
        select(literal(SECRET, MEMOS.c.body.type)),
    ],
    ids=["insert", "update", "select"],
)
def test_no_literal_is_rendered(statement: Any) -> None:
    """Neither in a statement's text nor in the error about it."""
    with pytest.raises(
        errors.UnsupportedQuery, match=r"memos\.body is encrypted and is never written"
    ) as caught:
        statement.compile(compile_kwargs={"literal_binds": True})
    assert SECRET not in str(caught.value)

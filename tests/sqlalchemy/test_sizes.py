"""Sizes that are promised are the sizes that are stored."""

import enum
import re
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql

from fieldvault import Vault, errors
from fieldvault.batches import seal_many
from fieldvault.codecs import MAX_PADDING
from fieldvault.envelope import to_text
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import Encrypted, protect
from fieldvault.sqlalchemy.sizes import stored_size, stored_size_of
from fieldvault.suites import SUITES, suite_named
from tests.sqlalchemy.shop import CUSTOMERS, OTHER_SECRET, SECRET, Customer
from tests.sqlalchemy.world import World

PAGE = Path(__file__).parents[2] / "docs" / "alembic.md"
SUITE_NAMES = [suite.name for suite in SUITES]


class Level(enum.Enum):
    """What a column may hold."""

    LOW = 1
    EXTRA_HIGH = 2


class Shouting(sa.TypeDecorator[str]):
    """An application's own type, which stores more than it is given."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        """Make it longer."""
        return None if value is None else value + "!!!"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
).filter(lambda value: isinstance(value, dict | list))

VALUES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (sa.String(80), st.text()),
    "an enumeration": (sa.Enum(Level), st.sampled_from(Level)),
    "bytes": (sa.LargeBinary(), st.binary(max_size=300)),
    "boolean": (sa.Boolean(), st.booleans()),
    "integer": (sa.Integer(), st.integers()),
    "float": (sa.Float(), st.floats()),
    "decimal": (sa.Numeric(), st.decimals(allow_nan=False) | st.integers()),
    "date": (sa.Date(), st.dates()),
    "time": (sa.Time(), st.times()),
    "date and time": (sa.DateTime(), st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones())),
    "interval": (sa.Interval(), st.timedeltas()),
    "UUID": (sa.Uuid(), st.uuids()),
    "JSON": (sa.JSON(), JSON),
    "a type of the application": (Shouting(), st.text()),
}
PADDINGS = st.none() | st.integers(2, 64) | st.integers(2, MAX_PADDING)
HOW = st.fixed_dictionaries(
    {
        "suite": st.sampled_from(SUITE_NAMES),
        "storage": st.sampled_from(["binary", "text"]),
        "padding": PADDINGS,
    }
)


@pytest.fixture(scope="module")
def vault(root_keys: Path) -> Iterator[Vault]:
    """A vault whose tenant needs no naming."""
    with Vault(kms=LocalKMS(root_keys), key_store=MemoryKeyStore(), default_tenant="acme") as vault:
        yield vault


def cell_of(vault: Vault, type_: Encrypted, value: Any) -> Any:
    """What a column of this type stores for a value, sealed as a flush seals it."""

    class Base(sa.orm.DeclarativeBase):
        pass

    column: sa.Column[Any] = sa.Column("value", type_)
    sa.Table("things", Base.metadata, column)
    protect(Base, vault)
    bound: Any = column.type
    sealer = bound.column_sealer(sa.create_engine("sqlite://").dialect)
    (cell,) = sealer([value], bound.bound.ambient_owner())
    return cell[0]


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data(), how=HOW)
def test_a_value_takes_exactly_the_size_that_is_told(
    vault: Vault, kind: str, data: st.DataObject, how: dict[str, Any]
) -> None:
    """Of each type, under each suite, in both storages, with and without padding."""
    type_, values = VALUES[kind]
    value = data.draw(values)
    column = Encrypted(type_, **how)
    assert stored_size_of(value, column) == len(cell_of(vault, column, value))


@pytest.mark.parametrize("suite", SUITE_NAMES)
@pytest.mark.parametrize("storage", ["binary", "text"])
@given(length=st.integers(0, 400), padding=PADDINGS)
def test_a_length_is_enough_to_know_the_size(
    vault: Vault, suite: str, storage: str, length: int, padding: int | None
) -> None:
    """Whoever plans a column knows lengths, not values."""
    (cell,) = seal_many(vault.ring, suite_named(suite), padding, [bytes(length)], "f", ("acme", None))
    assert cell is not None
    stored = cell if storage == "binary" else to_text(cell)
    assert stored_size(length, suite=suite, storage=storage, padding=padding) == len(stored)


def test_the_databases_count_as_told(any_world: World) -> None:
    """SQLite, PostgreSQL and MariaDB store what was computed, byte for byte."""
    any_world.save(Customer(id="c-1", shop="acme", name=OTHER_SECRET, email=SECRET))
    ((name, email),) = any_world.raw("SELECT LENGTH(name), LENGTH(email) FROM customers")
    types: Any = CUSTOMERS.c
    assert name == stored_size_of(OTHER_SECRET, types.name.type) == stored_size(len(OTHER_SECRET.encode()))
    assert email == stored_size_of(SECRET, types.email.type)


def test_null_takes_nothing() -> None:
    """It is not sealed."""
    assert stored_size_of(None, Encrypted(sa.String, padding=64)) == 0


def test_the_default_suite_takes_47_bytes_more_than_the_value() -> None:
    """Header, nonce and tag of AES-256-GCM."""
    assert stored_size(0) == 47
    assert stored_size(80) == 127
    assert stored_size_of("x", Encrypted(sa.String)) == 48


def test_a_column_without_a_suite_has_the_vaults() -> None:
    """And one with a suite has its own."""
    assert stored_size_of("x", Encrypted(sa.String), suite="AES-256-SIV") == 36
    own = Encrypted(sa.String, suite="XChaCha20-Poly1305")
    assert stored_size_of("x", own, suite="AES-256-SIV") == 60


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"length": -1}, "a length is a number of bytes, not -1"),
        ({"length": 1.0}, "a length is a number of bytes, not 1.0"),
        ({"length": True}, "a length is a number of bytes, not True"),
        ({"length": 1, "suite": "AES-128-GCM"}, "unknown cipher suite 'AES-128-GCM'"),
        ({"length": 1, "storage": "blob"}, 'storage is "binary" or "text", not \'blob\''),
        ({"length": 1, "padding": 1}, "padding is None or a block"),
    ],
    ids=str,
)
def test_what_no_column_could_be_is_refused(arguments: dict[str, Any], problem: str) -> None:
    """As ``Encrypted`` refuses it."""
    with pytest.raises(errors.ConfigurationError, match=re.escape(problem)):
        stored_size(**arguments)


def test_a_value_that_the_column_does_not_take_is_not_named() -> None:
    """Plaintext is in no message."""
    with pytest.raises(errors.UnsupportedValue) as caught:
        stored_size_of(SECRET, Encrypted(sa.Date))
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__context__)


def test_the_table_on_the_page_is_right() -> None:
    """Each figure of docs/alembic.md, by the heads of its row and column."""
    table = re.search(r"^\| UTF-8 bytes \|.*(?:\n\|.*)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert table is not None
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines())
    columns = [re.fullmatch(r"`([\w-]+)`, (binary|text)", each) for each in head[1:]]
    assert {(each[1], each[2]) for each in columns if each} == {
        (suite, storage) for suite in SUITE_NAMES for storage in ("binary", "text")
    }
    told = {int(row[0].replace(",", "")): [int(cell.replace(",", "")) for cell in row[1:]] for row in rows}
    assert len(told) >= 5
    assert told == {
        length: [stored_size(length, suite=each[1], storage=each[2]) for each in columns if each]
        for length in told
    }


@pytest.mark.parametrize("storage", ["binary", "text"])
def test_a_deterministic_value_takes_what_its_own_suite_takes(vault: Vault, storage: str) -> None:
    """Whatever the vault's is; and MariaDB's column has room for the longest."""
    type_ = Encrypted(sa.String(20), deterministic=True, storage=storage, padding=8)
    for value in ("", "Ada", "李" * 20, "\N{GRINNING FACE}" * 20):
        size = stored_size_of(value, type_)
        assert size == len(cell_of(vault, type_, value))
        stored: Any = type_.load_dialect_impl(mysql.dialect()).dialect_impl(mysql.dialect())
        assert size <= stored.length

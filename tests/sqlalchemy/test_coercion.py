"""Encrypted(type) takes and gives what the type itself does."""

import enum
import math
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    TypeDecorator,
    Unicode,
    Uuid,
    insert,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import HSTORE, INET, JSONB
from sqlalchemy.types import NullType, TypeEngine

from fieldvault import errors
from fieldvault.sqlalchemy import Encrypted, protect
from tests.sqlalchemy.shop import SECRET
from tests.sqlalchemy.world import World


class Colour(enum.Enum):
    RED = "r"
    SCARLET = "r"  # noqa: PIE796 - an alias
    BLUE = "b"


class Size(enum.StrEnum):
    S = "L"
    L = "small"


class Reversed(TypeDecorator[str]):
    """An application's own type: text, kept backwards."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> Any:  # noqa: ARG002, D102
        if not isinstance(value, str):
            raise TypeError(f"cannot turn {value!r} around")
        return None if value == "nothing" else value[::-1]

    def process_result_value(self, value: Any, dialect: object) -> Any:  # noqa: ARG002, D102
        return value[::-1]


class Wrapped(TypeDecorator[Colour]):
    """An application's own type over an enumeration."""

    impl = Enum(Colour)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> Any:  # noqa: ARG002, D102
        return value[0]

    def process_result_value(self, value: Any, dialect: object) -> Any:  # noqa: ARG002, D102
        return [value]


class Label(str):
    """Text of a class of its own."""

    __slots__ = ()


ID = uuid.uuid4()
SHANGHAI = ZoneInfo("Asia/Shanghai")
AWARE = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=5, minutes=30)))

# type, values that come back as they went in, (value, what comes back instead), values that are refused
TYPES: list[tuple[TypeEngine[Any], list[Any], list[tuple[Any, Any]], list[Any]]] = [
    (String(5), ["", "longer than five", "李雷 🙂 مرحبا"], [(Label("x"), "x")], [b"x", 1, ["x"]]),
    (Text(), ["", "x" * 100_000], [], [b"x", 1]),
    (Unicode(), ["", "ß"], [], [b"x"]),
    (Boolean(), [True, False], [(1, True), (0, False)], ["yes", 2, 1.0, b""]),
    (Integer(), [0, -1, 2**80, -(2**80)], [(True, 1)], ["1", 1.5, Decimal(1)]),
    (BigInteger(), [2**63 - 1, -(2**63)], [], ["1"]),
    (SmallInteger(), [7], [], ["1"]),
    (Float(), [0.0, -0.0, 1.5, math.inf, -math.inf], [(2, 2.0), (Decimal("0.5"), 0.5)], ["1.5"]),
    (Double(), [1e300], [], ["1.5"]),
    (Float(asdecimal=True), [Decimal("1.10")], [(0.1, Decimal("0.1"))], ["1.5"]),
    (
        Numeric(4, 2),
        [Decimal("1.10"), Decimal("1E+3"), Decimal("-0")],
        [(0.1, Decimal("0.1")), (3, Decimal(3))],
        ["1"],
    ),
    (Numeric(asdecimal=False), [1.25], [(Decimal("1.25"), 1.25)], ["1"]),
    (
        Date(),
        [date.min, date.max],
        [(datetime.combine(date(2024, 2, 29), time(12)), date(2024, 2, 29))],
        ["2024-02-29", 1],
    ),
    (
        DateTime(),
        [
            datetime.combine(date.min, time.min),
            datetime.combine(date.max, time.max.replace(fold=1)),
            AWARE,
            datetime(2024, 1, 1, tzinfo=SHANGHAI),
        ],
        [],
        ["2024-02-29", date(2024, 2, 29), 1],
    ),
    (DateTime(timezone=True), [AWARE, datetime(2024, 1, 1, tzinfo=UTC)], [], [date(2024, 2, 29)]),
    (Time(), [time(), time(23, 59, 59, 999999), time(1, tzinfo=UTC)], [], ["12:00", AWARE]),
    (Interval(), [timedelta(), timedelta(days=-1, microseconds=1)], [], [1, "1"]),
    (Uuid(), [ID], [], [str(ID), ID.int]),
    (Uuid(as_uuid=False), [str(ID)], [], [ID]),
    (
        Enum(Colour),
        [Colour.RED, Colour.BLUE],
        [("RED", Colour.RED), ("SCARLET", Colour.RED), (Colour.SCARLET, Colour.RED)],
        ["r", "GREEN", 1, ["RED"]],
    ),
    # A name comes before an equal value, or members would be taken for each other.
    (Enum(Size), [Size.S, Size.L], [("S", Size.S), ("L", Size.L), ("small", Size.L)], ["M"]),
    (Enum("a", "b", "ü"), ["a", "ü"], [], ["c", "", Colour.RED, 1]),
    (
        JSON(),
        [{}, [], "", "text", 0, 1.5, False, {"a": [None, {"ü": "李"}]}, [[None]]],
        [((1, 2), [1, 2]), (Label("x"), "x")],
        [
            date(2024, 2, 29),
            Decimal(1),
            ID,
            b"x",
            {1: 2},
            {"a": object()},
            {"a": date(2024, 1, 1)},
            {1, 2},
            JSON.NULL,
        ],
    ),
    (JSONB(), [{"a": 1}], [], [b"x"]),
    (
        LargeBinary(),
        [b"", b"\x00\xff" * 100_000],
        [(bytearray(b"x"), b"x"), (memoryview(b"y"), b"y")],
        ["x", 1, [1]],
    ),
    (Reversed(), ["", "abc"], [("nothing", None)], [b"abc", 5]),
    (Wrapped(), [[Colour.RED]], [], [Colour.RED]),
]


@pytest.fixture
def table(world: World, request: pytest.FixtureRequest) -> Iterator[Table]:
    """Yield a table with one encrypted column of the type that the test asks for."""
    from sqlalchemy.orm import DeclarativeBase

    class Base(DeclarativeBase):
        pass

    made = Table(
        "things",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("value", Encrypted(request.param)),
    )
    protect(Base, world.vault)
    made.create(world.engine)
    with world.vault.scope(tenant="acme"):
        yield made


def named(case: Any) -> str:
    """Name a case by its type."""
    return repr(case[0] if isinstance(case, tuple) else case)


@pytest.mark.parametrize(
    ("table", "values"), [(case[0], case[1]) for case in TYPES], indirect=["table"], ids=map(named, TYPES)
)
def test_a_value_comes_back_as_it_was(world: World, table: Table, values: list[Any]) -> None:
    """Equal, and of its class; what is stored is a ciphertext also of the values that are false."""
    world.execute(insert(table), [{"id": place, "value": value} for place, value in enumerate(values)])
    found = [row[0] for row in world.read(select(table.c.value).order_by(table.c.id))]
    assert found == values
    assert list(map(repr, found)) == list(map(repr, values))
    for (blob,) in world.raw("SELECT value FROM things"):
        assert isinstance(blob, bytes)
        assert len(blob) >= 47


def test_no_number_is_a_number_all_the_same(world: World) -> None:
    """NaN, which equals nothing, comes back from Float and Numeric."""
    blob = world.vault.encrypt(math.nan, field="f", tenant="acme")
    assert math.isnan(world.vault.decrypt(blob, field="f", tenant="acme"))


@pytest.mark.parametrize(
    ("table", "pairs"),
    [(case[0], case[2]) for case in TYPES if case[2]],
    indirect=["table"],
    ids=[named(case) for case in TYPES if case[2]],
)
def test_what_the_type_itself_would_convert_is_converted(
    world: World, table: Table, pairs: list[tuple[Any, Any]]
) -> None:
    """As the stock type takes it."""
    for place, (given, expected) in enumerate(pairs):
        world.execute(insert(table), {"id": place, "value": given})
        ((found,),) = world.read(select(table.c.value).where(table.c.id == place))
        assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("table", "values"), [(case[0], case[3]) for case in TYPES], indirect=["table"], ids=map(named, TYPES)
)
def test_a_value_of_another_class_is_refused_by_field_and_class(
    world: World, table: Table, values: list[Any]
) -> None:
    """The message has neither the value nor anything of it, and nothing is written."""
    for value in values:
        with pytest.raises(errors.UnsupportedValue) as caught:
            world.execute(insert(table), {"value": value})
        message = str(caught.value)
        assert message.startswith("things.value")
        assert "class" in message or type(value).__name__ in message
        assert caught.value.__context__ is None
        assert caught.value.__cause__ in (None, caught.value)
    assert world.raw("SELECT * FROM things") == []


@pytest.mark.parametrize("table", [String(), JSON(), Integer()], indirect=True, ids=repr)
def test_none_is_null_and_null_is_none(world: World, table: Table) -> None:
    """NULL stays NULL, for JSON too: a JSON null at the top has no meaning that NULL has not."""
    world.execute(insert(table), [{"id": 1, "value": None}])
    world.execute(insert(table).values(value=null()))
    assert world.raw("SELECT value FROM things") == [(None,), (None,)]
    assert world.read(select(table.c.value)) == [(None,), (None,)]


@pytest.mark.parametrize("table", [Enum(Colour)], indirect=True, ids=repr)
def test_a_member_that_is_gone_is_named_by_its_enumeration_only(world: World, table: Table) -> None:
    """The error of a name that was removed from the enumeration does not quote it."""
    blob = world.vault.encrypt("PINK", field="things.value", tenant="acme")
    world.raw_execute("INSERT INTO things (value) VALUES (?)", (blob,))
    with pytest.raises(errors.UnsupportedValue, match="keep old members") as caught:
        world.read(select(table.c.value))
    assert "PINK" not in str(caught.value)


@pytest.mark.parametrize("table", [String()], indirect=True, ids=repr)
def test_a_lone_surrogate_is_refused_with_the_field_s_name(world: World, table: Table) -> None:
    """No UTF-8 holds it."""
    with pytest.raises(errors.UnsupportedValue, match=r"things\.value: str with a lone surrogate"):
        world.execute(insert(table), {"value": f"{SECRET}\ud800"})


class OverPickle(TypeDecorator[Any]):
    """An application's own type over pickles."""

    impl = PickleType
    cache_ok = True


@pytest.mark.parametrize(
    "type_",
    [PickleType, PickleType(), OverPickle(), ARRAY(Integer), NullType(), HSTORE(), INET(), TypeEngine()],
    ids=repr,
)
def test_a_type_without_an_encoding_is_refused_at_once(type_: Any) -> None:
    """Before there is a table, by its name."""
    with pytest.raises(
        errors.ConfigurationError, match=r"Encrypted\(\w+\): (there is no encoding|pickles run code)"
    ):
        Encrypted(type_)

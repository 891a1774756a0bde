"""Values come back exactly as they went in, and what could not is refused without being shown."""

# Values without a zone are values too.
# ruff: noqa: DTZ001, DTZ901

import json
import math
import struct
import sys
import types
import uuid
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from enum import Enum, EnumType, Flag, IntEnum, IntFlag, StrEnum
from importlib import resources
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.codecs import MAX_PADDING, TEXT, check_padding, decode, encode, pad
from fieldvault.envelope import KINDS, PADDED
from fieldvault.errors import ConfigurationError, FieldVaultError, MalformedCiphertext, UnsupportedValue

SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")
DIGITS = sys.get_int_max_str_digits()


class Colour(Enum):
    """A plain enumeration, with an alias, values that are not text, and a class inside of it."""

    RED = (1, 2)
    CRIMSON = (1, 2)  # noqa: PIE796 - an alias
    青 = None  # noqa: PLC2401


class Size(IntEnum):
    SMALL = 1


class Status(StrEnum):
    PAID = "paid"


class Rights(Flag):
    READ = 1
    WRITE = 2
    BOTH = 3


class Bits(IntFlag):
    ONE = 1


class Outer:
    class Inner(Enum):
        A = "a"


def signature(value: Any) -> object:
    """All that tells two values apart, also where ``==`` does not."""
    parts: object = value
    match value:
        case Enum():
            parts = value.name
        case float():
            parts = struct.pack(">d", value)
        case Decimal():
            parts = value.as_tuple()
        case datetime() | time():
            zone = value.tzinfo
            same = zone.key if isinstance(zone, ZoneInfo) else zone
            parts = repr(value.replace(tzinfo=None)), value.fold, type(zone), same
        case dict():
            parts = [(signature(name), signature(member)) for name, member in value.items()]
        case list():
            parts = [signature(member) for member in value]
    return type(value), parts


def comes_back(value: object) -> bool:
    """Whether a value is the same after a trip, plain and padded to several blocks."""
    kind, body = encode(value)
    assert kind in KINDS
    found = [decode(kind, body)]
    found += [decode(kind | PADDED, pad(body, block)) for block in (2, 16, 100)]
    return all(signature(copy) == signature(value) for copy in found)


def nan(bits: int) -> float:
    """The NaN, or any float, of these 64 bits."""
    return float(struct.unpack(">d", bits.to_bytes(8, "big"))[0])


# -- what comes back ---------------------------------------------------------------------------------------

EDGES: dict[str, object] = {
    "empty text": "",
    "Chinese": "深圳市南山区粤海街道",
    "Arabic": "مرحبا بالعالم",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "NUL and friends": "\x00\x80\u0080\n\uffff\U0010ffff",
    "no bytes": b"",
    "a mebibyte": bytes(range(256)) * 4096,
    "a mebibyte of zeros": bytes(2**20),
    "false": False,
    "true": True,
    "zero": 0,
    "beyond 64 bits": 2**64,
    "beyond 64 bits, negative": -(2**64) - 1,
    "largest of 64 bits": 2**63 - 1,
    "least of 64 bits": -(2**63),
    "more digits than Python prints": 10 ** (DIGITS + 1),
    "the same, negative": -(10 ** (DIGITS + 1)),
    "zero float": 0.0,
    "negative zero": -0.0,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "NaN": math.nan,
    "NaN with sign and payload": nan(0xFFF8_DEAD_0000_BEEF),
    "signalling NaN": nan(0x7FF0_0000_0000_0001),
    "subnormal": 5e-324,
    "1.10": Decimal("1.10"),
    "1E+3": Decimal("1E+3"),
    "decimal -0.00": Decimal("-0.00"),
    "decimal 0E-30": Decimal("0E-30"),
    "decimal infinity": Decimal("-Infinity"),
    "decimal NaN": Decimal("-NaN123"),
    "decimal sNaN": Decimal("sNaN5"),
    "decimal beyond any context": Decimal("9" * 100 + "E+999999999999999899"),
    "first date": date.min,
    "last date": date.max,
    "year 987": date(987, 6, 5),
    "first time": time.min,
    "last time": time.max,
    "time with fold": time(2, 30, fold=1),
    "time with a zone": time(12, 0, 0, 5, tzinfo=SHANGHAI),
    "time with a zone and fold": time(2, 30, tzinfo=BERLIN, fold=1),
    "time in ZoneInfo UTC": time(12, tzinfo=ZoneInfo("UTC")),
    "time in UTC": time(12, tzinfo=UTC),
    "time with an offset": time(12, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    "first moment": datetime.min,
    "last moment": datetime.max,
    "naive with microseconds": datetime(2024, 2, 29, 1, 2, 3, 4),
    "naive with fold": datetime(2024, 2, 29, 1, 2, 3, fold=1),
    "year 44": datetime(44, 3, 15, 12),
    "UTC": datetime(2024, 2, 29, tzinfo=UTC),
    "ZoneInfo UTC": datetime(2024, 2, 29, tzinfo=ZoneInfo("UTC")),
    "first moment in UTC": datetime.min.replace(tzinfo=UTC),
    "last moment in UTC": datetime.max.replace(tzinfo=UTC),
    "first moment, east": datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    "last moment, west": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    "first moment in Shanghai": datetime.min.replace(tzinfo=SHANGHAI),
    "last moment in Berlin": datetime.max.replace(tzinfo=BERLIN),
    "Berlin, first": datetime(2023, 10, 29, 2, 30, tzinfo=BERLIN),
    "Berlin, second": datetime(2023, 10, 29, 2, 30, tzinfo=BERLIN, fold=1),
    "Berlin, skipped": datetime(2023, 3, 26, 2, 30, tzinfo=BERLIN),
    "local mean time": datetime(1890, 1, 1, tzinfo=SHANGHAI),
    "offset with seconds": datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=8, seconds=343))),
    "offset of a microsecond": datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
    "offset of less than zero seconds": time(0, tzinfo=timezone(timedelta(microseconds=-1))),
    "greatest offset": datetime(2024, 1, 1, tzinfo=timezone(timedelta(days=1, microseconds=-1))),
    "least offset": datetime(2024, 1, 1, tzinfo=timezone(timedelta(days=-1, microseconds=1))),
    "zone with signs": datetime(2024, 1, 1, tzinfo=ZoneInfo("Etc/GMT+12")),
    "uncached zone": datetime(2024, 1, 1, tzinfo=ZoneInfo.no_cache("America/Port-au-Prince")),
    "no duration": timedelta(),
    "longest duration": timedelta.max,
    "shortest duration": timedelta.min,
    "a microsecond": timedelta.resolution,
    "a microsecond back": -timedelta.resolution,
    "UUID": uuid.UUID("9f1c6a52-0b6e-4c3d-8e21-77d0a1b2c3d4"),
    "nil UUID": uuid.UUID(int=0),
    "enumeration": Colour.RED,
    "enumeration beyond ASCII": Colour.青,
    "enumeration of integers": Size.SMALL,
    "enumeration of text": Status.PAID,
    "flag": Rights.WRITE,
    "flag of a named union": Rights.READ | Rights.WRITE,
    "integer flag": Bits.ONE,
    "enumeration inside a class": Outer.Inner.A,
    "empty object": {},
    "empty array": [],
    "nested JSON": {"名": ["李", {"é": None}], "": [[[]]], "z": 1, "a": 2, "n": [True, False, 1, 1.0, -0.0]},
    "JSON of special floats": [math.nan, math.inf, -math.inf, 1e-7, 5e-324],
    "JSON of large integers": [2**64, -(2**200)],
    "JSON of awkward text": ['"\\/\b\f\n\r\t\x00\x1f\x7f\u2028😀'],
}


@pytest.mark.parametrize("name", EDGES)
def test_an_edge_comes_back_exactly(name: str) -> None:
    """Same class, same value, same sign, bits, digits, fold and zone; padded or not."""
    assert comes_back(EDGES[name])


offsets = st.integers(1 - 86_400_000_000, 86_400_000_000 - 1).map(
    lambda n: timezone(timedelta(microseconds=n))
)
zones = st.none() | offsets | st.timezones(no_cache=False) | st.just(UTC)
json_values: st.SearchStrategy[Any] = st.recursive(
    # JSON has one word for all NaNs.
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just(math.nan) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(),
    "bytes": st.binary(),
    "integers": st.integers() | st.integers(-(2**300), 2**300),
    "floats by their bits": st.integers(0, 2**64 - 1).map(nan),
    "decimals": st.decimals(),
    "decimals by digits and exponent": st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
        st.integers(0, 1),
        st.lists(st.integers(0, 9), min_size=1, max_size=60),
        st.integers(-5000, 5000),
    ),
    "dates": st.dates(),
    "times": st.builds(
        lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold), st.times(), zones, st.integers(0, 1)
    ),
    "moments": st.builds(
        lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold), st.datetimes(), zones, st.integers(0, 1)
    ),
    "durations": st.timedeltas(),
    "UUIDs": st.uuids(),
    "enumerations": st.sampled_from([*Colour, *Size, *Status, *Rights]),
    "JSON": st.lists(json_values, max_size=5) | st.dictionaries(st.text(), json_values, max_size=5),
}


@given(data=st.data())
@pytest.mark.parametrize("name", STRATEGIES)
def test_any_value_comes_back_exactly(name: str, data: st.DataObject) -> None:
    """Searched values of each type."""
    assert comes_back(data.draw(STRATEGIES[name]))


@given(data=st.data())
@pytest.mark.parametrize("name", STRATEGIES)
def test_equal_values_have_equal_bodies(name: str, data: st.DataObject) -> None:
    """What comes back is encoded as it was: a deterministic suite can search for it."""
    kind, body = encode(data.draw(STRATEGIES[name]))
    assert encode(decode(kind, body)) == (kind, body)


def test_the_context_of_the_moment_does_not_spell_decimals() -> None:
    """An application that prints a small e, or traps and rounds, writes and reads the same bodies."""
    plain = encode(Decimal("1.10E+20"))
    with localcontext(Context(prec=1, capitals=0)):
        assert encode(Decimal("1.10E+20")) == plain == (6, b"1.10E+20")
        assert comes_back(Decimal("123.456E+30"))


def test_a_member_that_was_renamed_is_found_by_its_alias() -> None:
    """An alias is written by its member's name, and read by its own: old names stay readable."""
    kind, body = encode(Colour["CRIMSON"])
    assert body.endswith(b"RED")
    assert decode(kind, body[:-3] + b"CRIMSON") is Colour.RED


def test_text_has_the_type_that_the_hot_path_knows() -> None:
    """Sealing and opening of text go around the table."""
    assert encode("") == (TEXT, b"")


# -- what is refused ---------------------------------------------------------------------------------------

PLAINTEXT = "Klartext 4711"


class Name(str):
    __slots__ = ()


class Point(NamedTuple):
    x: str


class PytzLike(tzinfo):
    """What older libraries put into a datetime."""

    zone = PLAINTEXT

    def utcoffset(self, at: datetime | None) -> timedelta:  # noqa: ARG002
        """Eight hours."""
        return timedelta(hours=8)

    def dst(self, at: datetime | None) -> timedelta:  # noqa: ARG002
        """No summer time."""
        return timedelta()

    def tzname(self, at: datetime | None) -> str:  # noqa: ARG002
        """A name."""
        return self.zone


class OwnZone(ZoneInfo):
    """A subclass would come back as a ZoneInfo."""


class Moment(datetime):
    """A subclass, such as pandas has one."""


def zone_of_a_file(name: str | None) -> ZoneInfo:
    """A zone that was not found by its name."""
    with resources.files("tzdata.zoneinfo.Asia").joinpath("Shanghai").open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def local_enumeration() -> object:
    """A member of a class that no reader can find."""

    class Local(Enum):
        A = PLAINTEXT

    return Local.A


def shadowed_enumeration() -> object:
    """A member of a class that calls itself by another's name."""
    members: dict[str, str] = {"RED": PLAINTEXT}
    return next(iter(EnumType.__call__(Enum, "Colour", members, module=__name__)))


def nested(depth: int) -> list[Any]:
    """Arrays in arrays."""
    value: list[Any] = [PLAINTEXT]
    for _ in range(depth):
        value = [value]
    return value


def circular() -> dict[str, Any]:
    """An object that contains itself."""
    value: dict[str, Any] = {"text": PLAINTEXT}
    value["self"] = value
    return value


AT = datetime(2024, 2, 29, 12, 34, 56, 789)
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a lone surrogate": (lambda: PLAINTEXT + "\ud800", "str with a lone surrogate"),
    "a lone surrogate in JSON": (lambda: {"a": [PLAINTEXT + "\udfff"]}, "str with a lone surrogate"),
    "a lone surrogate in a member's name": (lambda: {PLAINTEXT + "\ud800": 1}, "str with a lone surrogate"),
    "nothing": (lambda: None, "values of class NoneType"),
    "a subclass of str": (lambda: Name(PLAINTEXT), "values of class tests.test_codecs.Name"),
    "an unknown class": (lambda: types.SimpleNamespace(a=PLAINTEXT), "values of class types.SimpleNamespace"),
    "a tuple": (lambda: (PLAINTEXT,), "values of class tuple"),
    "a set": (lambda: {PLAINTEXT}, "values of class set"),
    "a bytearray": (lambda: bytearray(PLAINTEXT.encode()), "values of class bytearray"),
    "a complex number": (lambda: 4711j, "values of class complex"),
    "a subclass of dict": (lambda: OrderedDict(a=PLAINTEXT), "values of class collections.OrderedDict"),
    "a named tuple": (lambda: Point(PLAINTEXT), "values of class tests.test_codecs.Point"),
    "a class": (lambda: Colour, "values of class enum.EnumType"),
    "a subclass of datetime": (
        lambda: Moment(2024, 2, 29, 12, 34, 56, 789),
        "values of class tests.test_codecs.Moment",
    ),
    "a tuple in JSON": (lambda: [(PLAINTEXT,)], "JSON with a value of class tuple"),
    "bytes in JSON": (lambda: {"a": PLAINTEXT.encode()}, "JSON with a value of class bytes"),
    "a Decimal in JSON": (lambda: [Decimal(4711)], "JSON with a value of class decimal.Decimal"),
    "a subclass of str in JSON": (
        lambda: [Name(PLAINTEXT)],
        "JSON with a value of class tests.test_codecs.Name",
    ),
    "an enumeration in JSON": (lambda: [Size.SMALL], "JSON with a value of class tests.test_codecs.Size"),
    "a number as a member's name": (lambda: {4711: PLAINTEXT}, "JSON object with a member name of class int"),
    "none as a member's name": (
        lambda: {None: PLAINTEXT},
        "JSON object with a member name of class NoneType",
    ),
    "JSON in itself": (circular, "JSON nested too deeply, or containing itself"),
    "JSON too deep": (lambda: nested(100_000), "JSON nested too deeply"),
    "JSON of an endless integer": (lambda: [10**DIGITS * 4711], "JSON with an integer of more digits"),
    "a zone like pytz's": (
        lambda: AT.replace(tzinfo=PytzLike()),
        "datetime.datetime with a tzinfo of class tests.test_codecs.PytzLike",
    ),
    "a time in such a zone": (
        lambda: AT.time().replace(tzinfo=PytzLike()),
        "datetime.time with a tzinfo of class tests.test_codecs.PytzLike",
    ),
    "a zone that can do nothing": (
        lambda: AT.replace(tzinfo=tzinfo()),  # type: ignore[abstract]
        "datetime.datetime with a tzinfo of class datetime.tzinfo",
    ),
    "a subclass of ZoneInfo": (
        lambda: AT.replace(tzinfo=OwnZone("Asia/Shanghai")),
        "datetime.datetime with a tzinfo of class tests.test_codecs.OwnZone",
    ),
    "a zone without a name": (
        lambda: AT.replace(tzinfo=zone_of_a_file(None)),
        "datetime.datetime with a tzinfo of class zoneinfo.ZoneInfo that no reader could find by name",
    ),
    "a zone with a name of our own": (
        lambda: AT.replace(tzinfo=zone_of_a_file("上海]")),
        "datetime.datetime with a tzinfo of class zoneinfo.ZoneInfo that no reader could find by name",
    ),
    "a local enumeration": (
        local_enumeration,
        "enumeration tests.test_codecs.local_enumeration.<locals>.Local: no reader could find its class",
    ),
    "an enumeration that is not where it says": (
        shadowed_enumeration,
        "enumeration tests.test_codecs.Colour: no reader could find its class",
    ),
    "a flag without a name": (
        lambda: Bits(4711),
        "enumeration tests.test_codecs.Bits: only members with a name",
    ),
    "no flag": (lambda: Rights(0), "enumeration tests.test_codecs.Rights: only members with a name"),
}


def told(error: BaseException) -> str:
    """Everything that an error says and carries."""
    return f"{error} {error!r} {error.args} {vars(error)} {error.__cause__!r} {error.__context__!r}"


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_encoding_is_refused_by_its_class(name: str) -> None:
    """The message begins with what cannot be encoded, and neither it nor what it carries shows the value."""
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedValue) as caught:
        encode(make())
    assert str(caught.value).startswith(message)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert not any(part in told(caught.value) for part in (PLAINTEXT, "4711", "Klartext", "12:34", "34, 56"))


def test_an_enumeration_with_a_name_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functional way to make one takes any str for a member's name."""
    members = {"\ud800": PLAINTEXT}
    odd = EnumType.__call__(Enum, "Odd", members, module=__name__)
    monkeypatch.setattr(sys.modules[__name__], "Odd", odd, raising=False)
    with pytest.raises(UnsupportedValue, match="lone surrogate") as caught:
        encode(odd["\ud800"])
    assert caught.value.__context__ is None


class Hooked(types.ModuleType):
    """A module that loads code when it is asked for a name, as lazy packages do."""

    asked: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> object:
        """Note the question and answer with an enumeration."""
        self.asked.append(name)
        return Colour


def test_a_stored_enumeration_never_makes_this_process_load_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is already imported is found, and no attribute hook is asked."""
    monkeypatch.setitem(sys.modules, "lazy", Hooked("lazy"))
    for path in ("lazy:Colour", "this:s", "antigravity:Colour"):
        body = len(path).to_bytes(4, "big") + path.encode() + b"RED"
        with pytest.raises(UnsupportedValue, match="not among the imported modules"):
            decode(12, body)
    assert "this" not in sys.modules
    assert [name for name in Hooked.asked if not name.startswith("__")] == []


def test_json_deeper_than_this_process_reads_is_refused_and_not_broken_by() -> None:
    """A writer with more stack than this reader: an error of ours, which shows nothing."""
    body = b"[" * 200_000 + json.dumps(PLAINTEXT).encode() + b"]" * 200_000
    with pytest.raises(UnsupportedValue, match="nested more deeply") as caught:
        decode(13, body)
    assert caught.value.__context__ is None
    assert PLAINTEXT not in told(caught.value)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (1, b"\xff 4711"),
        (1, b"\xed\xa0\x804711"),
        (3, b"\x02"),
        (4, b"\x00\x01"),
        (4, b""),
        (5, b"4711"),
        (6, b"1e+4711"),
        (6, b"4_711"),
        (7, b"47110101"),
        (8, b""),
        (8, b"\x00"),
        (8, b"\x0247:11:00"),
        (8, b"\x0012:34"),
        (9, b"\x004711-02-30T00:00:00"),
        (9, b"\x004711-02-03T00:00:00.500"),
        (9, b"\x004711-02-03T00:00:00[UTC]"),
        (10, b"\x7f" * 9),
        (11, b"4711"),
        (12, b""),
        (12, b"\x00\x00\x00\x044711A"),
        (13, b'"4711"'),
        (13, b'["\\ud800 4711"]'),
        (13, b"[4711"),
        (0x81, b"4711"),
        (0x84, b"\x80"),
    ],
)
def test_a_body_that_no_writer_makes_is_refused_without_showing_it(kind: int, body: bytes) -> None:
    """The decoders' own complaints quote the plaintext; ours names the type and carries nothing."""
    with pytest.raises(MalformedCiphertext, match=f"a value of type {kind} that no writer") as caught:
        decode(kind, body)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "4711" not in told(caught.value)


@given(kind=st.sampled_from(KINDS), padded=st.sampled_from([0, PADDED]), body=st.binary(max_size=40))
def test_any_body_gives_a_value_or_one_of_our_errors(kind: int, padded: int, body: bytes) -> None:
    """And a value only where its own encoding is that body; JSON alone has more than one spelling."""
    try:
        value = decode(kind | padded, body)
    except FieldVaultError:
        return
    again = encode(value)
    assert again[0] == kind
    if kind != 13:
        assert again[1] == (body.rstrip(b"\x00")[:-1] if padded else body)


# -- padding -----------------------------------------------------------------------------------------------


@given(body=st.binary(max_size=300), block=st.integers(2, 300))
def test_padding_fills_up_to_the_block_and_comes_off(body: bytes, block: int) -> None:
    """The length is the next multiple of the block that has room for the mark, and says no more."""
    padded = pad(body, block)
    assert len(padded) == (len(body) // block + 1) * block
    assert decode(2 | PADDED, padded) == body


def test_values_of_one_block_have_one_length() -> None:
    """Which is what padding is for."""
    assert len({len(pad(b"x" * size, 64)) for size in range(64)}) == 1


@pytest.mark.parametrize("block", [None, 2, 16, MAX_PADDING])
def test_a_block_that_can_be_is_taken(block: int | None) -> None:
    """None, or 2 to 65536 bytes."""
    assert check_padding(block) == block


@pytest.mark.parametrize("block", [0, 1, -16, MAX_PADDING + 1, 16.0, "16", True])
def test_a_block_that_cannot_be_is_refused(block: object) -> None:
    """A padding that would hide nothing, or that is no number of bytes."""
    with pytest.raises(ConfigurationError, match="a block of 2 to 65536 bytes"):
        check_padding(block)

"""Values to typed bodies and back (docs/format.md, 6)."""

from __future__ import annotations

import json
import re
import struct
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fieldvault.envelope import PADDED
from fieldvault.errors import ConfigurationError, FieldVaultError, MalformedCiphertext, UnsupportedValue

__all__ = ["MAX_PADDING", "TEXT", "check_padding", "decode", "encode", "pad"]

TEXT = 1
"""The type of text: the hot paths know this one by themselves."""

MAX_PADDING = 65_536

_MICROSECOND = timedelta(microseconds=1)
_FLOAT = struct.Struct(">d")
# The context of the moment may ask for a small e; this one is never changed.
_DECIMAL = Context(capitals=1)
_ZONE_NAME = r"[A-Za-z0-9_+./-]+"
_ZONED = re.compile(
    r"([0-9T:.-]+?)"
    r"(?:([+-])([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{6}))?)?)?"
    rf"(?:\[({_ZONE_NAME})\])?"
)
_KNOWN_BY_NAME = re.compile(_ZONE_NAME)


def _named(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _text(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        # Leaving the handler first keeps the plaintext, an attribute of that error, out of __context__.
        pass
    raise UnsupportedValue("str with a lone surrogate: not text that UTF-8 can hold")


def _integer(value: int) -> bytes:
    return value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, "big", signed=True)


def _decimal(value: Decimal) -> bytes:
    return _DECIMAL.to_sci_string(value).encode()


def _zone(value: datetime | time) -> bytes:
    zone = value.tzinfo
    if zone is None or type(zone) is timezone:
        return b""
    if type(zone) is ZoneInfo and _KNOWN_BY_NAME.fullmatch(zone.key or ""):
        return f"[{zone.key}]".encode()
    raise UnsupportedValue(
        f"{_named(value)} with a tzinfo of class {_named(zone)} that no reader could find by name: use "
        f"zoneinfo.ZoneInfo(name) or datetime.timezone"
    )


def _zoned(value: datetime | time) -> bytes:
    zone = _zone(value)
    if zone and type(value) is time:
        # Without a date a named zone has no offset, except those zones that never change theirs.
        value = value.replace(tzinfo=None)
    return bytes((value.fold,)) + value.isoformat().encode() + zone


def _enum_class(path: str) -> Any:
    """The class at ``module:qualified name``, or ``None``.

    Only what the application has imported, and no attribute hooks: a ciphertext never makes this process load
    or run code.
    """
    module, _, qualified = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and issubclass(found, Enum) else None


def _enum(value: Enum) -> bytes:
    cls = type(value)
    path = f"{cls.__module__}:{cls.__qualname__}"
    if _enum_class(path) is not cls:
        raise UnsupportedValue(
            f"enumeration {_named(value)}: no reader could find its class under that name; define it at the "
            f"top of a module"
        )
    if value._name_ not in cls.__members__:
        raise UnsupportedValue(f"enumeration {_named(value)}: only members with a name are encoded")
    found = _text(path)
    return len(found).to_bytes(4, "big") + found + _text(value._name_)


def _check_json(value: object) -> None:
    cls = type(value)
    if cls is dict:
        for name, member in value.items():  # type: ignore[attr-defined]
            if type(name) is not str:
                raise UnsupportedValue(
                    f"JSON object with a member name of class {_named(name)}: names are str"
                )
            _check_json(member)
    elif cls is list:
        for member in value:  # type: ignore[attr-defined]
            _check_json(member)
    elif value is not None and cls not in (str, int, float, bool):
        raise UnsupportedValue(
            f"JSON with a value of class {_named(value)}: not one of dict, list, str, int, float, bool, None"
        )


def _json(value: object) -> bytes:
    problem = "JSON nested too deeply, or containing itself"
    try:
        _check_json(value)
        return _text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except RecursionError:
        pass
    except ValueError:
        problem = "JSON with an integer of more digits than Python prints"
    raise UnsupportedValue(problem)


_ENCODERS: Mapping[type, tuple[int, Callable[[Any], bytes]]] = MappingProxyType(
    {
        str: (1, _text),
        bytes: (2, bytes),
        bool: (3, lambda value: b"\x01" if value else b"\x00"),
        int: (4, _integer),
        float: (5, _FLOAT.pack),
        Decimal: (6, _decimal),
        date: (7, lambda value: value.isoformat().encode()),
        time: (8, _zoned),
        datetime: (9, _zoned),
        timedelta: (10, lambda value: _integer(value // _MICROSECOND)),
        uuid.UUID: (11, lambda value: value.bytes),
        dict: (13, _json),
        list: (13, _json),
    }
)
_ENUM = 12


def encode(value: object) -> tuple[int, bytes]:
    """The type of a value and its body.

    Exactly these classes have an encoding, their subclasses have not (a subclass would not come back as
    itself): str, bytes, bool, int of any size, float, Decimal, date, time, datetime, timedelta, UUID, members
    of importable enumerations, and dict and list as JSON.

    Raises:
        UnsupportedValue: any other class, or content that would not come back equal; the message names the
            class only.
    """
    entry = _ENCODERS.get(type(value))
    if entry is not None:
        return entry[0], entry[1](value)
    if isinstance(value, Enum):
        return _ENUM, _enum(value)
    raise UnsupportedValue(
        f"values of class {_named(value)} have no encoding; convert it to one that has (see the docs on "
        f"values)"
    )


def check_padding(block: object) -> int | None:
    """``block`` if it is ``None`` or a block size in bytes for ``pad``, from 2 to 65536.

    Raises:
        ConfigurationError: otherwise.
    """
    if block is None or (type(block) is int and 2 <= block <= MAX_PADDING):
        return block
    raise ConfigurationError(f"padding is None or a block of 2 to {MAX_PADDING} bytes, not {block!r}")


def pad(body: bytes, block: int) -> bytes:
    """Fill a body up to a multiple of ``block`` bytes (ISO/IEC 7816-4), so that lengths tell less."""
    return body + b"\x80" + bytes(-(len(body) + 1) % block)


def _unpad(payload: bytes) -> bytes:
    body = payload.rstrip(b"\x00")
    if body[-1:] != b"\x80":
        raise ValueError
    return body[:-1]


def _whole(value: Any, body: bytes, encoder: Callable[[Any], bytes]) -> Any:
    """``value`` if its encoding is ``body``: a reader accepts only what a writer would have written."""
    if encoder(value) != body:
        raise ValueError
    return value


def _decode_integer(body: bytes) -> int:
    return _whole(int.from_bytes(body, "big", signed=True), body, _integer)  # type: ignore[no-any-return]


def _decode_boolean(body: bytes) -> bool:
    return {b"\x00": False, b"\x01": True}[body]


def _fixed_zone(sign: str | None, offset: list[str | None]) -> timezone | None:
    # Not left to fromisoformat: CPython 3.11's takes an offset of less than a second for UTC.
    if sign is None:
        return None
    hours, minutes, seconds, microseconds = (int(part or 0) for part in offset)
    size = timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds)
    return timezone(-size if sign == "-" else size)


def _decode_zoned(cls: type[Any], body: bytes) -> Any:
    match = _ZONED.fullmatch(body[1:].decode("ascii"))
    if match is None or body[0] > 1:
        raise ValueError
    wall, sign, *offset, zone = match.groups()
    value = cls.fromisoformat(wall).replace(fold=body[0], tzinfo=_fixed_zone(sign, offset))
    _whole(value, body.partition(b"[")[0], _zoned)
    if zone is None:
        return value
    if (sign is None) is not (cls is time):
        raise ValueError
    try:
        return value.replace(tzinfo=ZoneInfo(zone))
    except (ZoneInfoNotFoundError, OSError):
        pass
    raise UnsupportedValue(
        "a value in a time zone that this machine does not know: install the package tzdata"
    )


def _decode_enum(body: bytes) -> Enum:
    start = 4 + int.from_bytes(body[:4], "big")
    path, name = body[4:start].decode(), body[start:].decode()
    if ":" not in path or not name:
        raise ValueError
    found = _enum_class(path)
    if found is None:
        raise UnsupportedValue(
            f"enumeration {path} is not among the imported modules: import it, or keep the old name "
            f"importable"
        )
    if name not in found.__members__:
        raise UnsupportedValue(
            f"enumeration {path} no longer has the member that was stored: keep old members"
        )
    return found[name]  # type: ignore[no-any-return]


def _decode_json(body: bytes) -> Any:
    # As text: given bytes, json would also read UTF-16 and encoded surrogates.
    text = body.decode()
    value = json.loads(text)
    if type(value) not in (dict, list):
        raise ValueError
    if "\\u" in text:
        # An escape can spell a lone surrogate; encoding the strings finds it.
        json.dumps(value, ensure_ascii=False).encode()
    return value


_DECODERS: Mapping[int, Callable[[bytes], Any]] = MappingProxyType(
    {
        1: bytes.decode,
        2: bytes,
        3: _decode_boolean,
        4: _decode_integer,
        5: lambda body: _FLOAT.unpack(body)[0],
        6: lambda body: _whole(Decimal(body.decode("ascii")), body, _decimal),
        7: lambda body: _whole(
            date.fromisoformat(body.decode("ascii")), body, lambda value: value.isoformat().encode()
        ),
        8: lambda body: _decode_zoned(time, body),
        9: lambda body: _decode_zoned(datetime, body),
        10: lambda body: timedelta(microseconds=_decode_integer(body)),
        11: lambda body: uuid.UUID(bytes=body),
        _ENUM: _decode_enum,
        13: _decode_json,
    }
)


def decode(kind: int, payload: bytes) -> Any:
    """The value of a payload; ``kind`` is one that ``Envelope.parse`` has let through.

    Raises:
        MalformedCiphertext: a body that no writer of this format makes.
        UnsupportedValue: an enumeration or a time zone that this process does not have, or JSON nested more
            deeply than it can go.
    """
    try:
        return _DECODERS[kind & ~PADDED](_unpad(payload) if kind & PADDED else payload)
    except (ValueError, KeyError, ArithmeticError, struct.error):
        # Not chained: a decoder's complaint quotes the plaintext.
        refusal: FieldVaultError = MalformedCiphertext(
            f"a value of type {kind} that no writer of this format makes"
        )
    except RecursionError:
        refusal = UnsupportedValue("JSON nested more deeply than this process reads here")
    raise refusal

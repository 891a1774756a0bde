"""The values of the test vectors, described neutrally: no datetime or Decimal library is in between."""

from __future__ import annotations

from typing import Any

Description = dict[str, Any]


def _decimal(sign: int, digits: str, exponent: int | str) -> Description:
    return {"decimal": {"sign": sign, "digits": digits, "exponent": exponent}}


def _date(year: int, month: int, day: int) -> Description:
    return {"date": {"year": year, "month": month, "day": day}}


def _clock(
    clock: tuple[int, int, int, int], *, fold: int = 0, offset: int | None = None, zone: str | None = None
) -> Description:
    names = ("hour", "minute", "second", "microsecond")
    return {**dict(zip(names, clock, strict=True)), "fold": fold, "offset": offset, "zone": zone}


def _time(hour: int, minute: int, second: int, microsecond: int = 0, **zone: Any) -> Description:
    return {"time": _clock((hour, minute, second, microsecond), **zone)}


def _at(day: tuple[int, int, int], clock: tuple[int, int, int, int], **zone: Any) -> Description:
    return {"datetime": {**_date(*day)["date"], **_clock(clock, **zone)}}


def _enum(path: str, member: str) -> Description:
    return {"enumeration": {"class": path, "member": member}}


_HOUR = 3_600_000_000  # offsets are microseconds
_DAY = 24 * _HOUR

VALUES: dict[str, Description] = {
    "text": {"text": "Grüße, 李娜"},
    "empty text": {"text": ""},
    "one NUL": {"text": "\x00"},
    "Chinese": {"text": "深圳市南山区粤海街道"},
    "Arabic, right to left": {"text": "مرحبا بالعالم"},
    "emoji with joiners": {"text": "👩\u200d👩\u200d👧\u200d👦🏴\U000e0067\U000e007f"},
    "decomposed, not normalised": {"text": "e\u0301"},
    "composed": {"text": "\u00e9"},
    "last code point": {"text": "\U0010ffff"},
    "text like a ciphertext": {"text": "$fv1$AQEB"},
    "text with an end like padding": {"text": "x\u0080\x00\x00"},
    "bytes": {"bytes": "00ff8000"},
    "no bytes": {"bytes": ""},
    "bytes with an end like padding": {"bytes": "800000"},
    "false": {"boolean": False},
    "true": {"boolean": True},
    **{
        f"integer {number}" if abs(number) < 2**70 else f"integer {'-' * (number < 0)}2^1000": {
            "integer": str(number)
        }
        for number in (
            *(0, 1, -1, 127, 128, -128, -129, 255, 256, 32_767, 32_768, -32_768, -32_769),
            *(
                2**31,
                -(2**31),
                2**63 - 1,
                2**63,
                -(2**63),
                -(2**63) - 1,
                2**64,
                -(2**64),
                2**1000,
                -(2**1000),
            ),
        )
    },
    "float 1.5": {"float": "3ff8000000000000"},
    "0.0": {"float": "0000000000000000"},
    "-0.0": {"float": "8000000000000000"},
    "infinity": {"float": "7ff0000000000000"},
    "-infinity": {"float": "fff0000000000000"},
    "quiet NaN": {"float": "7ff8000000000000"},
    "NaN with a sign and a payload": {"float": "fff8dead0000beef"},
    "smallest subnormal": {"float": "0000000000000001"},
    "largest float": {"float": "7fefffffffffffff"},
    "decimal 1.10": _decimal(0, "110", -2),
    "decimal 1E+3": _decimal(0, "1", 3),
    "decimal 1000": _decimal(0, "1000", 0),
    "decimal -0.00": _decimal(1, "0", -2),
    "decimal 0.000001": _decimal(0, "1", -6),
    "decimal 1E-7": _decimal(0, "1", -7),
    "decimal -1.23456E-10": _decimal(1, "123456", -15),
    "decimal 0E+4": _decimal(0, "0", 4),
    "decimal of 40 digits": _decimal(0, "1234567890" * 4, -3),
    "decimal with the largest exponent": _decimal(0, "9", 999_999_999_999_999_999),
    "decimal infinity": _decimal(1, "", "Infinity"),
    "decimal NaN": _decimal(0, "", "NaN"),
    "decimal NaN with a payload": _decimal(1, "123", "NaN"),
    "decimal signalling NaN": _decimal(0, "7", "sNaN"),
    "date": _date(1992, 2, 29),
    "first date": _date(1, 1, 1),
    "last date": _date(9999, 12, 31),
    "time": _time(7, 8, 9),
    "midnight": _time(0, 0, 0),
    "last microsecond of a day": _time(23, 59, 59, 999_999),
    "time with fold": _time(2, 30, 0, fold=1),
    "time in UTC": _time(12, 0, 0, offset=0),
    "time at an offset": _time(12, 0, 0, 10, offset=-(9 * _HOUR + _HOUR // 2)),
    "time in a named zone": _time(12, 0, 0, zone="Asia/Shanghai"),
    "time in the zone named UTC": _time(12, 0, 0, 500_000, zone="UTC"),
    "date and time": _at((2024, 2, 29), (23, 59, 58, 0)),
    "first date and time": _at((1, 1, 1), (0, 0, 0, 0)),
    "last date and time": _at((9999, 12, 31), (23, 59, 59, 999_999)),
    "one microsecond": _at((2024, 1, 1), (0, 0, 0, 1)),
    "date and time in UTC": _at((2024, 1, 1), (12, 0, 0, 0), offset=0),
    "first date and time at an offset": _at((1, 1, 1), (0, 0, 0, 0), offset=14 * _HOUR),
    "last date and time at an offset": _at((9999, 12, 31), (23, 59, 59, 999_999), offset=-12 * _HOUR),
    "offset with seconds": _at((1900, 1, 1), (0, 0, 0, 0), offset=8 * _HOUR + 343_000_000),
    "offset with microseconds": _at((1900, 1, 1), (0, 0, 0, 0), offset=-1),
    "least offset": _at((2024, 1, 1), (0, 0, 0, 0), offset=1 - _DAY),
    "greatest offset": _at((2024, 1, 1), (0, 0, 0, 0), offset=_DAY - 1),
    "Shanghai": _at((2024, 6, 1), (9, 30, 0, 0), offset=8 * _HOUR, zone="Asia/Shanghai"),
    "Shanghai on local mean time": _at(
        (1900, 1, 1), (0, 0, 0, 0), offset=8 * _HOUR + 343_000_000, zone="Asia/Shanghai"
    ),
    "Berlin, the first 02:30": _at((2023, 10, 29), (2, 30, 0, 0), offset=2 * _HOUR, zone="Europe/Berlin"),
    "Berlin, the second 02:30": _at(
        (2023, 10, 29), (2, 30, 0, 0), fold=1, offset=_HOUR, zone="Europe/Berlin"
    ),
    "Berlin, the 02:30 that was skipped": _at(
        (2023, 3, 26), (2, 30, 0, 0), offset=_HOUR, zone="Europe/Berlin"
    ),
    "a zone with signs in its name": _at((2024, 1, 1), (0, 0, 0, 0), offset=-12 * _HOUR, zone="Etc/GMT+12"),
    "no duration": {"duration": "0"},
    "duration of -1 microsecond": {"duration": "-1"},
    "duration of 1.5 days": {"duration": str(_DAY + _DAY // 2)},
    "longest duration": {"duration": str(1_000_000_000 * _DAY - 1)},
    "shortest duration": {"duration": str(-999_999_999 * _DAY)},
    "UUID": {"uuid": "9f1c6a52-0b6e-4c3d-8e21-77d0a1b2c3d4"},
    "nil UUID": {"uuid": "00000000-0000-0000-0000-000000000000"},
    "enumeration": _enum("uuid:SafeUUID", "safe"),
    "enumeration of integers": _enum("http:HTTPStatus", "NOT_FOUND"),
    "enumeration of flags": _enum("re:RegexFlag", "IGNORECASE"),
    "JSON object, order kept": {
        "json": '{"z": 1, "a": [true, false, null], "": {"\\u540d": "\\u674e\\u5a1c"}}'
    },
    "JSON array": {"json": "[]"},
    "empty JSON object": {"json": "{}"},
    "JSON escapes": {
        "json": '["\\" \\\\ / \\b \\f \\n \\r \\t \\u0000 \\u001f \\u007f \\u2028 \\ud83d\\ude00"]'
    },
    "JSON numbers": {
        "json": "[0, -1, 18446744073709551616, 0.0, -0.0, 0.1, 1.5, 0.0001, 0.00001, 123456789012345.6, "
        "1e15, 1e16, 1.5e300, 5e-324, -2.5e-7]"
    },
    "JSON beyond RFC 8259": {"json": "[NaN, Infinity, -Infinity]"},
}


def _path(path: str, member: str) -> bytes:
    return len(path).to_bytes(4, "big") + path.encode() + member.encode()


MALFORMED_BODIES: dict[str, tuple[int, bytes]] = {
    "text that is not UTF-8": (1, b"\xff"),
    "text with an encoded surrogate": (1, b"\xed\xa0\x80"),
    "text in an overlong form": (1, b"\xc0\x80"),
    "boolean 2": (3, b"\x02"),
    "no boolean": (3, b""),
    "two booleans": (3, b"\x00\x01"),
    "no integer": (4, b""),
    "integer with a leading zero": (4, b"\x00\x7f"),
    "integer with a leading sign": (4, b"\xff\x80"),
    "float of 4 bytes": (5, bytes(4)),
    "float of 9 bytes": (5, bytes(9)),
    "decimal with a small e": (6, b"1e+3"),
    "decimal with an underscore": (6, b"1_000"),
    "decimal with white space": (6, b" 1"),
    "decimal with a leading zero": (6, b"01"),
    "decimal in digits beyond ASCII": (6, "١".encode()),
    "decimal that is none": (6, b"one"),
    "date without hyphens": (7, b"20240101"),
    "date that there was not": (7, b"2023-02-29"),
    "date with a time": (7, b"2024-01-01T00:00:00"),
    "no time": (8, b""),
    "time with fold 2": (8, b"\x0212:00:00"),
    "time without fold": (8, b"12:00:00"),
    "time without seconds": (8, b"\x0012:00"),
    "time with zero microseconds": (8, b"\x0012:00:00.000000"),
    "time with milliseconds": (8, b"\x0012:00:00.500"),
    "time 24:00:00": (8, b"\x0024:00:00"),
    "time with an offset and a zone": (8, b"\x0012:00:00+08:00[Asia/Shanghai]"),
    "time with Z": (8, b"\x0012:00:00Z"),
    "date and time with a space": (9, b"\x002024-01-01 00:00:00"),
    "date and time with an offset in short form": (9, b"\x002024-01-01T00:00:00+08"),
    "date and time with an offset of a day": (9, b"\x002024-01-01T00:00:00+24:00"),
    "date and time with a zone and no offset": (9, b"\x002024-01-01T00:00:00[Asia/Shanghai]"),
    "date and time with an open bracket": (9, b"\x002024-01-01T00:00:00+08:00[Asia/Shanghai"),
    "date and time with two zones": (9, b"\x002024-01-01T00:00:00+08:00[Asia/Shanghai][UTC]"),
    "date and time with no name in the brackets": (9, b"\x002024-01-01T00:00:00+08:00[]"),
    "zone that leaves the database's folder": (9, b"\x002024-01-01T00:00:00+08:00[../../etc/passwd]"),
    "zone with characters that no name has": (9, "\x002024-01-01T00:00:00+08:00[上海]".encode()),
    "duration with a leading zero": (10, b"\x00\x01"),
    "duration longer than the longest": (10, (1_000_000_000 * _DAY).to_bytes(9, "big")),
    "UUID of 15 bytes": (11, bytes(15)),
    "UUID as text": (11, b"9f1c6a52-0b6e-4c3d-8e21-77d0a1b2c3d4"),
    "no enumeration": (12, b""),
    "enumeration with a length beyond the end": (12, b"\x00\x00\x00\xff" + b"uuid:SafeUUID"),
    "enumeration without a member": (12, _path("uuid:SafeUUID", "")),
    "enumeration without a module": (12, _path("SafeUUID", "safe")),
    "enumeration in bytes that are not UTF-8": (12, b"\x00\x00\x00\x01\xffsafe"),
    "no JSON": (13, b""),
    "JSON number": (13, b"1"),
    "JSON text": (13, b'"x"'),
    "JSON null": (13, b"null"),
    "JSON with a comma too many": (13, b"[1,]"),
    "JSON with something after it": (13, b"[] []"),
    "JSON in UTF-16": (13, "[1]".encode("utf-16-le")),
    "JSON with a byte order mark": (13, b"\xef\xbb\xbf[1]"),
    "JSON with an escaped surrogate": (13, b'["\\ud800"]'),
    "JSON with an encoded surrogate": (13, b'["\xed\xa0\x80"]'),
    "padded, no payload": (0x81, b""),
    "padded, zeros only": (0x81, bytes(16)),
    "padded, no mark": (0x81, b"text" + bytes(12)),
    "padded, boolean of two bytes": (0x83, b"\x01\x01\x80\x00"),
}

UNSUPPORTED_BODIES: dict[str, tuple[int, bytes]] = {
    "enumeration of a module that is not there": (12, _path("no_such_module:Colour", "RED")),
    "enumeration of a class that is not there": (12, _path("uuid:NoSuchEnumeration", "safe")),
    "enumeration of a class that is none": (12, _path("uuid:UUID", "int")),
    "enumeration of a module's attribute": (12, _path("uuid:os.path", "sep")),
    "enumeration of a member that is not there": (12, _path("uuid:SafeUUID", "no_such_member")),
    "zone that is not there": (9, b"\x002024-01-01T00:00:00+08:00[Nowhere/Atlantis]"),
    "zone that is a folder": (9, b"\x002024-01-01T00:00:00+08:00[America]"),
    "zone of a time that is not there": (8, b"\x0012:00:00[Nowhere/Atlantis]"),
}

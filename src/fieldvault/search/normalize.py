"""Normalizers: what a value is compared by, as text, before a token is made of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from fieldvault.codecs import encode
from fieldvault.errors import ConfigurationError, UnsupportedValue

__all__ = [
    "Normalizer",
    "casefold",
    "digits",
    "email",
    "exact",
    "first",
    "is_partial",
    "last",
    "month_day",
    "normalized",
    "normalizer",
    "phone",
    "year",
    "year_month",
]

_MAX_DOMAIN = 255
_COUNTRY = re.compile("[1-9][0-9]{0,2}")
_NO_DIGITS = re.compile("[^0-9]+")
_FIRST_MARK = re.compile(r"[+＋\d]")


@runtime_checkable
class Normalizer(Protocol):
    """A value of a column to the text that it is compared by; ``None``: it has no token.

    ``name`` says what it does, and stays the same over releases and processes.
    """

    @property
    def name(self) -> str:
        """The stable name."""
        ...

    def __call__(self, value: Any, /) -> str | None:
        """The text that equal values share."""
        ...


def _named(value: object) -> str:
    return type(value).__qualname__


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    raise UnsupportedValue(f"{name} takes a str, not {_named(value)}")


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower().strip()
    # Folding undoes compositions, and makes letters that compose with what follows them.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def _digits(text: str) -> str:
    """The decimal digits, of whatever script, as 0 to 9; a superscript or a circled number is none."""
    if text.isascii():
        return _NO_DIGITS.sub("", text)
    return "".join(str(unicodedata.decimal(each)) for each in text if each.isdecimal())


class _Own:
    """Of this module: its errors name classes only."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Casefold(_Own):
    name: str = "casefold"

    def __call__(self, value: Any, /) -> str:
        return _folded(_text(value, self.name))


@dataclass(frozen=True, slots=True)
class _Email(_Own):
    name: str = "email"

    def __call__(self, value: Any, /) -> str:
        text = _folded(_text(value, self.name))
        local, at, domain = text.rpartition("@")
        return f"{local}@{_domain(domain)}" if at else text


def _domain(domain: str) -> str:
    if not domain.isascii() and len(domain) <= _MAX_DOMAIN:
        try:
            domain = domain.encode("idna").decode("ascii").lower()
        except UnicodeError:
            # No such domain can exist. It is compared as it is written.
            return domain
    return domain.rstrip(".")


@dataclass(frozen=True, slots=True)
class _Digits(_Own):
    name: str = "digits"

    def __call__(self, value: Any, /) -> str | None:
        return _digits(_text(value, self.name)) or None


@dataclass(frozen=True, slots=True)
class _Phone(_Own):
    country: str | None = None

    def __post_init__(self) -> None:
        given: object = self.country
        if given is not None and not (isinstance(given, str) and _COUNTRY.fullmatch(given)):
            raise ConfigurationError(
                'the country of a phone number is its calling code, one to three digits as text: country="86"'
            )

    @property
    def name(self) -> str:
        return "phone" if self.country is None else f"phone({self.country})"

    def __call__(self, value: Any, /) -> str | None:
        text = _text(value, self.name)
        written = _digits(text)
        number = written.lstrip("0")
        if not number:
            return None
        if self.country is None:
            return number
        mark = _FIRST_MARK.search(text)
        if written.startswith("00") or (mark is not None and mark[0] in "+＋"):
            if not number.startswith(self.country):
                return f"+{number}"
            # +49 (0) 30 … is often written: the zero within the country is not dialled from abroad.
            number = number.removeprefix(self.country).lstrip("0")
        return f"+{self.country}{number}"


@dataclass(frozen=True, slots=True)
class _Part(_Own):
    """The first, or for a negative ``count`` the last, characters of the folded text."""

    count: int

    @property
    def name(self) -> str:
        return f"first({self.count})" if self.count > 0 else f"last({-self.count})"

    def __call__(self, value: Any, /) -> str:
        text = _folded(_text(value, self.name))
        # The cut may fall beside a blank, which would make the part another one when it is folded again.
        return (text[: self.count] if self.count > 0 else text[self.count :]).strip()


@dataclass(frozen=True, slots=True)
class _DatePart(_Own):
    name: str

    def __call__(self, value: Any, /) -> str:
        if not isinstance(value, date):
            raise UnsupportedValue(f"{self.name} takes a date or a datetime, not {_named(value)}")
        parts = {"year": f"{value.year:04}", "month": f"{value.month:02}", "day": f"{value.day:02}"}
        return "-".join(parts[part] for part in self.name.split("_"))


@dataclass(frozen=True, slots=True)
class _Exact(_Own):
    name: str = "exact"

    def __call__(self, value: Any, /) -> str:
        kind, body = encode(value)
        return f"{kind}:{body.hex()}"


@dataclass(frozen=True, slots=True)
class _Custom:
    """A function of the application; it goes by its qualified name."""

    function: Callable[[Any], str | None]

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", _named(self.function))

    def __call__(self, value: Any, /) -> str | None:
        return self.function(value)


casefold: Normalizer = _Casefold()
"""Text without regard to case, width and composition, nor to white space around it.

Unicode NFKC, then case folding, then NFKC (as in UAX #15 and #31). It has no language: Turkish ``İ`` and
``ı`` stay apart from ``i``. Invisible characters within the text, as a zero-width space, count.
"""

email: Normalizer = _Email()
"""As ``casefold``, and the domain in its ASCII form (IDNA 2003), without a full stop at its end.

Text without an ``@``, or with a domain that has no such form, is only folded. What providers ignore, dots and
``+tags``, counts.
"""

digits: Normalizer = _Digits()
"""The decimal digits of a text, of whatever script, as 0 to 9; no token where there is none."""

month_day: Normalizer = _DatePart("month_day")
"""Month and day of a date or a datetime, as ``05-17``: whose birthday it is."""

year: Normalizer = _DatePart("year")
"""The year of a date or a datetime, as ``1990``."""

year_month: Normalizer = _DatePart("year_month")
"""Year and month of a date or a datetime, as ``1990-05``."""

exact: Normalizer = _Exact()
"""Any value that can be encrypted, by its class and encoding (docs/format.md, 6).

So ``1``, ``1.0``, ``True`` and ``"1"`` are four values, and so are ``Decimal("1")`` and ``Decimal("1.0")``.
"""


def phone(*, country: str | None = None) -> Normalizer:
    """A phone number by its digits.

    ``country`` is a calling code, as ``"86"``. A number that begins with ``+`` or ``00`` is international,
    any other is one of that country, and a zero in front of it does not count: ``+86 138…``, ``0086138…``,
    ``0138…`` and ``138…`` are one number, ``+1 138…`` is another. Without a country, the digits less the
    zeros in front. No token where there is no digit but zeros. Other prefixes for calls abroad, as ``011``,
    and extensions are not understood.

    Raises:
        ConfigurationError: that is no calling code.
    """
    return _Phone(country)


def first(count: int) -> Normalizer:
    """The first ``count`` characters (code points) of the folded text; a shorter text as a whole.

    Raises:
        ConfigurationError: ``count`` is no positive whole number.
    """
    return _Part(_count("first", count))


def last(count: int) -> Normalizer:
    """The last ``count`` characters (code points) of the folded text; a shorter text as a whole.

    Raises:
        ConfigurationError: ``count`` is no positive whole number.
    """
    return _Part(-_count("last", count))


def _count(name: str, count: object) -> int:
    if type(count) is int and count > 0:
        return count
    raise ConfigurationError(f"{name}(n) takes a positive whole number of characters")


_BY_NAME: Mapping[str, Normalizer] = MappingProxyType(
    {each.name: each for each in (casefold, digits, email, exact, month_day, phone(), year, year_month)}
)


def normalizer(spec: object) -> Normalizer:
    """The normalizer that ``spec`` names or is; any other callable goes by its qualified name.

    Names are those of the normalizers without arguments: ``"casefold"``, ``"email"`` and so on.

    Raises:
        ConfigurationError: an unknown name, or nothing that can be called.
    """
    if isinstance(spec, str):
        if spec in _BY_NAME:
            return _BY_NAME[spec]
        raise ConfigurationError(
            f"there is no normalizer {spec!r}; the names are {', '.join(_BY_NAME)}, and "
            f"fieldvault.search.normalize has first(n), last(n) and phone(country=…)"
        )
    if not callable(spec):
        raise ConfigurationError(
            f"a normalizer is a name, one of fieldvault.search.normalize, or a function, not {_named(spec)}"
        )
    # The name that a class has among its members is the one of its objects.
    if isinstance(spec, Normalizer) and not isinstance(spec, type) and isinstance(spec.name, str):
        return spec
    return _Custom(spec)


def is_partial(how: Normalizer) -> bool:
    """Whether it keeps a part of a value only, so that equal tokens do not mean equal values."""
    return isinstance(how, _Part | _DatePart)


def normalized(how: Normalizer, value: object, field: str) -> str | None:
    """``value`` of ``field`` through a normalizer, whatever that one does.

    Raises:
        UnsupportedValue: the normalizer raised, or gave neither text nor ``None``. The message names the
            field and classes, never the value.
    """
    try:
        text: object = how(value)
    except Exception as error:  # noqa: BLE001 - its message may quote the value
        problem = f"the normalizer {how.name} raised {_named(error)} for a value of class {_named(value)}"
        if isinstance(how, _Own) and isinstance(error, UnsupportedValue):
            problem = str(error)
    else:
        if text is None or isinstance(text, str):
            return text
        problem = f"the normalizer {how.name} gave {_named(text)}, and not a str or None"
    # Raised here, where no error hangs on to it that has the value.
    raise UnsupportedValue(f"field {field!r}: {problem}")

"""Normalizers: what counts as equal, in the scripts and habits of the real world."""

import traceback
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.errors import ConfigurationError, UnsupportedValue
from fieldvault.search.normalize import (
    Normalizer,
    casefold,
    digits,
    email,
    exact,
    first,
    last,
    month_day,
    normalized,
    normalizer,
    phone,
    year,
    year_month,
)

CHINA = phone(country="86")
OF_TEXT = [casefold, email, digits, phone(), CHINA, phone(country="1"), first(1), first(4), last(3), last(40)]
LETTERS = st.text(st.characters(exclude_categories=["Cs"]))
TRICKY = st.text(
    st.sampled_from("aAßſİIıΣςﬁªĿ①²٣９+＋0@.。 \u3000\u00a0\u0301\u0345\u0323\u1100\u1161\u00adé")
)
NUMBERS = st.text(st.sampled_from("0012345678986+＋ -()٣９"))


def given_text(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with any text, with what is known to be hard, and with what people write for numbers."""
    return given(LETTERS | TRICKY | NUMBERS)(test)


@pytest.mark.parametrize("how", OF_TEXT, ids=lambda how: how.name)
def test_to_normalize_again_changes_nothing(how: Normalizer) -> None:
    """What was looked up once may be looked up as it came out."""

    @given_text
    def check(text: str) -> None:
        once = how(text)
        assert once is None or how(once) == once
        assert once is None or how is email or unicodedata.is_normalized("NFKC", once)

    check()


@pytest.mark.parametrize("how", [casefold, first(4), last(3), email], ids=lambda how: how.name)
def test_what_unicode_holds_equal_is_equal(how: Normalizer) -> None:
    """In every normalization form (UAX #15), and folded; with white space around it."""

    @given_text
    def check(text: str) -> None:
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            assert how(unicodedata.normalize(form, text)) == how(text)
        assert how(unicodedata.normalize("NFKC", text).casefold()) == how(text)
        assert how(f" \u3000{text}\t\n") == how(text)

    check()


def test_every_character_folds_to_the_end_at_once() -> None:
    """All of Unicode, alone: folding twice is folding once, and what comes out is composed (NFKC)."""
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert [each for each in every if casefold(casefold(each)) != casefold(each)] == []
    assert [each for each in every if not unicodedata.is_normalized("NFKC", casefold(each) or "")] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("王小明", " 王小明　"),
        ("ＬＩ　ＬＥＩ", "li lei"),
        ("ｶﾞ", "ガ"),
        ("Straße", "STRASSE"),
        ("MÜLLER", "mu\u0308ller"),
        ("Łódź", "ŁÓDŹ"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("ﬁsch", "FISCH"),
        ("각", "\u1100\u1161\u11a8"),
        ("İstanbul", "i̇stanbul"),
        ("Ærø", "ÆRØ"),
    ],
)
def test_spellings_of_one_name_are_one(one: str, other: str) -> None:
    """Width, case, composition, ligatures, sharp s and final sigma."""
    assert casefold(one) == casefold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("İstanbul", "Istanbul"),
        ("ısı", "isi"),
        ("Müller", "Mueller"),
        ("王", "玉"),
        ("國", "国"),
        ("a b", "ab"),
    ],
)
def test_other_names_stay_other_names(one: str, other: str) -> None:
    """Folding knows no language: Turkish i, German umlauts, traditional and simplified script stay apart."""
    assert casefold(one) != casefold(other)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (" Ann@Example.COM ", "ann@example.com"),
        ("Ann@example.com.", "ann@example.com"),
        ("info@MÜNCHEN.de", "info@xn--mnchen-3ya.de"),
        ("info@xn--MNCHEN-3ya.de", "info@xn--mnchen-3ya.de"),
        ("李雷@例子。中国", "李雷@xn--fsqu00a.xn--fiqs8s"),
        ("ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ann@example.com"),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ("no address", "no address"),
        ("ann@", "ann@"),
        (f"ann@{'ü' * 64}.de", f"ann@{'ü' * 64}.de"),
        (f"ann@{'ü.' * 200}de", f"ann@{'ü.' * 200}de"),
    ],
)
def test_mail_addresses_are_compared_with_their_domain_in_ascii(written: str, meant: str) -> None:
    """Where it has such a form; what is no address is text."""
    assert email(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "+86 138 0013 8000",
        "0086 138-0013-8000",
        "138 0013 8000",
        "013800138000",
        "＋８６　１３８００１３８０００",
        "(+86) 138 0013 8000",
        "+86 (0) 138 0013 8000",
        "+0086 13800138000",
        "٠١٣٨٠٠١٣٨٠٠٠",
        "Mobil: 138.0013.8000",
    ],
)
def test_a_chinese_number_is_one_number_however_it_is_written(written: str) -> None:
    """At home, from abroad, with separators, full-width, with Arabic digits."""
    assert CHINA(written) == "+8613800138000"


def test_a_number_of_another_country_stays_another_number() -> None:
    """The same digits behind another code; the same code without a sign that it is one."""
    assert CHINA("+1 138 0013 8000") == CHINA("001 13800138000") == "+113800138000"
    assert CHINA("+49 30 1234") == "+49301234"
    assert phone(country="49")("030 1234") == phone(country="49")("+49 (0)30 1234") == "+49301234"
    assert CHINA("8613800138000") == "+868613800138000"
    assert CHINA("+86 138") != phone(country="1")("138")


@given(st.text("0123456789", min_size=1), st.text("0123456789", min_size=1))
def test_no_foreign_number_becomes_one_of_the_country(home: str, foreign: str) -> None:
    """Whatever follows the codes."""
    own, other = CHINA(home), CHINA(f"+49{foreign}")
    assert own is None or own.startswith("+86") or home.startswith("00")
    assert other == f"+49{foreign}"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("+49 30 1234", "49301234"),
        ("0049 30 1234", "49301234"),
        ("030/1234", "301234"),
        ("n/a", None),
        ("00", None),
    ],
)
def test_without_a_country_a_number_is_its_digits(written: str, found: str | None) -> None:
    """Less the zeros in front, so that + and 00 are one; no token where there is no number."""
    assert phone()(written) == found


@pytest.mark.parametrize("country", ["", "+86", "086", "1234", "８６", 86, "8 6"])
def test_what_is_no_calling_code_is_refused(country: str) -> None:
    """With an example."""
    with pytest.raises(ConfigurationError, match='country="86"'):
        phone(country=country)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("6222 0210 0112 3456", "6222021001123456"),
        ("٣४９", "349"),
        ("m²①Ⅳ", None),
        ("", None),
        ("００", "00"),
    ],
)
def test_digits_are_those_of_every_script(written: str, found: str | None) -> None:
    """But no superscripts, circled or Roman numbers; zeros in front stay."""
    assert digits(written) == found


def test_parts_are_cut_from_the_folded_text() -> None:
    """A text that is shorter counts as a whole, an empty one too; blanks at the cut do not count."""
    assert (first(1)("Ångström"), last(4)("6222 0210 0112 3456"), last(2)("ΟΔΟΣ")) == ("å", "3456", "οσ")
    assert (first(3)("王"), last(3)("王"), first(3)(""), last(3)(" ")) == ("王", "王", "", "")
    assert (first(3)("ab cd"), last(3)("ab cd")) == ("ab", "cd")
    assert first(2)("ﬁsch") == "fi"


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "4"])
@pytest.mark.parametrize("make", [first, last])
def test_a_part_has_a_positive_number_of_characters(make: Callable[[Any], Normalizer], count: object) -> None:
    """Anything else is refused when the model is made."""
    with pytest.raises(ConfigurationError, match="positive whole number"):
        make(count)


def test_birthdays_have_parts() -> None:
    """Of dates, and of datetimes by their wall time."""
    day = date(987, 5, 17)
    assert (month_day(day), year(day), year_month(day)) == ("05-17", "0987", "0987-05")
    moment = datetime(2024, 2, 29, 23, 59, tzinfo=UTC)
    assert (month_day(moment), year(moment), year_month(moment)) == ("02-29", "2024", "2024-02")


def test_exact_values_differ_by_class_and_encoding() -> None:
    """Nothing is folded, and every encodable class has its own."""
    values = [
        1,
        1.0,
        True,
        "1",
        b"1",
        Decimal(1),
        Decimal("1.0"),
        "a",
        "A",
        "é",
        "e\u0301",
        "",
        b"",
        [1],
        {"a": 1},
    ]
    assert len({exact(value) for value in values}) == len(values)
    assert exact(date(1990, 5, 17)) == exact(date.fromisoformat("1990-05-17"))


@pytest.mark.parametrize(
    "name", ["casefold", "digits", "email", "exact", "month_day", "phone", "year", "year_month"]
)
def test_a_normalizer_may_be_named(name: str) -> None:
    """Its name is the one it says, and it is equal to the one of the module."""
    found = normalizer(name)
    assert found.name == name
    assert normalizer(found) is found


def test_names_and_representations_are_stable() -> None:
    """They stand in no key, but in what people compare: migrations, logs, tests."""
    assert [how.name for how in (CHINA, first(1), last(4))] == ["phone(86)", "first(1)", "last(4)"]
    assert repr(casefold) == "_Casefold(name='casefold')"
    assert phone(country="86") == CHINA
    assert len({hash(last(4)), hash(last(4)), hash(first(4))}) == 2


@pytest.mark.parametrize("spec", ["lower", "", 7, None, ["casefold"]])
def test_what_is_no_normalizer_is_refused(spec: object) -> None:
    """The message has the names there are, or says what may be given."""
    with pytest.raises(ConfigurationError, match=r"casefold|a function"):
        normalizer(spec)


class Reversed:
    """A normalizer of an application, with a name of its own."""

    name = "reversed"

    def __call__(self, value: Any, /) -> str | None:
        """Return the text backwards."""
        return str(value)[::-1]


def blood_type(value: Any) -> Any:
    """Return, or do, what the tests of custom functions want."""
    if isinstance(value, Exception):
        raise value
    return value


def test_a_function_goes_by_its_name_and_an_object_by_its_own() -> None:
    """Both are used as they are."""
    assert normalizer(blood_type).name == "blood_type"
    assert normalizer(Reversed()).name == "reversed"
    assert normalizer(Reversed()) != normalizer("casefold")
    assert normalized(normalizer(Reversed()), "abc", "a.b") == "cba"
    assert normalized(normalizer(str.upper), "abc", "a.b") == "ABC"
    assert normalizer(Reversed).name == "Reversed", "a class does not go by the name of its objects"
    assert normalized(normalizer(blood_type), None, "a.b") is None


@pytest.mark.parametrize(
    "value", [ValueError("secret"), UnsupportedValue("secret"), KeyError("secret"), b"secret", 7, ["secret"]]
)
def test_a_function_that_fails_is_refused_without_its_words(value: object) -> None:
    """Field and classes are named; the value is in no message, argument, cause or context."""
    with pytest.raises(UnsupportedValue, match=r"'people.blood'.*blood_type") as caught:
        normalized(normalizer(blood_type), value, "people.blood")
    assert type(value).__name__ in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "secret" not in "".join(traceback.format_exception_only(caught.value)) + repr(caught.value.args)


@pytest.mark.parametrize("how", [*OF_TEXT, month_day, year, year_month], ids=lambda how: how.name)
@pytest.mark.parametrize("value", [b"secret", 7, object(), ["secret"]])
def test_a_class_that_a_normalizer_does_not_take_is_refused(how: Normalizer, value: object) -> None:
    """By the names of field, normalizer and class."""
    with pytest.raises(UnsupportedValue) as caught:
        normalized(how, value, "people.name")
    for word in ("'people.name'", how.name, type(value).__name__):
        assert word in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_has_no_encoding_has_no_exact_text() -> None:
    """As when it is encrypted."""
    with pytest.raises(UnsupportedValue, match=r"'a.b'.*set"):
        normalized(exact, {"secret"}, "a.b")

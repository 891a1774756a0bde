"""Sections: typed members, and the line that each complaint names."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldvault.errors import ConfigurationError
from fieldvault.settings import Section, Source

SAMPLE = '''\
# A comment, as long as
# two lines.
top = "level"

[first]
name = "one"                            # line 6
"quoted name" = 1
dotted.inner.name = "deep"              # line 8
table = { name = "inline", size = 3 }   # line 9

[second]
name = "two"                            # line 12
list = [
    "name",
    { name = "in a list" },
]
long = """
name = "no member"
[second.name]
"""                                     # begins at line 17
after = 2024-05-01                      # line 21
seen = "a line\u2028and\x85more"
last = 12:30:00                         # line 23

[[second.entries]]
name = "entry"                          # line 26

[second.table.deep]
name = "deep"                           # line 29

[third]
'''


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """The sample, as if read from a file."""
    return Source("shop.toml", tmp_path, SAMPLE)


@pytest.fixture
def root(source: Source) -> Section:
    """The sample's root section."""
    return Section(tomllib.loads(SAMPLE), (), source)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 3),
        (("first",), 5),
        (("first", "name"), 6),
        (("first", "quoted name"), 7),
        (("first", "dotted"), 8),
        (("first", "dotted", "inner", "name"), 8),
        (("first", "table", "name"), 9),
        (("first", "table", "size"), 9),
        (("second", "name"), 12),
        (("second", "list"), 13),
        (("second", "long"), 17),
        (("second", "after"), 21),
        (("second", "seen"), 22),
        (("second", "last"), 23),
        (("second", "table"), 28),
        (("second", "table", "deep", "name"), 29),
        (("third",), 31),
    ],
)
def test_a_member_is_found_in_the_line_where_it_begins(
    source: Source, path: tuple[str, ...], line: int
) -> None:
    """However it is written, and whatever else has its name."""
    assert source.place(path) == f"shop.toml, line {line}"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("first", "missing"), "shop.toml, line 5"),
        (("second", "table", "missing", "more"), "shop.toml, line 28"),
        (("third", "name"), "shop.toml, line 31"),
        (("top", "name"), "shop.toml, line 3"),
        (("missing", "name"), "shop.toml"),
        (("missing",), "shop.toml"),
    ],
)
def test_what_is_missing_is_told_of_the_section_where_it_would_be(
    source: Source, path: tuple[str, ...], place: str
) -> None:
    """Or of the file as a whole."""
    assert source.place(path) == place


def test_a_mapping_has_no_lines(tmp_path: Path) -> None:
    """Its errors name the member."""
    section = Section({"a": 1}, ("kms",), Source("the configuration", tmp_path, None))
    with pytest.raises(
        ConfigurationError, match=r"^the configuration: kms\.a is text in quotes, not a whole number$"
    ):
        section.text("a")


TAKERS: dict[str, Callable[[Section, str], object]] = {
    "text": Section.text,
    "optional_text": Section.optional_text,
    "number": lambda section, name: section.number(name, 1.5),
    "optional_number": Section.optional_number,
    "whole": lambda section, name: section.whole(name, 1),
    "path": Section.path,
    "section": Section.section,
}
VALUES: dict[str, tuple[Any, str, set[str]]] = {
    "text": ("x", "text in quotes", {"text", "optional_text", "path"}),
    "whole": (5, "a whole number", {"number", "optional_number", "whole"}),
    "number": (5.5, "a number", {"number", "optional_number"}),
    "boolean": (True, "true or false", set()),
    "list": (["secret"], "a list", set()),
    "section": ({"secret": 1}, "a section", {"section"}),
    "date": (tomllib.loads("x = 2024-05-01T10:00:00Z")["x"], "a date", set()),
    "time": (tomllib.loads("x = 10:00:00")["x"], "a time", set()),
    "an object": (object(), "object", set()),
}


@pytest.mark.parametrize("given", VALUES)
@pytest.mark.parametrize("taker", TAKERS)
def test_a_member_has_the_type_that_it_is_taken_as(tmp_path: Path, taker: str, given: str) -> None:
    """A value of another is refused, both types named, the value not shown: it may be a misplaced secret."""
    value, word, takers = VALUES[given]
    section = Section({"x": value}, (), Source("a.toml", tmp_path, None))
    if taker in takers:
        TAKERS[taker](section, "x")
        section.finish()
        return
    with pytest.raises(ConfigurationError, match=rf"^a.toml: x is .*, not {word}$") as caught:
        TAKERS[taker](section, "x")
    assert "secret" not in str(caught.value)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    """Or is an error, where there can be none."""
    section = Section({}, ("kms",), Source("a.toml", tmp_path, None))
    assert section.optional_text("a") is None
    assert section.optional_number("a") is None
    assert section.secret("a") is None
    assert (section.number("a", 1.5), section.whole("a", 7)) == (1.5, 7)
    section.section("a").finish()
    for take in (section.text, section.path, lambda name: section.section(name, required=True)):
        with pytest.raises(ConfigurationError, match=r"^a.toml: kms.a is missing$"):
            take("a")


def test_text_is_not_empty(tmp_path: Path) -> None:
    """An empty text is more likely forgotten than meant."""
    with pytest.raises(ConfigurationError, match="x is empty"):
        Section({"x": ""}, (), Source("a.toml", tmp_path, None)).optional_text("x")


def test_what_nobody_takes_is_refused(root: Section) -> None:
    """With its line, and what can stand there."""
    root.text("top")
    first = root.section("first")
    first.text("nmae") if "nmae" in first else first.optional_text("size")
    with pytest.raises(
        ConfigurationError, match=r"^shop\.toml, line 6: first\.name is not known; here can stand: size$"
    ):
        first.finish()
    with pytest.raises(ConfigurationError, match=r"line 11: second is not known; here can stand: first, top"):
        root.finish()


def test_what_is_mistyped_is_told_with_what_was_meant(tmp_path: Path) -> None:
    """Before anything is told to be missing, and only where the names are alike."""
    section = Section({"leese": 1, "pth": "x", "y": 1}, ("kms",), Source("a.toml", tmp_path, None))
    with pytest.raises(
        ConfigurationError, match=r"kms\.pth is not known; did you mean path, which is missing\?$"
    ):
        section.text("path")
    with pytest.raises(ConfigurationError, match=r"kms\.type is missing$"):
        section.text("type")
    assert section.number("lease", 1.5) == 1.5
    with pytest.raises(
        ConfigurationError,
        match=r"kms\.leese is not known; here can stand: lease, path, type; did you mean lease\?$",
    ):
        section.finish()


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A mapping can have one."""
    with pytest.raises(ConfigurationError, match=r"kms.5 is not known"):
        Section({5: 1}, ("kms",), Source("a mapping", tmp_path, None)).finish()  # type: ignore[dict-item]


def _secrets(tmp_path: Path, **members: str) -> Section:
    return Section(members, ("kms",), Source("a.toml", tmp_path, None))


def test_a_secret_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the variable that the configuration names."""
    monkeypatch.setenv("SHOP_SECRET", "hunter2\n")
    assert _secrets(tmp_path, word_env="SHOP_SECRET").secret("word") == "hunter2\n"
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("SHOP_SECRET")
        else:
            monkeypatch.setenv("SHOP_SECRET", value)
        with pytest.raises(
            ConfigurationError,
            match=r"kms.word_env names the environment variable SHOP_SECRET, which is not set",
        ):
            _secrets(tmp_path, word_env="SHOP_SECRET").secret("word")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file(tmp_path: Path, ending: str) -> None:
    """Beside the configuration or anywhere; the line break that editors add does not count."""
    path = tmp_path / "secret"
    path.write_bytes(b" \xe7\x94\xb5\xe6\xb1\xa0 two " + ending.encode())
    for name in ("secret", str(path)):
        assert _secrets(tmp_path, word_file=name).secret("word") == " 电池 two "


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """With what is wrong with it."""
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"kms.word_file names 'secret', which {problem}") as caught:
        _secrets(tmp_path, word_file="secret").secret("word")
    assert caught.value.__context__ is None


def test_a_name_that_no_file_has_is_refused(tmp_path: Path) -> None:
    """TOML can write a NUL."""
    with pytest.raises(ConfigurationError, match="which is no name of a file"):
        _secrets(tmp_path, word_file="a\x00b").secret("word")


def test_a_secret_stands_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two it would not be clear which one is meant."""
    monkeypatch.setenv("SHOP_SECRET", "x")
    with pytest.raises(ConfigurationError, match=r"kms.word_file stands beside word_env; give one of them"):
        _secrets(tmp_path, word_env="SHOP_SECRET", word_file="f").secret("word")
    with pytest.raises(ConfigurationError, match=r"kms.word_env stands beside word; give one of them"):
        _secrets(tmp_path, word_env="SHOP_SECRET", word="x").text_or_secret("word")


def test_text_may_stand_for_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it holds none; the member that gave it is told."""
    monkeypatch.setenv("SHOP_SECRET", "x")
    (tmp_path / "f").write_text("y")
    assert _secrets(tmp_path, word="z").text_or_secret("word") == ("word", "z")
    assert _secrets(tmp_path, word_env="SHOP_SECRET").text_or_secret("word") == ("word_env", "x")
    assert _secrets(tmp_path, word_file="f").text_or_secret("word") == ("word_file", "y")
    with pytest.raises(ConfigurationError, match=r"kms.word is missing"):
        _secrets(tmp_path).text_or_secret("word")


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """Not to where the process happens to be."""
    assert _secrets(tmp_path, path="a/b").path("path") == tmp_path / "a" / "b"
    assert _secrets(tmp_path, path=f"{os.sep}a").path("path") == Path("/a")
    assert _secrets(tmp_path).folder == tmp_path


def test_what_a_value_does_wrong_is_told_with_its_place(root: Section) -> None:
    """Whoever finds out does not have to know where the value came from."""
    with (
        pytest.raises(
            ConfigurationError, match=r"^shop.toml, line 12: second.name cannot be used: it is odd$"
        ),
        root.section("second").blaming("name"),
    ):
        raise ConfigurationError("it is odd")
    with root.section("second").blaming("name"):
        pass

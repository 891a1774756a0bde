"""Sections of a configuration: typed members, and errors that name the line to mend."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, time
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fieldvault.errors import ConfigurationError

__all__ = ["Section", "Source"]

_WORDS: Mapping[type, str] = {
    bool: "true or false",
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    dict: "a section",
    list: "a list",
    date: "a date",
    time: "a time",
}
_MISSING = object()


class Section:
    """One section of a configuration.

    Each taker reads a member and checks its type; ``finish`` complains of what nobody took.
    """

    def __init__(self, members: Mapping[str, Any], path: tuple[str, ...], source: Source) -> None:
        self._members = members
        self._path = path
        self._source = source
        self._known: list[str] = []

    def text(self, name: str) -> str:
        """Text, not empty."""
        return self._text(name, _MISSING)  # type: ignore[return-value]

    def optional_text(self, name: str) -> str | None:
        """Text, not empty, or ``None`` where it is left out."""
        return self._text(name, None)

    def number(self, name: str, default: float) -> float:
        """A number, fractions allowed."""
        return float(self._take(name, float, default))  # type: ignore[arg-type]

    def optional_number(self, name: str) -> float | None:
        """A number, fractions allowed, or ``None`` where it is left out."""
        value = self._take(name, float, None)
        return None if value is None else float(value)  # type: ignore[arg-type]

    def whole(self, name: str, default: int) -> int:
        """A whole number."""
        return self._take(name, int, default)  # type: ignore[return-value]

    def flag(self, name: str, *, default: bool) -> bool:
        """``true`` or ``false``."""
        return self._take(name, bool, default)  # type: ignore[return-value]

    def path(self, name: str) -> Path:
        """The path of a file, relative to the configuration's folder."""
        return self._source.folder / self.text(name)

    def secret(self, name: str) -> str | None:
        """A secret, which never stands in the configuration itself.

        ``<name>_env`` names an environment variable, ``<name>_file`` a file that holds it, UTF-8, whose last
        line break does not count.
        """
        variable = self.optional_text(f"{name}_env")
        file = self.optional_text(f"{name}_file")
        if variable is not None and file is not None:
            raise self.error(f"{name}_file", f"stands beside {name}_env; give one of them")
        if variable is not None:
            value = os.environ.get(variable)
            if not value:
                raise self.error(
                    f"{name}_env", f"names the environment variable {variable}, which is not set"
                )
            return value
        return None if file is None else self._content(f"{name}_file", file)

    def text_or_secret(self, name: str) -> tuple[str, str]:
        """Text that may stand here, or else where ``secret`` looks; the member that gave it, and the text."""
        secret = self.secret(name)
        if secret is None:
            return name, self.text(name)
        giver = next(each for each in (f"{name}_env", f"{name}_file") if each in self)
        if self.optional_text(name) is not None:
            raise self.error(giver, f"stands beside {name}; give one of them")
        return giver, secret

    def section(self, name: str, *, required: bool = False) -> Section:
        """A section within this one; an empty one where it is left out."""
        members = self._take(name, dict, _MISSING if required else {})
        return Section(members, (*self._path, name), self._source)  # type: ignore[arg-type]

    def backend(self, group: str) -> Any:
        """The class that ``type`` names among the installed entry points of a group."""
        name = self.text("type")
        known = {point.name: point for point in entry_points(group=group)}
        if name not in known:
            raise self.error("type", f"is {name!r}; installed are: {', '.join(sorted(known))}")
        problem: str
        try:
            return known[name].load()
        except ModuleNotFoundError as error:
            problem = f"needs the module {error.name}, which is not installed; install fieldvault[{name}]"
        raise self.error("type", problem)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return self._source.folder

    @contextmanager
    def blaming(self, name: str) -> Iterator[None]:
        """What is found wrong in this block with the value of a member, told with its place."""
        try:
            yield
        except ConfigurationError as error:
            problem = str(error)
        else:
            return
        raise self.error(name, f"cannot be used: {problem}")

    def error(self, name: str, problem: str) -> ConfigurationError:
        """The error for one member, with its place."""
        path = (*self._path, str(name))
        return ConfigurationError(f"{self._source.place(path)}: {'.'.join(path)} {problem}")

    def finish(self) -> None:
        """Refuse members that are not known here, a mistyped one among them."""
        for name in self._members:
            if name not in self._known:
                meant = get_close_matches(str(name), self._known, n=1)
                raise self.error(
                    name,
                    f"is not known; here can stand: {', '.join(sorted(set(self._known)))}"
                    + "".join(f"; did you mean {each}?" for each in meant),
                )

    def _text(self, name: str, default: object) -> str | None:
        value = self._take(name, str, default)
        if value == "":
            raise self.error(name, "is empty")
        return value  # type: ignore[return-value]

    def _content(self, name: str, file: str) -> str:
        problem: str
        try:
            content = (self._source.folder / file).read_text(encoding="utf-8").rstrip("\r\n")
            if content:
                return content
            problem = "is empty"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "is not UTF-8"
        except ValueError:
            problem = "is no name of a file"
        raise self.error(name, f"names {file!r}, which {problem}")

    def _take(self, name: str, kind: type, default: Any) -> object:
        self._known.append(name)
        value = self._members.get(name, default)
        if value is _MISSING:
            unknown = [str(each) for each in self._members if each not in self._known]
            for mistyped in get_close_matches(name, unknown, n=1):
                raise self.error(mistyped, f"is not known; did you mean {name}, which is missing?")
            raise self.error(name, "is missing")
        if name in self._members and not _fits(value, kind):
            # The class of the value only: what stands in the wrong place may be a secret.
            given = next((word for known, word in _WORDS.items() if isinstance(value, known)), None)
            raise self.error(name, f"is {_WORDS[kind]}, not {given or type(value).__name__}")
        return value


def _fits(value: object, kind: type) -> bool:
    if kind is dict:
        return isinstance(value, Mapping)
    return type(value) is kind or (kind is float and type(value) is int)


class Source:
    """Where a configuration came from, to say in which line something stands."""

    def __init__(self, name: str, folder: Path, text: str | None) -> None:
        self._name = name
        self.folder = folder
        self._text = text

    def place(self, path: tuple[str, ...]) -> str:
        """File and line of a member, or of the innermost section that is there."""
        lines = [] if self._text is None else self._text.split("\n")
        for depth in range(len(path), 0, -1):
            begin = 1
            # The first lines with which the member is there: found by the parser itself, so no way to write
            # TOML is missed. Lines that do not parse yet are the beginning of a statement.
            for number in range(1, len(lines) + 1):
                members = _parsed("\n".join(lines[:number]))
                if members is None:
                    continue
                if _has(members, path[:depth]):
                    return f"{self._name}, line {begin}"
                begin = number + 1
        return self._name


def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _has(members: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(members, Mapping) or name not in members:
            return False
        members = members[name]
    return True

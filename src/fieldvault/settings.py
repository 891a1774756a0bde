"""Sections of a configuration: typed members, and errors that name the line to mend."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldvault.errors import ConfigurationError

__all__ = ["Section", "Source"]

_WORDS = {str: "text in quotes", int: "a whole number", float: "a number", dict: "a section"}
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
        value = self._take(name, float, default)
        return float(value)  # type: ignore[arg-type]

    def whole(self, name: str, default: int) -> int:
        """A whole number."""
        return self._take(name, int, default)  # type: ignore[return-value]

    def path(self, name: str) -> Path:
        """The path of a file, relative to the configuration's folder."""
        return self._source.folder / self.text(name)

    def secret(self, name: str) -> str | None:
        """A secret, which never stands in the configuration itself.

        ``<name>_env`` names an environment variable, ``<name>_file`` a file that holds it.
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
        if file is None:
            return None
        problem: str
        try:
            return (self._source.folder / file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            problem = error.strerror or "" if isinstance(error, OSError) else "not UTF-8"
        raise self.error(f"{name}_file", f"names {file}, which cannot be read: {problem}")

    def section(self, name: str, *, required: bool = False) -> Section:
        """A section within this one; an empty one where it is left out."""
        members = self._take(name, dict, _MISSING if required else {})
        return Section(members, (*self._path, name), self._source)  # type: ignore[arg-type]

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return self._source.folder

    def error(self, name: str, problem: str) -> ConfigurationError:
        """The error for one member, with its place."""
        path = (*self._path, name)
        return ConfigurationError(f"{self._source.place(path)}: {'.'.join(path)} {problem}")

    def finish(self) -> None:
        """Refuse members that are not known here, a mistyped one among them."""
        for name in self._members:
            if name not in self._known:
                raise self.error(name, f"is not known; here can stand: {', '.join(sorted(self._known))}")

    def _text(self, name: str, default: object) -> str | None:
        value = self._take(name, str, default)
        if value == "":
            raise self.error(name, "is empty")
        return value  # type: ignore[return-value]

    def _take(self, name: str, kind: type, default: Any) -> object:
        self._known.append(name)
        value = self._members.get(name, default)
        if value is _MISSING:
            raise self.error(name, "is missing")
        if name in self._members:
            fits = (
                isinstance(value, Mapping)
                if kind is dict
                else type(value) is kind or (kind is float and type(value) is int)
            )
            if not fits:
                raise self.error(name, f"is {_WORDS[kind]}, not {value!r:.40}")
        return value


class Source:
    """Where a configuration came from, to say in which line something stands."""

    def __init__(self, name: str, folder: Path, text: str | None) -> None:
        self._name = name
        self.folder = folder
        self._text = text

    def place(self, path: tuple[str, ...]) -> str:
        """File and line of a member, or of the innermost section that is there."""
        if self._text is None:
            return self._name
        lines = self._text.splitlines()
        for depth in range(len(path), 0, -1):
            for number in range(1, len(lines) + 1):
                # The first line with which the member is there: found by the parser itself, so no way to
                # write TOML is missed.
                if _has("\n".join(lines[:number]), path[:depth]):
                    return f"{self._name}, line {number}"
        return self._name


def _has(text: str, path: tuple[str, ...]) -> bool:
    try:
        members: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    for name in path:
        if not isinstance(members, dict) or name not in members:
            return False
        members = members[name]
    return True

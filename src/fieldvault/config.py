"""Reads ``fieldvault.toml``: every mistake in it gets an error that names the line to mend."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fieldvault.errors import ConfigurationError
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.settings import Section, Source
from fieldvault.suites import AES_256_GCM

__all__ = ["ConfigurableBackend", "read"]

T = TypeVar("T")


class ConfigurableBackend(Protocol):
    """What a backend class offers to be named in a configuration: a constructor from its section."""

    @classmethod
    def from_config(cls, section: Section) -> Any:
        """Take what it needs from the section, and open the backend."""
        ...


def read(configuration: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``Vault`` that a file or a mapping describes, backends opened.

    Raises:
        ConfigurationError: with file and line where it came from a file.
    """
    root = _root(configuration)
    vault, kms, store = (
        root.section("vault"),
        root.section("kms", required=True),
        root.section("key_store", required=True),
    )
    cache, rotation = root.section("cache"), root.section("rotation")
    root.finish()
    arguments: dict[str, Any] = {
        "default_tenant": vault.optional_text("default_tenant"),
        "suite": vault.optional_text("suite") or AES_256_GCM.name,
    }
    vault.finish()
    arguments["cache"] = _cache(cache)
    arguments["rotation"] = _rotation(rotation)
    makers = {
        name: (section, _backend(group, section))
        for name, section, group in (
            ("kms", kms, "fieldvault.kms"),
            ("key_store", store, "fieldvault.key_stores"),
        )
    }
    for name, (section, backend) in makers.items():
        arguments[name] = backend.from_config(section)
    return arguments


def _root(configuration: str | os.PathLike[str] | Mapping[str, Any]) -> Section:
    if isinstance(configuration, Mapping):
        return Section(configuration, (), Source("the configuration", Path(), None))
    path = Path(configuration)
    problem: str
    try:
        text = path.read_text(encoding="utf-8")
        return Section(tomllib.loads(text), (), Source(str(path), path.parent, text))
    except FileNotFoundError:
        problem = f"there is no {path}; `fieldvault init` writes one"
    except UnicodeDecodeError:
        problem = f"{path} is not UTF-8"
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    except tomllib.TOMLDecodeError as error:
        problem = f"{path} is not TOML: {error}"
    raise ConfigurationError(problem)


def _cache(section: Section) -> CachePolicy:
    default = CachePolicy()
    policy = {
        "max_keys": section.whole("max_keys", default.max_keys),
        "ttl": section.number("ttl", default.ttl),
        "lease": section.number("lease", default.lease),
        "grace": section.number("grace", default.grace),
    }
    section.finish()
    return _made(section, CachePolicy, policy)


def _rotation(section: Section) -> RotationPolicy:
    default = RotationPolicy()
    days = section.number("max_age_days", 0.0)
    policy = {
        "max_age": timedelta(days=days) if days else None,
        "max_uses": section.whole("max_uses", default.max_uses),
        "block": section.whole("block", default.block),
    }
    section.finish()
    return _made(section, RotationPolicy, policy)


def _made(section: Section, policy: type[T], arguments: dict[str, Any]) -> T:
    problem: str
    try:
        return policy(**arguments)
    except ConfigurationError as error:
        problem = str(error)
    raise section.error(
        next((name for name in arguments if problem.startswith(name)), "block"), f"does not fit: {problem}"
    )


def _backend(group: str, section: Section) -> type[ConfigurableBackend]:
    """The backend class that a section's ``type`` names among the installed entry points of a group."""
    name = section.text("type")
    known = {point.name: point for point in entry_points(group=group)}
    if name not in known:
        raise section.error("type", f"is {name!r}; installed are: {', '.join(sorted(known))}")
    problem: str
    try:
        return known[name].load()  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        problem = f"needs the module {error.name}, which is not installed; install fieldvault[{name}]"
    raise section.error("type", problem)

"""Reads ``fieldvault.toml``: every mistake in it gets an error that names the line to mend."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fieldvault.context import check_name
from fieldvault.errors import ConfigurationError
from fieldvault.keys.policy import CachePolicy, RetryPolicy, RotationPolicy
from fieldvault.settings import Section, Source
from fieldvault.suites import AES_256_GCM, suite_named

__all__ = ["ConfigurableBackend", "absence", "described", "read"]

P = TypeVar("P", CachePolicy, RetryPolicy)


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
    root = described(configuration)
    vault, kms, store = (
        root.section("vault"),
        root.section("kms", required=True),
        root.section("key_store", required=True),
    )
    cache, rotation, retries = root.section("cache"), root.section("rotation"), root.section("retries")
    root.finish()
    arguments = _vault(vault)
    arguments["cache"] = _cache(cache)
    arguments["rotation"] = _rotation(rotation)
    arguments["retries"] = _retries(retries)
    kms_class: type[ConfigurableBackend] = kms.backend("fieldvault.kms")
    store_class: type[ConfigurableBackend] = store.backend("fieldvault.key_stores")
    arguments["kms"] = kms_class.from_config(kms)
    try:
        arguments["key_store"] = store_class.from_config(store)
    except BaseException:
        arguments["kms"].close()
        raise
    return arguments


def absence(path: Path) -> str:
    """That there is no such file, and in which folder: it is mostly not the one that was meant."""
    return f"there is no {path.name} in {path.parent.resolve()}"


def described(configuration: str | os.PathLike[str] | Mapping[str, Any]) -> Section:
    """The whole of a configuration, as one section; nothing in it is looked at yet.

    Raises:
        ConfigurationError: there is no such file, or it is no TOML.
    """
    if isinstance(configuration, Mapping):
        return Section(configuration, (), Source("the configuration", Path(), None))
    path = Path(configuration)
    problem: str
    try:
        text = path.read_text(encoding="utf-8")
        return Section(tomllib.loads(text), (), Source(str(path), path.parent, text))
    except FileNotFoundError:
        problem = f"{absence(path)}; name the one to open, or, for a new vault, run `fieldvault init`"
    except UnicodeDecodeError:
        problem = f"{path} is not UTF-8"
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    except tomllib.TOMLDecodeError as error:
        problem = f"{path} is not TOML: {error}"
    raise ConfigurationError(problem)


def _vault(section: Section) -> dict[str, Any]:
    tenant, suite = section.optional_text("default_tenant"), section.optional_text("suite")
    section.finish()
    if tenant is not None:
        with section.blaming("default_tenant"):
            check_name("tenant", tenant)
    if suite is not None:
        with section.blaming("suite"):
            suite_named(suite)
    return {"default_tenant": tenant, "suite": suite or AES_256_GCM.name}


def _cache(section: Section) -> CachePolicy:
    default = CachePolicy()
    values = {
        "max_keys": section.whole("max_keys", default.max_keys),
        "ttl": section.number("ttl", default.ttl),
        "lease": section.number("lease", default.lease),
        "grace": section.number("grace", default.grace),
        "refresh_ahead": section.number("refresh_ahead", default.refresh_ahead),
        "reprove": section.flag("reprove", default=default.reprove),
    }
    return _policy(CachePolicy, section, values)


def _retries(section: Section) -> RetryPolicy:
    default = RetryPolicy()
    values = {
        "deadline": section.number("deadline", default.deadline),
        "failures": section.whole("failures", default.failures),
        "pause": section.number("pause", default.pause),
    }
    return _policy(RetryPolicy, section, values)


def _policy(kind: type[P], section: Section, values: Mapping[str, Any]) -> P:
    section.finish()
    for name, value in values.items():
        # One at a time, so that the error names the one.
        with section.blaming(name):
            kind(**{name: value})
    return kind(**values)


def _rotation(section: Section) -> RotationPolicy:
    default = RotationPolicy()
    days = section.optional_number("max_age_days")
    max_uses, block = section.whole("max_uses", default.max_uses), section.whole("block", default.block)
    section.finish()
    with section.blaming("max_age_days"):
        max_age = None if days is None else _days(days)
    with section.blaming("max_uses" if "max_uses" in section else "block"):
        return RotationPolicy(max_age=max_age, max_uses=max_uses, block=block)


def _days(days: float) -> timedelta:
    try:
        age = timedelta(days=days)
    except (OverflowError, ValueError):
        age = timedelta(0)
    if age <= timedelta(0):
        raise ConfigurationError(f"{days:g} days are no age; give a positive number, or leave it out")
    return age

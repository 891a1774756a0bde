"""Opens what the configuration describes: the vault, or one of its two backends alone."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from fieldvault.config import absence, described, read
from fieldvault.errors import ConfigurationError, FieldVaultError, KeyStoreError
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keystores.sql.engines import anchored
from fieldvault.kms.multi.opening import Absent
from fieldvault.kms.multi.opening import opened as opened_member
from fieldvault.settings import Section, Source
from fieldvault.vault import Vault

__all__ = [
    "WAYS_TO_CONFIGURATION",
    "Opened",
    "Undescribed",
    "database_file",
    "key_store_alone",
    "kms_alone",
    "members_unopened",
    "opened",
    "require_database",
    "section",
]

WAYS_TO_CONFIGURATION = (
    "name it with --config or FIELDVAULT_CONFIG, or, for a new vault, run `fieldvault init`"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A vault, and the policies that its configuration gave it."""

    vault: Vault
    cache: CachePolicy
    rotation: RotationPolicy


@contextmanager
def opened(config: Path) -> Iterator[Opened]:
    """The vault that the configuration describes, closed at the end.

    Raises:
        ConfigurationError, KMSError, KeyStoreError: as ``Vault.open``; also where the file of an SQLite key
            store is missing, which opening it would make anew, and empty.
    """
    if not config.exists():
        raise ConfigurationError(f"{absence(config)}; {WAYS_TO_CONFIGURATION}")
    require_database(config)
    arguments = read(config)
    with Vault(**arguments) as vault:
        yield Opened(vault, arguments["cache"], arguments["rotation"])


class Undescribed(ConfigurationError):
    """The configuration names no backend that could be opened: the mistake is its own."""


def section(config: Path, name: str) -> Section:
    """One backend's section, not checked any further; an empty one if the file cannot be read."""
    try:
        text = config.read_text(encoding="utf-8")
        members = tomllib.loads(text)
    except (OSError, ValueError):
        # Whoever opens the vault next says what is wrong with the file.
        text, members = "", {}
    return Section(members, (), Source(str(config), config.parent, text)).section(name)


def database_file(key_store: Section) -> Path | None:
    """The file of an SQLite key store; ``None`` for any other store."""
    if key_store.optional_text("type") != "sql":
        return None
    url = key_store.secret("url") or key_store.optional_text("url") or ""
    try:
        parsed = make_url(anchored(url, key_store.folder))
    except ArgumentError:
        return None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return None if parsed.database.startswith((":memory:", "file:")) else Path(parsed.database)


def require_database(config: Path) -> None:
    """Refuse to go on without the file of an SQLite key store.

    Raises:
        KeyStoreError: it is missing.
    """
    file = database_file(section(config, "key_store"))
    if file is not None and not file.exists():
        raise KeyStoreError(
            f"there is no key store {file}; restore it from its backup, or correct its URL: a new, empty one "
            "opens nothing that is already sealed; for a new vault, `fieldvault keystore create` makes it"
        )


def kms_alone(config: Path) -> KMS:
    """The configured KMS, whatever state the key store is in.

    Raises:
        Undescribed: the configuration does not say which it is.
        ConfigurationError, KMSError: it cannot be opened.
    """
    kms: KMS = _backend("fieldvault.kms", config, "kms")
    return kms


def members_unopened(config: Path) -> Mapping[str, FieldVaultError]:
    """Of several KMSs those that cannot be opened, each tried alone; none where there is one KMS."""
    errors: dict[str, FieldVaultError] = {}
    try:
        kms = section(config, "kms")
        if kms.optional_text("type") != "multi":
            return errors
        members = kms.section("members")
        described = {name: members.section(name) for name in members}
    except ConfigurationError:
        return errors  # the error of the whole says it
    for name, member in described.items():
        try:
            tried = opened_member(member)
            if not isinstance(tried, Absent):
                tried.close()
        except FieldVaultError as error:
            errors[name] = error
    return errors


def key_store_alone(config: Path, *, new: bool = False) -> KeyStore:
    """The configured key store, whatever state the KMS is in; a ``new`` one may have to be made.

    Raises:
        Undescribed: the configuration does not say which it is.
        ConfigurationError, KeyStoreError: it cannot be opened.
    """
    if not new:
        require_database(config)
    key_store: KeyStore = _backend("fieldvault.key_stores", config, "key_store")
    return key_store


def _backend(group: str, config: Path, name: str) -> Any:
    try:
        members = described(config).section(name, required=True)
        members.text("type")
    except ConfigurationError as error:
        problem = str(error)
    else:
        return members.backend(group).from_config(members)
    raise Undescribed(problem)

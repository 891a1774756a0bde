"""Founds a vault: root-key file, key store and configuration, all of them or none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from fieldvault.cli.exits import Refused
from fieldvault.cli.opening import database_file, section
from fieldvault.cli.verify import verified
from fieldvault.errors import ConfigurationError
from fieldvault.keys.protocols import KeyStore
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.settings import Section, Source

__all__ = ["Founded", "Plan", "found"]

_PASSWORDS = frozenset({"password", "passwd"})
"""Parameters in a URL's query that drivers take for the password."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration is to say: members of its sections, ``None`` for those to leave out."""

    root_keys: str
    passphrase: Mapping[str, str | None]
    key_store: Mapping[str, str | None]

    def kms_section(self) -> dict[str, str]:
        """The members of ``[kms]``."""
        return {"type": "local", "path": self.root_keys, **_given(self.passphrase)}

    def key_store_section(self) -> dict[str, str]:
        """The members of ``[key_store]``."""
        return {"type": "sql", **_given(self.key_store)}


@dataclass(frozen=True, slots=True)
class Founded:
    """What was made, and what was there already and kept."""

    root_keys: Path
    key_store: str
    created_root_keys: bool
    created_key_store: bool


def found(config: Path, plan: Plan) -> Founded:
    """Make what is missing, the configuration last; on an error, take back what was made here.

    Raises:
        Refused: there is a configuration already, or a key store whose root-key file is missing.
        ConfigurationError, KMSError, KeyStoreError: a part cannot be made, or one that is there cannot be
            opened.
    """
    folder = config.parent
    kms_section = Section(plan.kms_section(), (), Source("the command line", folder, None))
    root_keys, passphrase = kms_section.path("path"), kms_section.secret("passphrase")
    _check_url(plan.key_store.get("url"))
    with _alone_in(folder), contextlib.ExitStack() as undo:
        if os.path.lexists(config):
            raise Refused(_already(config, root_keys))
        store_section = Section(plan.key_store_section(), (), Source("the command line", folder, None))
        database = database_file(store_section)
        new_database = database is not None and not database.exists()
        if database is not None and new_database:
            undo.callback(_remove_database, database)
        store = SQLKeyStore.from_config(store_section)
        undo.callback(store.close)
        new_root_keys = not os.path.lexists(root_keys)
        if new_root_keys:
            _require_empty(store, root_keys)
            kms = LocalKMS.create(root_keys, passphrase)
            undo.callback(root_keys.unlink)
        else:
            kms = LocalKMS(root_keys, passphrase)
            _require_match(kms, store, root_keys)
        reached = store.check()
        _write_new(config, _text(plan))
        undo.pop_all()
        store.close()
        return Founded(root_keys, reached, new_root_keys, new_database)


def _given(members: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in members.items() if value is not None}


def _check_url(url: str | None) -> None:
    try:
        parsed = make_url(url or "")
    except ArgumentError:
        return  # what is no URL at all gets its error where it is opened
    if parsed.password is not None or not _PASSWORDS.isdisjoint(parsed.query):
        raise ConfigurationError(
            "the key store's URL holds a password, which would stand in the configuration; put the URL into "
            "an environment variable, and give its name as --key-store-env"
        )


def _already(config: Path, root_keys: Path) -> str:
    kms = _kms_of(config)
    if kms not in (None, "local"):
        return (
            f"{config} exists, and nothing is overwritten; its KMS is {kms}, and init is for the embedded "
            "one: for a new vault, run `fieldvault keystore create`, then `fieldvault doctor`"
        )
    if root_keys.exists():
        return f"{config} exists, and nothing is overwritten; `fieldvault doctor` says whether it works"
    return (
        f"{config} exists, and nothing is overwritten; if it came without its root-key file and key store, "
        "restore those, or move it away to begin anew"
    )


def _kms_of(config: Path) -> str | None:
    try:
        return section(config, "kms").optional_text("type")
    except ConfigurationError:
        return None


def _require_empty(store: KeyStore, root_keys: Path) -> None:
    if next(store.tenants(), None) is not None:
        raise Refused(
            f"the key store has keys, and there is no root-key file {root_keys} to open them; restore it "
            "from its backup, a new one would not open them"
        )


def _require_match(kms: LocalKMS, store: KeyStore, root_keys: Path) -> None:
    for tenant in store.tenants():
        if any(verdict.problem for verdict in verified(kms, store, tenant)):
            raise Refused(
                f"the root-key file {root_keys} does not open the keys in the key store; restore its own"
            )


def _remove_database(database: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _text(plan: Plan) -> str:
    return "\n".join(
        (
            "# What each member means: docs/configuration.md. Paths are relative to this file's folder.",
            "",
            "[kms]",
            *_members(plan.kms_section()),
            "",
            "[key_store]",
            *_members(plan.key_store_section()),
            "",
        )
    )


def _members(section: Mapping[str, str]) -> Iterator[str]:
    for name, value in section.items():
        # JSON's strings are TOML's but for DEL.
        yield f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Be the only init at work in the folder, so that what is taken back is one's own."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_new(config: Path, text: str) -> None:
    """Write the file at once and whole; one that is there stays as it is."""
    draft = config.with_name(f".{config.name}.{secrets.token_hex(8)}")
    problem = None
    try:
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # A link fails where the name exists; a rename would replace it.
            config.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
    except (OSError, UnicodeEncodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "a name in it is not UTF-8"
    if problem is not None:
        raise ConfigurationError(f"{config} cannot be written: {problem}")

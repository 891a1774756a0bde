"""Who may read the files that hold secrets: PINs, tokens, passwords, private keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from fieldvault.cli.findings import Finding, Level
from fieldvault.cli.terminal import counted
from fieldvault.errors import ConfigurationError
from fieldvault.settings import Section

__all__ = ["secret_files"]

_CHECK = "secret files"
_FILE = "_file"
_PASSED_OVER = frozenset({"ca_file", "jwt_file"})
"""No secret, and one that lives for minutes, and that Kubernetes shows to all of a pod."""

_KEYS = frozenset({"client_key", "private_key"})
"""Members that name a file with a secret without saying so."""

_OTHERS = stat.S_IRWXO | stat.S_IWGRP
"""A group that may read it is how Kubernetes gives a secret to a user of its own."""


def secret_files(*sections: Section) -> Finding | None:
    """Whether others may read what these sections, and those of a KMS of several, name as secrets.

    ``None`` where they name none. It is a warning: whoever mounts secrets for a container sets other modes,
    and has other walls around them. The files of the embedded KMS are looked at closer, by their own check.
    """
    named = sorted({file for section in sections for file in _named(section)})
    open_to_others = [(file, mode) for file in named if (mode := _mode(file)) & _OTHERS]
    if not named:
        return None
    if not open_to_others:
        return Finding(_CHECK, Level.OK, f"{counted(len(named), 'file')}, none of them open to others")
    return Finding(
        _CHECK,
        Level.WARNING,
        f"{len(open_to_others)} of {counted(len(named), 'file')} with secrets are open to others",
        "chmod 600, or see that nobody else is on this machine, as in a container",
        tuple(f"{file} has mode {mode:04o}" for file, mode in open_to_others),
    )


def _named(section: Section) -> Iterator[Path]:
    embedded = "path" in section
    for name in section:
        is_secret = name in _KEYS or (name.endswith(_FILE) and name not in _PASSED_OVER)
        if is_secret and not (embedded and name == "passphrase_file"):
            try:
                yield section.path(name)
            except ConfigurationError:
                continue  # no text: opening the vault says so
    if "members" in section:
        try:
            members = section.section("members")
            each = [members.section(name) for name in members]
        except ConfigurationError:
            return
        for member in each:
            yield from _named(member)


def _mode(file: Path) -> int:
    try:
        return stat.S_IMODE(file.stat().st_mode)
    except (OSError, ValueError):
        return 0  # who opens the vault says that it is not there

"""Who may read the root-key file of the embedded KMS, and the file of its passphrase."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from fieldvault.cli.findings import Finding, Level
from fieldvault.errors import ConfigurationError, FieldVaultError
from fieldvault.kms import privatefile
from fieldvault.settings import Section

__all__ = ["is_the_file", "root_key_file"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CHECK = "root-key file"
_RESTORE = "restore it from its backup, or correct the path; a new one opens nothing that is already sealed"


def root_key_file(kms: Section) -> Finding | None:
    """Whether nobody but its user gets at the root keys; ``None`` where another KMS holds them."""
    try:
        if kms.optional_text("type") != "local":
            return None
        path = kms.path("path")
        passphrase = kms.optional_text("passphrase_file")
    except ConfigurationError as error:
        return Finding(_CHECK, Level.PROBLEM, str(error), "mend the section [kms]")
    found = _file(path)
    if found.level is Level.OK and passphrase is not None:
        secret = _file(kms.folder / passphrase)
        return found if secret.level is Level.OK else secret
    return found


def is_the_file(kms: Section, problem: Finding) -> bool:
    """Whether all that the KMS complains of is that it cannot read its root-key file."""
    try:
        privatefile.read(kms.path("path").resolve())
    except FieldVaultError as error:
        return str(error) in problem.detail
    return False


def _file(path: Path) -> Finding:
    try:
        there, folder = path.stat(), path.resolve().parent.stat()
    except OSError as error:
        return Finding(_CHECK, Level.PROBLEM, f"{path}: {error.strerror}", _RESTORE)
    if not stat.S_ISREG(there.st_mode):
        return Finding(_CHECK, Level.PROBLEM, f"{path} is no regular file", _RESTORE)
    mode = stat.S_IMODE(there.st_mode)
    if mode & _OTHERS:
        return Finding(
            _CHECK, Level.PROBLEM, f"{path} has mode {mode:04o}, open to others", f"chmod 600 {path}"
        )
    mine = os.geteuid()
    if mine not in (0, there.st_uid):
        owner, me = _user(there.st_uid), _user(mine)
        return Finding(_CHECK, Level.PROBLEM, f"{path} belongs to {owner}, not to {me}", f"chown {me} {path}")
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return Finding(
            _CHECK,
            Level.PROBLEM,
            f"anyone may replace {path}: its folder is writable by all",
            f"chmod o-w {path.resolve().parent}",
        )
    return Finding(_CHECK, Level.OK, f"{path}, mode {mode:04o}, owner {_user(there.st_uid)}")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"

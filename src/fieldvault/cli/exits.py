"""What the command line's exit codes say, and which error ends in which."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from fieldvault.errors import (
    ConfigurationError,
    ErasureBlocked,
    FieldVaultError,
    KeyNotFound,
    KeyShredded,
    KeyStoreError,
    KeySuspended,
    KMSError,
    NotYet,
)

__all__ = ["ExitCode", "Refused", "exit_code_of"]


class ExitCode(IntEnum):
    """The codes that ``fieldvault`` ends with; a script may rely on them."""

    def __new__(cls, number: int, meaning: str) -> Self:
        """A code and what it says, for ``--help`` and docs/cli.md."""
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    meaning: str

    OK = 0, "done; doctor found no problem"
    PROBLEM = (
        1,
        (
            "doctor found a problem, rotate --all or rewrap failed for some tenants, rewrap left out a KMS "
            "of several, a copy is not equal, or index rebuild left rows"
        ),
    )
    USAGE = 2, "the command was not understood; nothing was done"
    CONFIGURATION = 3, "the configuration or the root-key file cannot work as it is"
    KMS = 4, "the KMS is unreachable, refused, or failed"
    KEY_STORE = 5, "the key store is missing, unreachable, or failed"
    REFUSED = 6, "not confirmed, or something is there already; nothing was changed"
    NO_KEY = 7, "there is no such tenant, subject or key, or it was shredded"
    NOT_YET = 8, "not yet: a step before it is not done, or has not settled; ask again later"
    INTERRUPTED = 130, "interrupted with Ctrl-C"
    BROKEN_PIPE = 141, "whoever read the output stopped reading"


class Refused(Exception):
    """The command line will not go on, and has changed nothing."""


# The first that fits counts.
_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (NotYet, ExitCode.NOT_YET),
    (ConfigurationError, ExitCode.CONFIGURATION),
    (KMSError, ExitCode.KMS),
    (KeyStoreError, ExitCode.KEY_STORE),
    (KeyNotFound, ExitCode.NO_KEY),
    (KeyShredded, ExitCode.NO_KEY),
    (KeySuspended, ExitCode.NO_KEY),
    (ErasureBlocked, ExitCode.REFUSED),
    (Refused, ExitCode.REFUSED),
)


def exit_code_of(error: FieldVaultError | Refused) -> ExitCode:
    """The code that a command ends with when this error ends it."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.PROBLEM)

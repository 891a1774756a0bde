"""What stands in a statement in place of an encrypted value: ``Carrier``, and later ``Sealed``."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["Carrier", "Claim", "Sealed", "carried"]

_NO_TEXT = (
    "a value on its way into a statement is not text; listeners that change values are registered before "
    "protect() is called"
)
_NO_PICKLE = "a value on its way into a statement is not pickled"


class Carrier:
    """Stands for a value between the object that knows its scope and the statement that seals it.

    It prints, pickles and compares as nothing of what it carries, so that an error, a log line or a parameter
    list that shows it shows no plaintext.
    """

    __slots__ = ("row", "subject", "tenant", "value")

    def __init__(self, value: Any, tenant: str, subject: str | None, row: bytes | None = None) -> None:
        self.value = value
        self.tenant = tenant
        self.subject = subject
        self.row = row

    def __repr__(self) -> str:
        return "<sealed>"

    def __str__(self) -> str:
        # Whoever makes text of it would store that text in place of the value.
        raise TypeError(_NO_TEXT)

    def __reduce__(self) -> NoReturn:
        raise TypeError(_NO_PICKLE)


def carried(value: Any) -> Any:
    """The value in a carrier; any other value as it is."""
    return value.value if value.__class__ is Carrier else value


class Sealed(tuple[Any, ...]):
    """A cell as it is to be stored, the first in a tuple of a class of its own.

    No value of an application is of that class, so the bind processor lets nothing through that was not
    sealed for its row. A tuple, because a column of them is made without a line of Python for each.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<sealed>"

    def __str__(self) -> str:
        raise TypeError(_NO_TEXT)

    def __reduce__(self) -> NoReturn:
        raise TypeError(_NO_PICKLE)


class Claim(Sealed):
    """A cell that takes several steps: what is written first, what follows it in turn, and what stays."""

    # Without slots, for a tuple has no room for any.
    tenant: str

"""``Carrier``: a value on its way into a statement, with the row's tenant and subject."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["Carrier"]


class Carrier:
    """Stands for a value between the row that knows its scope and the bind processor that seals it.

    It prints, pickles and compares as nothing of what it carries, so that an error, a log line or a parameter
    list that shows it shows no plaintext.
    """

    __slots__ = ("subject", "tenant", "value")

    def __init__(self, value: Any, tenant: str, subject: str | None) -> None:
        self.value = value
        self.tenant = tenant
        self.subject = subject

    def __repr__(self) -> str:
        return "<sealed>"

    def __str__(self) -> str:
        # Whoever makes text of it would store that text in place of the value.
        raise TypeError(
            "a value on its way into a statement is not text; listeners that change values are registered "
            "before protect() is called"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a value on its way into a statement is not pickled")

"""The login of this process to a token: asked for once, however many sessions there are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn

from fieldvault.errors import KMSDenied, KMSError
from fieldvault.kms.pkcs11.meaning import MEANINGS, meaning

__all__ = ["Login", "Pin"]


class Pin:
    """A PIN that does not print itself, nor in the locals of a traceback."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self) -> str:
        """The PIN."""
        return self._text

    def __repr__(self) -> str:
        return "<PIN>"


class Login:
    """Logs this process in to a token, and out again.

    The login is the process's: another object on the same token takes part in it, and its end is noticed and
    made good. A PIN that was refused once is not tried again: tokens lock themselves after a few. Called by
    one thread at a time.
    """

    def __init__(self, token_label: str, pin: Callable[[], str]) -> None:
        self._token_label = token_label
        self._pin = pin
        self._refused: tuple[Pin, str] | None = None
        self._session: Any = None
        self._generation = -1

    @property
    def is_made(self) -> bool:
        """Whether it was this object that logged in."""
        return self._session is not None

    def make(self, token: Any, generation: int) -> None:
        """Log in, in this generation of the module.

        Raises:
            KMSDenied: the PIN is refused, or was before.
            PKCS11Error: the token failed.
        """
        pin = Pin(self._pin())
        if self._refused is not None and self._refused[0]() == pin():
            raise KMSDenied(f"{self._refused[1]}; the same PIN is not tried again")
        problem: KMSError
        try:
            self._session, self._generation = token.open(user_pin=pin()), generation
        except UserAlreadyLoggedIn:
            return  # by somebody else in this process, since we looked
        except PKCS11Error as error:
            if MEANINGS.get(type(error)) is not KMSDenied:
                raise
            problem = meaning(error, self._token_label)
        else:
            self._refused = None
            return
        self._refused = (pin, str(problem))
        raise problem

    def end(self, generation: int) -> None:
        """Log out, if it was this object that logged in, and still in this generation of the module."""
        session, self._session = self._session, None
        if session is not None and self._generation == generation:
            with suppress(PKCS11Error):  # the token may be gone, and the login with it
                session.close()

    def __repr__(self) -> str:
        return f"<Login to {self._token_label!r}>"

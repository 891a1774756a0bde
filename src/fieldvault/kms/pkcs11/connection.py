"""The connection with a token: a session, logged in, opened again when it was lost or the process forked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from pkcs11 import Attribute, KeyType
from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn, UserNotLoggedIn
from pkcs11.mechanisms import Mechanism

from fieldvault.errors import ConfigurationError, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.forks import in_forked_children
from fieldvault.kms.pkcs11.meaning import MEANINGS, meaning
from fieldvault.kms.pkcs11.modules import MODULES
from fieldvault.kms.pkcs11.rootkeys import RootKey, listed, version_of

__all__ = ["Connection", "OpenToken", "Pin"]

T = TypeVar("T")


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


class OpenToken:
    """A session with a token, and the versions of the root key that it sees."""

    def __init__(self, token: Any, session: Any, label: str) -> None:
        self.token = token
        self.session = session
        self._label = label
        self.keys = listed(session, label)

    def look_again(self) -> None:
        """Take up what another process made or removed."""
        self.keys = listed(self.session, self._label)

    def version(self, key_id: bytes) -> RootKey:
        """The version of that id, which another process may have made since.

        Raises:
            KMSKeyDisabled: the token has none.
        """
        if key_id not in self.keys:
            self.look_again()
        if key_id not in self.keys:
            raise KMSKeyDisabled(
                f"the token has no version {version_of(key_id)} of the root key {self._label!r} "
                f"with the CKA_ID {key_id.hex()}"
            )
        return self.keys[key_id]


class Connection:
    """One session at a time with one token, shared by all threads.

    The login is the process's: another object on the same token takes part in it, and its end is noticed and
    made good. A PIN that was refused once is not tried again: tokens lock themselves after a few.
    """

    def __init__(self, module: str, token_label: str, key_label: str, pin: Callable[[], str]) -> None:
        self._module = module
        self._token_label = token_label
        self._key_label = key_label
        self._pin = pin
        self._refused: tuple[Pin, str] | None = None
        self._login: Any = None
        self._open: OpenToken | None = None
        in_forked_children(self, Connection._forget)

    def use(self, work: Callable[[OpenToken], T]) -> T:
        """Do some work with the open token; once more in a new session, where an old one failed.

        In an outage the module is initialised again before the next call: some find a token again only so.

        Raises:
            KMSError: what the token's answer means.
        """
        problem: PKCS11Error | KMSKeyDisabled
        with MODULES.entered():
            while True:
                fresh = self._open is None
                try:
                    if self._open is None:
                        self._open = self._opened()
                    return work(self._open)
                except (PKCS11Error, KMSKeyDisabled) as error:
                    problem = error
                self._drop()
                # Also what a key may do was read when the session was opened.
                if fresh:
                    break
            told = problem if isinstance(problem, KMSKeyDisabled) else meaning(problem, self._token_label)
            if isinstance(told, KMSUnavailable):
                MODULES.renew(self._module)
        raise told

    def close(self) -> None:
        """Close the session and log out, if it was this object that logged in."""
        with MODULES.entered():
            self._drop()
            login, self._login = self._login, None
            if login is not None:
                with suppress(PKCS11Error):  # the token may be gone, and the login with it
                    login.close()

    def _forget(self) -> None:
        """In a forked child: sessions and login are the parent's."""
        self._login = self._open = None

    def _drop(self) -> None:
        dropped, self._open = self._open, None
        if dropped is not None:
            with suppress(PKCS11Error):  # the session may be gone already
                dropped.session.close()

    def _opened(self) -> OpenToken:
        token = self._token()
        found = self._look(token)
        if not found.keys and not _logged_in(found.session):
            found.session.close()
            self._log_in(token)
            found = self._look(token)
        return found

    def _look(self, token: Any) -> OpenToken:
        session = token.open()
        try:
            return OpenToken(token, session, self._key_label)
        except BaseException:
            with suppress(PKCS11Error):
                session.close()
            raise

    def _token(self) -> Any:
        try:
            module = MODULES.load(self._module)
        except PKCS11Error as error:
            if type(error) is not PKCS11Error:
                raise
            problem = str(error)
        else:
            token = module.get_token(token_label=self._token_label)
            if Mechanism.AES_GCM in token.slot.get_mechanisms():
                return token
            problem = f"the PKCS#11 token {self._token_label!r} has no AES-GCM"
        raise ConfigurationError(problem)

    def _log_in(self, token: Any) -> None:
        pin = Pin(self._pin())
        if self._refused is not None and self._refused[0]() == pin():
            raise KMSDenied(f"{self._refused[1]}; the same PIN is not tried again")
        problem: KMSError
        try:
            self._login = token.open(user_pin=pin())
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

    def __repr__(self) -> str:
        return f"<Connection with {self._token_label!r}>"


def _logged_in(session: Any) -> bool:
    """Whether this process may use private objects; asked by making one, which nobody else sees."""
    try:
        session.generate_key(
            KeyType.AES, 256, store=False, template={Attribute.PRIVATE: True, Attribute.SENSITIVE: True}
        ).destroy()
    except UserNotLoggedIn:
        return False
    return True

"""What can befall ``PKCS11KMS``, brought about in a token of SoftHSM by whoever administers it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass

from fieldvault.kms import PKCS11KMS
from tests.servers.softhsm import LOCKED_TOKEN, PIN, SoftHSM

_NEW_PIN = "another-horse-1347"


class TokenLab:
    """A root key of its own in a token, and who may use it; all log in with what ``pin`` answers."""

    def __init__(self, softhsm: SoftHSM) -> None:
        self._softhsm = softhsm
        self._label = softhsm.key_label()
        self._pin = self._token_pin = PIN
        self._opened: list[PKCS11KMS] = []
        PKCS11KMS.create(**self._arguments()).close()

    def open(self) -> PKCS11KMS:
        """A process's KMS; only that the login is this one process's."""
        self._opened.append(PKCS11KMS(**self._arguments()))
        return self._opened[-1]

    def close(self) -> None:
        """Close all of them, so that nobody stays logged in, and give the token its PIN back."""
        for each in self._opened:
            each.close()
        self._change_pin(PIN)

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        events: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "gone": self._softhsm.without_tokens,
            "sessions_lost": self._sessions_lost,
            "pin_wrong": self._pin_wrong,
            "disabled": lambda: self._without(Attribute.DECRYPT),
            "retired": lambda: self._without(Attribute.ENCRYPT),
            "deleted": self._deleted,
            "swapped": self._swapped,
        }
        return events[played]()

    def _arguments(self) -> dict[str, Any]:
        return {
            "module": self._softhsm.module,
            "token_label": LOCKED_TOKEN,
            "key_label": self._label,
            "pin": lambda: self._pin,
        }

    def _sessions_lost(self) -> AbstractContextManager[None]:
        pkcs11.lib(str(self._softhsm.module)).reinitialize()
        return nullcontext()

    @contextmanager
    def _pin_wrong(self) -> Iterator[None]:
        self._change_pin(_NEW_PIN)
        self._sessions_lost()
        yield
        self._pin = _NEW_PIN

    @contextmanager
    def _without(self, capability: Attribute) -> Iterator[None]:
        with self._root_key() as (_, key):
            key[capability] = False
        yield
        with self._root_key() as (_, key):
            key[capability] = True

    @contextmanager
    def _deleted(self) -> Iterator[None]:
        with self._root_key() as (_, key):
            key.destroy()
        yield

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        with self._root_key() as (session, key):
            name = {Attribute.ID: key[Attribute.ID], Attribute.LABEL: self._label}
            key.destroy()
            guarded = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
            session.generate_key(KeyType.AES, 256, store=True, template={**name, **guarded})
        yield

    def _change_pin(self, pin: str) -> None:
        if pin != self._token_pin:
            with self._session() as session:
                session.set_pin(self._token_pin, pin)
            self._token_pin = pin

    @contextmanager
    def _root_key(self) -> Iterator[tuple[Any, Any]]:
        with self._session() as session:
            wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: self._label}
            (key,) = session.get_objects(wanted)
            yield session, key

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """The administrator's, who takes part in the login of this process where there is one."""
        token = pkcs11.lib(str(self._softhsm.module)).get_token(token_label=LOCKED_TOKEN)
        try:
            session = token.open(rw=True, user_pin=self._token_pin)
        except pkcs11.UserAlreadyLoggedIn:
            session = token.open(rw=True)
        try:
            yield session
        finally:
            session.close()

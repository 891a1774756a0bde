"""The connection with a token: a few sessions, opened when needed, and again when lost or after a fork."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pkcs11 import Attribute, KeyType
from pkcs11.exceptions import PKCS11Error, SessionClosed, SessionHandleInvalid, UserNotLoggedIn
from pkcs11.mechanisms import Mechanism

from fieldvault.errors import ConfigurationError, FieldVaultError, KMSKeyDisabled, KMSUnavailable
from fieldvault.forks import in_forked_children
from fieldvault.kms.pkcs11.login import Login
from fieldvault.kms.pkcs11.meaning import meaning
from fieldvault.kms.pkcs11.modules import MODULES, Module
from fieldvault.kms.pkcs11.pool import Pool
from fieldvault.kms.pkcs11.rootkeys import RootKey, listed, version_of

__all__ = ["Connection", "OpenToken"]

T = TypeVar("T")


class OpenToken:
    """A session with a token, and the versions of the root key that it sees; used by one thread at a time.

    ``generation`` is the module's in which it was opened.
    """

    def __init__(self, token: Any, session: Any, label: str, generation: int) -> None:
        self.token = token
        self.session = session
        self.generation = generation
        self.keys: Mapping[bytes, RootKey] = {}
        self._label = label
        self._edition = -1

    def keep_up(self, edition: int) -> None:
        """Look again, unless that was done in this edition."""
        if self._edition != edition:
            self.look_again()
            self._edition = edition

    def look_again(self) -> None:
        """Take up what others made or removed."""
        for known in self.keys.values():
            known.touch()  # a search in a session that is lost makes python-pkcs11 complain on stderr
            break
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

    def is_logged_in(self) -> bool:
        """Whether this process may use private objects; asked by making one, which nobody else sees."""
        template = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True}
        try:
            self.session.generate_key(KeyType.AES, 256, store=False, template=template).destroy()
        except UserNotLoggedIn:
            return False
        return True

    def close(self) -> None:
        """Close the session, if it is still there."""
        with suppress(PKCS11Error):
            self.session.close()


class Connection:
    """At most ``size`` sessions with one token, each used by one thread at a time.

    A module without locks gets one. Whoever finds all in use waits, ``patience`` seconds at most; so does
    whoever needs the module for itself, to initialise it or to log out.
    """

    def __init__(
        self, path: str, token_label: str, key_label: str, login: Login, *, size: int, patience: float
    ) -> None:
        self._path = path
        self._label = token_label
        self._key_label = key_label
        self._login = login
        self._size = size
        self._patience = patience
        self._module: Module | None = None
        self._edition = 0
        self._answered = 0
        self._forget()
        in_forked_children(self, Connection._forget)

    def use(self, work: Callable[[OpenToken], T]) -> T:
        """Do some work with the open token; once more in a new session, where an old one failed.

        In an outage, that is while no session works, the module is initialised again before the next one is
        opened: some find a token again only so.

        Raises:
            KMSError: what the token's answer means.
            KMSUnavailable: also when others did not make room in time.
        """
        until = time.monotonic() + self._patience
        module = self._module = MODULES.at(self._path)
        pool = self._pool
        with pool.place(until, lambda: self.parallel):
            with module.entered(until):
                while (old := pool.take()) is not None:
                    if old.generation != module.generation:
                        continue
                    try:
                        return self._in_session(old, work, pool)
                    except (SessionHandleInvalid, SessionClosed):
                        # Perhaps somebody initialised the module again, and without locks.
                        module.renew(old.generation)
                    except (PKCS11Error, KMSKeyDisabled):
                        pass  # perhaps for what was read when the session was opened
                    break
            return self._afresh(module, work, pool, until)

    @property
    def parallel(self) -> int:
        """How many calls may be at work at a time; 1 before the module was first asked."""
        return self._size if self._module is not None and self._module.locks else 1

    def outdate(self) -> None:
        """Have every session look again, before it is next used, which versions there are."""
        self._edition += 1

    def close(self) -> None:
        """Close the sessions and log out, if it was this object that logged in.

        Raises:
            KMSUnavailable: a call of the module does not end, so that it stays logged in.
        """
        module = self._module
        if module is not None:
            until = time.monotonic() + self._patience
            with module.entered(until):
                while (idle := self._pool.take()) is not None:
                    if idle.generation == module.generation:
                        idle.close()
            if self._login.is_made:
                with module.entered(until, alone=True):
                    self._login.end(module.generation)

    def _forget(self) -> None:
        """In a forked child: the sessions are the parent's."""
        self._pool: Pool[OpenToken] = Pool()

    def _in_session(self, token: OpenToken, work: Callable[[OpenToken], T], pool: Pool[OpenToken]) -> T:
        sound = False
        try:
            token.keep_up(self._edition)
            answer = work(token)
            sound = True
            self._answered += 1
        except FieldVaultError as error:
            sound = not isinstance(error, KMSKeyDisabled)
            raise
        finally:
            if sound:
                pool.give(token)
            else:
                token.close()
        return answer

    def _afresh(
        self, module: Module, work: Callable[[OpenToken], T], pool: Pool[OpenToken], until: float
    ) -> T:
        problem: PKCS11Error | KMSKeyDisabled
        generation, answered = -1, self._answered
        try:
            library = self._library(module, until)
            with module.entered(until):
                if not module.is_ready():
                    raise KMSUnavailable("the PKCS#11 module could not be initialised again")
                generation = module.generation
                with module.opening(until):
                    opened = self._opened(library, generation)
                return self._in_session(opened, work, pool)
        except (PKCS11Error, KMSKeyDisabled) as error:
            problem = error
        told = problem if isinstance(problem, KMSKeyDisabled) else meaning(problem, self._label)
        if isinstance(told, KMSUnavailable) and answered == self._answered:
            module.renew(generation)
        raise told

    def _library(self, module: Module, until: float) -> Any:
        try:
            return module.ready(until)
        except PKCS11Error as error:
            if type(error) is not PKCS11Error:
                raise
            problem = str(error)
        raise ConfigurationError(problem)

    def _opened(self, library: Any, generation: int) -> OpenToken:
        token = library.get_token(token_label=self._label)
        if Mechanism.AES_GCM not in token.slot.get_mechanisms():
            raise ConfigurationError(f"the PKCS#11 token {self._label!r} has no AES-GCM")
        found = self._look(token, generation)
        if not found.keys and not found.is_logged_in():
            found.close()
            self._login.make(token, generation)
            found = self._look(token, generation)
        return found

    def _look(self, token: Any, generation: int) -> OpenToken:
        opened = OpenToken(token, token.open(), self._key_label, generation)
        try:
            opened.keep_up(self._edition)
        except BaseException:
            opened.close()
            raise
        return opened

    def __repr__(self) -> str:
        return f"<Connection with {self._label!r}>"

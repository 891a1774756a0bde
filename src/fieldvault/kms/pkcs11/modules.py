"""The PKCS#11 modules of this process: initialised with locks where they have some, and after each fork."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pkcs11
from pkcs11.exceptions import PKCS11Error

from fieldvault.errors import ConfigurationError, KMSUnavailable
from fieldvault.kms.pkcs11.cryptoki import Cryptoki
from fieldvault.kms.pkcs11.gate import Gate

__all__ = ["MODULES", "Module"]

_PATIENCE = 10.0


class Module:
    """One module, and who is in it.

    python-pkcs11 initialises a module without locks (``C_Initialize`` with no arguments), which promises it
    that no two threads are in it at once; SoftHSM crashes where that is not so. Hence it is initialised once
    more, with locks. One that has none, or that somebody else in this process had initialised before, nobody
    knows how, is used by one thread at a time.

    ``generation`` changes whenever all sessions with its tokens ended, since it was initialised again or the
    process forked. A handle of an earlier one may by now be somebody else's, and is not even to be closed.
    """

    def __init__(self, path: str, cryptoki: Cryptoki) -> None:
        self.address = cryptoki.address
        self.generation = 0
        self.locks = False
        self._path = path
        self._cryptoki = cryptoki
        self._library: Any = None
        self._stale = False
        self._torn = False
        self._let_in()

    @contextmanager
    def entered(self, until: float, *, alone: bool = False) -> Iterator[None]:
        """In the module; with other threads where it has locks, unless ``alone``. Raises as ``Gate`` does."""
        with self.gate.alone(until) if alone or not self.locks else self.gate.together(until):
            yield

    @contextmanager
    def opening(self, until: float) -> Iterator[None]:
        """Nobody else opens a session or logs in meanwhile, within the module.

        Raises:
            KMSUnavailable: somebody did until then.
        """
        opening = self._opening
        if not opening.acquire(timeout=max(0.0, until - time.monotonic())):
            raise KMSUnavailable("a session with the PKCS#11 token has not been opened in time")
        try:
            yield
        finally:
            opening.release()

    def ready(self, until: float) -> Any:
        """python-pkcs11's object for it, initialised in this process; called from outside.

        Raises:
            KMSUnavailable: it is not free in time, or the process was forked in the midst of a call.
            PKCS11Error: it cannot be initialised.
        """
        if self._torn:
            raise KMSUnavailable(
                "this process was forked while a call of the PKCS#11 module did not end, and cannot use it"
            )
        with self.entered(until):
            if self.is_ready():
                return self._library
        with self.entered(until, alone=True):
            if not self.is_ready():
                self._initialise()
            return self._library

    def renew(self, generation: int) -> None:
        """Have it initialised again before a session is next opened, unless that was done since."""
        if generation == self.generation:
            self._stale = True

    def renew_in_child(self, *, torn: bool) -> None:
        """In a forked child: the standard has it initialise the module, too."""
        self._let_in()
        self._stale = True
        self._torn = self._torn or torn
        self.generation += 1

    def _let_in(self) -> None:
        self.gate = Gate()
        self._opening = threading.Lock()

    def is_ready(self) -> bool:
        """Whether it is initialised, in this process; stays so for whoever is in it."""
        return self._library is not None and not self._stale and self._cryptoki.is_initialised()

    def _initialise(self) -> None:
        known = self._cryptoki.is_initialised()
        if self._library is None or not known:
            self._library = pkcs11.lib(self._path)
        if known and not self._stale:
            return
        self._stale = True
        self.generation += 1
        self.locks = self._cryptoki.initialise()
        self._stale = False


class _Modules:
    """What PKCS#11 keeps by process, and not by object.

    A fork waits for the calls at work, so that no child gets a module that is in the midst of one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: dict[str, Module] = {}
        self._held: dict[int, list[Module]] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    def at(self, path: str) -> Module:
        """The module of that path, or of that name; loaded, and not initialised.

        Raises:
            ConfigurationError: it cannot be loaded, or is no PKCS#11 module.
        """
        module = self._named.get(path)
        return self._loaded(path) if module is None else module

    def _loaded(self, path: str) -> Module:
        with self._lock:
            try:
                cryptoki = Cryptoki(path)
            except (OSError, AttributeError, PKCS11Error) as error:
                problem = str(error)
            else:
                # The same library may have several names.
                same = (each for each in self._named.values() if each.address == cryptoki.address)
                return self._named.setdefault(path, next(same, None) or Module(path, cryptoki))
        raise ConfigurationError(f"the PKCS#11 module {path!r} cannot be loaded: {problem}")

    def _before_fork(self) -> None:
        until = time.monotonic() + _PATIENCE
        with self._lock:
            modules = set(self._named.values())
        self._held[threading.get_ident()] = [each for each in modules if each.gate.close(until)]

    def _after_fork_in_parent(self) -> None:
        for module in self._held.pop(threading.get_ident(), ()):
            module.gate.open()

    def _after_fork_in_child(self) -> None:
        held = self._held.pop(threading.get_ident(), ())
        self._held = {}
        self._lock = threading.Lock()
        for module in set(self._named.values()):
            module.renew_in_child(torn=module not in held)


MODULES = _Modules()
"""The only one: a process has one state of each module, whoever uses it."""

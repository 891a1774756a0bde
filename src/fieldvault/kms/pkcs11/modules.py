"""The PKCS#11 modules of this process: loaded once, entered by one thread at a time, renewed after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pkcs11
from pkcs11.exceptions import PKCS11Error

from fieldvault.errors import KMSUnavailable

__all__ = ["MODULES"]

_PATIENCE = 10.0


class _Modules:
    """What PKCS#11 keeps by process, and not by object: initialised modules, and who is in them.

    python-pkcs11 initialises a module without locks (``C_Initialize`` with no arguments), which promises it
    that no two threads are in it at once; SoftHSM crashes where that is not so. A fork waits for the call
    at work, so that no child gets a module that is in the midst of one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loaded: set[str] = set()
        self._stale: set[str] = set()
        self._held_for_fork = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Nobody else is in a module meanwhile.

        Raises:
            KMSUnavailable: somebody else has not come out of one for ten seconds.
        """
        lock = self._lock
        if not lock.acquire(timeout=_PATIENCE):
            raise KMSUnavailable(
                f"a call of the PKCS#11 module has not ended for {_PATIENCE:g} s; no other can be made"
            )
        try:
            yield
        finally:
            lock.release()

    def load(self, path: str) -> Any:
        """The module, initialised in this process; called once entered.

        Raises:
            PKCS11Error: it cannot be loaded or initialised.
        """
        module = pkcs11.lib(path)
        self._loaded.add(path)
        if path in self._stale:
            self._stale.discard(path)
            try:
                module.reinitialize()
            except PKCS11Error:
                # One that noticed the fork, or the outage, by itself has nothing to finalize.
                module.initialize()
        return module

    def renew(self, path: str) -> None:
        """Have the module initialised again when it is next asked for; sessions with its tokens end then."""
        if path in self._loaded:
            self._stale.add(path)

    def _before_fork(self) -> None:
        self._held_for_fork = self._lock.acquire(timeout=_PATIENCE)

    def _after_fork_in_parent(self) -> None:
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        # Sessions with the token are the parent's; the standard has the child initialise the module again.
        self._lock = threading.RLock()
        self._held_for_fork = False
        self._stale = set(self._loaded)


MODULES = _Modules()
"""The only one: a process has one state of each module, whoever uses it."""

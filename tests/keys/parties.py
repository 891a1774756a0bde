"""What the tests of keys share: vaults that stand for processes, and what watches their backends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fieldvault import CachePolicy, Vault
from fieldvault.errors import KeyStoreError
from fieldvault.keys.policy import RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.testing.fakes import FaultyKMS, ManualClock

FIELD = "customers.email"

Hook = Callable[[], object]


class WatchedStore:
    """A key store in front of another: it counts calls, fails as told, and lets a test in around them."""

    def __init__(self, store: KeyStore) -> None:
        self.inner = store
        self.calls: list[str] = []
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.down = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.down and name != "close":
                raise KeyStoreError("the key store is out")
            self.before.get(name, _nothing)()
            answer = method(*args, **kwargs)
            self.after.get(name, _nothing)()
            return answer

        return call

    def once(self, place: dict[str, Hook], name: str, hook: Hook) -> None:
        """Have ``hook`` run around the next call of ``name`` only."""

        def run() -> None:
            if place.pop(name, None) is not None:
                hook()

        place[name] = run

    def counted(self) -> Counter[str]:
        """The calls so far by name, which are then forgotten."""
        calls, self.calls = self.calls, []
        return Counter(calls)


def _nothing() -> None:
    """No hook."""


@dataclass
class Party:
    """A vault as of one process, its KMS and its key store."""

    vault: Vault
    kms: FaultyKMS
    store: WatchedStore

    def seal(self, value: object, tenant: str = "acme", subject: str | None = None) -> bytes:
        """A ciphertext."""
        return self.vault.encrypt(value, field=FIELD, tenant=tenant, subject=subject)

    def open(self, blob: bytes, tenant: str = "acme", subject: str | None = None) -> Any:
        """Its value."""
        return self.vault.decrypt(blob, field=FIELD, tenant=tenant, subject=subject)

    def kms_calls(self) -> list[str]:
        """The calls of the KMS so far, which are then forgotten."""
        calls, self.kms.calls = self.kms.calls, []
        return [call.method for call in calls]


@dataclass
class Rig:
    """One KMS, one key store, one clock, and any number of parties that share them."""

    kms: KMS
    store: KeyStore
    clock: ManualClock

    def party(
        self,
        cache: CachePolicy | None = None,
        rotation: RotationPolicy | None = None,
        *,
        ahead: float = 0,
        reprove: bool = False,
        **options: Any,
    ) -> Party:
        """A vault with a cache of its own, as another process has.

        Nothing is refreshed ahead, and no permission proved again, unless a test is about that.
        """
        kms, store = FaultyKMS(self.kms), WatchedStore(self.store)
        cache = replace(CachePolicy() if cache is None else cache, refresh_ahead=ahead, reprove=reprove)
        vault = Vault(
            kms=kms,
            key_store=store,
            cache=cache,
            rotation=rotation,
            **{"clock": self.clock, **options},
        )
        store.calls.clear()
        return Party(vault, kms, store)


def in_threads(count: int, work: Callable[[int], Any], *, timeout: float = 30.0) -> list[Any]:
    """What ``work`` gave or raised in each of ``count`` threads that begin together."""
    barrier = threading.Barrier(count)
    answers: list[Any] = [None] * count

    def run(index: int) -> None:
        barrier.wait(timeout)
        try:
            answers[index] = work(index)
        except Exception as error:  # noqa: BLE001 - the answer
            answers[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive(), "a thread hangs"
    return answers


class Running:
    """A call that runs in a thread of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._work()
        except BaseException as error:  # noqa: BLE001 - the answer
            self.error = error

    @property
    def is_done(self) -> bool:
        """Whether it has come back."""
        return not self._thread.is_alive()

    def result(self, timeout: float = 30.0) -> Any:
        """What it gave; raises what it raised."""
        self._thread.join(timeout)
        assert self.is_done, "the call hangs"
        if self.error is not None:
            raise self.error
        return self.answer

"""``Vault``: the front door."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

from fieldvault.context import Name, as_name
from fieldvault.keys.clock import Clock, boot_clock
from fieldvault.keys.observing import Observer
from fieldvault.keys.policy import CachePolicy, RetryPolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.records import KeyInfo, KeySlot
from fieldvault.keys.ring import KeyRing
from fieldvault.keys.stats import Stats
from fieldvault.lifecycle import index_keys, states
from fieldvault.lifecycle.erase import ErasureReceipt, shred
from fieldvault.lifecycle.index_keys import IndexRotation
from fieldvault.suites import suite_named
from fieldvault.values import Values

__all__ = ["Vault"]


class Vault(Values):
    """Encrypts values under their tenant's, or their subject's, own data keys, and looks after those keys.

    ``kms`` wraps the keys, ``key_store`` keeps them wrapped, ``cache`` says how long they stay unwrapped in
    this process, ``rotation`` when they are replaced without being asked, ``retries`` how long an unavailable
    KMS is asked again. ``default_tenant`` is the tenant where neither an argument nor a scope names one.
    ``suite`` seals new values; whatever the suite, every ciphertext of every suite can be opened.
    ``observer`` is told of each call of a backend (docs/metrics.md). ``clock`` gives the seconds of leases,
    ages and the circuit breaker's pauses, for tests.

    Tenants and subjects are named by text, or by integers or UUIDs, which become the text that a model's
    column of them becomes.

    One vault serves all threads and tasks of a process, and its forked children. It owns its backends:
    ``close`` closes them.

    Raises:
        ConfigurationError: an argument that cannot work.
        KeyStoreError: the key store cannot be reached.
    """

    def __init__(
        self,
        *,
        kms: KMS,
        key_store: KeyStore,
        cache: CachePolicy | None = None,
        rotation: RotationPolicy | None = None,
        retries: RetryPolicy | None = None,
        default_tenant: Name | None = None,
        suite: str = "AES-256-GCM",
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.kms = kms
        self.key_store = key_store
        policy = CachePolicy() if cache is None else cache
        ring = KeyRing(
            kms,
            key_store,
            policy=policy,
            rotation=RotationPolicy() if rotation is None else rotation,
            clock=boot_clock() if clock is None else clock,
            retries=RetryPolicy() if retries is None else retries,
            observer=observer,
        )
        super().__init__(ring, suite_named(suite), default_tenant)
        key_store.declare_lease(policy.lease + policy.grace)

    @classmethod
    def open(
        cls, configuration: str | os.PathLike[str] | Mapping[str, Any], *, observer: Observer | None = None
    ) -> Vault:
        """The vault that a ``fieldvault.toml``, or a mapping of the same shape, describes.

        Paths in a file are relative to the file's folder. Secrets are read from the environment variables or
        files that it names.

        Raises:
            ConfigurationError: an unknown or missing key, a wrong type, a missing file; the message names the
                line to mend.
            KMSError, KeyStoreError: a backend refuses or cannot be reached.
        """
        # Here, because the reader knows the backends' names, which most uses of a vault have no need of.
        from fieldvault.config import read  # noqa: PLC0415

        return cls(**read(configuration), observer=observer)

    # -- the cache ------------------------------------------------------------------------------------------

    def prefetch(self, tenants: Iterable[Name]) -> dict[str, Exception]:
        """Have the active data keys of tenants at hand; what stands against the others, by tenant's name.

        What is missing costs one read of the key store, one call of the KMS, and one step that reserves
        messages to seal. A tenant that has no key yet gets its first one, as its first value would make it.
        No more are kept than ``CachePolicy.max_keys``.

        Raises:
            ConfigurationError: a tenant cannot be a name.
        """
        names = dict.fromkeys(as_name("tenant", tenant) for tenant in tenants)
        failed = self.ring.fetch(KeySlot(tenant) for tenant in names)
        return {slot.tenant: problem for slot, problem in failed.items()}

    async def aprefetch(self, tenants: Iterable[Name]) -> dict[str, Exception]:
        """``prefetch`` for coroutines: it waits in a thread, not in the event loop."""
        return await asyncio.to_thread(self.prefetch, list(tenants))

    def stats(self) -> Stats:
        """What this vault has done in this process, and what it holds."""
        return self.ring.stats()

    # -- keys -----------------------------------------------------------------------------------------------

    def keys(self, tenant: Name, subject: Name | None = None) -> list[KeyInfo]:
        """A tenant's keys, those of its subjects included, or one subject's.

        Destroyed ones too. No key material.
        """
        store, slot = self.key_store, _slot(tenant, subject)
        found = store.all_keys(slot.tenant) if subject is None else store.keys(slot.tenant, slot.subject)
        return [record.info() for record in found]

    def tenants(self) -> Iterator[str]:
        """Every tenant that ever had a key."""
        return self.key_store.tenants()

    def rotate(self, tenant: Name, subject: Name | None = None) -> KeyInfo:
        """A new active data key for a tenant, or a subject; the old one is retired and still decrypts.

        Other processes take up the new key within the lease. Nothing is re-encrypted.

        Raises:
            KeyNotFound: there is no key yet to rotate.
            KeyShredded: the scope was shredded.
            KMSError, KeyStoreError: a backend failed; either key may be the active one, and asking again is
                safe.
        """
        return self.ring.rotate(_slot(tenant, subject)).info()

    def suspend(self, key_id: bytes) -> KeyInfo:
        """Stop a key from sealing and opening, reversibly; see ``lifecycle.states.suspend``."""
        return states.suspend(self.ring, key_id)

    def reinstate(self, key_id: bytes) -> KeyInfo:
        """Let a suspended key serve again; see ``lifecycle.states.reinstate``."""
        return states.reinstate(self.ring, key_id)

    def rotate_index(self, tenant: Name) -> IndexRotation:
        """A new index key for a tenant's blind indexes and deterministic columns; see ``IndexRotation``.

        Both keys are searched for while rows are rebuilt (``fieldvault.sqlalchemy.rebuild``); then
        ``drop_index`` ends it.

        Raises:
            KeyNotFound: the tenant has no index key.
            NotYet: its index key is being rotated already.
            KeyShredded, KMSError, KeyStoreError: as ``rotate``.
        """
        return index_keys.rotate(self.ring, as_name("tenant", tenant))

    def index_rotation(self, tenant: Name) -> IndexRotation:
        """How far the rotation of a tenant's index key has come; see ``lifecycle.index_keys.rotation``."""
        return index_keys.rotation(self.ring, as_name("tenant", tenant))

    def drop_index(self, tenant: Name) -> Sequence[KeyInfo]:
        """Destroy a tenant's former index keys, for good; see ``lifecycle.index_keys.drop``."""
        return index_keys.drop(self.ring, as_name("tenant", tenant))

    def shred(self, tenant: Name, subject: Name | None = None, *, actor: str, reason: str) -> ErasureReceipt:
        """Destroy the keys of a tenant, or of one subject, for good; what they sealed is unreadable.

        Safe to repeat. See ``ErasureReceipt`` for what it claims, and what not.

        Raises:
            KeyNotFound: there is no such tenant.
            ConfigurationError: no actor or no reason, or a name that cannot be.
            KeyStoreError: the key store failed; nothing or everything was destroyed, ask again.
        """
        slot = _slot(tenant, subject)
        return shred(self.ring, slot.tenant, slot.subject, actor=actor, reason=reason)

    def close(self) -> None:
        """Forget the cached keys and close the backends. Closing twice is fine.

        A refresh in the background that is under way is waited for, a second at most.
        """
        self.ring.close()
        self.key_store.close()
        self.kms.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Vault {type(self.kms).__name__}, {type(self.key_store).__name__}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Vault is not pickled; open one in each process")


def _slot(tenant: Name, subject: Name | None) -> KeySlot:
    return KeySlot(as_name("tenant", tenant), None if subject is None else as_name("subject", subject))

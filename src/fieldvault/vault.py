"""``Vault``: the front door."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NoReturn, Self, overload

from fieldvault.codecs import TEXT
from fieldvault.context import check_name
from fieldvault.envelope import HEADER_SIZE
from fieldvault.errors import ScopeRequired
from fieldvault.keys.clock import Clock, boot_clock
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.records import KeyInfo, KeySlot
from fieldvault.keys.ring import KeyRing
from fieldvault.keys.waiting import TaskFlight
from fieldvault.lifecycle import states
from fieldvault.lifecycle.erase import ErasureReceipt, shred
from fieldvault.scope import Scope, ScopeGuard
from fieldvault.suites import suite_named
from fieldvault.values import as_bytes, opener, sealer

__all__ = ["Vault"]


class Vault:
    """Encrypts values under their tenant's, or their subject's, own data keys, and looks after those keys.

    ``kms`` wraps the keys, ``key_store`` keeps them wrapped, ``cache`` says how long they stay unwrapped in
    this process, ``rotation`` when they are replaced without being asked. ``default_tenant`` is the tenant
    where neither an argument nor a scope names one. ``suite`` seals new values; whatever the suite, every
    ciphertext of every suite can be opened. ``clock`` gives the seconds of leases and ages, for tests.

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
        default_tenant: str | None = None,
        suite: str = "AES-256-GCM",
        clock: Clock | None = None,
    ) -> None:
        self.kms = kms
        self.key_store = key_store
        if default_tenant is not None:
            check_name("tenant", default_tenant)
        self.default_tenant = default_tenant
        policy = CachePolicy() if cache is None else cache
        self.ring = KeyRing(
            kms,
            key_store,
            policy=policy,
            rotation=RotationPolicy() if rotation is None else rotation,
            clock=boot_clock() if clock is None else clock,
        )
        # One variable a vault: the scope of one vault is none of another's business.
        self.ambient: ContextVar[Scope] = ContextVar("fieldvault scope", default=Scope())  # noqa: B039 - frozen
        self.suite = suite_named(suite)
        self._seal = sealer(self.ring, self.suite)
        self._open = opener(self.ring)
        self._flights = TaskFlight()
        key_store.declare_lease(policy.lease + policy.grace)

    @classmethod
    def open(cls, configuration: str | os.PathLike[str] | Mapping[str, Any]) -> Vault:
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

        return cls(**read(configuration))

    # -- values ---------------------------------------------------------------------------------------------

    @overload
    def encrypt(
        self, value: None, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> None: ...
    @overload
    def encrypt(
        self, value: object, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> bytes: ...
    def encrypt(
        self, value: object, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> bytes | None:
        """The ciphertext of a value (docs/format.md), 47 bytes longer than its encoding by default.

        ``field`` is the stable name of what is encrypted, such as ``customers.email``; the ciphertext opens
        under this name only. Tenant and subject come from the scope where ``tenant`` is not given. ``None``
        stays ``None``; any other value keeps its class (docs/concepts.md lists them).

        Raises:
            ScopeRequired: no tenant is known.
            UnsupportedValue: the value has no encoding; the message names its class.
            KeyShredded, KeySuspended: the scope has no key to seal with.
            KMSError, KeyStoreError: a backend failed while the key was not cached.

        It does not hide a value's length, nor whether there is a value.
        """
        if value is None:
            return None
        if tenant is None:
            tenant, subject = self._scoped(subject)
        seal = self._seal  # as in values.py: a call of the attribute would be looked up as a method first
        return seal(value, field, tenant, subject)

    @overload
    def decrypt(
        self, blob: None, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> None: ...
    @overload
    def decrypt(
        self, blob: bytes, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> Any: ...
    def decrypt(
        self, blob: bytes | None, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> Any:
        """The value that ``encrypt`` sealed, of the class that it had.

        ``subject`` need not be known to read: the key knows whose it is. Where the argument names one, or,
        without ``tenant``, the scope does, it has to match.

        Raises:
            ScopeRequired: no tenant is known.
            MalformedCiphertext: not a ciphertext.
            TenantMismatch: it belongs to another tenant.
            DecryptionError: it was changed, or sealed for another field or subject.
            KeyShredded, KeySuspended, KeyNotFound: its key is gone, suspended or unknown.
            KMSError, KeyStoreError: a backend failed while the key was not cached.
        """
        if blob is None:
            return None
        if tenant is None:
            tenant, subject = self._scoped(subject)
        open_ = self._open
        return open_(blob, field, tenant, subject)

    def encrypt_many(
        self, values: Iterable[object], *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> list[bytes | None]:
        """``encrypt`` for each value of one field, in order."""
        if tenant is None:
            tenant, subject = self._scoped(subject)
        seal = self._seal
        return [None if value is None else seal(value, field, tenant, subject) for value in values]

    def decrypt_many(
        self,
        blobs: Iterable[bytes | None],
        *,
        field: str,
        tenant: str | None = None,
        subject: str | None = None,
    ) -> list[Any]:
        """``decrypt`` for each ciphertext of one field, in order.

        Keys that are missing are fetched together, in one batch.
        """
        if tenant is None:
            tenant, subject = self._scoped(subject)
        wanted = list(blobs)
        self.ring.prefetch(blobs=wanted)
        open_ = self._open
        return [None if blob is None else open_(blob, field, tenant, subject) for blob in wanted]

    async def aencrypt(
        self, value: object, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> bytes | None:
        """``encrypt`` for coroutines.

        Whatever waits for the KMS or the key store waits in a thread, not in the event loop.
        """
        if value is None:
            return None
        if tenant is None:
            tenant, subject = self._scoped(subject)
        slot = KeySlot(tenant, subject)
        if self.ring.sealing_may_wait(slot):
            await self._flights.run(slot, lambda: self.ring.for_sealing(slot, self.suite, TEXT))
            if self.ring.sealing_may_wait(slot):
                return await asyncio.to_thread(self._seal, value, field, tenant, subject)
        return self._seal(value, field, tenant, subject)

    async def adecrypt(
        self, blob: bytes | None, *, field: str, tenant: str | None = None, subject: str | None = None
    ) -> Any:
        """``decrypt`` for coroutines.

        Whatever waits for the KMS or the key store waits in a thread, not in the event loop.
        """
        if blob is None:
            return None
        if tenant is None:
            tenant, subject = self._scoped(subject)
        blob = as_bytes(blob)
        if self.ring.opening_may_wait(blob):
            await self._flights.run(blob[:HEADER_SIZE], lambda: self.ring.for_opening(blob))
            if self.ring.opening_may_wait(blob):
                return await asyncio.to_thread(self._open, blob, field, tenant, subject)
        return self._open(blob, field, tenant, subject)

    def scope(
        self,
        tenant: str | None = None,
        subject: str | None = None,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> ScopeGuard:
        """The scope of the work in a ``with`` or ``async with`` block.

        What is not given stays as in the scope around it. It belongs to the current task or thread
        (``contextvars``). A new thread begins without one.

        Raises:
            ConfigurationError: a name that cannot be (docs/format.md, 1).
        """
        return ScopeGuard(self.ambient, self.ambient.get().narrowed(tenant, subject, actor, purpose))

    # -- keys -----------------------------------------------------------------------------------------------

    def keys(self, tenant: str, subject: str | None = None) -> list[KeyInfo]:
        """A tenant's keys, those of its subjects included, or one subject's.

        Destroyed ones too. No key material.
        """
        store = self.key_store
        return [
            record.info()
            for record in (store.all_keys(tenant) if subject is None else store.keys(tenant, subject))
        ]

    def tenants(self) -> Iterator[str]:
        """Every tenant that ever had a key."""
        return self.key_store.tenants()

    def rotate(self, tenant: str, subject: str | None = None) -> KeyInfo:
        """A new active data key for a tenant, or a subject; the old one is retired and still decrypts.

        Other processes take up the new key within the lease. Nothing is re-encrypted.

        Raises:
            KeyNotFound: there is no key yet to rotate.
            KeyShredded: the scope was shredded.
            KMSError, KeyStoreError: a backend failed; either key may be the active one, and asking again is
                safe.
        """
        return self.ring.rotate(KeySlot(tenant, subject)).info()

    def suspend(self, key_id: bytes) -> KeyInfo:
        """Stop a key from sealing and opening, reversibly; see ``lifecycle.states.suspend``."""
        return states.suspend(self.ring, key_id)

    def reinstate(self, key_id: bytes) -> KeyInfo:
        """Let a suspended key serve again; see ``lifecycle.states.reinstate``."""
        return states.reinstate(self.ring, key_id)

    def shred(self, tenant: str, subject: str | None = None, *, actor: str, reason: str) -> ErasureReceipt:
        """Destroy the keys of a tenant, or of one subject, for good; what they sealed is unreadable.

        Safe to repeat. See ``ErasureReceipt`` for what it claims, and what not.

        Raises:
            KeyNotFound: there is no such tenant.
            ConfigurationError: no actor or no reason.
            KeyStoreError: the key store failed; nothing or everything was destroyed, ask again.
        """
        return shred(self.ring, tenant, subject, actor=actor, reason=reason)

    def close(self) -> None:
        """Forget the cached keys and close the backends. Closing twice is fine."""
        self.ring.cache.drop(None)
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

    def _scoped(self, subject: str | None) -> tuple[str, str | None]:
        scope = self.ambient.get()
        tenant = scope.tenant if scope.tenant is not None else self.default_tenant
        if tenant is None:
            raise ScopeRequired(
                "no tenant is known for this value: pass tenant=…, work inside vault.scope(tenant=…), "
                "or give the vault a default_tenant"
            )
        return tenant, scope.subject if subject is None else subject

"""``Values``: sealing and opening, under the scope of the work.

``encrypt`` and ``decrypt`` are the hot path, written out flat: every step of it is paid for each value. What
is called is taken into a variable first: in a method call the interpreter would look for it in the class.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, overload

from cryptography.exceptions import InvalidTag

from fieldvault.batches import open_many, seal_many
from fieldvault.codecs import TEXT, decode, encode
from fieldvault.context import Name, as_name, check_name
from fieldvault.envelope import HEADER, HEADER_SIZE, as_bytes, refuse
from fieldvault.errors import DecryptionError, FieldVaultError, ScopeRequired, TenantMismatch
from fieldvault.keys.cached import ValueKey
from fieldvault.keys.records import KeySlot
from fieldvault.keys.ring import KeyRing
from fieldvault.keys.waiting import TaskFlight
from fieldvault.scope import Scope, ScopeGuard
from fieldvault.suites import Suite

__all__ = ["Values"]


class Values:
    """Seals and opens values under the keys of a ring.

    ``suite`` seals; whatever the suite, every ciphertext of every suite can be opened. Keys are looked up in
    the ring's cache without a lock; only what is missing, stale or used up goes through the ring.
    """

    def __init__(self, ring: KeyRing, suite: Suite, default_tenant: Name | None) -> None:
        self.ring = ring
        self.suite = suite
        self.default_tenant = None if default_tenant is None else as_name("tenant", default_tenant)
        # One variable a vault: the scope of one vault is none of another's business.
        self.ambient: ContextVar[Scope] = ContextVar("fieldvault scope", default=Scope())  # noqa: B039 - frozen
        self._clock = ring.hot_clock.read
        self._random = os.urandom
        self._opening = ring.cache.opening.get
        self._sealing = ring.cache.sealing
        self._sealing_text = ring.cache.sealing[suite.number, TEXT]
        self._flights = TaskFlight()

    @overload
    def encrypt(
        self, value: None, *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> None: ...
    @overload
    def encrypt(
        self, value: object, *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> bytes: ...
    def encrypt(
        self, value: object, *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> bytes | None:
        """The ciphertext of a value (docs/format.md), 47 bytes longer than its encoding by default.

        ``field`` is the stable name of what is encrypted, such as ``customers.email``; the ciphertext opens
        under this name only. Tenant and subject come from the scope where ``tenant`` is not given; integers
        and UUIDs become the text that a model's column of them becomes. ``None`` stays ``None``; any other
        value keeps its class (docs/concepts.md lists them).

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
        kind, keys = TEXT, self._sealing_text
        body: bytes | None = None
        if type(value) is str:
            try:  # noqa: SIM105 - suppress() costs more than the encoding
                body = value.encode()
            except UnicodeEncodeError:
                # The general encoder refuses it, outside of this handler: the error at hand holds the
                # plaintext.
                pass
        if body is None:
            kind, body = encode(value)
            keys = self._sealing[self.suite.number, kind]
        try:
            # Names that are no text are in no cache; they become text where the key is fetched.
            key = keys.get(tenant if subject is None else (tenant, subject))  # type: ignore[arg-type]
        except TypeError:
            key = None
        clock = self._clock
        # A tenant that is no text may have found a subject's key.
        if key is None or key.tenant != tenant or clock() >= key.fresh_until or not next(key.uses, False):
            key = self._key_for_sealing(key, tenant, subject, kind)
        try:
            associated = key.contexts[field]
        except (KeyError, TypeError):
            associated = key.context(field)
        random, protect = self._random, key.seal
        nonce = random(key.nonce_size)
        return key.header + nonce + protect(nonce, body, associated)

    @overload
    def decrypt(
        self, blob: None, *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> None: ...
    @overload
    def decrypt(
        self, blob: bytes, *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> Any: ...
    def decrypt(  # noqa: C901 - flat
        self, blob: bytes | None, *, field: str, tenant: Name | None = None, subject: Name | None = None
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
        if type(blob) is not bytes:
            blob = as_bytes(blob)
        cached, clock = self._opening, self._clock
        key = cached(blob[HEADER])
        if key is None or clock() >= key.fresh_until:
            key = self._key_for_opening(key, blob)
        if key.tenant != tenant and _is_other("tenant", key.tenant, tenant):
            raise TenantMismatch(f"the value belongs to another tenant than {tenant!r}")
        if subject is not None and key.subject != subject and _is_other("subject", key.subject, subject):
            raise DecryptionError
        try:
            associated = key.contexts[field]
        except (KeyError, TypeError):
            associated = key.context(field)
        unprotect = key.open
        payload = None
        try:
            payload = unprotect(blob[key.nonce], blob[key.sealed], associated)
            if key.is_text:
                return payload.decode()
        except (InvalidTag, ValueError):
            # What is authentic and no UTF-8 is refused by the general decoder, outside of this handler.
            pass
        if payload is None:
            refuse(blob)
        try:
            return decode(key.kind, payload)
        except FieldVaultError as error:
            refusal = error
        # A traceback that prints locals shows no plaintext: neither this frame nor those below have one.
        payload = None
        raise refusal.with_traceback(None)

    def encrypt_many(
        self, values: Iterable[object], *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> list[bytes | None]:
        """``encrypt`` for each value of one field, in order."""
        check_name("field", field)
        return seal_many(self.ring, self.suite, None, list(values), field, self._owner(tenant, subject))

    def decrypt_many(
        self,
        blobs: Iterable[bytes | None],
        *,
        field: str,
        tenant: Name | None = None,
        subject: Name | None = None,
    ) -> list[Any]:
        """``decrypt`` for each ciphertext of one field, in order.

        Keys that are missing are fetched together, in one batch.
        """
        check_name("field", field)
        return open_many(self.ring, list(blobs), field, *self._owner(tenant, subject))

    async def aencrypt(
        self, value: object, *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> bytes | None:
        """``encrypt`` for coroutines.

        Whatever waits for the KMS or the key store waits in a thread, not in the event loop.
        """
        if value is None:
            return None
        slot = KeySlot(*self._owner(tenant, subject))
        if self.ring.sealing_may_wait(slot):
            await self._flights.run(slot, lambda: self.ring.for_sealing(slot, self.suite, TEXT))
            if self.ring.sealing_may_wait(slot):
                return await asyncio.to_thread(
                    self.encrypt, value, field=field, tenant=slot.tenant, subject=slot.subject
                )
        return self.encrypt(value, field=field, tenant=slot.tenant, subject=slot.subject)

    async def adecrypt(
        self, blob: bytes | None, *, field: str, tenant: Name | None = None, subject: Name | None = None
    ) -> Any:
        """``decrypt`` for coroutines.

        Whatever waits for the KMS or the key store waits in a thread, not in the event loop.
        """
        if blob is None:
            return None
        tenant, subject = self._owner(tenant, subject)
        blob = as_bytes(blob)
        if self.ring.opening_may_wait(blob):
            await self._flights.run(blob[:HEADER_SIZE], lambda: self.ring.for_opening(blob))
            if self.ring.opening_may_wait(blob):
                return await asyncio.to_thread(
                    self.decrypt, blob, field=field, tenant=tenant, subject=subject
                )
        return self.decrypt(blob, field=field, tenant=tenant, subject=subject)

    def scope(
        self,
        tenant: Name | None = None,
        subject: Name | None = None,
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

    def _key_for_sealing(
        self, found: ValueKey | None, tenant: Name, subject: Name | None, kind: int
    ) -> ValueKey:
        if found is not None and found.tenant == tenant:
            self._uncount()
        slot = KeySlot(*_named(tenant, subject))
        if slot.tenant is not tenant or slot.subject is not subject:
            # They were no text, by which keys are looked up.
            owner = slot.tenant if slot.subject is None else (slot.tenant, slot.subject)
            made = self._sealing[self.suite.number, kind].get(owner)
            if made is not None:
                if self._clock() < made.fresh_until and next(made.uses, False):
                    return made
                self._uncount()
        return self.ring.for_sealing(slot, self.suite, kind)

    def _key_for_opening(self, found: ValueKey | None, blob: bytes) -> ValueKey:
        if found is not None:
            self._uncount()
        return self.ring.for_opening(blob)

    def _uncount(self) -> None:
        """The clock was read for a key that did not serve, and the readings are the hits."""
        self.ring.meter.served(-1)

    def _owner(self, tenant: Name | None, subject: Name | None) -> tuple[str, str | None]:
        """Tenant and subject as names: those that are given, or the scope's."""
        if tenant is None:
            tenant, subject = self._scoped(subject)
        return _named(tenant, subject)

    def _scoped(self, subject: Name | None) -> tuple[str, Name | None]:
        scope = self.ambient.get()
        tenant = scope.tenant if scope.tenant is not None else self.default_tenant
        if tenant is None:
            raise ScopeRequired(
                "no tenant is known for this value: pass tenant=…, work inside vault.scope(tenant=…), "
                "or give the vault a default_tenant"
            )
        return tenant, scope.subject if subject is None else subject


def _is_other(kind: str, name: str | None, given: Name) -> bool:
    """Whether what a caller gave, which is not the name itself, is no other form of it either."""
    return type(given) is str or as_name(kind, given) != name


def _named(tenant: Name, subject: Name | None) -> tuple[str, str | None]:
    return as_name("tenant", tenant), None if subject is None else as_name("subject", subject)

"""The two joints of the vault.

What wraps keys, and what keeps them. Backends implement these and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol, runtime_checkable

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.records import Change, Fence, KeyRecord, KeySlot, KeyState, Snapshot

__all__ = [
    "KMS",
    "Addition",
    "KeyStore",
    "ManyRootKeys",
    "Portable",
    "Provisioned",
    "Rewrapping",
    "RootKeyRotation",
    "WrappedKey",
]


class WrappedKey(NamedTuple):
    """One item of ``unwrap_many``: what ``wrap`` returned, and the context that it was given."""

    wrapped: bytes
    context: Mapping[str, str]


class Addition(NamedTuple):
    """One item of ``add_active``.

    The key to become its slot's active one, and the key id of the one it takes over from, if any.
    """

    record: KeyRecord
    replaces: bytes | None


class KMS(Protocol):
    """Wraps and unwraps data keys under a root key that never leaves it.

    The context (text to text) is authenticated, not secret: another context must make ``unwrap`` fail. Errors
    are told apart by what an operator would do: ``KMSUnavailable`` (try again), ``KMSDenied`` (permission),
    ``KMSKeyDisabled`` (root key gone), and ``KMSError`` for the rest, a tampered blob or another context
    among it. All methods may be called from many threads at once.
    """

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key."""
        ...

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context."""
        ...

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item's key, or the error that item met, in order; raises only what hit the call as a whole."""
        ...

    def check(self) -> str:
        """Prove with a round trip that the root key works.

        One line for a person that says what was reached.
        """
        ...

    def close(self) -> None:
        """Give up connections. Closing twice is fine."""
        ...


@runtime_checkable
class RootKeyRotation(Protocol):
    """What a KMS may also do: bring a new version of the root key into use."""

    def rotate_root_key(self) -> int:
        """Add a version, wrap under it from now on, keep unwrapping older ones; the new version's number."""
        ...


@runtime_checkable
class Rewrapping(Protocol):
    """What a KMS may also do: bring a wrapped key up to date."""

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """Whether it was wrapped as ``wrap`` would wrap it now, and opens.

        False where that cannot be told.
        """
        ...

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The same key, wrapped anew under the present root key."""
        ...


@runtime_checkable
class ManyRootKeys(Protocol):
    """What a KMS may also have: several root keys, or versions of one that can be disabled each by itself."""

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """A name for what it takes to unwrap this: wrapped keys of one name are refused together.

        Asks nobody. A KMS without it is taken to have one root key.
        """
        ...


class NotAsked(KMSUnavailable):
    """An item of ``unwrap_many`` that the KMS was not asked for any more, as others had met an outage.

    It says nothing of the item's own root key.
    """


class KeyStore(Protocol):
    """Keeps wrapped data keys, their states, and the fences of what was shredded.

    Every method is one atomic step: after a crash it happened or it did not. Whatever makes cached keys stale
    (a new active key, another state, a shred) raises the *generation*, a single integer that only grows, in
    that same step, and notes which scope it touched. Every failure of the store is a ``KeyStoreError``, and
    one that is no outage a ``KeyStoreRefused``; a failure is never taken for "no such key" or "there is one
    already". All methods may be called from many threads at once.
    """

    def generation(self) -> int:
        """The fence generation. The cheapest read there is."""
        ...

    def changes(self, since: int) -> Sequence[Change] | None:
        """The scopes touched after that generation, or ``None`` if the store no longer knows them all."""
        ...

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        """The records of these key ids and of their parents, in one read; unknown ids are missing from it."""
        ...

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        """For each slot its active, its suspended and its newest keys, with their parents, in one read."""
        ...

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        """Make each record the active key of its slot, in place of the one it ``replaces``.

        It happens only where that one is active now; it becomes retired. ``replaces=None`` asks for a slot
        that has no active key. Returns the key ids that became active; for a missing one another process was
        first, and nothing changed in its slot. One slot stands at most once among the additions.

        Raises:
            KeyShredded: a scope among them is fenced; nothing was added.
        """
        ...

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        """Compare-and-set of a key's state.

        Destroying wipes ``wrapped``. False: it was not in ``expect``, or the slot has an active key.
        """
        ...

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        """Reserve ``uses`` messages on each key and return those granted with their new totals.

        A key that is not active, or whose total would pass ``limit``, is missing from the answer and
        unchanged.
        """
        ...

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        """Compare-and-set of a key's wrapped form. False: it was no longer ``expect``."""
        ...

    def shred(self, fence: Fence) -> Sequence[bytes]:
        """Fence the scope and wipe its wrapped keys; the key ids destroyed by this or an earlier call.

        The fence comes first: once it is there no key of the scope is created or returned with its material
        again. Calling again completes what was interrupted, and keeps the first fence. A tenant's shred wipes
        the tenant's own keys, a constant number of statements; its subjects' keys are unreadable without
        them.
        """
        ...

    def fence(self, tenant: str, subject: str | None) -> Fence | None:
        """The fence over a scope: its own, or else its tenant's."""
        ...

    def keys(self, tenant: str, subject: str | None) -> Sequence[KeyRecord]:
        """A tenant's own keys, or one subject's, by purpose and version."""
        ...

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        """A tenant's own keys, then those of all its subjects, fetched in pages.

        By subject, purpose and version.
        """
        ...

    def tenants(self) -> Iterator[str]:
        """Every tenant that ever had a key, shredded ones included, fetched in pages."""
        ...

    def declare_lease(self, seconds: float) -> float:
        """Note how long a process may go on with what it cached; the longest that any process declared."""
        ...

    def check(self) -> str:
        """Prove that the store answers; one line for a person that says what was reached."""
        ...

    def close(self) -> None:
        """Give up connections. Closing twice is fine."""
        ...


@runtime_checkable
class Portable(KeyStore, Protocol):
    """What a key store may also do: be copied as a whole, from and to another kind of store.

    A copy begins in an empty store, which is *unfinished* from then on and serves nobody. Otherwise a process
    that opens it too soon would make new keys for tenants whose keys are still to come. The store that was
    copied is *moved away* before its copy serves, and serves nobody from then on. Otherwise a process that
    was not stopped would go on in it, and its keys and shreds would be in no copy.

    A store that serves nobody raises ``KeyStoreError`` in ``generation``, ``fetch``, ``current``,
    ``add_active``, ``transition``, ``reserve``, ``rewrap``, ``shred`` and ``check``: ``check`` the one that
    says why, ``UnfinishedCopy`` or ``MovedAway``. What was done and answered before is in the store; what one
    of these calls was refused is done for nobody. ``tenants``, ``keys``, ``all_keys``, ``fence`` and
    ``fences`` answer, to compare stores by.

    Each method may be called again after it was interrupted. A store without transactions over many records
    may do ``take_over`` in several steps: the fences first, then each record in one.
    """

    def fences(self) -> Iterator[Fence]:
        """Every fence, those of subjects that never had a key among them, fetched in pages; in any order."""
        ...

    def begin_copy(self) -> int | None:
        """Become unfinished, or go on with a copy that was interrupted; a token, random, for who copies.

        Whoever began earlier is locked out: one process copies at a time, however slow the others are.
        ``None``: there are keys or fences here, or there have been; nothing was changed.
        """
        ...

    def take_over(self, records: Sequence[KeyRecord], fences: Sequence[Fence], *, token: int) -> int:
        """Take records and fences as they are in another store; how many of them changed something here.

        The records of a slot come in one call, at most one of them active. One that is missing is added with
        every member; of one that is there, ``fieldvault.keystores.merging.merged`` says what becomes of it. A
        fence that is there stays. Nothing comes back to life: what is destroyed here stays destroyed, and a
        record whose own scope is fenced here, by these fences or earlier ones, is kept destroyed and without
        its material. Records that are here and not among these stay as they are.

        Raises:
            KeyStoreError: the token is not that of the last ``begin_copy``, the store is not unfinished, or a
                record contradicts one that is here. Nothing was done.
        """
        ...

    def finish_copy(self, *, token: int, generation: int, lease: float) -> None:
        """Serve from now on, at this generation at least, and with this longest declared lease at least.

        ``changes`` since any earlier generation are unknown here (``None``), so whoever comes from the other
        store with keys in its cache drops all of them.

        Raises:
            KeyStoreError: as of ``take_over``; the store stays unfinished.
        """
        ...

    def give_up_copy(self) -> bool:
        """Delete what an unfinished copy has taken over, and be an empty store again; False: it is none."""
        ...

    def move_away(self, *, token: int) -> int:
        """Serve nobody from now on; the generation. Again, also with another token: the same.

        Raises:
            KeyStoreError: the store is an unfinished copy.
        """
        ...

    def move_back(self, *, token: int | None = None) -> bool:
        """Serve again, as before ``move_away``; without a token, whatever the last one was.

        False: the store was not moved away, or last with another token.
        """
        ...


@runtime_checkable
class Provisioned(Protocol):
    """What a key store may also want: a table made by command, ``fieldvault keystore create``.

    Opening such a store does not need the table.
    """

    def create_table(self) -> str:
        """Make the table and wait until it can be used; one line for a person that says which.

        A table that is there already, and is the right one, is no error.

        Raises:
            KeyStoreError: it cannot be made, or there is another one of that name.
        """
        ...

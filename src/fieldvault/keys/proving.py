"""Proving: once a lease, the KMS is asked whether this process may still use a root key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from weakref import WeakValueDictionary

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.cache import KeyCache
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.clock import Clock
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.material import key_context, unwrap_records
from fieldvault.keys.permission import Permission
from fieldvault.keys.policy import CachePolicy
from fieldvault.keys.protocols import KMS, ManyRootKeys
from fieldvault.keys.records import KeyRecord
from fieldvault.secret import Secret

__all__ = ["Prover"]

_PAUSE = 5.0
"""Seconds until an unavailable KMS is asked again; half a lease, where that is less."""

_TRIES = 2
"""Proofs, where the first came too late: a process that stood still meanwhile."""

_Held = Mapping[Permission, Sequence[CachedKey]]


class Prover:
    """Has cached keys serve no longer than a lease after the KMS last let this process use their root key.

    The proof is one unwrapping, of a key that is cached anyway and that somebody uses: one for all keys of a
    root key, the root keys of a batch in one call. Every other unwrapping is a proof, too. Refused: the keys
    that it covers are dropped, and whoever needs one has it loaded, and so hears what the KMS says of that
    very key. Unavailable: it proves nothing, and keys serve to the end of their age and the grace; whoever
    uses them waits for the KMS once, and it is asked in the background from then on.

    A KMS with more root keys than one says which one a key depends on (``ManyRootKeys``).
    """

    def __init__(
        self, kms: KMS, cache: KeyCache, *, policy: CachePolicy, clock: Clock, names: ManyRootKeys | None
    ) -> None:
        self._kms = kms
        self._cache = cache
        self._policy = policy
        self._clock = clock
        self._names = names
        self._for_good = Permission()
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        self._flight: SingleFlight[Permission, None] = SingleFlight()
        # Those that no cached key depends on any more are not kept.
        self._permissions: WeakValueDictionary[str, Permission] = WeakValueDictionary()
        # Those that the KMS is being asked about behind requests.
        self._asked: frozenset[Permission] = frozenset()

    def unwrapped(self, record: KeyRecord, asked_at: float) -> Permission:
        """The permission that a key depends on, which the KMS has unwrapped; it was asked at ``asked_at``."""
        with self._cache.lock:
            permission = self._of(record)
            self._extend(permission, asked_at)
        return permission

    def wrapped(self, record: KeyRecord) -> Permission:
        """The permission that a new key depends on, which the KMS has wrapped.

        That is taken for leave to use it for a lease where nothing else is known.
        """
        with self._cache.lock:
            permission = self._of(record)
            if permission.asked_at == -inf:
                self._extend(permission, self._clock())
        return permission

    def unavailable(self, permission: Permission) -> None:
        """The KMS was asked for a key that depends on this, and was unavailable: not again at once."""
        lease = self._policy.lease
        with self._cache.lock:
            now = self._clock()
            permission.is_out = True
            if not self._policy.refresh_ahead:
                self._run_until(permission, now + min(_PAUSE, lease), inf)
            else:
                # What was found out longer ago than a lease is no knowledge: a request asks first.
                self._run_until(permission, now + lease, now + min(_PAUSE, lease / 2))

    def knows_out(self, permission: Permission) -> bool:
        """Whether the KMS was unavailable when it was asked about this, within a lease; or is being asked."""
        return (
            permission is not self._for_good
            and permission.is_out
            and (self._clock() < permission.until or permission in self._asked)
        )

    def ensure(self, keys: Iterable[CachedKey]) -> None:
        """Ask the KMS about the root keys of these keys whose permission ran out; one call for all.

        Keys that it refuses are evicted afterwards.

        Raises:
            KMSUnavailable: it takes longer to answer than a lease lasts.
        """
        wanted = list(keys)
        for _ in range(_TRIES):
            stale = self._stale(wanted)
            if not stale:
                return
            self._run(stale, partial(self._prove, stale))
        if self._stale(wanted):
            raise KMSUnavailable("the KMS takes longer to answer than a lease lasts")

    def prove_ahead(self, keys: Iterable[CachedKey]) -> None:
        """Ask about the root keys of these keys while their permissions still run."""
        held = _by_permission(keys)
        with self.asking(held):
            self._run(held, partial(self._prove, held, ahead=True))

    @contextmanager
    def asking(self, permissions: Iterable[Permission]) -> Iterator[None]:
        """Meanwhile the KMS is asked about these in the background; in the one thread that does so."""
        before = self._asked
        self._asked = before.union(permissions)
        try:
            yield
        finally:
            self._asked = before

    def _stale(self, keys: Iterable[CachedKey]) -> _Held:
        now = self._clock()
        # One whose age is over is unwrapped anyway, and that is the proof.
        return _by_permission(
            key
            for key in keys
            if not key.evicted
            and key.permission.until <= now < key.expires
            and not self._serves_behind(key.permission, now)
        )

    def _serves_behind(self, permission: Permission, now: float) -> bool:
        """Whether the KMS, found out, is being asked about this in the background; nobody waits for that."""
        with self._cache.lock:
            behind = permission.is_out and permission in self._asked
            if behind:
                self._run_until(permission, now + min(_PAUSE, self._policy.lease), inf)
            return behind

    def _run(self, held: _Held, load: Callable[[list[Permission]], Mapping[Permission, None]]) -> None:
        for problem in self._flight.run(held, load).values():
            if problem is not None:
                raise problem

    def _prove(
        self, held: _Held, permissions: Sequence[Permission], *, ahead: bool = False
    ) -> dict[Permission, None]:
        probes: dict[Permission, KeyRecord] = {}
        asked_at = self._clock()
        for permission in permissions:
            if permission.until > asked_at and not ahead:
                # A flight that has just landed brought it.
                continue
            probe = next(filter(None, map(self._probe, held[permission])), None)
            if probe is None:
                for key in held[permission]:
                    self._cache.discard(key.record.key_id)
            else:
                probes[permission] = probe
        if probes:
            answers = self._answers(list(probes.values()))
            for permission, record in probes.items():
                self._judge(permission, answers[record.key_id], asked_at)
        return dict.fromkeys(permissions)

    def _answers(self, records: Sequence[KeyRecord]) -> Mapping[bytes, Secret | KMSError]:
        try:
            return unwrap_records(self._kms, records)
        except KMSError as error:
            return {record.key_id: error for record in records}

    def _judge(self, permission: Permission, answer: Secret | KMSError, asked_at: float) -> None:
        with self._cache.lock:
            if isinstance(answer, Secret):
                self._extend(permission, asked_at)
            elif isinstance(answer, KMSUnavailable):
                self.unavailable(permission)
            else:
                permission.is_out = False
                self._cache.drop_dependent(permission)

    def _extend(self, permission: Permission, asked_at: float) -> None:
        lease, ahead = self._policy.lease, self._policy.refresh_ahead
        permission.asked_at = max(permission.asked_at, asked_at)
        permission.is_out = False
        self._run_until(permission, asked_at + lease, asked_at + lease * (1 - ahead) if ahead else inf)

    def _run_until(self, permission: Permission, until: float, due_at: float) -> None:
        if until >= permission.until:
            permission.until, permission.due_at = until, due_at

    def _probe(self, key: CachedKey) -> KeyRecord | None:
        """What the KMS wrapped: the key itself, or the wrap key above it; ``None`` if that is not cached."""
        if key.record.parent is None:
            return key.record
        above = self._cache.get(key.record.parent)
        return above.record if above is not None and above.permission is key.permission else None

    def _of(self, record: KeyRecord) -> Permission:
        if not self._policy.reprove:
            return self._for_good
        name = ""
        if self._names is not None:
            context = key_context(record.slot, record.key_id)
            try:
                name = self._names.root_key_of(record.wrapped or b"", context=context)
            except Exception:  # noqa: BLE001 - a fault in naming spoils no key
                # It was unwrapped, so it stands for itself.
                name = f"of {record.key_id.hex()}"
        return self._permissions.setdefault(name, Permission(until=-inf))


def _by_permission(keys: Iterable[CachedKey]) -> _Held:
    held: dict[Permission, list[CachedKey]] = {}
    for key in keys:
        held.setdefault(key.permission, []).append(key)
    return held

"""Copies a key store to another, of any kind, while the first is in use, and proves the copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from fieldvault.errors import ConfigurationError
from fieldvault.keys.protocols import KeyStore, Portable
from fieldvault.keys.records import KeyRecord
from fieldvault.lifecycle.inventory import Inventory, scopes, take_inventory

__all__ = ["Copied", "TargetInUse", "copy_key_store"]

_BATCH = 500
_PASSES = 5


class TargetInUse(ConfigurationError):
    """The store to copy to is no empty one, and no copy of the other; nothing was changed in it."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How a copy stands.

    ``written`` are the records and fences that this call added to or changed in the target; ``differing`` the
    tenants of which the two stores do not hold the same, ``unsteady`` those that were changed in the source
    while it was compared. ``finished``: the target is open for use.
    """

    source: Inventory
    target: Inventory
    written: int
    differing: Sequence[str]
    unsteady: Sequence[str]
    finished: bool

    @property
    def proven(self) -> bool:
        """Whether both stores held the same, and the source stood still for as long as that was looked at."""
        return not self.differing and not self.unsteady


def copy_key_store(
    source: KeyStore, target: KeyStore, *, finish: bool, step: Callable[[], None] = lambda: None
) -> Copied:
    """Bring everything of ``source`` into ``target``, and compare the two.

    The source may be in use: passes are made over it until one finds nothing new, five at most, so a shred
    that happens meanwhile is copied as well. The target serves nobody until a call with ``finish`` has proven
    that both hold the same. Nothing may be written to the source from that call on: what is written to it
    later is not in the target. The source is only read. May be interrupted anywhere, and repeated.

    ``step`` is called after each tenant that was read.

    Raises:
        ConfigurationError: one of the stores cannot be copied, or the source has nothing to copy.
        TargetInUse: the target is no empty store and no unfinished copy of this source.
        KeyStoreError: one of the stores failed; what was copied by then stays.
    """
    here, there = _portable(source, "copied from"), _portable(target, "copied to")
    if next(here.tenants(), None) is None:
        raise ConfigurationError("the key store has no tenants: there is nothing to copy")
    if not there.begin_copy():
        return _finished_before(here, there, step)
    _refuse_strangers(here, there)
    written = 0
    for _ in range(_PASSES):
        changed = _pass(here, there, step)
        written += changed
        if not changed:
            break
    compared = _compared(here, there, written, step)
    if finish and compared.proven:
        there.finish_copy(generation=here.generation() + 1, lease=here.declare_lease(0))
        return replace(compared, finished=True)
    return compared


def _finished_before(source: Portable, target: Portable, step: Callable[[], None]) -> Copied:
    """The account of a copy that was finished by an earlier call, and that nobody has used since."""
    # The store itself, under another name, would be equal as well.
    if target.generation() > source.generation():
        compared = _compared(source, target, 0, step)
        if compared.proven:
            return replace(compared, finished=True)
    raise TargetInUse(
        "the key store to copy to has keys, or had some, and is no unfinished copy: copy to an empty one"
    )


def _compared(source: Portable, target: Portable, written: int, step: Callable[[], None]) -> Copied:
    before = take_inventory(source, wiped=True, step=step)
    # As it is: material behind a fence is what must not be in it.
    copied = take_inventory(target, step=step)
    after = take_inventory(source, wiped=True, step=step)
    differing, unsteady = after.differing(copied), after.differing(before)
    return Copied(after, copied, written, differing, unsteady, finished=False)


def _portable(store: KeyStore, what: str) -> Portable:
    if not isinstance(store, Portable):
        raise ConfigurationError(f"a {type(store).__name__} cannot be {what}")
    return store


def _refuse_strangers(source: Portable, target: Portable) -> None:
    """Refuse a target that holds what the source never had: the unfinished copy of another store."""
    fenced = {(fence.tenant, fence.subject) for fence in source.fences()}
    strange = any((fence.tenant, fence.subject) not in fenced for fence in target.fences())
    for tenant in target.tenants():
        for part in _batches(target.all_keys(tenant)):
            known = source.fetch([record.key_id for record in part]).records
            strange = strange or any(record.key_id not in known for record in part)
    if strange:
        raise TargetInUse(
            "the key store to copy to is the unfinished copy of another one: copy to an empty one"
        )


def _batches(records: Iterator[KeyRecord]) -> Iterator[list[KeyRecord]]:
    while part := list(islice(records, _BATCH)):
        yield part


def _pass(source: Portable, target: Portable, step: Callable[[], None]) -> int:
    """Go over the source once; how many records and fences were new to the target, or changed in it."""
    changed = 0
    # Fences first: what is copied behind one is copied as destroyed.
    fences = source.fences()
    while part := list(islice(fences, _BATCH)):
        changed += target.take_over([], part)
    for tenant in source.tenants():
        records: list[KeyRecord] = []
        for _, own in scopes(source, tenant):
            records += own
            if len(records) >= _BATCH:
                changed += target.take_over(records, [])
                records = []
        if records:
            changed += target.take_over(records, [])
        step()
    return changed

"""Copies a key store to another, of any kind, while the first is in use, proves the copy, and moves to it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice

from fieldvault.errors import ConfigurationError, MovedAway
from fieldvault.keys.protocols import KeyStore, Portable
from fieldvault.keys.records import KeyRecord
from fieldvault.lifecycle.inventory import Inventory, scopes, take_inventory

__all__ = ["Copied", "TargetInUse", "as_portable", "copy_key_store"]

_BATCH = 500
_PASSES = 5


class TargetInUse(ConfigurationError):
    """The store to copy to is no empty one, and no copy of the other; nothing was changed in it."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How a copy stands.

    ``written`` are the records and fences that this call added to or changed in the target; ``differing`` the
    tenants of which the two stores do not hold the same, ``unsteady`` those that were changed in the source
    while it was compared. ``finished``: the target is open for use, and the source serves nobody.
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
    that both hold the same. Before the last pass such a call moves the source away: it serves nobody from
    then on, so nothing is written to it that the target lacks. Where the proof fails, it serves again. The
    source is only read without ``finish``.

    May be interrupted anywhere, and repeated. One that was interrupted after it moved the source away leaves
    both closed until it is repeated, or the source is moved back. Of two calls at once the later one goes on.

    ``step`` is called after each tenant that was read.

    Raises:
        ConfigurationError: one of the stores cannot be copied, or the source has nothing to copy.
        TargetInUse: the target is no empty store and no unfinished copy of this source.
        KeyStoreError: one of the stores failed, or another copy was begun since; what was copied by then
            stays.
    """
    here, there = as_portable(source, "copied from"), as_portable(target, "copied to")
    if next(here.tenants(), None) is None:
        raise ConfigurationError("the key store has no tenants: there is nothing to copy")
    serving = _serves(here)
    if not serving and next(there.tenants(), None) is None:
        # It was moved to another one, which may be in use by now.
        raise MovedAway
    token = there.begin_copy()
    if token is None:
        return _finished_before(here, there, step, serving=serving, finish=finish)
    _refuse_strangers(here, there)
    written = 0
    for _ in range(_PASSES):
        changed = _pass(here, there, token, step)
        written += changed
        if not changed:
            break
    if not finish:
        return _compared(here, there, written, step)
    with ExitStack() as undo:
        if serving:
            # By the token: where another copy was begun and finished meanwhile, the source stays closed.
            undo.callback(here.move_back, token=token)
        generation = here.move_away(token=token)
        written += _pass(here, there, token, step)
        compared = _compared(here, there, written, step)
        if not compared.proven:
            return compared
        # Whether a call that fails was done nobody knows: the source stays closed, and repeating tells.
        undo.pop_all()
        there.finish_copy(token=token, generation=generation + 1, lease=here.declare_lease(0))
        return replace(compared, finished=True)


def _serves(store: Portable) -> bool:
    try:
        store.generation()
    except MovedAway:
        return False
    return True


def _finished_before(
    source: Portable, target: Portable, step: Callable[[], None], *, serving: bool, finish: bool
) -> Copied:
    """The account of a copy that was finished by an earlier call, and that nobody has used since."""
    token = secrets.randbits(60)
    # The store itself, under another name, would be equal as well. The target is asked first: it may be used.
    reached = target.generation() if _serves(target) else 0
    if reached > (source.generation() if serving else source.move_away(token=token)):
        with ExitStack() as undo:
            if finish and serving:
                undo.callback(source.move_back, token=token)
                source.move_away(token=token)
            compared = _compared(source, target, 0, step)
            if compared.proven:
                undo.pop_all()
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


def as_portable(store: KeyStore, what: str) -> Portable:
    """The store.

    Raises:
        ConfigurationError: it can be no copy of another one, and have none.
    """
    if not isinstance(store, Portable):
        raise ConfigurationError(f"a {type(store).__name__} cannot be {what}")
    return store


def _refuse_strangers(source: Portable, target: Portable) -> None:
    """Refuse a target that holds what the source never had: the unfinished copy of another store."""
    fenced = {(fence.tenant, fence.subject) for fence in source.fences()}
    strange = any((fence.tenant, fence.subject) not in fenced for fence in target.fences())
    for tenant in target.tenants():
        known = {record.key_id for record in source.all_keys(tenant)}
        strange = strange or any(record.key_id not in known for record in target.all_keys(tenant))
    if strange:
        raise TargetInUse(
            "the key store to copy to is the unfinished copy of another one: copy to an empty one"
        )


def _pass(source: Portable, target: Portable, token: int, step: Callable[[], None]) -> int:
    """Go over the source once; how many records and fences were new to the target, or changed in it."""
    changed = 0
    # Fences first: what is copied behind one is copied as destroyed.
    fences = source.fences()
    while part := list(islice(fences, _BATCH)):
        changed += target.take_over([], part, token=token)
    for tenant in source.tenants():
        records: list[KeyRecord] = []
        for _, own in scopes(source, tenant):
            records += own
            if len(records) >= _BATCH:
                changed += target.take_over(records, [], token=token)
                records = []
        if records:
            changed += target.take_over(records, [], token=token)
        step()
    return changed

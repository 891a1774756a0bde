"""Wrapping a key anew with the members of a ``MultiKMS``, each of which proves what it wrapped."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms.multi.members import Members
from fieldvault.secret import Secret

__all__ = ["RewrappedByMember", "proved", "renewed"]

Parts = Mapping[str, bytes]


class RewrappedByMember(NamedTuple):
    """A wrapped key, and what stood against the members that took no part in it, or did not prove theirs."""

    wrapped: bytes
    missed: Mapping[str, KMSError]


def renewed(
    members: Members,
    key: Secret,
    old: Parts,
    context: Mapping[str, str],
    *,
    every: bool,
    enough: Callable[[Parts], bool],
) -> tuple[Parts, Mapping[str, KMSError]]:
    """A key's parts, each renewed by its member at hand, and what stood against those that did not.

    Without ``every``, a part that its member calls current stays; a member that cannot tell wraps. An old
    part goes only for a new one that its member proved. One that is not proved is taken where there was none,
    if its member may wrap and not unwrap here.
    """
    known = {*members.at_hand, *members.absent}
    parts = {name: part for name, part in old.items() if name in known}
    missed: dict[str, KMSError] = {}
    for name, is_ailing in members.in_order():
        if is_ailing and enough(parts):
            missed[name] = KMSUnavailable("was unavailable a moment ago, and is left alone for a while")
        elif every or name not in old or not members.says_current(name, old[name], context, untold=False):
            part, error = proved(members, name, key, context)
            if error is not None:
                missed[name] = error
            if error is None or (part and name not in old):
                parts[name] = part
    return parts, missed


def proved(
    members: Members, name: str, key: Secret, context: Mapping[str, str]
) -> tuple[bytes, KMSError | None]:
    """What a member wraps, and what stands against it; empty where it is not to be used."""
    part = members.wrap(name, key.reveal(), context)
    if isinstance(part, KMSError):
        return b"", part
    (answer,) = members.unwrap_many(name, [WrappedKey(part, context)])
    if isinstance(answer, KMSDenied):
        return part, KMSDenied(f"wrapped it, and may not unwrap it to prove that: {answer}")
    if isinstance(answer, KMSError):
        return b"", answer
    return (part, None) if hmac.compare_digest(answer, key.reveal()) else (b"", members.lied(name))

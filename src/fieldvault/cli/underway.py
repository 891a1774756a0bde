"""What was begun and is not finished, and the command that goes on with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from fieldvault.cli.findings import Finding, Level
from fieldvault.cli.terminal import counted, moment
from fieldvault.errors import FieldVaultError
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import KeyInfo
from fieldvault.lifecycle.index_keys import IndexRotation, rotation_among

__all__ = ["how_to_finish", "index_rotations", "next_step", "rotation_document", "rotations_under_way"]


def rotations_under_way(store: KeyStore, tenants: Iterable[Iterable[KeyInfo]]) -> Iterator[IndexRotation]:
    """The rotations of index keys that were begun and not finished, among the keys of each tenant.

    Raises:
        KeyStoreError: the key store failed.
    """
    longest = store.declare_lease(0)
    for keys in tenants:
        found = rotation_among(keys, longest)
        if found is not None and found.former:
            yield found


def next_step(rotation: IndexRotation) -> str:
    """What to do next about a rotation of an index key, in one line."""
    tenant = quote(rotation.active.tenant)
    if not rotation.is_settled:
        return f"after {moment(rotation.settled_at)}: fieldvault index rebuild {tenant}"
    return f"fieldvault index rebuild {tenant}, for every database; then fieldvault index drop {tenant}"


def rotation_document(rotation: IndexRotation) -> dict[str, Any]:
    """The rotation in JSON's types."""
    return {
        "tenant": rotation.active.tenant,
        "settled": rotation.is_settled,
        "settled_at": rotation.settled_at.isoformat(),
        "next": next_step(rotation),
    }


def index_rotations(store: KeyStore, tenants: Iterable[Iterable[KeyInfo]]) -> Iterator[Finding]:
    """A warning where index keys are being rotated: searches go on, and nothing ends it but an operator."""
    try:
        found = list(rotations_under_way(store, tenants))
    except FieldVaultError:
        return  # the key store's own finding says it
    if found:
        yield Finding(
            "index keys",
            Level.WARNING,
            f"the index keys of {counted(len(found), 'tenant')} are being rotated",
            "go on as said; how far one is: fieldvault index status TENANT",
            tuple(f"{rotation.active.tenant}: {next_step(rotation)}" for rotation in found),
        )


def how_to_finish(copy: Path) -> str:
    """What to do with a key store that is an unfinished copy."""
    return (
        "with the configuration of the key store that it is a copy of: fieldvault keystore copy --to "
        f"{quote(str(copy))} --finish; until then let everything go on using that one"
    )

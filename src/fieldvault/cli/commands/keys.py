"""``fieldvault keys``: the keys of a tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from fieldvault.cli.census import require_tenant
from fieldvault.cli.opening import opened
from fieldvault.cli.options import everywhere, named
from fieldvault.cli.terminal import Listing, Terminal, moment, tinted
from fieldvault.errors import KeyNotFound
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import Fence, KeyInfo, KeyState

__all__ = ["key_document", "keys"]


@click.command()
@everywhere
@click.argument("tenant", callback=named("tenant"))
@click.option("--subject", metavar="NAME", callback=named("subject"), help="The keys of this subject only.")
@click.option("--subjects", is_flag=True, help="The keys of all its subjects as well.")
@click.pass_obj
def keys(terminal: Terminal, tenant: str, subject: str | None, subjects: bool) -> None:
    """List the keys of TENANT.

    Key ids, states, ages and uses; never key material. Uses are the messages reserved so far, an upper
    bound of the messages sealed.
    """
    if subject is not None and subjects:
        raise click.UsageError("--subject and --subjects exclude each other")
    with opened(terminal.config) as it:
        store = it.vault.key_store
        require_tenant(store, tenant)
        fence = store.fence(tenant, subject)
        found = _found(store, tenant, subject, subjects=subjects)
    if not found and fence is None:
        whom = f"tenant {tenant!r}" if subject is None else f"subject {subject!r} of tenant {tenant!r}"
        raise KeyNotFound(f"there is no key of {whom} in the key store")
    # A tenant's shred leaves its subjects' records as they are: the key that wraps theirs is gone.
    shredded = fence is not None and fence.subject is None
    terminal.emit(
        {
            "tenant": tenant,
            "subject": subject,
            "shredded": None if fence is None else _shredded(fence),
            "keys": [key_document(key, tenant_shredded=shredded) for key in found],
        },
        *([] if fence is None else [_shredded_line(fence)]),
        *([_table(found, subjects=subject is not None or subjects, shredded=shredded)] if found else []),
    )


def _found(store: KeyStore, tenant: str, subject: str | None, *, subjects: bool) -> list[KeyInfo]:
    records = store.all_keys(tenant) if subjects else store.keys(tenant, subject)
    return [record.info() for record in records]


def _table(found: Sequence[KeyInfo], *, subjects: bool, shredded: bool) -> Listing:
    heads = ("KEY ID", "PURPOSE", "VERSION", "STATE", "CREATED", "USES")
    rows = [
        (
            key.key_id.hex(),
            key.purpose.value,
            f"v{key.version}",
            tinted("unusable" if shredded and key.state is not KeyState.DESTROYED else key.state.value),
            moment(key.created_at),
            str(key.uses),
            key.subject or "-",
        )
        for key in found
    ]
    if subjects:
        return Listing((*heads, "SUBJECT"), rows)
    return Listing(heads, [row[:-1] for row in rows])


def _shredded(fence: Fence) -> dict[str, Any]:
    return {"at": fence.at.isoformat(), "actor": fence.actor, "reason": fence.reason}


def _shredded_line(fence: Fence) -> str:
    whom = f"tenant {fence.tenant}" if fence.subject is None else f"subject {fence.subject}"
    return f"The {whom} was shredded on {moment(fence.at)} by {fence.actor}: {fence.reason}"


def key_document(key: KeyInfo, *, tenant_shredded: bool = False) -> dict[str, Any]:
    """What ``KeyInfo`` says, in JSON's types, and whether the key still opens anything."""
    return {
        "key_id": key.key_id.hex(),
        "tenant": key.tenant,
        "subject": key.subject,
        "purpose": key.purpose.value,
        "version": key.version,
        "state": key.state.value,
        "usable": key.state in (KeyState.ACTIVE, KeyState.RETIRED) and not tenant_shredded,
        "created_at": key.created_at.isoformat(),
        "uses": key.uses,
    }

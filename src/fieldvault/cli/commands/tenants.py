"""``fieldvault tenants``: who has keys."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from fieldvault.cli.census import Tenant, each_tenant
from fieldvault.cli.opening import opened
from fieldvault.cli.options import everywhere
from fieldvault.cli.terminal import Listing, Terminal, moment, tinted
from fieldvault.keys.records import KeyState

__all__ = ["tenants"]


@click.command()
@everywhere
@click.pass_obj
def tenants(terminal: Terminal) -> None:
    """List the tenants and their data keys.

    Every tenant that ever had a key is there; a shredded tenant stays in the list for good.
    """
    with opened(terminal.config) as it, terminal.progress("tenants", None) as step:
        found = []
        for tenant in each_tenant(it.vault.key_store):
            found.append(tenant)
            step()
    if not found and not terminal.json:
        terminal.emit({}, "No tenant has a key yet: the first value encrypted for one makes it.")
        return
    terminal.emit(
        {"tenants": [_document(tenant) for tenant in found]},
        Listing(
            ("TENANT", "STATE", "DATA KEY", "SINCE", "USES"),
            [_row(tenant) for tenant in found],
        ),
    )


def _state(tenant: Tenant) -> str:
    return "shredded" if tenant.shredded else "live"


def _row(tenant: Tenant) -> tuple[str | Text, ...]:
    key = tenant.data_key
    if tenant.shredded or key is None:
        return (tenant.name, tinted(_state(tenant)), "-", "-", "-")
    version = f"v{key.version}" if key.state is KeyState.ACTIVE else f"v{key.version} {key.state}"
    return (tenant.name, tinted(_state(tenant)), version, moment(key.created_at), str(key.uses))


def _document(tenant: Tenant) -> dict[str, Any]:
    key = tenant.data_key
    return {
        "tenant": tenant.name,
        "state": _state(tenant),
        "data_key": None
        if key is None
        else {
            "key_id": key.key_id.hex(),
            "version": key.version,
            "state": key.state.value,
            "created_at": key.created_at.isoformat(),
            "uses": key.uses,
        },
    }

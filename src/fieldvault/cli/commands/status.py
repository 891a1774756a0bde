"""``fieldvault status``: the vault at a glance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from rich.text import Text

from fieldvault.cli.census import Census
from fieldvault.cli.opening import Opened, opened
from fieldvault.cli.options import everywhere
from fieldvault.cli.terminal import Listing, Terminal, moment
from fieldvault.cli.underway import next_step, rotation_document, rotations_under_way
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.records import KeyState

__all__ = ["status"]

_ROTATIONS = 10


@click.command()
@everywhere
@click.pass_obj
def status(terminal: Terminal) -> None:
    """Show the vault and its figures.

    What it is made of, and how many tenants, subjects and keys it has. Reads every key's record, and no
    key material. To have the keys tried, call doctor.
    """
    with opened(terminal.config) as it:
        kms, store = it.vault.kms.check(), it.vault.key_store.check()
        census = _census(terminal, it)
        rotations = list(rotations_under_way(it.vault.key_store, census.index_keys))
    now = datetime.now(UTC)
    document = {
        "config": str(terminal.config),
        "kms": kms,
        "key_store": store,
        "tenants": census.tenants - census.shredded_tenants,
        "shredded_tenants": census.shredded_tenants,
        "subjects": census.subjects - census.shredded_subjects,
        "shredded_subjects": census.shredded_subjects,
        "keys": {state.value: census.keys[state] for state in KeyState},
        "oldest_active_key": None if census.oldest_active is None else census.oldest_active.isoformat(),
        "index_rotations": [rotation_document(rotation) for rotation in rotations],
        "cache": {
            "max_keys": it.cache.max_keys,
            "ttl": it.cache.ttl,
            "lease": it.cache.lease,
            "grace": it.cache.grace,
        },
        "rotation": {
            "max_age": None if it.rotation.max_age is None else it.rotation.max_age.total_seconds(),
            "max_uses": it.rotation.max_uses,
        },
    }
    rows = [
        ("Configuration", str(terminal.config)),
        ("KMS", kms),
        ("Key store", store),
        ("Tenants", _with_shredded(census.tenants, census.shredded_tenants)),
        ("Subjects", _with_shredded(census.subjects, census.shredded_subjects)),
        ("Keys", ", ".join(f"{census.keys[state]} {state}" for state in KeyState)),
        ("Oldest active key", _age(census.oldest_active, now)),
        ("Cache", _cache(it.cache)),
        ("Rotation", _rotation(it.rotation)),
        *[
            ("Index rotation", f"{rotation.active.tenant}: {next_step(rotation)}")
            for rotation in rotations[:_ROTATIONS]
        ],
    ]
    if len(rotations) > _ROTATIONS:
        rows.append(("Index rotation", f"and {len(rotations) - _ROTATIONS} more; --json lists them all"))
    terminal.emit(document, Listing(("", ""), [(Text(name, style="bold"), value) for name, value in rows]))


def _census(terminal: Terminal, it: Opened) -> Census:
    census = Census()
    names = list(it.vault.tenants())
    with terminal.progress("counting keys", len(names)) as step:
        for name in names:
            census.count(it.vault.key_store, name)
            step()
    return census


def _with_shredded(total: int, shredded: int) -> str:
    return f"{total - shredded}, and {shredded} shredded"


def _age(oldest: datetime | None, now: datetime) -> str:
    if oldest is None:
        return "-"
    days = max(now - oldest, timedelta(0)).days
    return f"made on {moment(oldest)}, {days} {'day' if days == 1 else 'days'} ago"


def _cache(cache: CachePolicy) -> str:
    return (
        f"{cache.max_keys} keys for {cache.ttl:g} s; lease {cache.lease:g} s, and in an outage a grace of "
        f"{cache.grace:g} s"
    )


def _rotation(rotation: RotationPolicy) -> str:
    uses = f"by itself before {rotation.max_uses} uses"
    if rotation.max_age is None:
        return f"{uses}; no age is set"
    return f"{uses}, and after {rotation.max_age / timedelta(days=1):g} days"

"""``fieldvault rotate``: new data keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import RenderableType

from fieldvault.cli.census import Tenant, each_tenant
from fieldvault.cli.commands.keys import key_document
from fieldvault.cli.exits import ExitCode
from fieldvault.cli.interrupts import between_steps
from fieldvault.cli.opening import opened
from fieldvault.cli.options import everywhere, named
from fieldvault.cli.terminal import Listing, Terminal
from fieldvault.errors import FieldVaultError
from fieldvault.keys.records import KeyInfo, KeyState
from fieldvault.vault import Vault

__all__ = ["rotate"]


@dataclass(slots=True)
class _Outcome:
    rotated: list[KeyInfo] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, FieldVaultError] = field(default_factory=dict)
    interrupted: bool = False

    def code(self) -> ExitCode:
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.PROBLEM if self.failed else ExitCode.OK

    def document(self) -> dict[str, Any]:
        return {
            "rotated": [key_document(key) for key in self.rotated],
            "skipped": [{"tenant": name, "why": why} for name, why in self.skipped.items()],
            "failed": [
                {"tenant": name, "kind": type(error).__name__, "message": str(error)}
                for name, error in self.failed.items()
            ],
            "interrupted": self.interrupted,
        }


@click.command()
@everywhere
@click.argument("tenant", callback=named("tenant"), required=False)
@click.option(
    "--subject", metavar="NAME", callback=named("subject"), help="Rotate this subject's key instead."
)
@click.option("--all", "everyone", is_flag=True, help="Rotate every tenant's data key.")
@click.pass_context
def rotate(ctx: click.Context, tenant: str | None, subject: str | None, everyone: bool) -> None:
    """Give TENANT, or all, a new data key.

    The old key is retired: it still opens what it sealed, and nothing is re-encrypted. Other processes
    take up the new key within their lease.

    --all goes on after a tenant that fails and names those at the end; it passes over tenants that are
    shredded, whose data key is suspended, or that have none. Ctrl-C ends it after the tenant at work; what is
    rotated stays rotated, and it may simply be started again.
    """
    if everyone == (tenant is not None):
        raise click.UsageError("name one TENANT, or say --all")
    if everyone and subject is not None:
        raise click.UsageError("--subject goes with a TENANT, not with --all")
    terminal = ctx.ensure_object(Terminal)
    with opened(terminal.config) as it:
        if tenant is not None:
            key = it.vault.rotate(tenant, subject)
            terminal.emit(_Outcome([key]).document(), _line(key))
            return
        outcome = _rotate_all(terminal, it.vault)
    terminal.emit(outcome.document(), *_summary(outcome))
    ctx.exit(outcome.code())


def _line(key: KeyInfo) -> str:
    whom = key.tenant if key.subject is None else f"{key.subject} of {key.tenant}"
    # Only a tenant all of whose keys are its subjects' had none to rotate.
    done = f"Made the first data key of {whom}" if key.version == 1 else f"Rotated {whom}"
    return f"{done}: version {key.version}, key {key.key_id.hex()}"


def _rotate_all(terminal: Terminal, vault: Vault) -> _Outcome:
    everyone = list(each_tenant(vault.key_store))
    outcome = _Outcome()
    with terminal.progress("rotating", len(everyone)) as step, between_steps() as stop:
        for tenant in everyone:
            if stop():
                outcome.interrupted = True
                break
            why = _why_not(tenant)
            if why is not None:
                outcome.skipped[tenant.name] = why
            else:
                try:
                    outcome.rotated.append(vault.rotate(tenant.name))
                except FieldVaultError as error:
                    outcome.failed[tenant.name] = error
            step()
    return outcome


def _why_not(tenant: Tenant) -> str | None:
    if tenant.shredded:
        return "shredded"
    if tenant.data_key is None:
        return "has no data key"
    # To rotate would let the tenant seal again, which whoever suspended the key did not want.
    return "suspended" if tenant.data_key.state is KeyState.SUSPENDED else None


def _summary(outcome: _Outcome) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if outcome.failed:
        lines.append(Listing(("FAILED", "WHY"), [(name, str(why)) for name, why in outcome.failed.items()]))
    if outcome.skipped:
        lines.append(Listing(("SKIPPED", "WHY"), list(outcome.skipped.items())))
    counts = f"Rotated {len(outcome.rotated)}, failed {len(outcome.failed)}, skipped {len(outcome.skipped)}."
    lines.append(f"{counts} Interrupted: the rest is as it was." if outcome.interrupted else counts)
    return lines

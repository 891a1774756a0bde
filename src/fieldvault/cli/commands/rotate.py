"""``fieldvault rotate``: new data keys."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from fieldvault.cli.census import Tenant, each_tenant, require_tenant
from fieldvault.cli.commands.keys import key_document
from fieldvault.cli.exits import ExitCode
from fieldvault.cli.interrupts import between_steps
from fieldvault.cli.opening import opened
from fieldvault.cli.options import everywhere, instant, named
from fieldvault.cli.terminal import Listing, Terminal
from fieldvault.errors import FieldVaultError, KeyShredded, kind_of
from fieldvault.keys.records import KeyInfo
from fieldvault.lifecycle.rotating import Outcome, rotate_key, rotate_subjects
from fieldvault.vault import Vault

__all__ = ["rotate"]


@dataclass(slots=True)
class _Account:
    """What was done; ``subjects`` counts their keys by what became of them, if they were asked for."""

    rotated: list[KeyInfo] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, FieldVaultError] = field(default_factory=dict)
    subjects: Counter[Outcome] | None = None
    interrupted: bool = False
    resume: str | None = None

    def code(self) -> ExitCode:
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.PROBLEM if self.failed else ExitCode.OK

    def document(self) -> dict[str, Any]:
        subjects = self.subjects
        return {
            "rotated": [key_document(key) for key in self.rotated],
            "skipped": [{"tenant": name, "why": why} for name, why in self.skipped.items()],
            "failed": [
                {"tenant": name, "kind": kind_of(error), "message": str(error)}
                for name, error in self.failed.items()
            ],
            "subjects": None if subjects is None else {each.value: subjects[each] for each in Outcome},
            "interrupted": self.interrupted,
            "resume": self.resume,
        }

    def lines(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        if self.failed:
            lines.append(Listing(("FAILED", "WHY"), [(name, str(why)) for name, why in self.failed.items()]))
        # Whom a run before this one saw to is of no interest.
        skipped = [(name, why) for name, why in self.skipped.items() if why != Outcome.NEWER.value]
        if skipped:
            lines.append(Listing(("SKIPPED", "WHY"), skipped))
        counts = f"Rotated {len(self.rotated)}, failed {len(self.failed)}, skipped {len(self.skipped)}."
        if self.subjects is not None:
            done = ", ".join(f"{each.value} {self.subjects[each]}" for each in Outcome if self.subjects[each])
            counts += f" Subjects: {done or 'none'}."
        lines.append(f"{counts} Interrupted: the rest is as it was." if self.interrupted else counts)
        if self.resume is not None:
            lines.append(f"What is left: {self.resume}")
        return lines


@click.command()
@everywhere
@click.argument("tenant", callback=named("tenant"), required=False)
@click.option(
    "--subject", metavar="NAME", callback=named("subject"), help="Rotate this subject's key instead."
)
@click.option("--all", "everyone", is_flag=True, help="Rotate every tenant's data key.")
@click.option("--subjects", is_flag=True, help="Also the keys of all subjects of TENANT, or of all tenants.")
@click.option(
    "--made-before",
    metavar="TIME",
    callback=instant,
    help="Only keys made before this time, such as 2026-01-31T18:00Z; UTC where it names no zone.",
)
@click.pass_context
def rotate(
    ctx: click.Context,
    *,
    tenant: str | None,
    subject: str | None,
    everyone: bool,
    subjects: bool,
    made_before: datetime | None,
) -> None:
    """Give TENANT, or all, a new data key.

    The old key is retired: it still opens what it sealed, and nothing is re-encrypted. Other processes
    take up the new key within their lease.

    --all and --subjects go on after a tenant that fails and name those at the end; they pass over who is
    shredded, whose data key is suspended, or who has none. Ctrl-C ends them after the key at work; what is
    rotated stays rotated, and the answer has the command that does the rest.
    """
    if everyone == (tenant is not None):
        raise click.UsageError("name one TENANT, or say --all")
    if subject is not None and (everyone or subjects):
        raise click.UsageError("--subject goes with a TENANT, not with --all or --subjects")
    if made_before is not None and not (everyone or subjects):
        raise click.UsageError("--made-before goes with --all or --subjects")
    terminal = ctx.ensure_object(Terminal)
    with opened(terminal.config) as it:
        if tenant is not None and not subjects:
            key = it.vault.rotate(tenant, subject)
            terminal.emit(_Account([key]).document(), _line(key))
            return
        began = made_before or datetime.now(UTC)
        account = _Account(subjects=Counter() if subjects else None)
        _rotate_many(terminal, it.vault, _whom(it.vault, tenant), account, made_before)
    if account.interrupted or account.failed:
        words = ["fieldvault", "rotate", "--all" if tenant is None else tenant]
        words += ["--subjects"] if subjects else []
        words += ["--made-before", began.isoformat()]
        words += [] if terminal.config == Path("fieldvault.toml") else ["--config", str(terminal.config)]
        account.resume = shlex.join(words)
    terminal.emit(account.document(), *account.lines())
    ctx.exit(account.code())


def _line(key: KeyInfo) -> str:
    whom = key.tenant if key.subject is None else f"{key.subject} of {key.tenant}"
    # Only a tenant all of whose keys are its subjects' had none to rotate.
    done = f"Made the first data key of {whom}" if key.version == 1 else f"Rotated {whom}"
    return f"{done}: version {key.version}, key {key.key_id.hex()}"


def _whom(vault: Vault, tenant: str | None) -> list[Tenant]:
    if tenant is None:
        return list(each_tenant(vault.key_store))
    require_tenant(vault.key_store, tenant)
    (found,) = each_tenant(vault.key_store, [tenant])
    if found.shredded:
        raise KeyShredded.of_scope(tenant, None)
    return [found]


def _rotate_many(
    terminal: Terminal, vault: Vault, tenants: list[Tenant], account: _Account, before: datetime | None
) -> None:
    # How many subjects there are nobody knows before they are listed.
    total = len(tenants) if account.subjects is None else None
    with terminal.progress("rotating", total) as step, between_steps() as stop:
        for tenant in tenants:
            if stop():
                account.interrupted = True
                return
            try:
                _rotate_own(vault, tenant, account, before)
                step()
                if account.subjects is None or tenant.shredded:
                    continue
                for done in rotate_subjects(vault.ring, tenant.name, before=before):
                    account.subjects[done.outcome] += 1
                    step()
                    if stop():
                        account.interrupted = True
                        return
            except FieldVaultError as error:
                account.failed[tenant.name] = error


def _rotate_own(vault: Vault, tenant: Tenant, account: _Account, before: datetime | None) -> None:
    if tenant.shredded:
        why = Outcome.SHREDDED.value
    elif tenant.data_key is None:
        why = "has no data key"
    else:
        done = rotate_key(vault.ring, tenant.data_key, before=before)
        if done.outcome is Outcome.ROTATED:
            account.rotated.append(done.key)
            return
        why = done.outcome.value
    account.skipped[tenant.name] = why

"""``fieldvault rewrap``: the data keys under the present root keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import RenderableType

from fieldvault.cli.census import require_tenant
from fieldvault.cli.commands.keys import key_document
from fieldvault.cli.exits import ExitCode
from fieldvault.cli.interrupts import between_steps
from fieldvault.cli.opening import opened
from fieldvault.cli.options import everywhere, named
from fieldvault.cli.terminal import Listing, Terminal, counted
from fieldvault.errors import FieldVaultError, KMSError, kind_of
from fieldvault.keys.protocols import Rewrapping
from fieldvault.keys.records import KeyInfo
from fieldvault.kms.multi import MultiKMS
from fieldvault.lifecycle.rewrap import Outcome, rewrap
from fieldvault.vault import Vault

__all__ = ["rewrap_command"]


@dataclass(slots=True)
class _Tally:
    dry_run: bool
    every: bool
    rewrapped: list[KeyInfo] = field(default_factory=list)
    due: list[KeyInfo] = field(default_factory=list)
    current: int = 0
    overtaken: int = 0
    incomplete: list[tuple[KeyInfo, Mapping[str, KMSError]]] = field(default_factory=list)
    absent: Mapping[str, str] = field(default_factory=dict)
    untelling: AbstractSet[str] = frozenset()
    failed: dict[str, FieldVaultError] = field(default_factory=dict)
    interrupted: bool = False

    def take(self, vault: Vault, tenant: str) -> None:
        """Rewrap a tenant's keys, and count what became of each."""
        kms, store = vault.kms, vault.key_store
        for key, outcome, missed in rewrap(kms, store, tenant, dry_run=self.dry_run, every=self.every):
            if outcome is Outcome.REWRAPPED:
                self.rewrapped.append(key)
            elif outcome is Outcome.DUE:
                self.due.append(key)
            elif outcome is Outcome.CURRENT:
                self.current += 1
            elif outcome is Outcome.INCOMPLETE:
                self.incomplete.append((key, missed))
            else:
                self.overtaken += 1

    def code(self) -> ExitCode:
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.PROBLEM if self.failed or self.incomplete else ExitCode.OK

    def document(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "rewrapped": [key_document(key) for key in self.rewrapped],
            "due": [key_document(key) for key in self.due],
            "current": self.current,
            "overtaken": self.overtaken,
            "incomplete": [
                {**key_document(key), "missed": {name: _told(error) for name, error in missed.items()}}
                for key, missed in self.incomplete
            ],
            "absent": dict(self.absent),
            "failed": [{"tenant": name, **_told(error)} for name, error in self.failed.items()],
            "interrupted": self.interrupted,
        }

    def lines(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        if self.failed:
            lines.append(Listing(("FAILED", "WHY"), [(name, str(why)) for name, why in self.failed.items()]))
        done = (
            f"To rewrap: {counted(len(self.due), 'key')}"
            if self.dry_run
            else f"Rewrapped {counted(len(self.rewrapped), 'key')}"
        )
        line = f"{done}; current already: {self.current}; tenants that failed: {len(self.failed)}."
        if self.overtaken:
            line += f" Another process was first with {counted(self.overtaken, 'key')}."
        lines.append(f"{line} Interrupted: the rest is as it was." if self.interrupted else line)
        if self.due and not self.current:
            lines.append(
                "None counts as current: all are due, or the KMS cannot, or to this caller will not, "
                "tell which are."
            )
        return [*lines, *self._left_out()]

    def _left_out(self) -> list[RenderableType]:
        """Of several KMSs, which took no part."""
        lines: list[RenderableType] = []
        if self.incomplete:
            # One row a member: as a rule the reason is the same for all keys.
            met = [each for _, missed in self.incomplete for each in missed.items()]
            keys, first = Counter(name for name, _ in met), dict(reversed(met))
            rows = [(name, str(keys[name]), str(why)) for name, why in first.items()]
            every = self.every or bool(keys.keys() & self.untelling)
            again = "fieldvault rewrap --every" if every else "fieldvault rewrap"
            lines.append(Listing(("LEFT OUT", "KEYS", "WHY, THE FIRST TIME"), rows))
            lines.append(
                f"Not by every KMS: {counted(len(self.incomplete), 'key')}; what those had wrapped before is "
                f"as it was. Mend them, and run {again} again."
            )
        if self.absent:
            lines.append(
                f"Not at hand, and not asked: {', '.join(self.absent)}. Which keys have no part of it, "
                "fieldvault doctor --wraps tells."
            )
        return lines


def _told(error: FieldVaultError) -> dict[str, str]:
    return {"kind": kind_of(error), "message": str(error)}


@click.command("rewrap")
@everywhere
@click.option("--tenant", metavar="NAME", callback=named("tenant"), help="Only this tenant's keys.")
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@click.option("--every", is_flag=True, help="Also keys that are wrapped by the present root key already.")
@click.pass_context
def rewrap_command(ctx: click.Context, tenant: str | None, dry_run: bool, every: bool) -> None:
    """Wrap every data key anew, under the KMS's present root key.

    After a rotation of the root key, or when a KMS joins or leaves. No row is touched and nothing is
    re-encrypted. Each new form is unwrapped, by each KMS that made a part of it, and the key compared with
    its key id, before it takes the old one's place. The application may run meanwhile.

    Goes on after a tenant that fails and names those at the end, and so each KMS of several that took no
    part; with either it ends with 1. Ctrl-C ends it after the tenant at work;
    started again, it does what is left.
    """
    terminal = ctx.ensure_object(Terminal)
    tally = _Tally(dry_run, every)
    with opened(terminal.config) as it:
        if isinstance(it.vault.kms, MultiKMS):
            tally.absent = it.vault.kms.absent
            # What these wrapped passes for current in the next run.
            members = it.vault.kms.members.items()
            tally.untelling = {name for name, kms in members if not isinstance(kms, Rewrapping)}
        if tenant is not None:
            require_tenant(it.vault.key_store, tenant)
            tally.take(it.vault, tenant)
        else:
            _rewrap_all(terminal, it.vault, tally)
    terminal.emit(tally.document(), *tally.lines())
    ctx.exit(tally.code())


def _rewrap_all(terminal: Terminal, vault: Vault, tally: _Tally) -> None:
    names = list(vault.tenants())
    with terminal.progress("rewrapping", len(names)) as step, between_steps() as stop:
        for name in names:
            if stop():
                tally.interrupted = True
                break
            try:
                tally.take(vault, name)
            except FieldVaultError as error:
                tally.failed[name] = error
            step()

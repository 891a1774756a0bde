"""``fieldvault doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import click
from rich.text import Text

from fieldvault.cli.checks import KeyTally, backends, erasure_bound, unopened
from fieldvault.cli.exits import ExitCode
from fieldvault.cli.findings import Finding, Level
from fieldvault.cli.members import WrapTally
from fieldvault.cli.opening import Opened, opened, section
from fieldvault.cli.options import everywhere
from fieldvault.cli.rootfile import is_the_file, root_key_file
from fieldvault.cli.secretfiles import secret_files
from fieldvault.cli.terminal import Listing, Terminal, tinted
from fieldvault.cli.underway import index_rotations
from fieldvault.cli.verify import proven_by_member, verified
from fieldvault.errors import ConfigurationError, FieldVaultError
from fieldvault.kms.multi import MultiKMS
from fieldvault.settings import Section

__all__ = ["doctor"]

_ITEMS = 10


@click.command()
@everywhere
@click.option("--wraps", is_flag=True, help="Ask each KMS of several for every key, not only the first.")
@click.pass_context
def doctor(ctx: click.Context, wraps: bool) -> None:
    """Check the whole vault and every key in it.

    Ends with 1 if there is a problem, and prints the remedy with it. Unwraps each tenant's and each
    subject's keys and compares them with their key ids. Changes no key. A warning is no problem: the
    vault goes on by itself.
    """
    terminal = ctx.ensure_object(Terminal)
    found = list(_findings(terminal, wraps=wraps))
    healthy = all(finding.level is not Level.PROBLEM for finding in found)
    terminal.emit(
        {"healthy": healthy, "checks": [finding.document() for finding in found]},
        Listing(("", "", ""), [row for finding in found for row in _rows(finding)]),
    )
    ctx.exit(ExitCode.OK if healthy else ExitCode.PROBLEM)


def _findings(terminal: Terminal, *, wraps: bool) -> Iterator[Finding]:
    config = terminal.config
    try:
        with opened(config) as it:
            yield Finding("configuration", Level.OK, str(config))
            yield from _files(terminal)
            yield from backends(config, it)
            yield from _keys(terminal, it)
            if wraps:
                yield from _wraps(terminal, it)
            yield erasure_bound(it.vault.key_store, it.cache)
    except FieldVaultError as error:
        first, *rest = unopened(config, error)
        yield first
        if config.exists():
            root_keys = list(_files(terminal))
            yield from root_keys
            yield from (_once(terminal, each, root_keys) for each in rest)
        yield Finding("keys", Level.SKIPPED, "not tried: the vault did not open")


def _files(terminal: Terminal) -> Iterator[Finding]:
    """Who may read the root keys, and the other secrets that files hold."""
    sections: dict[str, Section] = {}
    for name in ("kms", "key_store"):
        with suppress(ConfigurationError):  # the configuration's own finding says it
            sections[name] = section(terminal.config, name)
    root_keys = root_key_file(sections["kms"]) if "kms" in sections else None
    for finding in (root_keys, secret_files(*sections.values())):
        if finding is not None:
            yield finding


def _once(terminal: Terminal, finding: Finding, root_keys: list[Finding]) -> Finding:
    """What is wrong with the root-key file is the KMS's problem as well, and is told once."""
    told = finding.check == "KMS" and any(each.level is Level.PROBLEM for each in root_keys)
    if told and finding.level is Level.PROBLEM and is_the_file(section(terminal.config, "kms"), finding):
        return Finding("KMS", Level.SKIPPED, "not tried: the root-key file cannot be used as it is")
    return finding


def _keys(terminal: Terminal, it: Opened) -> Iterator[Finding]:
    tally = KeyTally(it.rotation, it.vault.kms)
    store = it.vault.key_store
    try:
        names = list(store.tenants())
        with terminal.progress("trying keys", len(names)) as step:
            for name in names:
                tally.take(verified(it.vault.kms, store, name))
                step()
    except FieldVaultError as error:
        tally.stopped = str(error)
    yield from tally.findings()
    yield from index_rotations(store, tally.index_keys)


def _wraps(terminal: Terminal, it: Opened) -> Iterator[Finding]:
    kms, store = it.vault.kms, it.vault.key_store
    tally = WrapTally(kms)
    if isinstance(kms, MultiKMS):
        try:
            names = list(store.tenants())
            with terminal.progress("asking each KMS", len(names)) as step:
                for name in names:
                    tally.take(proven_by_member(kms, store, name))
                    step()
        except FieldVaultError as error:
            tally.stopped = str(error)
    yield from tally.findings()


def _rows(finding: Finding) -> Iterator[tuple[Text | str, ...]]:
    yield (tinted(finding.level.value), finding.check, finding.detail)
    for item in finding.items[:_ITEMS]:
        yield ("", "", item)
    if len(finding.items) > _ITEMS:
        yield ("", "", f"and {len(finding.items) - _ITEMS} more; --json lists them all")
    if finding.remedy is not None:
        yield ("", "", f"→ {finding.remedy}")

"""``fieldvault shred``: keys destroyed for good."""

from __future__ import annotations

import os
import pwd
from datetime import timedelta

import click
from rich.console import RenderableType

from fieldvault.cli.census import require_tenant
from fieldvault.cli.opening import opened
from fieldvault.cli.options import everywhere, named
from fieldvault.cli.terminal import Listing, Terminal, counted, moment
from fieldvault.lifecycle.erase import ErasureReceipt
from fieldvault.vault import Vault

__all__ = ["shred"]

_SECOND = timedelta(seconds=1)


@click.command()
@everywhere
@click.argument("tenant", callback=named("tenant"))
@click.option(
    "--subject", metavar="NAME", callback=named("subject"), help="Shred only this subject of TENANT."
)
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept with the fence for good.")
@click.option("--actor", metavar="NAME", callback=named("actor"), help="Who asks.  [default: the login user]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def shred(
    terminal: Terminal, *, tenant: str, subject: str | None, reason: str, actor: str | None, yes: bool
) -> None:
    """Destroy the keys of TENANT for good.

    With --subject, those of one subject of it only.

    What they sealed can never be read again, and the tenant or subject never gets another key. Asks for the
    name to be typed. Prints the receipt, and until when other processes may still read.

    Backups of the key store still hold the wrapped keys: whoever has one of them and the root key can read
    on. Repeating a shred is safe, and completes one that was interrupted.
    """
    if not 0 < len(reason) <= 1000:
        raise click.BadParameter("a reason has 1 to 1000 characters", param_hint="--reason")
    with opened(terminal.config) as it:
        require_tenant(it.vault.key_store, tenant)
        if not yes:
            _ask(terminal, it.vault, tenant, subject)
        receipt = it.vault.shred(tenant, subject, actor=actor or _login_user(), reason=reason)
    terminal.emit(receipt.as_dict(), *_lines(receipt))
    if subject is not None and not receipt.key_ids:
        terminal.say(
            f"Warning: subject {subject!r} of {tenant} had no keys; nothing was destroyed. Is the name "
            "right? It is fenced now, and never gets a key."
        )


def _ask(terminal: Terminal, vault: Vault, tenant: str, subject: str | None) -> None:
    number = len(vault.key_store.keys(tenant, subject))
    keys = counted(number, "key")
    if subject is None:
        terminal.say(
            f"This destroys the {keys} of the tenant {tenant} and makes those of all its subjects "
            "useless, for good: nothing of it can ever be read again."
        )
        terminal.confirm("the tenant's name", tenant)
        return
    if number:
        terminal.say(
            f"This destroys the {keys} of the subject {subject} of the tenant {tenant}, for good: "
            "nothing of it can ever be read again."
        )
    else:
        terminal.say(
            f"The subject {subject} of the tenant {tenant} has no keys, so nothing is destroyed. Is the name "
            "right? To go on fences it for good: it never gets a key."
        )
    terminal.confirm("the subject's name", subject)


def _login_user() -> str:
    """Who logged in; whoever became another user since, with sudo say, stays the one who asked."""
    try:
        return os.getlogin()
    except OSError:
        pass  # no terminal: started by a timer or in a container
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _lines(receipt: ErasureReceipt) -> list[RenderableType]:
    whom = receipt.tenant if receipt.subject is None else f"{receipt.subject} of {receipt.tenant}"
    rows = [
        ("Shredded", whom),
        ("Actor", receipt.actor),
        ("Reason", receipt.reason),
        ("Fenced at", moment(receipt.fenced_at)),
        # Rounded up: a promise of when reading ends must not be early.
        ("Readable until", f"{moment(receipt.unreadable_after + _SECOND)}, by processes that cached a key"),
        *[("Destroyed key" if not n else "", key_id.hex()) for n, key_id in enumerate(receipt.key_ids)],
    ]
    return [Listing(("", ""), rows)]

"""``fieldvault keystore``: make a key store's table, copy one key store to another, and take that back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from fieldvault.cli.exits import ExitCode, Refused
from fieldvault.cli.opening import WAYS_TO_CONFIGURATION, key_store_alone
from fieldvault.cli.options import config_type, everywhere
from fieldvault.cli.terminal import Listing, Terminal, counted
from fieldvault.config import absence
from fieldvault.errors import ConfigurationError
from fieldvault.keys.protocols import Provisioned
from fieldvault.keys.records import KeyState
from fieldvault.keystores import MemoryKeyStore
from fieldvault.lifecycle.copying import Copied, TargetInUse, as_portable, copy_key_store
from fieldvault.lifecycle.inventory import Inventory

__all__ = ["keystore"]


@click.group()
@everywhere
def keystore() -> None:
    """Make a key store's table, copy it, and take that back."""


@keystore.command()
@everywhere
@click.pass_obj
def create(terminal: Terminal) -> None:
    """Make the table of the configured key store, if it is not there.

    For a new vault whose configuration was written by hand; `fieldvault init` does it by itself. A key store
    in a SQL database makes its tables when it is opened, as this does. What is there already stays as it is.
    """
    _require(terminal.config)
    with closing(key_store_alone(terminal.config, new=True)) as store:
        if isinstance(store, Provisioned):
            said = store.create_table()
            lines = [said]
        else:
            said = store.check()
            lines = [
                f"The key store is there: {said}",
                "It makes its tables by itself when it is opened, as now: there is nothing more to make.",
            ]
    terminal.emit({"key_store": said}, *lines)


@keystore.command()
@everywhere
@click.option(
    "--to",
    "target",
    metavar="PATH",
    type=config_type,
    required=True,
    help="The configuration file whose [key_store] is copied to; nothing else in it is read.",
)
@click.option(
    "--finish",
    is_flag=True,
    help="Close the key store, and open the copy in its place, once it is proven equal.",
)
@click.pass_context
def copy(ctx: click.Context, target: Path, finish: bool) -> None:
    """Copy the key store to another one, of any kind, and prove the copy.

    Every key in every state, every fence, and the lease go to an empty key store; no KMS is called. Both
    are then read whole and compared. The vault may be in use meanwhile; the copy serves nobody. Stop
    everything that opens the key store, say --finish, and let it open the copy from then on. --finish closes
    the old key store for good, so whatever was not stopped fails. Where the copy is not proven equal, the old
    one serves again.

    May be interrupted and started again at any time; of two copies at once the later one goes on. Ends with 1
    where the two are not equal, with 8 where they may be once nobody changes the key store any more.
    """
    terminal = ctx.ensure_object(Terminal)
    _require(terminal.config)
    _require(target)
    with (
        closing(key_store_alone(terminal.config)) as source,
        closing(key_store_alone(target, new=True)) as store,
        terminal.progress("copying", None) as step,
    ):
        if isinstance(store, MemoryKeyStore):
            raise ConfigurationError(
                "the key store to copy to is one in memory, which is gone when this command ends"
            )
        try:
            copied = copy_key_store(source, store, finish=finish, step=step)
        except TargetInUse as error:
            raise Refused(str(error)) from error
    terminal.emit(_document(copied), *_told(copied, finish=finish))
    ctx.exit(_code(copied))


@keystore.command()
@everywhere
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def reopen(terminal: Terminal, *, yes: bool) -> None:
    """Have a key store serve again that was copied to another one.

    The way back from `fieldvault keystore copy --finish`, as long as nothing has used the copy: keys, uses
    and shreds that are in the copy alone are lost to whatever opens this one. Also the way on after a copy
    that was killed while it finished, if it is not to be repeated.
    """
    _require(terminal.config)
    with closing(key_store_alone(terminal.config)) as store:
        portable = as_portable(store, "opened again")
        if not yes:
            terminal.say("What was done in the copy, shreds too, is lost to whatever opens this key store.")
            terminal.confirm("the word reopen", "reopen")
        done = portable.move_back()
    said = "The key store serves again." if done else "The key store was not moved: nothing was changed."
    terminal.emit({"reopened": done}, said)


@keystore.command("give-up")
@everywhere
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def give_up(terminal: Terminal, *, yes: bool) -> None:
    """Empty a key store that is an unfinished copy, begun by mistake or no longer wanted.

    What was copied to it is deleted, and it serves as a new one. The key store that it is a copy of stays as
    it is. A key store that is no unfinished copy is left alone.
    """
    _require(terminal.config)
    with closing(key_store_alone(terminal.config)) as store:
        portable = as_portable(store, "given up as a copy")
        if not yes:
            terminal.say(
                "All keys in this copy are deleted. The key store that it is a copy of must be there."
            )
            terminal.confirm("the words give up", "give up")
        done = portable.give_up_copy()
    if not done:
        raise Refused("the key store is no unfinished copy; nothing was changed")
    terminal.emit(
        {"given_up": True}, "The copy was given up: the key store is empty, and serves as a new one."
    )


def _require(config: Path) -> None:
    if not config.exists():
        raise ConfigurationError(f"{absence(config)}; {WAYS_TO_CONFIGURATION}")


def _code(copied: Copied) -> ExitCode:
    if copied.proven:
        return ExitCode.OK
    return ExitCode.NOT_YET if _only_changed(copied) else ExitCode.PROBLEM


def _only_changed(copied: Copied) -> bool:
    """Whether all that stands against the copy is that the key store did not stand still."""
    return set(copied.differing) <= set(copied.unsteady)


def _document(copied: Copied) -> dict[str, Any]:
    return {
        "written": copied.written,
        "source": _figures(copied.source),
        "target": _figures(copied.target),
        "differing": list(copied.differing),
        "unsteady": list(copied.unsteady),
        "finished": copied.finished,
    }


def _figures(inventory: Inventory) -> Mapping[str, Any]:
    return {
        "tenants": len(inventory.tenants),
        "keys": {state.value: count for state, count in inventory.keys.items()},
        "fences": inventory.fences,
        "sha256": inventory.digest,
    }


def _told(copied: Copied, *, finish: bool) -> list[RenderableType]:
    source, target = _cells(copied.source), _cells(copied.target)
    names = ("Tenants", *(f"Keys {state.value}" for state in KeyState), "Fences")
    rows = list(zip(names, source, target, strict=True))
    lines: list[RenderableType] = [
        f"Written to the copy: {counted(copied.written, 'record')}.",
        Listing(("HOLDS", "KEY STORE", "COPY"), rows),
        f"SHA-256 of the key store: {copied.source.digest}",
        f"SHA-256 of the copy:      {copied.target.digest}",
    ]
    if copied.differing:
        differing = [
            (name, "changed meanwhile" if name in copied.unsteady else "differs") for name in copied.differing
        ]
        lines.append(Listing(("TENANT", "WHY NOT EQUAL"), differing))
    lines.append(_verdict(copied, finish=finish))
    return [*lines, "Let everything use the copy from now on."] if copied.finished else lines


def _cells(inventory: Inventory) -> tuple[str, ...]:
    states = [str(count) for count in inventory.keys.values()]
    return (str(len(inventory.tenants)), *states, str(inventory.fences))


def _verdict(copied: Copied, *, finish: bool) -> str:
    if copied.finished:
        return (
            "Equal: nothing was lost or brought back. The copy is open, and the old key store serves nobody."
        )
    if copied.proven:
        return "Equal by now. The copy serves nobody yet: stop what uses the key store, and say --finish."
    if _only_changed(copied):
        again = "and say --finish again" if finish else "before you say --finish"
        return f"The key store was changed while it was compared. Stop what uses it {again}."
    return "Not equal: the copy stays closed. Start again; if that does not help, copy to an empty key store."

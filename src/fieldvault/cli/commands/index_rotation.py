"""``fieldvault index rotate``, ``status``, ``rebuild`` and ``drop``: a new index key, step by step."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import NoSuchModuleError as NoSuchDialect

from fieldvault.cli.commands.keys import key_document
from fieldvault.cli.exits import ExitCode
from fieldvault.cli.opening import opened
from fieldvault.cli.options import everywhere, named
from fieldvault.cli.terminal import Listing, Terminal, counted, moment
from fieldvault.lifecycle.index_keys import IndexRotation
from fieldvault.sqlalchemy import Rebuilt, protect
from fieldvault.sqlalchemy import rebuild as rebuild_rows

__all__ = ["drop", "rebuild", "rotate", "status"]

_tenant = click.argument("tenant", callback=named("tenant"))


@click.command()
@everywhere
@_tenant
@click.pass_obj
def rotate(terminal: Terminal, tenant: str) -> None:
    """Give TENANT a new index key, for its blind indexes and deterministic columns.

    It is searched for at once, beside the former one. Processes write under it once all of them know it; the
    answer says when. After that, rebuild the rows of every database, then drop the former key.
    """
    with opened(terminal.config) as it:
        _tell(terminal, it.vault.rotate_index(tenant))


@click.command()
@everywhere
@_tenant
@click.pass_obj
def status(terminal: Terminal, tenant: str) -> None:
    """Say how far the rotation of TENANT's index key has come."""
    with opened(terminal.config) as it:
        _tell(terminal, it.vault.index_rotation(tenant))


@click.command()
@everywhere
@_tenant
@click.option(
    "--models",
    metavar="MODULE:BASE",
    required=True,
    help="The declarative base of the models; MODULE is imported from the working folder too.",
)
@click.option(
    "--database",
    metavar="URL",
    required=True,
    envvar="FIELDVAULT_DATABASE",
    show_envvar=True,
    help="The application's database, as SQLAlchemy names it.",
)
@click.pass_context
def rebuild(ctx: click.Context, tenant: str, models: str, database: str) -> None:
    """Bring the rows of TENANT in one database under its new index key.

    The application goes on meanwhile. It may be stopped at any moment and called again. Ends with 1 if rows
    are left; the former key is needed then.
    """
    terminal = ctx.ensure_object(Terminal)
    base, engine = _base(models), _engine(database)
    with opened(terminal.config) as it:
        try:
            protect(base, it.vault)
            with terminal.progress("rebuilding, in pages of rows", None) as step:
                done = rebuild_rows(base, engine, tenant, progress=lambda _: step())
        finally:
            engine.dispose()
    terminal.emit(_document(done), *_lines(done))
    ctx.exit(ExitCode.OK if done.is_complete else ExitCode.PROBLEM)


@click.command()
@everywhere
@_tenant
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def drop(terminal: Terminal, tenant: str, yes: bool) -> None:
    """Destroy the former index keys of TENANT, for good.

    What a row still has under them is not found any more, and a deterministic value never read again: first
    rebuild every database that uses this vault.
    """
    with opened(terminal.config) as it:
        former = it.vault.index_rotation(tenant).former
        if former and not yes:
            terminal.say(
                f"This destroys {counted(len(former), 'former index key')} of the tenant {tenant}, for good. "
                "Is `fieldvault index rebuild` done for every database of this vault?"
            )
            terminal.confirm("the tenant's name", tenant)
        dropped = it.vault.drop_index(tenant)
    terminal.emit(
        {"tenant": tenant, "destroyed": [key_document(key) for key in dropped]},
        f"Destroyed {counted(len(dropped), 'former index key')} of {tenant}.",
    )


def _tell(terminal: Terminal, state: IndexRotation) -> None:
    rows = [("Active key", f"v{state.active.version}, {state.active.key_id.hex()}")]
    rows += [("Former key", f"v{key.version}, {key.key_id.hex()}") for key in state.former]
    if not state.former:
        rows.append(("Rotation", "none under way"))
    elif state.is_settled:
        rows.append(("Rotation", "every process writes under the active key: rebuild, then drop the former"))
    else:
        rows.append(("Rotation", f"rebuild after {moment(state.settled_at)}"))
    terminal.emit(
        {
            "tenant": state.active.tenant,
            "active": key_document(state.active),
            "former": [key_document(key) for key in state.former],
            "settled_at": state.settled_at.isoformat() if state.former else None,
            "settled": state.is_settled,
        },
        Listing(("", ""), rows),
    )


def _document(done: Rebuilt) -> dict[str, Any]:
    return {
        "rows": done.rows,
        "rewritten": done.rewritten,
        "cleared": done.cleared,
        "left": done.left,
        "conflicts": [
            {"table": table, "key": [str(part) for part in key]}
            for table, key in sorted(done.conflicts, key=str)
        ],
    }


def _lines(done: Rebuilt) -> list[Any]:
    rows = [
        ("Rows", str(done.rows)),
        ("Rewritten", str(done.rewritten)),
        ("Cleared", f"{done.cleared}, whose values were shredded"),
        ("Left", str(done.left)),
    ]
    told: list[Any] = [Listing(("", ""), rows)]
    for table, key in sorted(done.conflicts, key=str):
        told.append(f"{table} {', '.join(map(str, key))}: another row of the tenant has the same value")
    if done.is_complete:
        told.append("No row of this database needs the former key any more.")
    return told


def _base(models: str) -> Any:
    module, _, name = models.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        base = getattr(importlib.import_module(module), name, None) if name else None
    except ModuleNotFoundError as error:
        raise click.BadParameter(f"there is no module {error.name!r}", param_hint="--models") from error
    if not hasattr(base, "registry"):
        raise click.BadParameter(
            "name a module and the declarative base in it, such as shop.models:Base", param_hint="--models"
        )
    return base


def _engine(database: str) -> Engine:
    problem: str
    try:
        return create_engine(database)
    except (ArgumentError, NoSuchDialect):
        problem = "this is no URL of a database that SQLAlchemy knows"
    except ModuleNotFoundError as error:
        problem = f"its driver {error.name!r} is not installed"
    raise click.BadParameter(problem, param_hint="--database")

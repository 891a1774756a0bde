"""``fieldvault index rotate``, ``status``, ``rebuild`` and ``drop``: a new index key, step by step."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import NoSuchModuleError as NoSuchDialect

from fieldvault.cli.commands.keys import key_document
from fieldvault.cli.exits import ExitCode
from fieldvault.cli.opening import Opened, opened
from fieldvault.cli.options import everywhere, named
from fieldvault.cli.terminal import Listing, Terminal, counted, moment
from fieldvault.errors import FieldVaultError
from fieldvault.lifecycle.index_keys import IndexRotation
from fieldvault.sqlalchemy import Rebuilt, protect
from fieldvault.sqlalchemy import rebuild as rebuild_rows

__all__ = ["drop", "rebuild", "rotate", "status"]


class DatabaseFailed(FieldVaultError):
    """The application's database failed in the midst of it; what was written stays."""


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
@click.option(
    "--patience",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to wait for a transaction that is writing already.",
)
@click.pass_context
def rebuild(ctx: click.Context, tenant: str, models: str, database: str, patience: float) -> None:
    """Bring the rows of TENANT in one database under its new index key.

    The application goes on meanwhile. It may be stopped at any moment and called again. Ends with 1 if rows
    are left or if the database failed, and with 8 if a transaction from before has not ended; the former key
    is needed then.
    """
    terminal = ctx.ensure_object(Terminal)
    base, engine = _base(models), _engine(database)
    try:
        _require_answer(engine)
        with opened(terminal.config) as it:
            protect(base, it.vault)
            with terminal.progress("rebuilding, in pages of rows", None) as step:
                done = _rebuilt(base, engine, tenant, patience, lambda _: step())
    finally:
        engine.dispose()
    terminal.emit(_document(done), *_lines(done))
    ctx.exit(_code(done))


@click.command()
@everywhere
@_tenant
@click.option("--models", metavar="MODULE:BASE", help="As of rebuild.")
@click.option("--database", metavar="URL", envvar="FIELDVAULT_DATABASE", help="As of rebuild.")
@click.option("--unchecked", is_flag=True, help="Look through no database first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def drop(
    ctx: click.Context,
    tenant: str,
    *,
    models: str | None,
    database: str | None,
    unchecked: bool,
    yes: bool,
) -> None:
    """Destroy the former index keys of TENANT, for good.

    What a row still has under them is not found any more, and a deterministic value never read again. So one
    database is rebuilt once more first, and nothing destroyed if rows are left; every other one that uses
    this vault is to have been rebuilt before.
    """
    terminal = ctx.ensure_object(Terminal)
    with opened(terminal.config) as it:
        former = it.vault.index_rotation(tenant).former
        if former and not unchecked:
            if models is None or database is None:
                raise click.UsageError(
                    "name --models and --database, to look through the rows first, or say --unchecked"
                )
            done = _looked_through(terminal, it, tenant, models, database)
            if not done.is_complete:
                terminal.emit(_document(done), *_lines(done))
                ctx.exit(_code(done))
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


def _rebuilt(
    base: Any, engine: Engine, tenant: str, patience: float, progress: Callable[[int], None]
) -> Rebuilt:
    try:
        return rebuild_rows(base, engine, tenant, progress=progress, patience=patience)
    except DBAPIError as error:
        problem = _words(error)
    raise DatabaseFailed(f"the database failed, call again when that is mended: {problem}")


def _looked_through(terminal: Terminal, it: Opened, tenant: str, models: str, database: str) -> Rebuilt:
    base, engine = _base(models), _engine(database)
    try:
        _require_answer(engine)
        protect(base, it.vault)
        with terminal.progress("looking through pages of rows", None) as step:
            return _rebuilt(base, engine, tenant, 60.0, lambda _: step())
    finally:
        engine.dispose()


def _code(done: Rebuilt) -> ExitCode:
    if done.left or done.lost:
        return ExitCode.PROBLEM
    return ExitCode.NOT_YET if done.pending else ExitCode.OK


def _document(done: Rebuilt) -> dict[str, Any]:
    return {
        "rows": done.rows,
        "rewritten": done.rewritten,
        "cleared": done.cleared,
        "left": done.left,
        "lost": done.lost,
        "pending": done.pending,
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
        ("Lost", f"{done.lost}, whose index key was destroyed before they were rebuilt"),
    ]
    told: list[Any] = [Listing(("", ""), rows)]
    for table, key in sorted(done.conflicts, key=str):
        told.append(f"{table} {', '.join(map(str, key))}: another row of the tenant has the same value")
    if done.pending:
        told.append(
            "A transaction that was writing before this began has not ended, and nobody can see yet what it "
            "wrote. Call again when it has."
        )
    if done.is_complete:
        told.append("No row of this database needs the former key any more.")
    return told


def _base(models: str) -> Any:
    module, _, name = models.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    problem: str | None = None
    base = None
    try:
        base = getattr(importlib.import_module(module), name, None) if module and name else None
    except ModuleNotFoundError as error:
        problem = f"there is no module {error.name!r}"
    except Exception as error:  # noqa: BLE001 - whatever the application's module raises
        # Its words may hold what the module knows, a password among it.
        problem = f"the module {module!r} raises {type(error).__name__} when it is imported"
    if problem is not None:
        raise click.BadParameter(problem, param_hint="--models")
    if not hasattr(base, "registry"):
        raise click.BadParameter(
            "name a module and the declarative base in it, such as shop.models:Base", param_hint="--models"
        )
    return base


def _engine(database: str) -> Engine:
    problem: str
    try:
        engine = create_engine(database)
    except (ArgumentError, NoSuchDialect):
        problem = "this is no URL of a database that SQLAlchemy knows"
    except ModuleNotFoundError as error:
        problem = f"its driver {error.name!r} is not installed"
    else:
        file = engine.url.database
        if engine.dialect.name != "sqlite" or not file or file.startswith((":memory:", "file:")):
            return engine
        if Path(file).is_file():
            return engine
        # To connect would make a new, empty one.
        problem = f"there is no file {file}"
    raise click.BadParameter(problem, param_hint="--database")


def _require_answer(engine: Engine) -> None:
    """Refuse a database that cannot be reached."""
    try:
        with engine.connect():
            return
    except DBAPIError as error:
        problem = _words(error)
    raise click.BadParameter(f"the database cannot be reached: {problem}", param_hint="--database")


def _words(error: DBAPIError) -> str:
    """What the driver said, in one line; what SQLAlchemy adds to it quotes parameters."""
    return f"{type(error.orig).__name__}: {str(error.orig).partition(chr(10))[0]}"

"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldvault.cli.terminal import Terminal
from fieldvault.context import check_name
from fieldvault.errors import ConfigurationError

__all__ = ["config_type", "everywhere", "instant", "json_help", "named"]

F = TypeVar("F", bound=Callable[..., Any])

config_type = click.Path(dir_okay=False, path_type=Path)
json_help = "Print one JSON document, for machines."


def instant(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A callback that takes a moment as ISO 8601 writes it; in UTC where it names no zone."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no time such as 2026-01-31T18:00Z", ctx, param) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def named(kind: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """A callback that refuses a name that cannot be before anything is opened; its error says the rule."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        try:
            return None if value is None else check_name(kind, value)
        except ConfigurationError as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return check


def _take_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Terminal).config = value


def _take_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Terminal).json = True


def everywhere(command: F) -> F:
    """Let a command take the global options also behind its name, where most people type them."""
    command = click.option("--json", is_flag=True, expose_value=False, callback=_take_json, help=json_help)(
        command
    )
    return click.option(
        "--config",
        metavar="PATH",
        type=config_type,
        expose_value=False,
        callback=_take_config,
        help="The configuration file; as the global option.",
    )(command)

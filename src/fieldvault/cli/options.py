"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldvault.cli.terminal import Terminal
from fieldvault.context import check_name
from fieldvault.errors import ConfigurationError

__all__ = ["Name", "config_type", "everywhere", "json_help"]

F = TypeVar("F", bound=Callable[..., Any])

config_type = click.Path(dir_okay=False, path_type=Path)
json_help = "Print one JSON document, for machines."


class Name(click.ParamType):
    """The name of a tenant, a subject or an actor; one that cannot be is refused before anything is opened."""

    name = "name"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is, or a usage error that says the rule."""
        problem: str
        try:
            return check_name(self._kind, value)
        except ConfigurationError as error:
            problem = str(error)
        self.fail(problem, param, ctx)


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

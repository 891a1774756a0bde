"""``fieldvault``: the group of all commands, the global options, and how errors end."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import click

from fieldvault.cli.commands.completion import completion
from fieldvault.cli.commands.doctor import doctor
from fieldvault.cli.commands.index import index
from fieldvault.cli.commands.init import init
from fieldvault.cli.commands.keys import keys
from fieldvault.cli.commands.keystore import keystore
from fieldvault.cli.commands.rewrap import rewrap_command
from fieldvault.cli.commands.rotate import rotate
from fieldvault.cli.commands.shred import shred
from fieldvault.cli.commands.status import status
from fieldvault.cli.commands.tenants import tenants
from fieldvault.cli.exits import ExitCode, Refused, exit_code_of
from fieldvault.cli.logs import warnings_told
from fieldvault.cli.options import config_type, json_help
from fieldvault.cli.terminal import Terminal
from fieldvault.errors import FieldVaultError, kind_of

__all__ = ["fieldvault", "run"]

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {code.meaning}" for code in ExitCode)


class _Group(click.Group):
    """Ends every command with a documented exit code, an error on one line of stderr, and no traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - its shape
        """The commands in the order in which an operator comes to need them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see ``ExitCode`` for how it may end."""
        try:
            with warnings_told():
                return super().invoke(ctx)
        except (FieldVaultError, Refused) as error:
            code = exit_code_of(error)
            _report(ctx, code, kind_of(error), str(error))
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
            _report(ctx, code, "Interrupted", "interrupted")
        except BrokenPipeError:
            code = ExitCode.BROKEN_PIPE
            _forget_stdout()
        return ctx.exit(code)


def _report(ctx: click.Context, code: ExitCode, kind: str, message: str) -> None:
    terminal = ctx.ensure_object(Terminal)
    terminal.say(f"Error: {message}")
    if terminal.json:
        terminal.emit({"error": {"kind": kind, "message": message, "exit_code": int(code)}})


def _forget_stdout() -> None:
    """Let the interpreter's last flush of stdout go nowhere, in place of failing once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@click.group(
    cls=_Group,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    metavar="PATH",
    type=config_type,
    envvar="FIELDVAULT_CONFIG",
    default=Path("fieldvault.toml"),
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)
@click.option("--json", "as_json", is_flag=True, help=json_help)
@click.version_option(version("fieldvault"), prog_name="fieldvault", message="%(prog)s %(version)s")
@click.pass_context
def fieldvault(ctx: click.Context, config: Path, as_json: bool) -> None:
    """Look after the keys that encrypt the fields of a database, tenant by tenant.

    --config and --json may stand before or behind a command's name. Nothing that is printed holds a key,
    wrapped or not, a passphrase or a decrypted value.
    """
    ctx.obj = Terminal(config, as_json)


for _command in (
    init,
    status,
    doctor,
    tenants,
    keys,
    rotate,
    rewrap_command,
    shred,
    index,
    keystore,
    completion,
):
    fieldvault.add_command(_command)


def run() -> NoReturn:
    """Run the command line with this process's arguments, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A tenant's name may have no letters in the terminal's encoding; it is spelled out then.
            stream.reconfigure(errors="backslashreplace")
    fieldvault.main(prog_name="fieldvault")

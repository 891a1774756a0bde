"""``fieldvault completion``: the script that teaches a shell to complete."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from fieldvault.cli.options import everywhere
from fieldvault.cli.terminal import Terminal

__all__ = ["completion"]


_EPILOG = """
fieldvault completion bash prints a script for ~/.bashrc: eval "$(fieldvault completion bash)". The same with
zsh goes into ~/.zshrc; for fish: fieldvault completion fish > ~/.config/fish/completions/fieldvault.fish
"""


@click.command(epilog=_EPILOG)
@everywhere
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that teaches SHELL to complete."""
    root = ctx.find_root()
    maker = get_completion_class(shell)
    if maker is None:  # pragma: no cover - the choice offers only what click has
        raise AssertionError(shell)
    script = maker(root.command, {}, "fieldvault", "_FIELDVAULT_COMPLETE").source()
    terminal = ctx.ensure_object(Terminal)
    if terminal.json:
        terminal.emit({"shell": shell, "script": script})
    else:
        click.echo(script)

"""``fieldvault init``: a vault where there is none."""

from __future__ import annotations

import click

from fieldvault.cli.founding import Founded, Plan, found
from fieldvault.cli.options import everywhere
from fieldvault.cli.terminal import Terminal

__all__ = ["init"]


@click.command()
@everywhere
@click.option("--root-keys", metavar="PATH", default="root.keys", show_default=True, help="Root-key file.")
@click.option("--passphrase-env", metavar="VAR", help="Environment variable that holds its passphrase.")
@click.option("--passphrase-file", metavar="PATH", help="File that holds its passphrase.")
@click.option(
    "--key-store",
    metavar="URL",
    help="The key store's database; without a password.  [default: sqlite:///keys.db]",
)
@click.option("--key-store-env", metavar="VAR", help="Environment variable that holds that URL.")
@click.pass_obj
def init(
    terminal: Terminal,
    *,
    root_keys: str,
    passphrase_env: str | None,
    passphrase_file: str | None,
    key_store: str | None,
    key_store_env: str | None,
) -> None:
    """Make a vault where there is none.

    Writes the configuration, the root-key file and the key store. Overwrites nothing. Paths are relative
    to the configuration's folder. An init that was cut short is completed by the same command: the
    configuration comes last, and what is there already is kept.
    """
    if passphrase_env and passphrase_file:
        raise click.UsageError("--passphrase-env and --passphrase-file exclude each other")
    if key_store and key_store_env:
        raise click.UsageError("--key-store and --key-store-env exclude each other")
    plan = Plan(
        root_keys=root_keys,
        passphrase={"passphrase_env": passphrase_env, "passphrase_file": passphrase_file},
        key_store={
            "url": None if key_store_env else key_store or "sqlite:///keys.db",
            "url_env": key_store_env,
        },
    )
    made = found(terminal.config, plan)
    terminal.emit(
        {
            "config": str(terminal.config),
            "root_keys": {"path": str(made.root_keys), "created": made.created_root_keys},
            "key_store": {"reached": made.key_store, "created": made.created_key_store},
        },
        *_lines(terminal, made),
    )


def _lines(terminal: Terminal, made: Founded) -> list[str]:
    return [
        f"{'Made' if made.created_root_keys else 'Kept'} the root-key file {made.root_keys}",
        f"{'Made' if made.created_key_store else 'Kept'} the key store {made.key_store}",
        f"Wrote {terminal.config}",
        "Keep a copy of the root-key file, and of its passphrase if it has one, apart from the database and",
        "its backups: without it nothing can ever be read again.",
    ]

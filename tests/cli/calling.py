"""Call the command line: in this process, and as the program that people install."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from fieldvault import Vault
from fieldvault.cli.app import fieldvault
from fieldvault.keys.records import KeyRecord, KeySlot

PROGRAM = Path(sys.executable).with_name("fieldvault")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call printed, and the code it ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Stdout as the one JSON document that it has to be."""
        return json.loads(self.out)


def call(*arguments: str, typed: str | None = None) -> Answer:
    """Call a command in this process; an error that no code documents is raised."""
    result = CliRunner().invoke(fieldvault, arguments, input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def run(*arguments: str, typed: str | None = None) -> Answer:
    """Run the installed program.

    In the environment that Python sees: the readline library, where something has loaded it, adds the width
    of a terminal to the one that children inherit.
    """
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=dict(os.environ),
        input=typed or "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def give_keys(*tenants: str, config: str = "fieldvault.toml") -> None:
    """Let tenants have a data key."""
    with Vault.open(config) as vault:
        vault.ring.prefetch(slots=[KeySlot(tenant) for tenant in tenants])


def give_subject_keys(tenant: str, *subjects: str, config: str = "fieldvault.toml") -> None:
    """Let subjects of a tenant have a data key."""
    with Vault.open(config) as vault:
        vault.ring.prefetch(slots=[KeySlot(tenant, subject) for subject in subjects])


def records(tenant: str, config: str = "fieldvault.toml") -> list[KeyRecord]:
    """Return all keys of a tenant and its subjects as the key store has them."""
    with Vault.open(config) as vault:
        return list(vault.key_store.all_keys(tenant))

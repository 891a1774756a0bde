"""SoftHSM: no server but a library, which this process loads; its tokens are in a private folder."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.servers.parts import SOFTHSM

PIN = "correct-horse-7431"
TOKEN = "fieldvault tests"
LOCKED_TOKEN = "logged out"


class SoftHSM:
    """A folder of tokens, named to the library by SOFTHSM2_CONF for as long as this is open.

    The library reads its configuration once a process, so there is one for the whole run; tests share its
    token, and each takes root keys of its own label.
    """

    def __init__(self) -> None:
        self.module = SOFTHSM.path("libsofthsm2.so")
        self.folder = Path(tempfile.mkdtemp(prefix="fieldvault-softhsm-"))
        self._environment = pytest.MonkeyPatch()
        self._environment.setenv("SOFTHSM2_CONF", str(configure(self.folder)))
        self.version = subprocess.run(
            [SOFTHSM.path("softhsm2-util"), "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        make_token(TOKEN, PIN)
        # Nobody stays logged in to this one, so that a PIN is asked for.
        make_token(LOCKED_TOKEN, PIN)

    def key_label(self) -> str:
        """Return a label that no other test has."""
        return f"root key {uuid.uuid4()}"

    @contextmanager
    def without_tokens(self) -> Iterator[None]:
        """Take the tokens away, as somebody would who pulls out a device."""
        there, away = self.folder / "tokens", self.folder / "away"
        there.rename(away)
        try:
            yield
        finally:
            away.rename(there)

    def close(self) -> None:
        """Remove the tokens."""
        self._environment.undo()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def configure(folder: Path) -> Path:
    """Write the configuration of a SoftHSM whose tokens are in a folder; return the file."""
    tokens, file = folder / "tokens", folder / "softhsm2.conf"
    tokens.mkdir()
    file.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    return file


def make_token(label: str, pin: str, *, configuration: Path | None = None) -> None:
    """Initialise a token; processes that have the library loaded already do not see it."""
    environment = {**os.environ, **({"SOFTHSM2_CONF": str(configuration)} if configuration else {})}
    command = [str(SOFTHSM.path("softhsm2-util")), "--init-token", "--free", "--label", label]
    subprocess.run(
        [*command, "--pin", pin, "--so-pin", "so-" + pin], env=environment, capture_output=True, check=True
    )

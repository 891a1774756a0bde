"""The KMSs that are asked: servers on this machine's loopback, as in the tests, and a token of SoftHSM.

Each is started when it is first asked for. One that is not installed is ``Missing``.
"""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from benchmarks.peers import Missing, library
from tests.servers.parts import MOTO, OPENBAO, SOFTHSM, Part

__all__ = ["ROOT_KEY", "TOKEN_PIN", "Abreast", "Servers"]

ROOT_KEY = "fieldvault"
TOKEN_PIN = "correct-horse-7431"  # noqa: S105 - of a token that is gone afterwards


class Servers:
    """The servers of one run, stopped with the stack that they are started on."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    @cached_property
    def openbao(self) -> Any:
        """OpenBao with the root key in its transit engine.

        Raises:
            Missing: it is not installed, or hvac is not.
        """
        _require(OPENBAO)
        server = self._stack.enter_context(library("tests.servers.openbao").OpenBaoServer())
        server.admin.secrets.transit.create_key(ROOT_KEY, key_type="aes256-gcm96", derived=True)
        return server

    @cached_property
    def moto(self) -> Any:
        """The simulator of AWS, to which the environment's credentials and endpoint lead meanwhile.

        Raises:
            Missing: it is not installed, or boto3 is not.
        """
        _require(MOTO)
        tests = library("tests.servers.moto")
        server = self._stack.enter_context(tests.MotoServer())
        environment = {name.upper(): value for name, value in tests.CREDENTIALS.items()}
        environment |= {"AWS_REGION": tests.REGION, "AWS_DEFAULT_REGION": tests.REGION}
        environment |= {"AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true"}
        self._stack.enter_context(patch.dict(os.environ, environment))
        return server

    @cached_property
    def root_key_arn(self) -> str:
        """A root key in moto.

        Raises:
            Missing: as ``moto``.
        """
        return str(self.moto.client("kms").create_key()["KeyMetadata"]["Arn"])

    @cached_property
    def softhsm(self) -> Path:
        """SoftHSM's module, with one token of the root key's name.

        Raises:
            Missing: it is not installed, or python-pkcs11 is not.
        """
        _require(SOFTHSM)
        library("pkcs11")
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="fieldvault-softhsm-")))
        tokens, configuration = folder / "tokens", folder / "softhsm2.conf"
        tokens.mkdir()
        configuration.write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n",
            encoding="utf-8",
        )
        self._stack.enter_context(patch.dict(os.environ, {"SOFTHSM2_CONF": str(configuration)}))
        make = [str(SOFTHSM.path("softhsm2-util")), "--init-token", "--free", "--label", ROOT_KEY]
        pins = ["--pin", TOKEN_PIN, "--so-pin", TOKEN_PIN]
        subprocess.run([*make, *pins], check=True, capture_output=True)  # noqa: S603 - SoftHSM's own tool
        return SOFTHSM.path("libsofthsm2.so")

    def transit_requests(self) -> int:
        """Requests to unwrap that OpenBao's audit log holds."""
        asked = f"transit/decrypt/{ROOT_KEY}"
        entries = self.openbao.audited()
        return sum(each["type"] == "request" and each["request"]["path"] == asked for each in entries)

    def aws_requests(self) -> int:
        """Requests that moto's log holds."""
        return int(self.moto.log.read_text(encoding="utf-8", errors="replace").count('"POST /'))


class Abreast:
    """How many requests of AWS clients were under way at once, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = 0

    def watch(self, client: Any) -> None:
        """Look at each request of a client from now on."""
        client.meta.events.register("before-call.kms", self._begun)
        for ended in ("after-call.kms", "after-call-error.kms"):
            client.meta.events.register(ended, self._ended)

    def restart(self) -> None:
        """Count anew."""
        with self._lock:
            self.most = self._now

    def _begun(self, **_: object) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def _ended(self, **_: object) -> None:
        with self._lock:
            self._now -= 1


def _require(part: Part) -> None:
    missing = part.missing()
    if missing:
        raise Missing(f"{', '.join(missing)} not installed; {part.package}")

"""moto: AWS KMS, DynamoDB and STS by their protocols.

It checks associated data and tampering, and enforces IAM policies where it is told to. It ignores the state
of a key, and its DynamoDB transactions are no transactions for two callers at once.
"""

import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import boto3

from tests.servers.parts import MOTO
from tests.servers.tcp import LOOPBACK, OwnedTCPServer

REGION = "eu-central-1"
CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


class MotoServer(OwnedTCPServer):
    """A running moto. Tests share it: each makes keys, tables, users and roles of its own names."""

    def __init__(self) -> None:
        super().__init__("moto", death=signal.SIGKILL)
        self.url = f"http://{self.address}"
        self.version = version("moto")
        try:
            self.start_on_port(MOTO.path("moto_server"), ["-H", LOOPBACK, "-p", str(self.port)])
        except BaseException:
            self.close()
            raise

    def client(self, service: str, **options: Any) -> Any:
        """Return a client with credentials that moto lets do anything."""
        return boto3.client(
            service, endpoint_url=self.url, **{"region_name": REGION, **CREDENTIALS, **options}
        )

    @contextmanager
    def enforcing(self) -> Iterator[None]:
        """Enforce IAM policies for the length of a block."""
        before = self._calls_without_authorization("0")
        try:
            yield
        finally:
            self._calls_without_authorization(before)

    def _calls_without_authorization(self, number: str) -> str:
        request = urllib.request.Request(  # noqa: S310 - http, and our own server
            f"{self.url}/moto-api/reset-auth",
            data=number.encode(),
            # Else it takes the body for a form, and sees none.
            headers={"Content-Type": "text/plain"},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
            return str(json.load(answer)["PREVIOUS_INITIAL_NO_AUTH_ACTION_COUNT"])

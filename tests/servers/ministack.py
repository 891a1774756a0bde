"""MiniStack: AWS KMS, DynamoDB and STS by their protocols, a second opinion beside moto.

It enforces the states of a key and the days that a deletion waits, and it does one request at a time, so that
a DynamoDB transaction is one. Its ciphertexts are malleable: nothing about tampering is tested with it.
"""

import signal
from importlib.metadata import version
from typing import Any

import boto3

from tests.servers.parts import MINISTACK
from tests.servers.tcp import LOOPBACK, OwnedTCPServer

REGION = "eu-central-1"
CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


class MinistackServer(OwnedTCPServer):
    """A running MiniStack. Tests share it: each makes keys and tables of its own names."""

    def __init__(self) -> None:
        super().__init__("ministack", death=signal.SIGKILL)
        self.url = f"http://{self.address}"
        self.version = version("ministack")
        environment = {
            "SERVICES": "kms,dynamodb,sts",
            "BIND_HOST": LOOPBACK,
            "GATEWAY_PORT": str(self.port),
            "TMPDIR": str(self.folder),
            "LOG_LEVEL": "WARNING",
        }
        try:
            self.start_on_port(MINISTACK.path("ministack"), [], environment=environment)
        except BaseException:
            self.close()
            raise

    def client(self, service: str, **options: Any) -> Any:
        """Return a client."""
        return boto3.client(
            service, endpoint_url=self.url, **{"region_name": REGION, **CREDENTIALS, **options}
        )

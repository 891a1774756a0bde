"""What can befall ``AWSKMS``, brought about on moto and MiniStack, or by a proxy in front of them."""

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from fieldvault.kms import AWSKMS
from tests.servers.ministack import MinistackServer
from tests.servers.moto import REGION, MotoServer
from tests.servers.proxy import Answer, Fault, Garble, Hang, Proxy, ResetAfter

_DECRYPT = b"TrentService.Decrypt"


def error_answer(status: int, kind: str) -> Answer:
    """An error as AWS answers it."""
    return Answer(status, json.dumps({"__type": kind, "message": "as ordered"}).encode())


class AWSLab:
    """A root key of its own on a server, a user who may use it, and a proxy before it."""

    def __init__(self, server: MotoServer | MinistackServer, timeout: float, *, shares_client: bool) -> None:
        self._timeout = timeout
        self._server = server
        self._shared: AWSKMS | None = None
        self._shares_client = shares_client
        self._kms = server.client("kms")
        self._key = str(self._kms.create_key()["KeyMetadata"]["KeyId"])
        self.proxy = Proxy(server.port)

    def open(self) -> AWSKMS:
        """A process's KMS; the same one for all where they share a client, which takes long to open."""
        if self._shared is None or not self._shares_client:
            self._shared = self._open()
        return self._shared

    def _open(self) -> AWSKMS:
        return AWSKMS(
            self._key,
            region_name=REGION,
            endpoint_url=self.proxy.url,
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
        )

    def close(self) -> None:
        """Close the proxy."""
        self.proxy.close()

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        faults: dict[str, Fault] = {
            "silent": Hang(),
            "reset": ResetAfter(60),
            "malformed": Garble(),
            "throttled": error_answer(400, "ThrottlingException"),
            "error_500": error_answer(500, "KMSInternalException"),
            "error_503": Answer(503),
            "expired_token": error_answer(400, "ExpiredTokenException"),
        }
        if played in faults:
            return self.proxy.meeting(faults[played])
        events: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "refused": self.proxy.refusing,
            "stopped": self._server.stopped,
            "denied": self._denied,
            "disabled": self._disabled,
            "deleted": self._deleted,
            "swapped": self._swapped,
        }
        return events[played]()

    def _swapped(self) -> AbstractContextManager[None]:
        return self.proxy.meeting(Answer(200, self._other_answer(), when=_DECRYPT))

    @contextmanager
    def _denied(self) -> Iterator[None]:
        """From one moment to the next IAM policies count, and there is none for who asks."""
        assert isinstance(self._server, MotoServer)
        with self._server.enforcing():
            yield

    @contextmanager
    def _disabled(self) -> Iterator[None]:
        self._kms.disable_key(KeyId=self._key)
        yield
        self._kms.enable_key(KeyId=self._key)

    @contextmanager
    def _deleted(self) -> Iterator[None]:
        self._kms.schedule_key_deletion(KeyId=self._key, PendingWindowInDays=7)
        yield
        self._kms.cancel_key_deletion(KeyId=self._key)
        self._kms.enable_key(KeyId=self._key)

    def _other_answer(self) -> bytes:
        """What the server says of another wrapped key."""
        made = self._kms.encrypt(KeyId=self._key, Plaintext=secrets.token_bytes(32))
        told = self._kms.decrypt(KeyId=self._key, CiphertextBlob=made["CiphertextBlob"])
        answer = {
            "KeyId": told["KeyId"],
            "Plaintext": base64.b64encode(told["Plaintext"]).decode(),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }
        return json.dumps(answer).encode()

"""Every exception of the SDK stands for a fault, and so does every code that any service may answer with."""

import inspect
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker
from botocore.session import get_session

from fieldvault.aws.faults import (
    COMMON_CODES,
    SDK_FAULTS,
    Fault,
    fault_of_code,
    fault_of_sdk,
    words_of,
)
from tests.servers.certificates import Authority, Certificate
from tests.servers.tcp import LOOPBACK


def _exceptions() -> Iterator[type[Exception]]:
    for _, each in inspect.getmembers(botocore.exceptions, inspect.isclass):
        own = each.__module__ == botocore.exceptions.__name__
        if own and issubclass(each, Exception) and not issubclass(each, Warning):
            yield each


def _answer(code: str, status: int = 400, message: str = "") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "Decrypt",
    )


def test_every_exception_of_the_sdk_is_mapped() -> None:
    """When the SDK grows one, this fails, and somebody has to say what it means."""
    assert {each.__name__ for each in _exceptions()} == set(SDK_FAULTS)


def test_a_class_that_a_later_release_adds_is_what_its_base_class_is() -> None:
    """Until somebody says otherwise."""

    class NewTimeout(botocore.exceptions.ReadTimeoutError):  # type: ignore[misc]  # no stubs
        pass

    class NewTrouble(BotoCoreError):  # type: ignore[misc]  # no stubs
        fmt = "trouble"

    assert fault_of_sdk(NewTimeout(endpoint_url="http://127.0.0.1", error="")) is Fault.OUTAGE
    assert fault_of_sdk(NewTrouble()) is Fault.OTHER


class _HandshakeEnds:
    """A server that takes a TLS connection and ends it, as a balancer does that is going away."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.recv(65_536)
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class _Stranger(_HandshakeEnds):
    """A server whose certificate nobody knows."""

    def __init__(self, shown: Certificate) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(shown.certificate, shown.key)
        super().__init__()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(ssl.SSLError, OSError):
                    self._context.wrap_socket(connection, server_side=True).close()
                connection.close()


def test_a_handshake_that_ends_early_is_an_outage_and_a_strange_certificate_a_mistake(tmp_path: Path) -> None:
    """Both are an ``SSLError`` of the SDK; only one of them passes by itself."""
    stranger = _Stranger(Authority(tmp_path, "nobody").issue("stranger"))
    for server, fault in ((_HandshakeEnds(), Fault.OUTAGE), (stranger, Fault.MISTAKE)):
        client: Any = get_session().create_client(
            "kms",
            region_name="eu-central-1",
            endpoint_url=f"https://{LOOPBACK}:{server.port}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(retries={"total_max_attempts": 1}),
        )
        with closing(server), pytest.raises(botocore.exceptions.SSLError) as raised:
            client.list_keys()
        assert fault_of_sdk(raised.value) is fault


def test_what_the_sdk_itself_would_repeat_is_an_outage() -> None:
    """Its own list of throttling and passing errors, but for one that is a quota of ours."""
    throttled = set(ThrottledRetryableChecker._THROTTLED_ERROR_CODES)
    ours = {"LimitExceededException", "TransactionInProgressException"}
    assert {code for code in throttled if COMMON_CODES.get(code) is not Fault.OUTAGE} == ours
    for code in TransientRetryableChecker._TRANSIENT_ERROR_CODES:
        assert COMMON_CODES[code] is Fault.OUTAGE
    for each in TransientRetryableChecker._TRANSIENT_EXCEPTION_CLS:
        assert SDK_FAULTS[each.__name__] is Fault.OUTAGE


def test_every_answer_of_the_token_service_is_mapped() -> None:
    """It answers in the place of another service, while credentials are fetched."""
    model = get_session().get_service_model("sts")
    for name in ("AssumeRole",):
        for shape in model.operation_model(name).error_shapes:
            assert shape.error_code in COMMON_CODES


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (500, Fault.OUTAGE),
        (503, Fault.OUTAGE),
        (429, Fault.OUTAGE),
        (403, Fault.DENIAL),
        (401, Fault.DENIAL),
        (400, Fault.OTHER),
    ],
)
def test_a_code_that_nobody_knows_is_told_by_its_status(status: int, fault: Fault) -> None:
    """A gateway in between has codes of its own."""
    assert fault_of_code(_answer("Whatever", status)) is fault


def test_a_known_code_counts_more_than_its_status() -> None:
    """Throttling has the status 400."""
    assert fault_of_code(_answer("ThrottlingException", 400)) is Fault.OUTAGE
    assert fault_of_code(_answer("AccessDeniedException", 400)) is Fault.DENIAL


SAID = [
    (botocore.exceptions.NoCredentialsError(), "no credentials: none in variables"),
    (
        botocore.exceptions.PartialCredentialsError(provider="env", cred_var="secret"),
        "half of the credentials",
    ),
    (
        botocore.exceptions.EndpointConnectionError(
            endpoint_url="https://user:secret@sts.example:8443/?secret"
        ),
        "no connection with https://sts.example:8443; see region and endpoint_url",
    ),
    (
        botocore.exceptions.ConnectTimeoutError(endpoint_url="https://kms.example/"),
        "https://kms.example in time",
    ),
    (
        botocore.exceptions.ReadTimeoutError(endpoint_url="http://[::1]:8/"),
        "no answer of http://[::1]:8 in time",
    ),
    (
        botocore.exceptions.ConnectionClosedError(endpoint_url="http://[secret"),
        "the endpoint closed the connection",
    ),
    (botocore.exceptions.SSLError(endpoint_url="https://kms.example", error="x"), "was broken off"),
    (
        botocore.exceptions.SSLError(
            endpoint_url="https://kms.example", error=ssl.CertificateError("not yours")
        ),
        "the certificate that https://kms.example shows does not fit",
    ),
]


@pytest.mark.parametrize(("error", "said"), SAID, ids=[said for _, said in SAID])
def test_words_say_what_happened_and_with_which_server(error: BotoCoreError, said: str) -> None:
    """It may be another service's, that of credentials say; of its address the host alone is told."""
    told = words_of(error)
    assert said in told
    assert told.endswith(f" ({type(error).__name__})")
    assert "secret" not in told


def test_words_quote_no_parameters() -> None:
    """The SDK's own messages do."""
    error = botocore.exceptions.ParamValidationError(report="Plaintext: 'secret'")
    assert words_of(error) == "ParamValidationError"
    assert words_of(_answer("X", message="one\ntwo")) == "X: one"
    assert words_of(_answer("X")) == "X"

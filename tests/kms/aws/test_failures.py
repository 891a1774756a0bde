"""Errors that AWS KMS answers with, and exceptions of the SDK, are told as what an operator would do."""

from ssl import CertificateError

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from botocore.session import get_session

from fieldvault.aws.faults import STILL_EXPIRED
from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.kms.aws.failures import CODES, OPERATIONS, NoRootKey, Unreachable, WrongRootKey, failure
from fieldvault.testing.vendors import error_codes


def _answer(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Decrypt")


def test_no_code_is_mapped_in_vain() -> None:
    """One that the service no longer declares goes."""
    assert set(CODES) <= error_codes(get_session().get_service_model("kms"), OPERATIONS)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("DisabledException", KMSKeyDisabled),
        ("KMSInvalidStateException", KMSKeyDisabled),
        ("NotFoundException", NoRootKey),
        ("KeyUnavailableException", KMSUnavailable),
        ("KMSInternalException", KMSUnavailable),
        ("DependencyTimeoutException", KMSUnavailable),
        ("ThrottlingException", KMSUnavailable),
        ("AccessDeniedException", KMSDenied),
        ("ExpiredTokenException", KMSDenied),
        ("UnrecognizedClientException", KMSDenied),
        ("InvalidGrantTokenException", KMSDenied),
        ("InvalidCiphertextException", KMSError),
        ("IncorrectKeyException", WrongRootKey),
        ("ValidationException", KMSError),
    ],
)
def test_an_answer_is_told_as_what_it_is(code: str, kind: type[KMSError]) -> None:
    """No outage is told as a wrong key, and no denial as an outage."""
    assert type(failure(_answer(code))) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectTimeoutError(endpoint_url="http://kms"), Unreachable),
        (ReadTimeoutError(endpoint_url="http://kms"), Unreachable),
        (EndpointConnectionError(endpoint_url="http://kms"), Unreachable),
        (NoCredentialsError(), KMSDenied),
        (SSLError(endpoint_url="http://kms", error="x"), Unreachable),
        (SSLError(endpoint_url="http://kms", error=CertificateError("not yours")), KMSError),
        (STILL_EXPIRED("still expired"), Unreachable),
        (ParamValidationError(report="Plaintext: secret"), KMSError),
        (ResponseParserError("Plaintext: secret"), KMSError),
        (ValueError("Plaintext: secret"), KMSError),
    ],
)
def test_an_exception_of_the_sdk_is_told_as_what_it_is(error: Exception, kind: type[KMSError]) -> None:
    """And none of them is quoted."""
    told = failure(error)
    assert type(told) is kind
    assert "secret" not in str(told)
    if isinstance(error, BotoCoreError):
        assert type(error).__name__ in str(told)

"""Every error that AWS KMS declares, and every exception of the SDK, is told as what an operator would do."""

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

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.kms.aws.failures import CODES, OPERATIONS, Unreachable, WrongRootKey, failure


def _answer(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Decrypt")


def test_every_error_that_the_service_declares_is_mapped() -> None:
    """When its model grows one for an operation that is used here, this fails; and none is mapped in vain."""
    model = get_session().get_service_model("kms")
    declared = {shape.error_code for name in OPERATIONS for shape in model.operation_model(name).error_shapes}
    assert declared == set(CODES)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("DisabledException", KMSKeyDisabled),
        ("KMSInvalidStateException", KMSKeyDisabled),
        ("NotFoundException", KMSKeyDisabled),
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
        (SSLError(endpoint_url="http://kms", error="x"), KMSError),
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

"""Errors that DynamoDB answers with are told as what to do about it: decide anew, try again, or fail."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.session import get_session

from fieldvault.aws.faults import STILL_EXPIRED
from fieldvault.errors import KeyStoreError, KeyStoreRefused
from fieldvault.keystores.dynamodb.failures import CODES, OPERATIONS, Busy, Conflict, Refused, failure
from fieldvault.testing.vendors import error_codes


def _answer(code: str, *reasons: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status},
            "CancellationReasons": [{"Code": reason} for reason in reasons],
        },
        "TransactWriteItems",
    )


def test_no_code_is_mapped_in_vain() -> None:
    """One that the service no longer declares goes."""
    assert set(CODES) <= error_codes(get_session().get_service_model("dynamodb"), OPERATIONS)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_answer("ConditionalCheckFailedException"), Refused),
        (_answer("TransactionCanceledException", "None", "ConditionalCheckFailed"), Refused),
        (_answer("TransactionCanceledException", "ConditionalCheckFailed", "TransactionConflict"), Refused),
        (_answer("TransactionCanceledException", "TransactionConflict", "None"), Conflict),
        (_answer("TransactionCanceledException", "ThrottlingError"), Busy),
        (_answer("TransactionCanceledException", "ValidationError", "ConditionalCheckFailed"), KeyStoreError),
        (_answer("TransactionCanceledException", "SomethingNew"), KeyStoreError),
        (_answer("TransactionCanceledException"), KeyStoreError),
        (_answer("TransactionInProgressException"), Conflict),
        (_answer("TransactionConflictException"), Conflict),
        (_answer("ProvisionedThroughputExceededException"), Busy),
        (_answer("InternalServerError", status=500), Busy),
        (_answer("ServiceUnavailable", status=503), Busy),
        (_answer("ResourceNotFoundException"), KeyStoreRefused),
        (_answer("AccessDeniedException"), KeyStoreRefused),
        (EndpointConnectionError(endpoint_url="http://dynamodb"), Busy),
        (NoCredentialsError(), KeyStoreRefused),
        (STILL_EXPIRED("refreshed credentials are still expired"), Busy),
        (ValueError("wrapped"), KeyStoreError),
    ],
)
def test_an_answer_is_told_as_what_it_is(error: Exception, kind: type[Exception]) -> None:
    """Nothing but a condition that did not hold is ever taken for one."""
    assert type(failure(error)) is kind

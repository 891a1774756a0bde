"""Every error that DynamoDB declares is told as what to do about it: decide anew, try again, or fail."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.session import get_session

from fieldvault.aws.faults import COMMON_CODES
from fieldvault.errors import KeyStoreError
from fieldvault.keystores.dynamodb.failures import CODES, OPERATIONS, Busy, Conflict, Refused, failure


def _answer(code: str, *reasons: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status},
            "CancellationReasons": [{"Code": reason} for reason in reasons],
        },
        "TransactWriteItems",
    )


def test_every_error_that_the_service_declares_is_mapped() -> None:
    """When its model grows one for an operation that is used here, this fails; and none is mapped in vain."""
    model = get_session().get_service_model("dynamodb")
    declared = {shape.error_code for name in OPERATIONS for shape in model.operation_model(name).error_shapes}
    assert declared - set(COMMON_CODES) == set(CODES)


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
        (_answer("ResourceNotFoundException"), KeyStoreError),
        (_answer("AccessDeniedException"), KeyStoreError),
        (EndpointConnectionError(endpoint_url="http://dynamodb"), Busy),
        (NoCredentialsError(), KeyStoreError),
        (ValueError("wrapped"), KeyStoreError),
    ],
)
def test_an_answer_is_told_as_what_it_is(error: Exception, kind: type[Exception]) -> None:
    """Nothing but a condition that did not hold is ever taken for one."""
    assert type(failure(error)) is kind

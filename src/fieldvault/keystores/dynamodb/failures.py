"""What each answer of DynamoDB means: done otherwise, try again, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from fieldvault.aws.faults import Fault, code_of, fault_of_code, fault_of_sdk, words_of
from fieldvault.errors import KeyStoreError

__all__ = ["CODES", "FAILURES", "OPERATIONS", "Busy", "Conflict", "Refused", "Verdict", "failure"]

OPERATIONS = (
    "GetItem",
    "BatchGetItem",
    "Query",
    "UpdateItem",
    "TransactWriteItems",
    "CreateTable",
    "DescribeTable",
)
"""What this backend calls; the last two only to make the table."""

FAILURES = (
    BotoCoreError,
    ClientError,
    ResponseParserError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What the SDK raises, and what it makes of an answer that is not as its model says."""


class Verdict(Enum):
    """What to do about an answer."""

    REFUSED = auto()
    """A condition did not hold: read again, and decide anew."""
    CONFLICT = auto()
    """Somebody else is at the same items: the same once more."""
    BUSY = auto()
    """Throttled or failing inside: the same once more, for a moment."""
    FINAL = auto()
    """An error."""


CODES: Mapping[str, Verdict] = MappingProxyType(
    {
        "ConditionalCheckFailedException": Verdict.REFUSED,
        "IdempotentParameterMismatchException": Verdict.FINAL,
        "ItemCollectionSizeLimitExceededException": Verdict.FINAL,
        "LimitExceededException": Verdict.FINAL,
        "ReplicatedWriteConflictException": Verdict.CONFLICT,
        "ResourceInUseException": Verdict.FINAL,
        "ResourceNotFoundException": Verdict.FINAL,
        "TransactionCanceledException": Verdict.REFUSED,
        "TransactionConflictException": Verdict.CONFLICT,
        "TransactionInProgressException": Verdict.CONFLICT,
    }
)
"""The answers that DynamoDB declares for these operations; the others are common to all services."""

_REASONS: Mapping[str, Verdict] = MappingProxyType(
    {
        "ConditionalCheckFailed": Verdict.REFUSED,
        "TransactionConflict": Verdict.CONFLICT,
        "DuplicateItem": Verdict.REFUSED,
        "ProvisionedThroughputExceeded": Verdict.BUSY,
        "ThrottlingError": Verdict.BUSY,
    }
)
"""Why a transaction was cancelled, item by item."""


class Busy(KeyStoreError):
    """Unreachable, throttled or failing inside: worth another try."""


class Conflict(KeyStoreError):
    """Others were at the same items at the same moment; nothing was done."""


class Refused(Exception):
    """No error but an answer: a condition did not hold, and nothing was done."""


def failure(error: Exception) -> KeyStoreError | Refused:
    """What to raise in place of the SDK's exception."""
    if isinstance(error, ClientError):
        verdict, words = _verdict(error), words_of(error)
    elif isinstance(error, BotoCoreError):
        outage = fault_of_sdk(error) is Fault.OUTAGE
        verdict, words = Verdict.BUSY if outage else Verdict.FINAL, words_of(error)
    else:
        verdict, words = Verdict.FINAL, f"an answer that makes no sense, {type(error).__name__}"
    if verdict is Verdict.REFUSED:
        return Refused()
    kind = {Verdict.BUSY: Busy, Verdict.CONFLICT: Conflict}.get(verdict, KeyStoreError)
    return kind(f"the key store failed: {words}")


def _verdict(error: ClientError) -> Verdict:
    code = code_of(error)
    if code == "TransactionCanceledException":
        reasons = [str(each.get("Code")) for each in error.response.get("CancellationReasons", ())]
        return _of_reasons([each for each in reasons if each != "None"])
    if code in CODES:
        return CODES[code]
    return Verdict.BUSY if fault_of_code(error) is Fault.OUTAGE else Verdict.FINAL


def _of_reasons(reasons: list[str]) -> Verdict:
    verdicts = {_REASONS.get(each, Verdict.FINAL) for each in reasons}
    # A reason that is unknown is an error, whatever stands beside it; with none at all nothing is known.
    for verdict in (Verdict.FINAL, Verdict.REFUSED, Verdict.CONFLICT, Verdict.BUSY):
        if verdict in verdicts:
            return verdict
    return Verdict.FINAL

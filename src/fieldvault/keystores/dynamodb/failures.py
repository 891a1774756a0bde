"""What each answer of DynamoDB means: done otherwise, try again, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from fieldvault.aws.faults import STILL_EXPIRED, Fault, code_of, fault_of_code, fault_of_sdk, words_of
from fieldvault.errors import KeyStoreError, KeyStoreRefused

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
    STILL_EXPIRED,
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
    DENIED = auto()
    """An error, and no outage: no permission, or no table."""
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
        "ResourceNotFoundException": Verdict.DENIED,
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


_KINDS: Mapping[Verdict, type[KeyStoreError]] = MappingProxyType(
    {Verdict.BUSY: Busy, Verdict.CONFLICT: Conflict, Verdict.DENIED: KeyStoreRefused}
)


def failure(error: Exception, where: str = "the table") -> KeyStoreError | Refused:
    """What to raise in place of the SDK's exception; ``where`` names the table and its region."""
    if isinstance(error, ClientError):
        verdict, words = _verdict(error), words_of(error)
    elif isinstance(error, BotoCoreError):
        verdict, words = _of_fault(fault_of_sdk(error)), words_of(error)
    elif isinstance(error, STILL_EXPIRED):
        verdict, words = Verdict.BUSY, "new credentials came expired already"
    else:
        verdict, words = Verdict.FINAL, f"an answer that makes no sense, {type(error).__name__}"
    if verdict is Verdict.REFUSED:
        return Refused()
    kind = _KINDS.get(verdict, KeyStoreError)
    if isinstance(error, ClientError) and code_of(error) == "ResourceNotFoundException":
        words += "; correct its name or its region; for a new vault, `fieldvault keystore create` makes it"
    return kind(f"the key store failed, {where}: {words}")


def _verdict(error: ClientError) -> Verdict:
    code = code_of(error)
    if code == "TransactionCanceledException":
        reasons = [str(each.get("Code")) for each in error.response.get("CancellationReasons", ())]
        return _of_reasons([each for each in reasons if each != "None"])
    if code in CODES:
        return CODES[code]
    return _of_fault(fault_of_code(error))


def _of_fault(fault: Fault) -> Verdict:
    return {Fault.OUTAGE: Verdict.BUSY, Fault.DENIAL: Verdict.DENIED}.get(fault, Verdict.FINAL)


def _of_reasons(reasons: list[str]) -> Verdict:
    verdicts = {_REASONS.get(each, Verdict.FINAL) for each in reasons}
    # A reason that is unknown is an error, whatever stands beside it; with none at all nothing is known.
    for verdict in (Verdict.FINAL, Verdict.REFUSED, Verdict.CONFLICT, Verdict.BUSY):
        if verdict in verdicts:
            return verdict
    return Verdict.FINAL

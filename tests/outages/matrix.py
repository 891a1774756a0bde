"""The matrix of docs/outages.md: what each failure does to a cold, a warm and a stale cache.

Tests play each row against a real server, for reading and for writing; another holds the page to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["KEY_STORE", "KMS", "SERVED", "Row", "State", "table"]

SERVED = "served"
OUT, DENIED, GONE, WRONG = "KMSUnavailable", "KMSDenied", "KMSKeyDisabled", "KMSError"
STORE = "KeyStoreError"


class State(StrEnum):
    """What the cache holds when the value's key is needed."""

    COLD = "cold"
    WARM = "warm"
    STALE = "stale"
    EXPIRED = "expired"
    SPENT = "spent"
    FIRST = "first key"


@dataclass(frozen=True, slots=True)
class Row:
    """One failure of one backend: what reading and writing meet in each state, and after how long at most.

    ``played`` names what brings it about in the tests.
    """

    backend: str
    failure: str
    played: str
    cold: str
    warm: str
    stale: str
    expired: str
    spent: str
    first: str
    within: str

    def expected(self, state: State) -> str:
        """``served``, or the class of the error."""
        return str(getattr(self, "first" if state is State.FIRST else state.value))


TRIES = "deadline + a time-out"
ANSWER = "each answer's time-out"
AT_ONCE = "at once"
ONCE = "time-outs to connect and answer"


def _outage(backend: str, failure: str, played: str) -> Row:
    return Row(backend, failure, played, OUT, SERVED, SERVED, SERVED, OUT, OUT, TRIES)


def _refusal(backend: str, failure: str, played: str, error: str, *, first: str | None = None) -> Row:
    return Row(backend, failure, played, error, SERVED, error, error, error, first or error, ANSWER)


def _nothing(backend: str, failure: str, played: str, within: str) -> Row:
    return Row(backend, failure, played, SERVED, SERVED, SERVED, SERVED, SERVED, SERVED, within)


KMS: Sequence[Row] = (
    _outage("TransitKMS", "connection refused", "refused"),
    _outage("TransitKMS", "connection taken, no answer", "silent"),
    _outage("TransitKMS", "server stopped (SIGSTOP)", "stopped"),
    _outage("TransitKMS", "server killed", "killed"),
    _outage("TransitKMS", "connection reset in the answer", "reset"),
    _outage("TransitKMS", "throttled (429)", "throttled"),
    _outage("TransitKMS", "server error (500)", "error_500"),
    _outage("TransitKMS", "gateway error (502)", "error_502"),
    _outage("TransitKMS", "sealed", "sealed"),
    _outage("TransitKMS", "standby that redirects (307)", "standby"),
    _outage("TransitKMS", "malformed answer", "malformed"),
    _refusal("TransitKMS", "token expired or revoked", "expired_token", DENIED),
    _nothing("TransitKMS", "token expired, AppRole", "expired_login", ANSWER),
    _refusal("TransitKMS", "policy withdrawn", "denied", DENIED),
    _refusal("TransitKMS", "version below `min_decryption_version`", "disabled", GONE, first=SERVED),
    _refusal("TransitKMS", "transit key deleted", "deleted", GONE),
    _refusal("TransitKMS", "answer for another key", "swapped", WRONG, first="ConfigurationError"),
    _outage("AWSKMS", "connection refused", "refused"),
    _outage("AWSKMS", "connection taken, no answer", "silent"),
    _outage("AWSKMS", "server stopped (SIGSTOP)", "stopped"),
    _outage("AWSKMS", "connection reset in the answer", "reset"),
    _outage("AWSKMS", "throttled (`ThrottlingException`)", "throttled"),
    _outage("AWSKMS", "internal error (500)", "error_500"),
    _outage("AWSKMS", "server error (503)", "error_503"),
    _refusal("AWSKMS", "credentials expired (`ExpiredTokenException`)", "expired_token", DENIED),
    _refusal("AWSKMS", "IAM policy withdrawn", "denied", DENIED),
    _refusal("AWSKMS", "key disabled", "disabled", GONE),
    _refusal("AWSKMS", "key scheduled for deletion", "deleted", GONE),
    _refusal("AWSKMS", "malformed answer", "malformed", WRONG),
    _refusal("AWSKMS", "answer for another key", "swapped", WRONG, first=SERVED),
    _nothing("LocalKMS", "root-key file gone", "file_gone", AT_ONCE),
    _nothing("LocalKMS", "root-key file cannot be read", "file_unreadable", AT_ONCE),
)


def _store_outage(failure: str, played: str) -> Row:
    # The lease is the key store's: stale is past it and within the grace, expired past ttl, spent past both.
    return Row("SQLKeyStore", failure, played, STORE, SERVED, SERVED, STORE, STORE, STORE, ONCE)


KEY_STORE: Sequence[Row] = (
    _store_outage("connection refused", "refused"),
    _store_outage("connection reset in the answer", "reset"),
    _store_outage("server killed", "killed"),
    _store_outage("connection taken, no answer", "silent"),
    _store_outage("server stopped (SIGSTOP)", "stopped"),
)

_COLUMNS = ("cold", "warm", "stale", "expired", "spent", "first key")


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, as the page has them."""
    head = ("backend", "failure", *_COLUMNS, "at most")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        outcomes = [row.expected(State(column)) for column in _COLUMNS]
        shown = [each if each == SERVED else f"`{each}`" for each in outcomes]
        lines.append((f"`{row.backend}`", row.failure, *shown, row.within))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- |", "|---|")

"""The matrix of docs/outages.md: what each failure does to a cold, a warm and a stale cache.

Tests play each row against a real server, for reading and for writing; another holds the page to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["KEY_STORE", "KMS", "SERVED", "Row", "State", "rows_of", "table"]

SERVED = "served"
OUT, DENIED, GONE, WRONG = "KMSUnavailable", "KMSDenied", "KMSKeyDisabled", "KMSError"
STORE, REFUSED = "KeyStoreError", "KeyStoreRefused"

TRANSIT, AWS, PKCS11, LOCAL = "`TransitKMS`", "`AWSKMS`", "`PKCS11KMS`", "`LocalKMS`"
MULTI = "`MultiKMS`"
POSTGRESQL, MARIADB = "`SQLKeyStore`, PostgreSQL", "`SQLKeyStore`, MariaDB"
DYNAMODB = "`DynamoDBKeyStore`"


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
MEMBERS = "deadline + each member's time-out"
MODULE = "deadline + the module's time-out"
CALL = "the module's time-out"
ONCE = "time-outs to connect and answer"
AGAIN = "2 s + time-outs to connect and answer"


def _outage(backend: str, failure: str, played: str, *, within: str = TRIES) -> Row:
    return Row(backend, failure, played, OUT, SERVED, SERVED, SERVED, OUT, OUT, within)


def _refusal(
    backend: str,
    failure: str,
    played: str,
    error: str,
    *,
    cold: str | None = None,
    first: str | None = None,
    within: str = ANSWER,
) -> Row:
    cold = cold or error
    return Row(backend, failure, played, cold, SERVED, error, error, error, first or cold, within)


def _nothing(backend: str, failure: str, played: str, within: str, *, first: str = SERVED) -> Row:
    return Row(backend, failure, played, SERVED, SERVED, SERVED, SERVED, SERVED, first, within)


KMS: Sequence[Row] = (
    _outage(TRANSIT, "connection refused", "refused"),
    _outage(TRANSIT, "connection taken, no answer", "silent"),
    _outage(TRANSIT, "server stopped (SIGSTOP)", "stopped"),
    _outage(TRANSIT, "server killed", "killed"),
    _outage(TRANSIT, "connection reset in the answer", "reset"),
    _outage(TRANSIT, "throttled (429)", "throttled"),
    _outage(TRANSIT, "server error (500)", "error_500"),
    _outage(TRANSIT, "gateway error (502)", "error_502"),
    _outage(TRANSIT, "a gateway's own page (404)", "gateway_404"),
    _outage(TRANSIT, "sealed", "sealed"),
    _nothing(TRANSIT, "standby that passes requests on", "standby", ANSWER),
    _outage(TRANSIT, "standby that cannot pass them on, and redirects (307)", "standby_cut_off"),
    _outage(TRANSIT, "standby that passes requests on, active node stopped", "standby_alone"),
    _nothing(TRANSIT, "standby that answers by itself, active node stopped", "reader_alone", ANSWER),
    _outage(TRANSIT, "malformed answer", "malformed"),
    _refusal(TRANSIT, "token expired or revoked", "expired_token", DENIED),
    _nothing(TRANSIT, "token expired, AppRole", "expired_login", ANSWER),
    _refusal(TRANSIT, "policy withdrawn", "denied", DENIED),
    _refusal(TRANSIT, "policy withdrawn, token look-ups throttled", "denied_unseen", DENIED, cold=OUT),
    _refusal(TRANSIT, "version below `min_decryption_version`", "disabled", GONE, first=SERVED),
    _refusal(TRANSIT, "transit key deleted", "deleted", GONE),
    _refusal(TRANSIT, "answer for another key", "swapped", WRONG, first="ConfigurationError"),
    _outage(AWS, "connection refused", "refused"),
    _outage(AWS, "connection taken, no answer", "silent"),
    _outage(AWS, "server stopped (SIGSTOP)", "stopped"),
    _outage(AWS, "connection reset in the answer", "reset"),
    _outage(AWS, "throttled (`ThrottlingException`)", "throttled"),
    _outage(AWS, "internal error (500)", "error_500"),
    _outage(AWS, "server error (503)", "error_503"),
    _refusal(AWS, "credentials expired (`ExpiredTokenException`)", "expired_token", DENIED),
    _refusal(AWS, "IAM policy withdrawn", "denied", DENIED),
    _refusal(AWS, "key disabled", "disabled", GONE),
    _refusal(AWS, "key scheduled for deletion", "deleted", GONE),
    _refusal(AWS, "malformed answer", "malformed", WRONG),
    _refusal(AWS, "answer for another key", "swapped", WRONG, first=SERVED),
    _outage(PKCS11, "token gone", "gone", within=MODULE),
    _nothing(PKCS11, "sessions lost", "sessions_lost", CALL),
    _refusal(PKCS11, "sessions lost, PIN wrong", "pin_wrong", DENIED, within=CALL),
    _refusal(PKCS11, "`CKA_DECRYPT` false", "disabled", GONE, within=CALL),
    _nothing(PKCS11, "`CKA_ENCRYPT` false", "retired", CALL, first=GONE),
    _refusal(PKCS11, "key destroyed", "deleted", GONE, within=CALL),
    _refusal(PKCS11, "another key in its place", "swapped", WRONG, first=SERVED, within=CALL),
    _nothing(MULTI, "first member unreachable", "one_refused", MEMBERS, first=OUT),
    _nothing(MULTI, "the same, `required = 1`", "one_refused_of_required", MEMBERS),
    _nothing(MULTI, "first member denies", "one_denied", MEMBERS, first=DENIED),
    _nothing(MULTI, "first member's key deleted", "one_deleted", MEMBERS, first=GONE),
    _nothing(MULTI, "first member answers another key", "one_swapped", MEMBERS, first=WRONG),
    _outage(MULTI, "all unreachable", "all_refused", within=MEMBERS),
    _outage(MULTI, "one unreachable, the other denies", "refused_and_denied", within=MEMBERS),
    _refusal(MULTI, "all deny", "all_denied", DENIED, within=MEMBERS),
    _refusal(MULTI, "all keys disabled or deleted", "all_gone", GONE, within=MEMBERS),
    _nothing(LOCAL, "root-key file gone", "file_gone", AT_ONCE),
    _nothing(LOCAL, "root-key file cannot be read", "file_unreadable", AT_ONCE),
)


def _store_outage(backend: str, failure: str, played: str, within: str) -> Row:
    # The lease is the key store's: stale is past it and within the grace, expired past ttl, spent past both.
    return Row(backend, failure, played, STORE, SERVED, SERVED, STORE, STORE, STORE, within)


def _store_refusal(backend: str, failure: str, played: str, within: str) -> Row:
    return Row(
        backend,
        failure,
        played,
        REFUSED,
        SERVED,
        REFUSED,
        REFUSED,
        REFUSED,
        REFUSED,
        within,
    )


def _of_database(backend: str) -> Sequence[Row]:
    return (
        _store_outage(backend, "connection refused", "refused", ONCE),
        _store_outage(backend, "connection taken, no answer", "silent", ONCE),
        _store_outage(backend, "server stopped (SIGSTOP)", "stopped", ONCE),
        _store_outage(backend, "connection reset in the answer", "reset", ONCE),
        _store_outage(backend, "server killed", "killed", ONCE),
        _store_refusal(backend, "privileges withdrawn", "denied", ONCE),
        _store_refusal(backend, "login refused", "locked", ONCE),
        _store_refusal(backend, "tables dropped", "gone", ONCE),
    )


KEY_STORE: Sequence[Row] = (
    *_of_database(POSTGRESQL),
    *_of_database(MARIADB),
    _store_outage(DYNAMODB, "connection refused", "refused", AGAIN),
    _store_outage(DYNAMODB, "connection taken, no answer", "silent", AGAIN),
    _store_outage(DYNAMODB, "server stopped (SIGSTOP)", "stopped", AGAIN),
    _store_outage(DYNAMODB, "connection reset in the answer", "reset", AGAIN),
    _store_outage(DYNAMODB, "throttled (`ThrottlingException`)", "throttled", AGAIN),
    _store_outage(DYNAMODB, "internal error (500)", "error_500", AGAIN),
    _store_outage(DYNAMODB, "server error (503)", "error_503", AGAIN),
    _store_outage(DYNAMODB, "malformed answer", "malformed", ANSWER),
    _store_refusal(DYNAMODB, "credentials expired (`ExpiredTokenException`)", "expired_token", ANSWER),
    _store_refusal(DYNAMODB, "IAM policy withdrawn", "denied", ANSWER),
    _store_refusal(DYNAMODB, "table deleted", "gone", ANSWER),
)

_COLUMNS = ("cold", "warm", "stale", "expired", "spent", "first key")


def rows_of(*backends: str) -> Sequence[Row]:
    """The rows of these backends."""
    return [row for row in (*KMS, *KEY_STORE) if row.backend in backends]


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, as the page has them."""
    head = ("backend", "failure", *_COLUMNS, "at most")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        outcomes = [row.expected(State(column)) for column in _COLUMNS]
        shown = [each if each == SERVED else f"`{each}`" for each in outcomes]
        lines.append((row.backend, row.failure, *shown, row.within))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- |", "|---|")

"""Every error that fieldvault raises, one tree.

::

    FieldVaultError
    ├── ConfigurationError        an argument, a file or a model that cannot work; raised before data moves
    │   └── NotYet                something that is under way has to come first: ask again later
    ├── ScopeRequired             no tenant (or subject) is known for a value
    ├── TenantMismatch            the value belongs to another tenant than the scope, the row or the argument
    ├── UnsupportedValue          the value's class or content has no encoding
    ├── UnsupportedQuery          the statement cannot mean what it says on an encrypted column
    ├── MalformedCiphertext       not a ciphertext of a known format
    ├── DecryptionError           authentication failed: one message for every cause
    │   └── KeyNotFound           the key store has no such key, or a key id was changed
    ├── KeyShredded               the key was destroyed for good
    ├── KeySuspended              the key is suspended, reversibly
    ├── KMSError                  the KMS answered with an error
    │   ├── KMSUnavailable        unreachable, timed out, throttled: worth another try
    │   ├── KMSDenied             the caller may not use the root key
    │   └── KMSKeyDisabled        the root key is disabled, deleted or unknown
    ├── KeyStoreError             the key store failed or is unreachable
    │   ├── UnfinishedCopy        it is a copy of another one that was begun and not finished
    │   └── KeyStoreRefused       it answered, and has nothing for this process: no outage
    │       └── MovedAway         it was copied to another one, which serves in its place
    └── ErasureBlocked            something stands against the erasure

No message, argument or attribute of these holds a plaintext or a key. All of them mix in SQLAlchemy's
``DontWrapMixin``: raised while a statement is bound, they reach the caller as they are, and not inside a
``StatementError`` that quotes the parameters.
"""

from __future__ import annotations

from sqlalchemy.exc import DontWrapMixin

__all__ = [
    "ConfigurationError",
    "DecryptionError",
    "ErasureBlocked",
    "FieldVaultError",
    "KMSDenied",
    "KMSError",
    "KMSKeyDisabled",
    "KMSUnavailable",
    "KeyNotFound",
    "KeyShredded",
    "KeyStoreError",
    "KeyStoreRefused",
    "KeySuspended",
    "MalformedCiphertext",
    "MovedAway",
    "NotYet",
    "ScopeRequired",
    "TenantMismatch",
    "UnfinishedCopy",
    "UnsupportedQuery",
    "UnsupportedValue",
]

_MOVED_AWAY = (
    "the key store was copied to another one and serves nobody: have the configuration name the copy, or "
    "open this one again with `fieldvault keystore reopen`"
)

_UNFINISHED = (
    "the key store is an unfinished copy of another: finish it with `fieldvault keystore copy --finish`, or "
    "open the one that it is copied from"
)


class FieldVaultError(DontWrapMixin, Exception):
    """Base of all errors of this package."""


def kind_of(error: BaseException) -> str:
    """The name under which an error is counted and told.

    The class that this module defines, whatever a backend derives from it; any other error's own class.
    """
    known = (each.__name__ for each in type(error).__mro__ if each.__module__ == __name__)
    return next(known, type(error).__name__)


class ConfigurationError(FieldVaultError):
    """An argument, a configuration file or a model cannot work as given; the message says what to change."""


class NotYet(ConfigurationError):
    """The step before the one that was asked for is not done yet; nothing was changed, ask again later."""


class ScopeRequired(FieldVaultError):
    """No tenant, or no subject where one is needed, is known for a value; nothing was written or read."""


class TenantMismatch(FieldVaultError):
    """A value belongs to another tenant than the one that the scope, the row or the argument names."""


class UnsupportedValue(FieldVaultError):
    """A value cannot be encoded; the message names its class, never the value."""


class UnsupportedQuery(FieldVaultError):
    """A statement cannot mean what it says on an encrypted column; the message names the way out."""


class MalformedCiphertext(FieldVaultError):
    """The bytes or the text are not a ciphertext of a format and suite that this release knows."""


class DecryptionError(FieldVaultError):
    """Authentication failed.

    The message is always the same, whatever differed, so that it tells an attacker nothing.
    """

    def __init__(self) -> None:
        super().__init__(
            "the value could not be authenticated: it was changed, or it was sealed for another field, "
            "subject or row"
        )

    def __reduce__(self) -> tuple[type[DecryptionError], tuple[str, ...]]:
        return type(self), ()


class KeyNotFound(DecryptionError):
    """The key store has no record of the key that a ciphertext or an argument names.

    A ciphertext whose key id was changed names such a key, so this is one of the ways in which decryption
    fails. It has a message of its own: that a key is unknown is no secret, and says where to look.
    """

    def __init__(self, message: str) -> None:
        FieldVaultError.__init__(self, message)

    def __reduce__(self) -> tuple[type[KeyNotFound], tuple[str, ...]]:
        return type(self), (str(self),)


class KeyShredded(FieldVaultError):
    """The key, or every key of its subject or tenant, was destroyed for good."""

    @classmethod
    def of_scope(cls, tenant: str, subject: str | None) -> KeyShredded:
        """The error of a scope that is fenced: no key of it is ever made again."""
        whom = f"tenant {tenant!r}" if subject is None else f"subject {subject!r} of tenant {tenant!r}"
        return cls(f"{whom} was shredded: its keys are destroyed and never made again")


class KeySuspended(FieldVaultError):
    """The key is suspended: it neither encrypts nor decrypts until it is reinstated."""


class KMSError(FieldVaultError):
    """The KMS answered with an error that is none of the more exact ones below."""


class KMSUnavailable(KMSError):
    """The KMS is unreachable, timed out or throttles; says nothing about the key."""


class KMSDenied(KMSError):
    """The KMS refused this caller the use of the root key."""


class KMSKeyDisabled(KMSError):
    """The root key is disabled, scheduled for deletion, deleted or unknown to the KMS."""


class KeyStoreError(FieldVaultError):
    """The key store failed or is unreachable; says nothing about the key."""


class UnfinishedCopy(KeyStoreError):
    """The key store is a copy that was begun and not finished: it serves nobody yet."""

    def __init__(self, message: str = _UNFINISHED) -> None:
        super().__init__(message)


class KeyStoreRefused(KeyStoreError):
    """The key store answered, and has nothing for this process: no permission, or its tables are gone.

    No outage: what is cached serves to the end of the lease, and through no grace.
    """


class MovedAway(KeyStoreRefused):
    """The key store was copied to another one, which serves in its place; this one serves nobody."""

    def __init__(self, message: str = _MOVED_AWAY) -> None:
        super().__init__(message)


class ErasureBlocked(FieldVaultError):
    """Something stands against an erasure; nothing was destroyed."""

"""A key in the cache: unwrapped, and what was made of it for the hot paths."""

from __future__ import annotations

import sys
from itertools import repeat
from math import inf

from fieldvault.codecs import TEXT
from fieldvault.context import associated_data, check_name
from fieldvault.envelope import NONCES, SEALED, header
from fieldvault.keys.permission import Permission
from fieldvault.keys.records import KeyRecord
from fieldvault.secret import Secret
from fieldvault.suites import Open, Seal, Suite

__all__ = ["NO_USES", "CachedKey", "ValueKey"]

NO_USES: repeat[bool] = repeat(True, 0)
"""The block of a key that has no message reserved: it ends at once."""


class ValueKey:
    """A data key ready for the values of one suite and type; what the hot paths hold.

    ``fresh_until`` is the moment up to which it may be used without a look at anything else. ``uses`` yields
    ``True`` for each message that this process has reserved, then ends; ``next`` on it is atomic, so that
    counting takes no lock. ``contexts`` has the associated data by field. ``nonce`` and ``sealed`` cut these
    parts out of a ciphertext.
    """

    __slots__ = (
        "contexts",
        "fresh_until",
        "header",
        "is_text",
        "key",
        "kind",
        "nonce",
        "nonce_size",
        "open",
        "seal",
        "sealed",
        "subject",
        "tenant",
        "uses",
    )

    def __init__(self, key: CachedKey, suite: Suite, kind: int) -> None:
        self.key = key
        self.kind = kind
        self.is_text = kind == TEXT
        # The one copy that an application's own text mostly is, so that comparing them costs nothing.
        self.tenant = sys.intern(key.record.tenant)
        self.subject = key.record.subject
        self.header = header(suite.number, kind, key.record.key_id)
        self.nonce_size = suite.nonce_size
        self.nonce, self.sealed = NONCES[suite.number], SEALED[suite.number]
        self.seal, self.open = key.functions(suite)
        self.contexts: dict[str, bytes] = {}
        self.fresh_until = -inf
        self.uses = key.uses

    def context(self, field: str) -> bytes:
        """The associated data of a field without row binding, made once.

        Raises:
            ConfigurationError: that is no name of a field.
        """
        check_name("field", field)
        made = associated_data(self.header, tenant=self.tenant, field=field, subject=self.subject)
        self.contexts[field] = made
        return made

    def __repr__(self) -> str:
        return f"<ValueKey {self.header.hex()}>"


class CachedKey:
    """An unwrapped data key with its record, until ``expires``; the KMS answered for it at ``loaded_at``.

    From ``due_at`` on its next use has it renewed in the background; ``served_until`` is the moment up to
    which it was last given out. ``permission`` bounds it as well, and is shared with all keys that depend on
    the same root key. ``value_keys`` has what was made of it, by suite number and type; they share the block
    of reserved messages, ``uses``. ``evicted`` says that the cache has it no longer, and so that no
    revocation reaches it: such a key may finish what it was loaded for until ``vouched_until``, the end of
    the lease that it was loaded under.
    """

    __slots__ = (
        "due_at",
        "evicted",
        "expires",
        "loaded_at",
        "permission",
        "record",
        "secret",
        "served_until",
        "touched",
        "uses",
        "value_keys",
        "vouched_until",
    )

    def __init__(
        self,
        record: KeyRecord,
        secret: Secret,
        *,
        loaded_at: float,
        expires: float,
        vouched_until: float,
        due_at: float = inf,
        permission: Permission | None = None,
    ) -> None:
        self.secret = secret
        self.served_until = -inf
        self.renew(
            record,
            loaded_at=loaded_at,
            expires=expires,
            vouched_until=vouched_until,
            due_at=due_at,
            permission=Permission() if permission is None else permission,
        )
        self.value_keys: dict[tuple[int, int], ValueKey] = {}
        self.uses = NO_USES
        self.evicted = False

    def renew(
        self,
        record: KeyRecord,
        *,
        loaded_at: float,
        expires: float,
        vouched_until: float,
        due_at: float,
        permission: Permission,
    ) -> None:
        """Begin its time anew: the KMS has answered for this very key, which its id commits to."""
        self.record = record
        self.loaded_at = loaded_at
        self.expires = expires
        self.vouched_until = vouched_until
        self.due_at = due_at
        self.permission = permission
        self.touched = True

    def functions(self, suite: Suite) -> tuple[Seal, Open]:
        """``seal`` and ``open`` of a suite; its key is derived once."""
        for (number, _), made in self.value_keys.items():
            if number == suite.number:
                return made.seal, made.open
        return suite.functions(self.secret)

    def grant(self, uses: int) -> None:
        """Take up a block of reserved messages in place of the one before; under the cache's lock."""
        self.uses = repeat(True, uses)
        for made in self.value_keys.values():
            made.uses = self.uses

    def __repr__(self) -> str:
        return f"<CachedKey {self.record.key_id.hex()}>"

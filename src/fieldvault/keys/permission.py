"""A permission: until when it holds that the KMS lets this process use a root key."""

from __future__ import annotations

from math import inf

__all__ = ["Permission"]


class Permission:
    """What all cached keys that depend on one root key share.

    They serve up to ``until``, one lease after the KMS was ``asked_at``, and said yes; from ``due_at`` on the
    next use of one of them has the KMS asked again in the background. ``is_out`` says that the KMS was
    unavailable when it was last asked: ``until`` is then how long nobody waits for it. Changed under the
    cache's lock.
    """

    __slots__ = ("__weakref__", "asked_at", "due_at", "is_out", "until")

    def __init__(self, until: float = inf) -> None:
        self.asked_at = -inf
        self.until = until
        self.due_at = inf
        self.is_out = False

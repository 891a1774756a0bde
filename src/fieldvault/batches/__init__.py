"""Many values of one field at a time."""

from fieldvault.batches.opening import open_many
from fieldvault.batches.sealing import Owner, seal_many

__all__ = ["Owner", "open_many", "seal_many"]

"""``MultiKMS``: data keys wrapped under the root keys of several KMSs, any of which unwraps them."""

from fieldvault.kms.multi.kms import MultiKMS

__all__ = ["MultiKMS"]

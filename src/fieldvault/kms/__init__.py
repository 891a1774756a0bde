"""What wraps and unwraps data keys under a root key; one backend a file."""

from fieldvault.kms.local import LocalKMS

__all__ = ["LocalKMS"]

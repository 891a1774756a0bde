"""Root keys in AWS KMS; needs ``fieldvault[aws]``."""

from fieldvault.kms.aws.kms import AWSKMS

__all__ = ["AWSKMS"]

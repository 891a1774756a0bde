"""``PKCS11KMS``: root keys in a hardware security module, or in SoftHSM, through its PKCS#11 module."""

from fieldvault.kms.pkcs11.kms import PKCS11KMS

__all__ = ["PKCS11KMS"]

"""``TransitKMS``: the root key in the transit engine of OpenBao or Vault, and the ways to log in there."""

from fieldvault.kms.transit.auth import JWT, AppRole, Auth, Kubernetes, SecretText, Token
from fieldvault.kms.transit.kms import TransitKMS

__all__ = ["JWT", "AppRole", "Auth", "Kubernetes", "SecretText", "Token", "TransitKMS"]

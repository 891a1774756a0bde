"""Ways to log in at the server under test: AppRole, and JWTs that a key of the test's own signs."""

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.kms.transit.conftest import Tenancy


def new_role(tenancy: Tenancy, **options: object) -> tuple[str, str]:
    """An AppRole with the page's policy; its role id, and a secret id."""
    admin = tenancy.server.admin
    mount = f"approle-{tenancy.key}"
    if f"{mount}/" not in admin.sys.list_auth_methods()["data"]:
        admin.sys.enable_auth_method("approle", path=mount)
    method = admin.auth.approle
    policies = [tenancy.policy("The application")]
    method.create_or_update_approle("app", token_policies=policies, mount_point=mount, **options)
    role_id = method.read_role_id("app", mount_point=mount)["data"]["role_id"]
    return role_id, new_secret_id(tenancy)


def new_secret_id(tenancy: Tenancy) -> str:
    """Another secret id of the role."""
    method = tenancy.server.admin.auth.approle
    made = method.generate_secret_id("app", mount_point=f"approle-{tenancy.key}")
    return str(made["data"]["secret_id"])


class Issuer:
    """An identity provider: the server knows its public key, and needs no network to check what it signs."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.mount = f"jwt-{tenancy.key}"
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        admin = tenancy.server.admin
        admin.sys.enable_auth_method("jwt", path=self.mount)
        admin.auth.jwt.configure(jwt_validation_pubkeys=[public.decode()], path=self.mount)
        admin.auth.jwt.create_role(
            "app",
            role_type="jwt",
            user_claim="sub",
            bound_audiences=["fieldvault"],
            allowed_redirect_uris=[],
            token_policies=[tenancy.policy("The application")],
            path=self.mount,
        )

    def sign(self, **claims: object) -> str:
        """A token for the application, good for a minute."""
        now = int(time.time())
        body = {"sub": "app", "aud": "fieldvault", "iat": now, "exp": now + 60, **claims}
        signed = f"{_part({'alg': 'ES256', 'typ': 'JWT'})}.{_part(body)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _part(value: dict[str, Any]) -> str:
    return _text(json.dumps(value).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

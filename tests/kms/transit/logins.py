"""Ways to log in at the server under test: AppRole, JWTs that a key of the test's own signs, Kubernetes."""

import base64
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.kms.transit.conftest import Tenancy
from tests.servers.tcp import LOOPBACK


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
    """An identity provider: the server knows its public key, and needs no network to check what it signs.

    With ``jwks_url`` or ``oidc_discovery_url`` the server fetches the key from it for as long as the block
    lasts.
    """

    def __init__(self, tenancy: Tenancy, configured: str | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.mount = f"jwt-{tenancy.key}"
        self._url = "https://issuer.example.com"
        self._http: ThreadingHTTPServer | None = None
        admin = tenancy.server.admin
        admin.sys.enable_auth_method("jwt", path=self.mount)
        if configured is None:
            admin.auth.jwt.configure(jwt_validation_pubkeys=[self._public_pem()], path=self.mount)
        else:
            self._http = ThreadingHTTPServer((LOOPBACK, 0), partial(_Service, self._published))
            self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
            self._thread.start()
            self._url = f"http://{LOOPBACK}:{self._http.server_address[1]}"
            path = "/keys" if configured == "jwks_url" else ""
            admin.auth.jwt.configure(path=self.mount, **{configured: self._url + path})
        admin.auth.jwt.create_role(
            "app",
            role_type="jwt",
            user_claim="sub",
            bound_audiences=["fieldvault"],
            allowed_redirect_uris=[],
            token_policies=[tenancy.policy("The application")],
            path=self.mount,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _public_pem(self) -> str:
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return public.decode()

    def _published(self, path: str, _asked: dict[str, Any]) -> dict[str, Any]:
        if path.startswith("/.well-known"):
            return {
                "issuer": self._url, "jwks_uri": f"{self._url}/keys", "authorization_endpoint": self._url,
                "token_endpoint": self._url, "id_token_signing_alg_values_supported": ["ES256"],
            }  # fmt: skip
        numbers = self._key.public_key().public_numbers()
        x, y = (_text(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
        return {"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "x": x, "y": y}]}

    def sign(self, **claims: object) -> str:
        """A token for the application, good for a minute."""
        now = int(time.time())
        body = {
            "iss": self._url, "sub": "app", "aud": "fieldvault", "iat": now, "exp": now + 60, **claims,
        }  # fmt: skip
        signed = f"{_part({'alg': 'ES256', 'typ': 'JWT'})}.{_part(body)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Cluster:
    """What reviews pods' tokens for the Kubernetes method, as the API server does, while the block lasts.

    It knows one service account, ``app`` of the namespace ``shop``, unless that is ``deleted``.
    """

    def __init__(self, tenancy: Tenancy) -> None:
        self.deleted = False
        self.mount = f"kubernetes-{tenancy.key}"
        pod = {"namespace": "shop", "serviceaccount": {"name": "app", "uid": "1234"}}
        self.token = Issuer(tenancy).sign(
            sub="system:serviceaccount:shop:app", aud=["fieldvault"], **{"kubernetes.io": pod}
        )
        self._http = ThreadingHTTPServer((LOOPBACK, 0), partial(_Service, self._review))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        admin = tenancy.server.admin
        admin.sys.enable_auth_method("kubernetes", path=self.mount)
        admin.auth.kubernetes.configure(
            f"http://{LOOPBACK}:{self._http.server_address[1]}",
            kubernetes_ca_cert=tenancy.server.authority.certificate.read_text(),
            token_reviewer_jwt=self.token,
            disable_local_ca_jwt=True,
            mount_point=self.mount,
        )
        admin.auth.kubernetes.create_role(
            "app", ["app"], ["shop"], policies=[tenancy.policy("The application")], mount_point=self.mount
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _review(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        status: dict[str, Any] = {"authenticated": False, "error": "no such token"}
        if asked["spec"]["token"] == self.token and not self.deleted:
            user = {"username": "system:serviceaccount:shop:app", "uid": "1234"}
            audiences = asked["spec"].get("audiences", [])
            status = {"authenticated": True, "user": user, "audiences": audiences}
        return {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}


class _Service(BaseHTTPRequestHandler):
    """Answers with what a function makes of a path, and of what was posted there."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], dict[str, Any]], *arguments: Any) -> None:
        self._answer = answer
        super().__init__(*arguments)

    def do_GET(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        body = json.dumps(self._answer(self.path, asked)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _part(value: dict[str, Any]) -> str:
    return _text(json.dumps(value).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

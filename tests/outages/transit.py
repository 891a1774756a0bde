"""What can befall ``TransitKMS``, brought about on a real OpenBao, or by a proxy in front of it."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import requests

from fieldvault.kms import TransitKMS
from fieldvault.kms.base64text import to_text
from fieldvault.kms.transit import AppRole
from tests.servers.openbao import OpenBaoServer
from tests.servers.openbao_cluster import Node
from tests.servers.proxy import Answer, Fault, Garble, Hang, Proxy, ResetAfter

_POLICY = """
path "transit/encrypt/{key}*" {{ capabilities = ["create", "update"] }}
path "transit/decrypt/{key}*" {{ capabilities = ["update"] }}
"""
_DECRYPT = b"/transit/decrypt/"


class TransitLab:
    """A transit key of its own on a server, who may use it, and a proxy before it."""

    def __init__(self, server: OpenBaoServer | Node, timeout: float) -> None:
        self._timeout = timeout
        self._server = server
        self._admin = server.admin
        self._key = f"outage-{secrets.token_hex(6)}"
        self._admin.secrets.transit.create_key(self._key, key_type="aes256-gcm96", derived=True)
        self._admin.sys.create_or_update_policy(self._key, _POLICY.format(key=self._key))
        self.proxy = Proxy(server.port)
        self._roles = False
        self._tokens: list[str] = []

    def open(self, *, dedicated: bool = False) -> TransitKMS:
        """A process's KMS, with a token of its own or, after ``log_in_by_role``, a login of its own."""
        return TransitKMS(
            self.proxy.url,
            self._key,
            auth=self._role() if self._roles else None,
            token=None if self._roles else self._token(),
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            dedicated=dedicated,
        )

    def log_in_by_role(self) -> None:
        """Have processes log in themselves from now on."""
        if "approle/" not in self._admin.sys.list_auth_methods()["data"]:
            self._admin.sys.enable_auth_method("approle")
        self._admin.auth.approle.create_or_update_approle(self._key, token_policies=[self._key])
        self._roles = True

    def begin_tenant(self, tenant: str) -> None:
        """Make a tenant's own transit key."""
        self._operator().create_tenant_key(tenant)

    def end_tenant(self, tenant: str) -> None:
        """Delete a tenant's own transit key."""
        self._operator().destroy_tenant_key(tenant)

    def close(self) -> None:
        """Close the proxy."""
        self.proxy.close()

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        faults: dict[str, Fault] = {
            "silent": Hang(),
            "reset": ResetAfter(60),
            "malformed": Garble(),
            "throttled": Answer(429, b'{"errors":["request path is rate limited"]}'),
            "error_500": Answer(500, b'{"errors":["internal error"]}'),
            "error_502": Answer(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
            "gateway_404": Answer(404, b"404 page not found\n", {"Content-Type": "text/plain"}),
        }
        if played in faults:
            return self.proxy.meeting(faults[played])
        events: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "refused": self.proxy.refusing,
            "stopped": self._server.stopped,
            "killed": self._killed,
            "sealed": self._sealed,
            "expired_token": self._without_tokens,
            "expired_login": self._without_tokens,
            "denied": self._denied,
            "denied_unseen": self._denied_unseen,
            "disabled": self._disabled,
            "deleted": self._deleted,
            "swapped": self._swapped,
        }
        return events[played]()

    def _operator(self) -> TransitKMS:
        return TransitKMS(self._server.url, self._key, token=self._admin.token, dedicated=True)

    def _role(self) -> AppRole:
        role = self._admin.auth.approle
        return AppRole(
            role.read_role_id(self._key)["data"]["role_id"],
            role.generate_secret_id(self._key)["data"]["secret_id"],
        )

    def _token(self) -> str:
        made = self._admin.auth.token.create(policies=[self._key])
        self._tokens.append(str(made["auth"]["client_token"]))
        return self._tokens[-1]

    @contextmanager
    def _killed(self) -> Iterator[None]:
        self._server.kill()
        yield

    def _sealed(self) -> AbstractContextManager[None]:
        assert isinstance(self._server, OpenBaoServer)
        return self._server.sealed()

    def _swapped(self) -> AbstractContextManager[None]:
        return self.proxy.meeting(Answer(200, self._other_answer(), when=_DECRYPT))

    @contextmanager
    def _without_tokens(self) -> Iterator[None]:
        for token in self._tokens:
            self._admin.auth.token.revoke(token)
        if self._roles:
            # What the processes hold, they got themselves.
            self._admin.sys.revoke_prefix("auth/approle/login")
        yield

    @contextmanager
    def _denied(self) -> Iterator[None]:
        self._admin.sys.create_or_update_policy(self._key, 'path "transit/keys" { capabilities = ["deny"] }')
        yield
        self._admin.sys.create_or_update_policy(self._key, _POLICY.format(key=self._key))

    @contextmanager
    def _denied_unseen(self) -> Iterator[None]:
        limited = Answer(429, b'{"errors":["request path is rate limited"]}', when=b"lookup-self")
        with self._denied(), self.proxy.meeting(limited):
            yield

    @contextmanager
    def _disabled(self) -> Iterator[None]:
        transit = self._admin.secrets.transit
        transit.rotate_key(self._key)
        transit.update_key_configuration(self._key, min_decryption_version=2)
        yield
        transit.update_key_configuration(self._key, min_decryption_version=1)

    @contextmanager
    def _deleted(self) -> Iterator[None]:
        transit = self._admin.secrets.transit
        transit.update_key_configuration(self._key, deletion_allowed=True)
        transit.delete_key(self._key)
        yield

    def _other_answer(self) -> bytes:
        """What the server says of another wrapped key."""
        context = to_text(b"another")
        transit = f"{self._server.url}/v1/transit"
        headers = {"X-Vault-Token": self._admin.token}
        item = {"plaintext": to_text(secrets.token_bytes(32)), "context": context}
        made = requests.post(
            f"{transit}/encrypt/{self._key}", json={"batch_input": [item]}, headers=headers, timeout=10
        ).json()
        item = {"ciphertext": made["data"]["batch_results"][0]["ciphertext"], "context": context}
        return requests.post(
            f"{transit}/decrypt/{self._key}", json={"batch_input": [item]}, headers=headers, timeout=10
        ).content

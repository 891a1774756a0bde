"""OpenBao in memory: unsealed, with transit mounted, an audit log, and two more ports that speak TLS."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hvac

from tests.servers.certificates import Authority
from tests.servers.parts import OPENBAO
from tests.servers.process import ServerFailed
from tests.servers.tcp import LOOPBACK, OwnedTCPServer, free_port, port_owner


class OpenBaoServer(OwnedTCPServer):
    """A running OpenBao. Tests share it: each takes keys, policies and mounts of its own names.

    ``url`` is plain HTTP. ``tls_url`` shows a certificate that ``authority`` signed; ``mutual_url`` also asks
    for one that it signed. ``audit_log`` is where each request and answer is written, a JSON object a line.
    """

    def __init__(self) -> None:
        super().__init__("openbao", death=signal.SIGKILL)
        self.url = f"http://{self.address}"
        self._tls_port, self._mutual_port = free_port(), free_port()
        self.tls_url = f"https://{LOOPBACK}:{self._tls_port}"
        self.mutual_url = f"https://{LOOPBACK}:{self._mutual_port}"
        self.audit_log = self.folder / "audit.log"
        self.authority = Authority(self.folder, "authority")
        try:
            self._start()
            self._unseal_key, self.root_token = self._initialize()
            self.unseal()
            self.admin = self.client(self.root_token)
            self.admin.sys.enable_secrets_engine("transit")
        except BaseException:
            self.close()
            raise
        self.version = str(self.admin.sys.read_health_status(method="GET")["version"])

    def _start(self) -> None:
        configuration = self.folder / "openbao.json"
        configuration.write_text(json.dumps(self._configuration()), encoding="utf-8")
        self.start_on_port(OPENBAO.path("bao"), ["server", f"-config={configuration}"])
        assert self.process is not None
        for port in (self._tls_port, self._mutual_port):
            if port_owner(port) != self.process.pid:
                raise ServerFailed(f"openbao does not listen on port {port}\n{self.log_tail()}")

    def _configuration(self) -> dict[str, Any]:
        shown = self.authority.issue("server")
        tls = {"tls_cert_file": str(shown.certificate), "tls_key_file": str(shown.key)}
        mutual = {
            "tls_client_ca_file": str(self.authority.certificate),
            "tls_require_and_verify_client_cert": True,
        }
        audit = {"description": "what tests look at", "options": {"file_path": str(self.audit_log)}}
        return {
            "storage": {"inmem": {}},
            "listener": [
                # The plain one listens last: once it does, they all do.
                {"tcp": {"address": self.mutual_url.removeprefix("https://"), **tls, **mutual}},
                {"tcp": {"address": self.tls_url.removeprefix("https://"), **tls}},
                {"tcp": {"address": self.address, "tls_disable": True}},
            ],
            "audit": [{"file": {"requests": audit}}],
            "api_addr": self.url,
            "log_level": "warn",
        }

    def _initialize(self) -> tuple[str, str]:
        made = hvac.Client(url=self.url).sys.initialize(secret_shares=1, secret_threshold=1)
        return made["keys_base64"][0], made["root_token"]

    def client(self, token: str, namespace: str | None = None) -> hvac.Client:
        """Return a client that holds a token."""
        return hvac.Client(url=self.url, token=token, namespace=namespace)

    def unseal(self) -> None:
        """Unseal it."""
        hvac.Client(url=self.url).sys.submit_unseal_key(self._unseal_key)

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Keep it sealed for the length of a block."""
        self.admin.sys.seal()
        try:
            yield
        finally:
            self.unseal()

    def audit_mark(self) -> int:
        """Return where the audit log ends now."""
        return self.audit_log.stat().st_size

    def audited(self, since: int = 0) -> list[dict[str, Any]]:
        """Return what the audit log holds, from a mark on."""
        with self.audit_log.open(encoding="utf-8") as log:
            log.seek(since)
            return [json.loads(line) for line in log]

"""OpenBao with integrated storage (raft): an active node, and standby nodes of both kinds."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import hvac
import requests

from tests.servers.parts import OPENBAO
from tests.servers.process import START_LIMIT, ServerFailed
from tests.servers.proxy import Proxy
from tests.servers.tcp import LOOPBACK, OwnedTCPServer, free_port

_ACTIVE, _STANDBY = 200, 429
"""How a node's health is answered."""


class Node(OwnedTCPServer):
    """A node. Others reach its cluster port by way of ``cluster``, a proxy, and so may be kept from it.

    ``admin`` is who may do anything, and talks to the active node.
    """

    admin: hvac.Client

    def __init__(self, name: str, *, standby_reads: bool = False) -> None:
        super().__init__(f"openbao-{name}", death=signal.SIGKILL)
        self.url = f"http://{self.address}"
        self._cluster_port = free_port()
        self.cluster = Proxy(self._cluster_port)
        configuration = self.folder / "openbao.json"
        configuration.write_text(json.dumps(self._configuration(name, standby_reads)), encoding="utf-8")
        (self.folder / "data").mkdir()
        self.launch(OPENBAO.path("bao"), ["server", f"-config={configuration}"])

    def _configuration(self, name: str, standby_reads: bool) -> dict[str, Any]:
        raft = {"path": str(self.folder / "data"), "node_id": name, "performance_multiplier": "1"}
        listener = {
            "address": self.address,
            "cluster_address": f"{LOOPBACK}:{self._cluster_port}",
            "tls_disable": True,
        }
        return {
            "storage": {"raft": raft},
            "listener": [{"tcp": listener}],
            "api_addr": self.url,
            "cluster_addr": f"https://{self.cluster.address}",
            "disable_standby_reads": not standby_reads,
            "log_level": "warn",
        }

    def client(self, token: str | None = None) -> hvac.Client:
        """Return a client."""
        return hvac.Client(url=self.url, token=token)

    def wait_until(self, status: int, path: str = "sys/health", *, token: str = "") -> None:
        """Return once it answers a request so.

        Raises:
            ServerFailed: It did not within the limit.
        """
        deadline = time.monotonic() + START_LIMIT
        request = partial(
            requests.get,
            f"{self.url}/v1/{path}",
            headers={"X-Vault-Token": token},
            allow_redirects=False,
            timeout=START_LIMIT,
        )
        while request().status_code != status:
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} does not answer {path} with {status}\n{self.log_tail()}")
            time.sleep(0.02)

    def close(self) -> None:
        """See ``OwnedServer``; and the proxy."""
        self.cluster.close()
        super().close()


class OpenBaoCluster:
    """A running cluster. Tests share it: each takes keys and policies of its own names.

    ``standby`` passes requests on to ``active``; ``reader`` answers what changes nothing by itself, from what
    it was last told. Neither votes: ``active`` stays so whatever befalls it.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        try:
            self._nodes = [Node("active"), Node("standby"), Node("reader", standby_reads=True)]
            self.active, self.standby, self.reader = self._nodes
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        for node in self._nodes:
            node.wait_until_on_port()
        made = self.active.client().sys.initialize(secret_shares=1, secret_threshold=1)
        (unseal_key,), self.root_token = made["keys_base64"], made["root_token"]
        self.active.client().sys.submit_unseal_key(unseal_key)
        self.active.wait_until(_ACTIVE)
        self.admin = self.active.client(self.root_token)
        self.version = str(self.admin.sys.read_health_status(method="GET")["version"])
        self.admin.sys.enable_secrets_engine("transit")
        for node in (self.standby, self.reader):
            joining: dict[str, str | bool] = {"leader_api_addr": self.active.url, "non_voter": True}
            requests.post(f"{node.url}/v1/sys/storage/raft/join", json=joining, timeout=START_LIMIT)
            node.client().sys.submit_unseal_key(unseal_key)
            node.wait_until(_STANDBY)
            node.admin = self.admin

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Keep the standby from passing requests on, for the length of a block."""
        with self.active.cluster.refusing():
            yield
        # It tries again at growing intervals.
        self.standby.wait_until(200, "auth/token/lookup-self", token=self.root_token)

    def close(self) -> None:
        """Stop all nodes."""
        for node in self._nodes:
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

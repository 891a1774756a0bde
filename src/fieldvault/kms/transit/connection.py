"""HTTP to one server: its address, TLS, limits of time, and the pool of connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from hvac import adapters
from hvac.exceptions import VaultError
from requests.adapters import HTTPAdapter

from fieldvault.errors import ConfigurationError, KMSError, KMSUnavailable
from fieldvault.forks import in_forked_children
from fieldvault.kms.transit.auth import SecretText
from fieldvault.kms.transit.mapping import is_timeout, translated
from fieldvault.kms.transit.turns import Turns

__all__ = ["Connection", "Server", "check_file", "check_url"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is and how it is spoken to; see ``TransitKMS``."""

    url: str
    namespace: str | None
    ca_file: Path | None
    client_certificate: tuple[Path, Path] | None
    connect_timeout: float
    read_timeout: float
    pool_size: int
    allow_http: bool

    def __post_init__(self) -> None:
        check_url(self.url, allow_http=self.allow_http)
        for path in filter(None, (self.ca_file, *(self.client_certificate or ()))):
            check_file(path)
        if min(self.connect_timeout, self.read_timeout) <= 0:
            raise ConfigurationError("a timeout is a positive number of seconds")
        if self.pool_size < 1:
            raise ConfigurationError("a pool holds at least one connection")

    def __str__(self) -> str:
        return self.url if self.namespace is None else f"{self.url}, namespace {self.namespace},"


class Connection:
    """Asks one server; keeps connections open for the next request.

    A request takes no longer than both time-outs together until the answer begins, its wait for one of the
    connections included. Once a request met a time-out, those that wait give up too: a server that hangs is
    waited for once. Nothing is taken from the environment: no proxy, no ``.netrc``, no bundle of
    certificates.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.renew()
        in_forked_children(self, Connection.renew)

    def renew(self) -> None:
        """Open a new pool; in a forked child too, which would share the parent's sockets."""
        session = requests.Session()
        session.trust_env = False
        if self.server.ca_file is not None:
            session.verify = str(self.server.ca_file)
        if self.server.client_certificate is not None:
            certificate, key = self.server.client_certificate
            session.cert = str(certificate), str(key)
        size = self.server.pool_size
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=size)
        session.mount("http://", pool)
        session.mount("https://", pool)
        self._session = session
        self._turns = Turns(size)

    def ask(self, request: Callable[[adapters.Adapter], T], token: SecretText | None = None) -> T:
        """What the request, made with an adapter that holds the token, gives.

        Raises:
            KMSError: what it met, as ``mapping`` has it.
        """
        limit = self.server.connect_timeout + self.server.read_timeout
        turns = self._turns
        problem: KMSError
        with turns.turn(limit / 2) as waited:
            adapter = self._adapter(token, 1 - waited / limit)
            try:
                return request(adapter)
            except KMSError:
                raise
            except Exception as error:  # noqa: BLE001 - the client's parsing fails with whatever it likes
                partial = _partial(error)
                if partial is not None:
                    return partial  # type: ignore[no-any-return]
                problem = translated(error, str(self.server))
                hangs = is_timeout(error)
            if hangs and isinstance(problem, KMSUnavailable):
                turns.call_off(problem)
        raise problem

    def _adapter(self, token: SecretText | None, share: float) -> adapters.Adapter:
        """One for a request that has this share of the time-outs left."""
        return adapters.JSONAdapter(
            base_uri=self.server.url,
            token=None if token is None else token.reveal(),
            timeout=(self.server.connect_timeout * share, self.server.read_timeout * share),
            # A token goes to the server that was named, and to no other.
            allow_redirects=False,
            session=self._session,
            namespace=self.server.namespace,
        )

    def close(self) -> None:
        """Close what is open."""
        self._session.close()


def _partial(error: Exception) -> Any:
    """The answer to a batch of which some items failed, which is an error to hvac."""
    answer = error.json if isinstance(error, VaultError) else None
    data = answer.get("data") if isinstance(answer, dict) else None
    return answer if isinstance(data, dict) and isinstance(data.get("batch_results"), list) else None


def check_file(path: Path) -> None:
    """See that a file is there.

    Raises:
        ConfigurationError: it is not.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")


def check_url(url: str, *, allow_http: bool) -> None:
    """See that a URL names a server, no secret, and no way on which secrets would be seen.

    Raises:
        ConfigurationError: otherwise.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("the url of a KMS holds no user and no password")
    if not host or parts.scheme not in {"http", "https"} or parts.query or parts.fragment or port == 0:
        raise ConfigurationError("the url of a KMS is like https://vault.example.com:8200")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"http to {host} would show tokens and keys to the network; use https, or allow_http"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

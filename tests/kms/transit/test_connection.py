"""How a server is reached: TLS on both sides, namespaces, and nothing that was not given."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fieldvault.errors import ConfigurationError, KMSDenied, KMSKeyDisabled, KMSUnavailable
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit import AppRole
from fieldvault.testing.samples import in_a_fork
from tests.kms.transit.conftest import Tenancy
from tests.servers.certificates import Authority
from tests.servers.tcp import free_port

CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))
Open = Callable[..., TransitKMS]


def _works(kms: TransitKMS) -> bool:
    return kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    tenancy: Tenancy, open_kms: Open, tmp_path: Path
) -> None:
    """And no other one; what is not trusted gets no token."""
    server = tenancy.server
    assert _works(open_kms(url=server.tls_url, ca_file=server.authority.certificate))
    for trusted in (None, Authority(tmp_path, "other").certificate):
        with pytest.raises(KMSUnavailable, match="TLS failed"):
            open_kms(url=server.tls_url, ca_file=trusted).check()


def test_a_server_that_asks_for_a_certificate_gets_it(
    tenancy: Tenancy, open_kms: Open, tmp_path: Path
) -> None:
    """Without one, or with a stranger's, nobody is served."""
    server, authority = tenancy.server, tenancy.server.authority
    mutual = {"url": server.mutual_url, "ca_file": authority.certificate}
    assert _works(open_kms(client_certificate=authority.issue("client"), **mutual))
    for shown in (None, Authority(tmp_path, "other").issue("stranger")):
        with pytest.raises(KMSUnavailable):
            open_kms(client_certificate=shown, **mutual).check()


def test_a_namespace_is_a_world_of_its_own(tenancy: Tenancy, open_kms: Open) -> None:
    """Mount, key and token are those of the namespace; one that is not there is told."""
    namespace = f"team-{tenancy.key}"
    tenancy.server.admin.adapter.post(f"/v1/sys/namespaces/{namespace}")
    inside = tenancy.server.client(tenancy.server.root_token, namespace)
    inside.sys.enable_secrets_engine("transit", path="keys/transit")
    inside.secrets.transit.create_key(tenancy.key, derived=True, mount_point="keys/transit")
    kms = open_kms(namespace=namespace, mount="/keys/transit/", token=tenancy.server.root_token)
    assert _works(kms)
    assert kms.check().endswith(f"mount keys/transit, at {tenancy.server.url}, namespace {namespace}")
    with pytest.raises(KMSDenied, match="namespace not found"):
        open_kms(namespace="nowhere", token=tenancy.server.root_token).check()
    with pytest.raises(KMSKeyDisabled, match="no handler for route"):
        open_kms(mount="nowhere", token=tenancy.server.root_token).check()
    with pytest.raises(KMSDenied):
        open_kms(namespace=namespace, mount="keys/transit").check()


def test_nothing_is_taken_from_the_environment(
    tenancy: Tenancy, open_kms: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No token, address or namespace, no proxy, no bundle of certificates, no password of .netrc."""
    token = tenancy.token()
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password secret\n")
    for name, value in {
        "VAULT_TOKEN": "s.wrong", "VAULT_ADDR": "http://192.0.2.1:1", "VAULT_NAMESPACE": "nowhere",
        "HTTP_PROXY": "http://192.0.2.1:1", "http_proxy": "http://192.0.2.1:1",
        "REQUESTS_CA_BUNDLE": "/nonexistent", "HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert _works(open_kms(token=token))
    authority = tenancy.server.authority.certificate
    assert _works(open_kms(token=token, url=tenancy.server.tls_url, ca_file=authority))


@contextmanager
def something_else(
    status: int, body: bytes, *, lookup: bytes | None = None, **headers: str
) -> Iterator[tuple[str, list[str]]]:
    """What stands between and is no OpenBao: its address, and the paths that were posted to.

    It knows every token, unless ``lookup`` is its answer to the question for one.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(status, body, headers)

        def do_GET(self) -> None:
            self._answer(200, b'{"data": {"ttl": 0}}' if lookup is None else lookup, {})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_token_is_not_carried_to_where_a_redirect_points(open_kms: Open) -> None:
    """It goes to the server that was named; what a standby node says is an outage."""
    with something_else(200, b"{}") as (there, asked), something_else(307, b"", Location=there) as (here, _):
        with pytest.raises(KMSUnavailable):
            open_kms(url=here).check()
        assert asked == []


ANSWERS = {
    "a page of a proxy": b"<html>Sign in</html>",
    "JSON that is no object": b"[1]",
    "an object with nothing in it": b"{}",
    "half an object": b'{"data": {"batch_res',
    "no results": b'{"data": {"batch_results": []}}',
    "results too many": b'{"data": {"batch_results": [{}, {}]}}',
    "a result that is no object": b'{"data": {"batch_results": ["x"]}}',
    "a result with neither key nor error": b'{"data": {"batch_results": [{}]}}',
    "a key that is not base64": b'{"data": {"batch_results": [{"plaintext": "?", "ciphertext": "?"}]}}',
    "a key that is too short": b'{"data": {"batch_results": [{"plaintext": "eHg=", "ciphertext": "v"}]}}',
    "a version beyond 32 bits": b'{"data": {"batch_results": [{"ciphertext": "vault:v4294967296:eHg="}]}}',
    "lists without end": b"[" * 100_000,
    "results that are no list": b'{"data": {"batch_results": {"a": 1}}}',
    "nothing": b"",
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_that_is_not_the_servers_is_an_outage(tenancy: Tenancy, open_kms: Open, what: str) -> None:
    """It says nothing about the key, and the error says what to look at."""
    token = tenancy.token()
    wrapped = open_kms(token=token).wrap(KEY, context=CONTEXT)
    with something_else(200, ANSWERS[what]) as (url, _):
        kms = open_kms(url=url, token=token)
        for call in (
            lambda: kms.unwrap(wrapped, context=CONTEXT),
            lambda: kms.wrap(KEY, context=CONTEXT),
            kms.rotate_root_key,
            kms.check,
        ):
            with pytest.raises(KMSUnavailable, match="see what stands between"):
                call()
    with (
        something_else(200, b"{}", lookup=ANSWERS[what]) as (url, _),
        pytest.raises(KMSUnavailable, match="see what stands between"),
    ):
        open_kms(url=url, token=token).check()


LOGINS = [
    b"{}",
    b'{"auth": null}',
    b'{"auth": {"client_token": 7}}',
    b'{"auth": {"client_token": ""}}',
    b'{"auth": {"client_token": "two words"}}',
    b'{"auth": {"client_token": "s.x", "lease_duration": "1h"}}',
    b'{"auth": {"client_token": "s.x", "lease_duration": [1]}}',
    b'{"auth": {"client_token": "s.x", "lease_duration": -1}}',
    b'{"auth": {"client_token": "s.x", "lease_duration": true}}',
    b"<html>",
]


@pytest.mark.parametrize("answer", LOGINS)
def test_an_answer_to_a_login_that_holds_no_token_is_an_outage(open_kms: Open, answer: bytes) -> None:
    """It came from something else, as did one with no time to live that could be."""
    with something_else(200, answer) as (url, asked):
        with pytest.raises(KMSUnavailable):
            open_kms(url=url, auth=AppRole("role", "secret")).check()
        assert asked == ["/v1/auth/approle/login"]


@pytest.mark.parametrize("given", [b'"1h"', b"[1]", b"-1", b"1e999", b"true"])
def test_a_token_that_lives_for_no_number_of_seconds_is_an_outage(open_kms: Open, given: bytes) -> None:
    """And no error of another kind."""
    with (
        something_else(200, b"{}", lookup=b'{"data": {"ttl": %s}}' % given) as (url, _),
        pytest.raises(KMSUnavailable, match="does not say how long the token lives"),
    ):
        open_kms(url=url, token="s.x").check()


def test_where_nobody_listens_the_address_is_told(open_kms: Open) -> None:
    """With what the operating system says."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(KMSUnavailable, match=f"{url} cannot be reached: Connection refused"):
        open_kms(url=url).check()


def test_a_server_that_does_not_answer_in_time_is_told(tenancy: Tenancy, open_kms: Open) -> None:
    """The wait ends where it was said to."""
    kms = open_kms(read_timeout=0.5)
    with tenancy.server.stopped(), pytest.raises(KMSUnavailable, match="no answer in time"):
        kms.check()
    assert _works(kms)


def test_a_child_shares_no_connection_with_its_parent(open_kms: Open) -> None:
    """Each of them has a pool of its own, and so gets its own answers."""
    kms = open_kms()
    kms.check()

    def sockets() -> set[str]:
        targets = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
        return {target for target in targets if target.startswith("socket:")}

    def child() -> None:
        held = sockets()
        assert _works(kms)
        assert sockets() - held, "a connection that was there before was used"

    in_a_fork(child)
    assert _works(kms)


def test_a_closed_one_opens_again(open_kms: Open) -> None:
    """Closing gives up connections, and nothing else."""
    kms = open_kms()
    kms.close()
    assert _works(kms)


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1:8200", "ftp://127.0.0.1", "https://", "http://[::1", "https://vault.example.com:port",
        "https://vault.example.com:99999", "https://vault.example.com/?token=x", "https://vault.example.com/#x",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="the url of a KMS is like"):
        TransitKMS(url, token="s.x")


def test_an_address_holds_no_password() -> None:
    """It is shown in errors."""
    with pytest.raises(ConfigurationError, match="no user and no password") as caught:
        TransitKMS("https://ann:secret@vault.example.com", token="s.x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["vault.example.com", "192.0.2.1", "[2001:db8::1]", "localhost.example.com"])
def test_tokens_do_not_cross_a_network_in_the_clear(host: str) -> None:
    """Unless that is asked for; a proxy on this machine is fine."""
    with pytest.raises(ConfigurationError, match="use https, or allow_http"):
        TransitKMS(f"http://{host}:8200", token="s.x")
    TransitKMS(f"http://{host}:8200", token="s.x", allow_http=True).close()
    TransitKMS(f"https://{host}:8200", token="s.x").close()
    for here in ("127.0.0.1", "[::1]", "localhost", "127.9.9.9"):
        TransitKMS(f"http://{here}:8200", token="s.x").close()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"key": "a/b"}, "name of a transit key"),
        ({"key": ""}, "name of a transit key"),
        ({"key": "-a"}, "name of a transit key"),
        ({"mount": "/"}, "a mount is a path"),
        ({"mount": "a/../b"}, "a mount is a path"),
        ({"ca_file": "/nonexistent/ca.pem"}, "there is no file /nonexistent/ca.pem"),
        ({"client_certificate": ("/nonexistent/a", "/nonexistent/b")}, "there is no file"),
        ({"connect_timeout": 0}, "timeout"),
        ({"read_timeout": -1}, "timeout"),
        ({"pool_size": 0}, "at least one connection"),
        ({"batch_size": 0}, "at least one item"),
    ],
)
def test_an_argument_that_cannot_work_is_refused_at_once(arguments: dict[str, object], problem: str) -> None:
    """Before data moves."""
    with pytest.raises(ConfigurationError, match=problem):
        TransitKMS("http://127.0.0.1:8200", **{"token": "s.x", **arguments})  # type: ignore[arg-type]

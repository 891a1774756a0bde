"""A refusal: that it stands, what it costs, and what is none though it looks like one."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fieldvault import CachePolicy, Vault
from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.policy import RetryPolicy
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit import JWT, AppRole
from fieldvault.kms.transit.connection import Connection, Server
from fieldvault.kms.transit.engine import Engine, Item
from fieldvault.kms.transit.tokens import TokenKeeper
from fieldvault.kms.transit.wrapping import Ciphertext
from fieldvault.testing.fakes import ManualClock
from fieldvault.testing.samples import together
from tests.kms.transit.conftest import Tenancy
from tests.kms.transit.logins import Issuer, new_role
from tests.kms.transit.test_auth import revoke_tokens
from tests.servers.proxy import Answer, Proxy

CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))
FIELD = "customers.email"
CACHE = CachePolicy(ttl=300, lease=30, grace=60, refresh_ahead=0)
QUOTA = b'{"errors":["rate limit quota exceeded"]}'
Open = Callable[..., TransitKMS]


@pytest.fixture
def proxy(tenancy: Tenancy) -> Iterator[Proxy]:
    """What stands before the server."""
    made = Proxy(tenancy.server.port)
    yield made
    made.close()


def withdraw(tenancy: Tenancy) -> None:
    """Have the application's policy allow nothing any more."""
    policy = tenancy.policy("The application")
    tenancy.server.admin.sys.create_or_update_policy(policy, 'path "elsewhere" { capabilities = ["read"] }')


def _vault(kms: TransitKMS, clock: ManualClock) -> Vault:
    return Vault(
        kms=kms, key_store=MemoryKeyStore(), cache=CACHE, retries=RetryPolicy(deadline=0), clock=clock
    )


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_denial_stands_where_nobody_says_whether_the_token_is_good(
    tenancy: Tenancy, open_kms: Open, proxy: Proxy, status: int
) -> None:
    """It does not outlive the lease because a quota on other paths is used up."""
    clock = ManualClock()
    with _vault(open_kms(url=proxy.url), clock) as vault:
        sealed = vault.encrypt("x", field=FIELD, tenant="acme")
        withdraw(tenancy)
        with proxy.meeting(Answer(status, QUOTA, when=b"lookup-self")):
            clock.advance(31)
            with pytest.raises(KMSDenied, match="permission denied"):
                vault.decrypt(sealed, field=FIELD, tenant="acme")


def test_a_login_that_cannot_be_had_is_an_outage_and_no_denial(
    tenancy: Tenancy, open_kms: Open, proxy: Proxy
) -> None:
    """Of a token that is no longer good the server has said nothing about what it may do."""
    role_id, secret_id = new_role(tenancy)
    kms = open_kms(url=proxy.url, auth=AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
    clock = ManualClock()
    with _vault(kms, clock) as vault:
        sealed = vault.encrypt("x", field=FIELD, tenant="acme")
        revoke_tokens(tenancy)
        with proxy.meeting(Answer(429, QUOTA, when=b"/login ")):
            clock.advance(31)
            assert vault.decrypt(sealed, field=FIELD, tenant="acme") == "x"
            with pytest.raises(KMSUnavailable, match="quota"):
                kms.wrap(KEY, context=CONTEXT)
        assert kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY


class TestCost:
    """What reads of a key cost the server whose policy was withdrawn."""

    @pytest.fixture
    def asked(self, tenancy: Tenancy) -> Callable[[], Counter[str]]:
        """A function that counts the requests since it was called last, by their last name."""
        seen = tenancy.server.audit_mark()

        def count() -> Counter[str]:
            nonlocal seen
            entries, seen = tenancy.server.audited(seen), tenancy.server.audit_mark()
            paths = (entry["request"]["path"] for entry in entries if entry["type"] == "request")
            return Counter(path.removesuffix(f"/{tenancy.key}").rpartition("/")[2] for path in paths)

        return count

    def test_a_role_that_may_not_look_up_does_not_log_in_for_each_read(
        self, tenancy: Tenancy, open_kms: Open, asked: Callable[[], Counter[str]]
    ) -> None:
        """One new token, to see that it is refused too; the reads after it are refused at the cost of one."""
        role_id, secret_id = new_role(tenancy, token_no_default_policy=True, token_ttl="1h")
        kms = open_kms(auth=AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
        wrapped = kms.wrap(KEY, context=CONTEXT)
        withdraw(tenancy)
        asked()
        for _ in range(20):
            with pytest.raises(KMSDenied):
                kms.unwrap(wrapped, context=CONTEXT)
        assert asked() == {"decrypt": 21, "lookup-self": 1, "login": 1}
        tenancy.policy("The application")
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY

    def test_a_token_that_the_server_knows_is_not_asked_about_for_each_read(
        self, tenancy: Tenancy, open_kms: Open, asked: Callable[[], Counter[str]]
    ) -> None:
        """Nor one that it does not know, and that nobody replaces."""
        token = tenancy.token()
        kms = open_kms(token=token)
        wrapped = kms.wrap(KEY, context=CONTEXT)
        withdraw(tenancy)
        asked()
        for _ in range(5):
            with pytest.raises(KMSDenied):
                kms.unwrap(wrapped, context=CONTEXT)
        assert asked() == {"decrypt": 5, "lookup-self": 1}
        tenancy.policy("The application")
        other = open_kms(token=token)
        other.check()
        tenancy.server.admin.auth.token.revoke(token)
        asked()
        for _ in range(5):
            with pytest.raises(KMSDenied):
                other.unwrap(wrapped, context=CONTEXT)
        assert asked() == {"decrypt": 5, "lookup-self": 2}

    def test_the_threads_of_a_page_log_in_once(
        self, tenancy: Tenancy, open_kms: Open, asked: Callable[[], Counter[str]]
    ) -> None:
        """However many of them meet the refusal at once."""
        role_id, secret_id = new_role(tenancy, token_no_default_policy=True, token_ttl="1h")
        kms = open_kms(auth=AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
        wrapped = kms.wrap(KEY, context=CONTEXT)
        withdraw(tenancy)
        asked()

        def read() -> None:
            with pytest.raises(KMSDenied):
                kms.unwrap(wrapped, context=CONTEXT)

        together([read] * 32)
        assert asked()["login"] == 1

    def test_after_a_while_it_is_tried_again(
        self, tenancy: Tenancy, asked: Callable[[], Counter[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A token that was not to blame may have run out since."""
        role_id, secret_id = new_role(tenancy, token_no_default_policy=True, token_ttl="1h")
        clock = ManualClock()
        monkeypatch.setattr("fieldvault.kms.transit.engine.TokenKeeper", partial(TokenKeeper, clock=clock))
        server = Server(
            url=tenancy.server.url, namespace=None, ca_file=None, client_certificate=None,
            connect_timeout=2, read_timeout=2, pool_size=4, allow_http=False,
        )  # fmt: skip
        engine = Engine(server, AppRole(role_id, secret_id, f"approle-{tenancy.key}"), "transit")
        withdraw(tenancy)
        item = Item(Ciphertext(dedicated=False, version=1, sealed=bytes(60)), CONTEXT)
        logins = []
        for seconds in (0, 4.9, 0.2, 4.9, 0.2):
            clock.advance(seconds)
            asked()
            with pytest.raises(KMSDenied):
                engine.decrypt(tenancy.key, [item])
            logins.append(asked()["login"])
        engine.connection.close()
        # The first of them is the one that any process begins with, and the one in its place.
        assert logins == [2, 0, 1, 0, 1]


class TestIdentityProvider:
    """A provider whose keys the server fetches, and which goes away."""

    @pytest.mark.parametrize("configured", ["jwks_url", "oidc_discovery_url"])
    def test_one_that_is_away_is_an_outage(self, tenancy: Tenancy, open_kms: Open, configured: str) -> None:
        """A server that was unsealed meanwhile cannot check a login, which says nothing about the caller."""
        clock = ManualClock()
        with Issuer(tenancy, configured) as issuer:
            kms = open_kms(auth=JWT("app", issuer.sign(), issuer.mount))
            vault = _vault(kms, clock)
            sealed = vault.encrypt("x", field=FIELD, tenant="acme")
        with tenancy.server.sealed():
            pass
        tenancy.server.admin.sys.revoke_prefix(f"auth/{issuer.mount}")
        clock.advance(31)
        assert vault.decrypt(sealed, field=FIELD, tenant="acme") == "x"
        with pytest.raises(KMSUnavailable):
            kms.check()
        vault.close()

    def test_one_that_refuses_a_signature_is_no_outage(self, tenancy: Tenancy, open_kms: Open) -> None:
        """Its keys were there, and none of them had signed."""
        with Issuer(tenancy, "jwks_url") as issuer:
            stranger = issuer.sign()[:-8] + "AAAAAAAA"
            with pytest.raises(KMSDenied, match="login by JWT failed"):
                open_kms(auth=JWT("app", stranger, issuer.mount)).check()


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o620])
def test_a_secret_that_others_may_read_or_change_is_told(
    tenancy: Tenancy, open_kms: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    """In the log, with the way out, and without the secret; it works all the same."""
    file = tmp_path / "secret"
    role_id, secret_id = new_role(tenancy)
    logins: dict[str, dict[str, Any]] = {
        secret_id: {"auth": AppRole(role_id, file, f"approle-{tenancy.key}")},
        (token := tenancy.token()): {"token": file},
    }
    for secret, login in logins.items():
        caplog.clear()
        file.write_text(secret)
        file.chmod(mode)
        open_kms(**login).check()
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage() == (
            f"{file} holds a secret and is open to others (mode {mode:04o}): chmod 600 {file}"
        )
    assert token not in caplog.text
    assert secret_id not in caplog.text


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_secret_of_ones_own_or_ones_group_is_not_complained_of(
    tenancy: Tenancy, open_kms: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    """As agents and Kubernetes leave it; JWTs lie open in every pod."""
    (tmp_path / "token").write_text(tenancy.token())
    (tmp_path / "token").chmod(mode)
    open_kms(token=tmp_path / "token").check()
    issuer = Issuer(tenancy)
    (tmp_path / "jwt").write_text(issuer.sign())
    (tmp_path / "jwt").chmod(0o644)
    open_kms(auth=JWT("app", tmp_path / "jwt", issuer.mount)).check()
    assert caplog.records == []


def test_an_unknown_error_of_a_request_stays_in_the_tree(tenancy: Tenancy) -> None:
    """Whatever the client's parsing comes up with, the vault tells an outage, and not a programming error."""
    server = Server(
        url=tenancy.server.url, namespace=None, ca_file=None, client_certificate=None,
        connect_timeout=2, read_timeout=2, pool_size=1, allow_http=False,
    )  # fmt: skip
    connection = Connection(server)
    for error in (TypeError("s.secret"), AttributeError("s.secret"), RecursionError("s.secret")):

        def request(_adapter: object, error: Exception = error) -> None:
            raise error

        with pytest.raises(KMSError, match=f"cannot be read .{type(error).__name__}.; see what") as caught:
            connection.ask(request)
        assert type(caught.value) is KMSUnavailable
        assert caught.value.__cause__ is None
        assert "secret" not in str(caught.value)
    connection.close()

"""A token's life, against a real server and by a clock that the test moves."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from fieldvault.errors import KMSDenied, KMSUnavailable
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit import AppRole, Auth, Token
from fieldvault.kms.transit.connection import Connection, Server
from fieldvault.kms.transit.tokens import Held, TokenKeeper
from fieldvault.testing.samples import together
from tests.kms.transit.conftest import Tenancy
from tests.kms.transit.logins import new_role
from tests.kms.transit.test_auth import revoke_tokens

CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds since some time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's."""
    return Clock()


@pytest.fixture
def keep(tenancy: Tenancy, clock: Clock) -> Iterator[Callable[[Auth], TokenKeeper]]:
    """Keeps tokens by the test's clock."""
    server = Server(
        url=tenancy.server.url, namespace=None, ca_file=None, client_certificate=None,
        connect_timeout=2, read_timeout=2, pool_size=4, allow_http=False,
    )  # fmt: skip
    connection = Connection(server)
    yield lambda auth: TokenKeeper(auth, connection, clock)
    connection.close()


@pytest.fixture
def approle(tenancy: Tenancy) -> AppRole:
    """A role whose tokens live an hour, and two at most."""
    role_id, secret_id = new_role(tenancy, token_ttl="1h", token_max_ttl="2h")
    return AppRole(role_id, secret_id, f"approle-{tenancy.key}")


@pytest.fixture
def asked(tenancy: Tenancy) -> Callable[[], Counter[str]]:
    """A function that counts the requests since it was called last, by path."""
    seen = tenancy.server.audit_mark()

    def count() -> Counter[str]:
        nonlocal seen
        entries, seen = tenancy.server.audited(seen), tenancy.server.audit_mark()
        return Counter(entry["request"]["path"] for entry in entries if entry["type"] == "request")

    return count


def test_a_token_is_used_until_two_thirds_of_its_life_and_then_renewed(
    tenancy: Tenancy,
    keep: Callable[[Auth], TokenKeeper],
    approle: AppRole,
    clock: Clock,
    asked: Callable[[], Counter[str]],
) -> None:
    """One login; nothing is asked while it is fresh; the same token lives on."""
    login = f"auth/approle-{tenancy.key}/login"
    keeper = keep(approle)
    first = keeper.current()
    clock.now += 2399
    assert keeper.current() is first
    assert asked() == {login: 1}
    clock.now += 2
    second = keeper.current()
    assert second.token.reveal() == first.token.reveal()
    assert second.good_until == clock.now + 3600
    assert asked() == {"auth/token/renew-self": 1}


def test_a_token_that_is_near_its_last_hour_is_replaced(
    tenancy: Tenancy,
    keep: Callable[[Auth], TokenKeeper],
    clock: Clock,
    asked: Callable[[], Counter[str]],
) -> None:
    """A renewal that gives less than half of what the login gave is no use."""
    role_id, secret_id = new_role(tenancy, token_ttl="1h")
    keeper = keep(AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
    first = keeper.current()
    # The server grants no more than this from here on, to tokens it gave out before as well.
    tenancy.server.admin.sys.tune_auth_method(f"approle-{tenancy.key}", max_lease_ttl="20m")
    clock.now += 2401
    asked()
    second = keeper.current()
    assert second.token.reveal() != first.token.reveal()
    assert asked() == {"auth/token/renew-self": 1, f"auth/approle-{tenancy.key}/login": 1}
    assert second.good_until == clock.now + 1200


def test_a_batch_token_is_replaced_and_not_renewed(
    tenancy: Tenancy,
    keep: Callable[[Auth], TokenKeeper],
    clock: Clock,
    asked: Callable[[], Counter[str]],
) -> None:
    """The server says that it cannot be."""
    role_id, secret_id = new_role(tenancy, token_ttl="1h", token_type="batch")
    keeper = keep(AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
    keeper.current()
    clock.now += 2401
    asked()
    keeper.current()
    assert asked() == {f"auth/approle-{tenancy.key}/login": 1}


def test_a_token_that_ran_out_is_replaced_by_a_login(
    keep: Callable[[Auth], TokenKeeper], approle: AppRole, clock: Clock
) -> None:
    """Whoever was idle for a day begins anew, without asking for what the server has forgotten."""
    keeper = keep(approle)
    first = keeper.current()
    clock.now += 86400
    assert keeper.current().token.reveal() != first.token.reveal()


def test_a_token_that_cannot_be_renewed_now_serves_to_its_end(
    tenancy: Tenancy, keep: Callable[[Auth], TokenKeeper], approle: AppRole, clock: Clock
) -> None:
    """An outage shorter than a third of a token's life is not noticed; the server is not asked each time."""
    keeper = keep(approle)
    first = keeper.current()
    clock.now += 2401
    with tenancy.server.sealed():
        assert keeper.current() is first
        assert first.fresh_until == clock.now + 5
    clock.now += 6
    assert keeper.current().good_until == clock.now + 3600
    clock.now += 4000
    with tenancy.server.sealed(), pytest.raises(KMSUnavailable):
        keeper.current()


def test_a_token_of_somebody_elses_making_is_renewed(
    tenancy: Tenancy, keep: Callable[[Auth], TokenKeeper], clock: Clock, asked: Callable[[], Counter[str]]
) -> None:
    """Its life is asked for once, and prolonged while it is used; one that never ends is left alone."""
    keeper = keep(Token(tenancy.token(ttl="1h")))
    first = keeper.current()
    clock.now += 2401
    assert keeper.current().token is first.token
    clock.now += 2401
    assert keeper.current().token is first.token
    assert asked()["auth/token/renew-self"] == 2
    keeper = keep(Token(tenancy.server.root_token))
    keeper.current()
    clock.now += 1e9
    keeper.current()
    assert asked() == {"auth/token/lookup-self": 1}


def test_a_revoked_token_is_replaced_by_one_login_however_many_use_it(
    tenancy: Tenancy,
    approle: AppRole,
    open_kms: Callable[..., TransitKMS],
    asked: Callable[[], Counter[str]],
) -> None:
    """And nobody notices."""
    kms = open_kms(auth=approle)
    wrapped = kms.wrap(KEY, context=CONTEXT)
    revoke_tokens(tenancy)
    asked()
    assert together([partial(kms.unwrap, wrapped, context=CONTEXT)] * 8) == [KEY] * 8
    assert asked()[f"auth/approle-{tenancy.key}/login"] == 1


def test_who_finds_a_token_revoked_late_takes_the_one_that_others_got(
    tenancy: Tenancy,
    keep: Callable[[Auth], TokenKeeper],
    approle: AppRole,
    asked: Callable[[], Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if the others' login ended while this one was still asking what is the matter."""
    keeper = keep(approle)
    first = keeper.current()
    revoke_tokens(tenancy)
    others = []
    serves = keeper._serves

    def meanwhile(held: Held) -> bool:
        monkeypatch.undo()
        others.append(keeper.instead(held))
        return serves(held)

    monkeypatch.setattr(keeper, "_serves", meanwhile)
    asked()
    assert keeper.instead(first) is others[0]
    assert keeper.instead(first) is others[0]
    assert asked()[f"auth/approle-{tenancy.key}/login"] == 1


def test_a_token_that_may_not_ask_about_itself_serves_all_the_same(
    tenancy: Tenancy, keep: Callable[[Auth], TokenKeeper], clock: Clock, open_kms: Callable[..., TransitKMS]
) -> None:
    """Without the policy ``default`` a token is used as it is, and one from a login is replaced in time."""
    bare = tenancy.token(ttl="1h", no_default_policy=True)
    kms = open_kms(token=bare)
    assert kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
    with pytest.raises(KMSDenied):
        kms.rotate_root_key()
    role_id, secret_id = new_role(tenancy, token_ttl="1h", token_no_default_policy=True)
    keeper = keep(AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
    first = keeper.current()
    clock.now += 2401
    assert keeper.current().token.reveal() != first.token.reveal()


def test_a_token_that_ran_out_at_the_server_first_is_replaced(
    tenancy: Tenancy, open_kms: Callable[..., TransitKMS]
) -> None:
    """A limit of uses ends a token that the clock calls fresh."""
    role_id, secret_id = new_role(tenancy, token_num_uses=5)
    kms = open_kms(auth=AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
    for _ in range(6):
        assert kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY


def test_a_denial_that_is_not_the_tokens_fault_makes_no_login(
    tenancy: Tenancy,
    approle: AppRole,
    open_kms: Callable[..., TransitKMS],
    asked: Callable[[], Counter[str]],
) -> None:
    """A missing permission is not mended by asking for it again and again."""
    kms = open_kms(auth=approle)
    kms.check()
    asked()
    with pytest.raises(KMSDenied, match="permission denied"):
        kms.rotate_root_key()
    assert asked() == {f"transit/keys/{tenancy.key}/rotate": 1, "auth/token/lookup-self": 1}


def test_a_revoked_token_with_no_way_to_another_is_a_denial(
    tenancy: Tenancy, open_kms: Callable[..., TransitKMS], asked: Callable[[], Counter[str]]
) -> None:
    """Each time it is asked; the request is not repeated with the same token."""
    token = tenancy.token()
    kms = open_kms(token=token)
    wrapped = kms.wrap(KEY, context=CONTEXT)
    tenancy.server.admin.auth.token.revoke(token)
    for _ in range(2):
        asked()
        with pytest.raises(KMSDenied) as caught:
            kms.unwrap(wrapped, context=CONTEXT)
        assert token not in str(caught.value)
        assert asked()[f"transit/decrypt/{tenancy.key}"] == 1

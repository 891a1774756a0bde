"""Logging in: by each method against a real server, and what is kept out of sight."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from fieldvault.errors import ConfigurationError, KMSDenied, KMSUnavailable
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit import JWT, AppRole, Auth, Kubernetes, SecretText, Token
from fieldvault.kms.transit.tokens import TokenKeeper
from fieldvault.testing.fakes import ManualClock
from fieldvault.testing.samples import told_by
from tests.kms.transit.conftest import Tenancy
from tests.kms.transit.logins import Cluster, Issuer, new_role, new_secret_id

CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))
Open = Callable[..., TransitKMS]


def _works(kms: TransitKMS) -> bool:
    return kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY


def test_approle(tenancy: Tenancy, open_kms: Open, tmp_path: Path) -> None:
    """With the secret id as it is, and from a file."""
    role_id, secret_id = new_role(tenancy)
    mount = f"approle-{tenancy.key}"
    assert _works(open_kms(auth=AppRole(role_id, secret_id, mount)))
    (tmp_path / "secret-id").write_text(f"{secret_id}\n")
    assert _works(open_kms(auth=AppRole(role_id, tmp_path / "secret-id", mount)))


def test_jwt(tenancy: Tenancy, open_kms: Open, tmp_path: Path) -> None:
    """Signed by a provider that the server knows; as it is, and from a file."""
    issuer = Issuer(tenancy)
    assert _works(open_kms(auth=JWT("app", issuer.sign(), issuer.mount)))
    (tmp_path / "token").write_text(issuer.sign())
    assert _works(open_kms(auth=JWT("app", tmp_path / "token", issuer.mount)))


def test_kubernetes(tenancy: Tenancy, open_kms: Open, tmp_path: Path) -> None:
    """A pod's token lies in a file, and the server has it reviewed by the cluster.

    It does not tell a token that was refused from a cluster that is away, so both are refusals.
    """
    with Cluster(tenancy) as cluster:
        (tmp_path / "token").write_text(cluster.token)
        auth = Kubernetes("app", tmp_path / "token", cluster.mount)
        assert _works(open_kms(auth=auth))
        cluster.deleted = True
        with pytest.raises(KMSDenied, match="login by Kubernetes failed"):
            open_kms(auth=auth).check()
    with pytest.raises(KMSDenied, match="login by Kubernetes failed"):
        open_kms(auth=auth).check()


def test_a_token_from_a_file(tenancy: Tenancy, open_kms: Open, tmp_path: Path) -> None:
    """As an agent leaves it."""
    (tmp_path / "token").write_text(f"{tenancy.token()}\n")
    assert _works(open_kms(token=tmp_path / "token"))
    assert _works(open_kms(auth=Token(tmp_path / "token")))


def test_a_login_that_is_refused_is_denied_and_shows_no_secret(tenancy: Tenancy, open_kms: Open) -> None:
    """By whichever method, and with whatever status the server says so."""
    role_id, _ = new_role(tenancy)
    issuer, other = Issuer(tenancy), "00000000-0000-0000-0000-000000000000"
    late = issuer.sign(exp=1)
    refused: dict[str, tuple[Auth, str]] = {
        "a secret id that is not the role's": (AppRole(role_id, other, f"approle-{tenancy.key}"), other),
        "a method that is not there": (AppRole(role_id, other, "nowhere"), other),
        "a JWT that ran out": (JWT("app", late, issuer.mount), late),
        "a JWT of another audience": (JWT("app", issuer.sign(aud="other"), issuer.mount), "eyJ"),
        "a token that nobody made": (Token("s.aaaaaaaaaaaaaaaaaaaaaaaa"), "s.aaaaaaaaaaaaaaaaaaaaaaaa"),
    }
    for what, (auth, secret) in refused.items():
        kms = open_kms(auth=auth)
        with pytest.raises(KMSDenied) as caught:
            kms.wrap(KEY, context=CONTEXT)
        for text in (*told_by(caught.value), repr(auth), repr(kms)):
            assert secret not in text, what


def test_a_sealed_server_is_no_refusal(tenancy: Tenancy, open_kms: Open) -> None:
    """A login is tried again when it is over."""
    role_id, secret_id = new_role(tenancy)
    kms = open_kms(auth=AppRole(role_id, secret_id, f"approle-{tenancy.key}"))
    with tenancy.server.sealed(), pytest.raises(KMSUnavailable, match="sealed"):
        kms.check()
    assert _works(kms)


def test_a_secret_is_read_anew_at_each_login(
    tenancy: Tenancy, open_kms: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in a file is what an agent, or Kubernetes, keeps fresh; a refusal is believed a second."""
    clock = ManualClock()
    monkeypatch.setattr("fieldvault.kms.transit.engine.TokenKeeper", partial(TokenKeeper, clock=clock))
    file = tmp_path / "secret-id"
    role_id, secret_id = new_role(tenancy, secret_id_num_uses=1, token_ttl="1h")
    file.write_text(secret_id)
    kms = open_kms(auth=AppRole(role_id, file, f"approle-{tenancy.key}"))
    assert _works(kms)
    revoke_tokens(tenancy)
    before = tenancy.server.audit_mark()
    for seconds in (0, 0.5, 0.4):
        clock.advance(seconds)
        with pytest.raises(KMSDenied, match="login by AppRole failed"):
            kms.check()
    asked = [
        entry["request"]["path"] for entry in tenancy.server.audited(before) if entry["type"] == "request"
    ]
    assert asked.count(f"auth/approle-{tenancy.key}/login") == asked.count("auth/token/lookup-self") == 1
    file.write_text(new_secret_id(tenancy))
    clock.advance(0.2)
    assert _works(kms)


def test_a_first_login_that_is_refused_is_not_tried_for_each_call(
    tenancy: Tenancy, open_kms: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers lock out who fails too often."""
    role_id, _ = new_role(tenancy)
    clock = ManualClock()
    monkeypatch.setattr("fieldvault.kms.transit.engine.TokenKeeper", partial(TokenKeeper, clock=clock))
    kms = open_kms(auth=AppRole(role_id, "wrong", f"approle-{tenancy.key}"))
    tries = []
    for seconds in (0, 0.9, 0.2):
        clock.advance(seconds)
        before = tenancy.server.audit_mark()
        with pytest.raises(KMSDenied, match="login by AppRole failed"):
            kms.check()
        tries.append(len(tenancy.server.audited(before)) > 0)
    assert tries == [True, False, True]


def revoke_tokens(tenancy: Tenancy) -> None:
    """Every token that came from the test's AppRole."""
    tenancy.server.admin.sys.revoke_prefix(f"auth/approle-{tenancy.key}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("", "holds no token"),
        ("two words", "holds no token"),
        (b"\xff", "holds no token"),
    ],
)
def test_a_file_without_a_secret_is_told(
    open_kms: Open, tmp_path: Path, content: str | bytes | None, problem: str
) -> None:
    """An agent that has not written it yet may do so: it is an outage, and no refusal."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KMSUnavailable, match=problem):
        open_kms(token=file).check()


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "Zeichenkette-ä", "nul\x00"])
def test_what_cannot_be_a_secret_is_refused_at_once(text: str) -> None:
    """Before it is sent in a header, and without showing it."""
    with pytest.raises(ConfigurationError) as caught:
        TransitKMS("http://127.0.0.1:8200", token=text)
    assert not text or text not in str(caught.value)


def test_a_secret_is_not_shown_pickled_or_copied() -> None:
    """Neither by itself nor in what holds it."""
    secret = "s.iAmNotShown"
    for auth in (Token(secret), AppRole("role", secret), JWT("role", secret), Kubernetes("role", secret)):
        assert secret not in repr(auth)
        assert secret not in str(auth)
        with pytest.raises(TypeError, match="not pickled or copied"):
            pickle.dumps(auth)
        with pytest.raises(TypeError, match="not pickled or copied"):
            asdict(auth)
    text = SecretText(secret)
    assert repr(text) == "<SecretText>"
    assert text.reveal() == secret
    with pytest.raises(TypeError, match="not pickled or copied"):
        copy.copy(text)


def test_one_way_in_is_given_and_not_two() -> None:
    """Nor none: nothing is taken from the environment."""
    for arguments in ({}, {"token": "s.x", "auth": Token("s.x")}):
        with pytest.raises(ConfigurationError, match="either a token or an auth"):
            TransitKMS("http://127.0.0.1:8200", **arguments)  # type: ignore[arg-type]

"""The section of ``fieldvault.toml``: what opens, and what is told with its line."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.errors import ConfigurationError
from fieldvault.kms import TransitKMS
from tests.docs.pages import ROOT
from tests.kms.transit.conftest import PAGE, Tenancy
from tests.kms.transit.logins import Issuer, new_role

Write = Callable[[str], Path]
CONTEXT = {"tenant": "acme"}
KEY = bytes(range(32))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration with this section of a KMS, in a folder of its own."""

    def write_file(section: str) -> Path:
        path = tmp_path / "fieldvault.toml"
        path.write_text(
            f'[key_store]\ntype = "memory"\n[kms]\ntype = "transit"\n{section}\n', encoding="utf-8"
        )
        return path

    return write_file


def test_a_token_of_the_environment_and_of_a_file(
    tenancy: Tenancy, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vault opens with it, and seals and opens values."""
    monkeypatch.setenv("BAO_TOKEN", tenancy.token())
    (tmp_path / "token").write_text(tenancy.token())
    for token in ('token_env = "BAO_TOKEN"', 'token_file = "token"', 'auth = "token"\ntoken_file = "token"'):
        path = write(f'url = "{tenancy.server.url}"\nkey = "{tenancy.key}"\n{token}')
        with Vault.open(path) as vault:
            sealed = vault.encrypt("ann@example.com", field="customers.email", tenant="acme")
            assert vault.decrypt(sealed, field="customers.email", tenant="acme") == "ann@example.com"


def test_a_file_that_an_agent_keeps_fresh_is_read_again(
    tenancy: Tenancy, write: Write, tmp_path: Path
) -> None:
    """When the token that it held is refused."""
    first = tenancy.token()
    (tmp_path / "token").write_text(first)
    path = write(f'url = "{tenancy.server.url}"\nkey = "{tenancy.key}"\ntoken_file = "token"')
    with Vault.open(path) as vault:
        vault.encrypt("ann", field="customers.name", tenant="acme")
        tenancy.server.admin.auth.token.revoke(first)
        (tmp_path / "token").write_text(tenancy.token())
        vault.encrypt("bob", field="customers.name", tenant="globex")


def test_each_login_and_every_member(tenancy: Tenancy, write: Write, tmp_path: Path) -> None:
    """AppRole, JWT and Kubernetes; TLS on both sides."""
    role_id, secret_id = new_role(tenancy)
    issuer, authority = Issuer(tenancy), tenancy.server.authority
    shown = authority.issue("configured")
    for name, content in {
        "secret-id": secret_id,
        "jwt": issuer.sign(),
        "ca.pem": authority.certificate.read_text(),
        "client.pem": shown.certificate.read_text(),
        "client-key.pem": shown.key.read_text(),
    }.items():
        (tmp_path / name).write_text(content)
    approle = f'auth = "approle"\nauth_mount = "approle-{tenancy.key}"\nsecret_id_file = "secret-id"'
    logins = (
        f'{approle}\nrole_id = "{role_id}"',
        f'auth = "jwt"\nauth_mount = "{issuer.mount}"\nrole = "app"\njwt_file = "jwt"',
        f'auth = "kubernetes"\nauth_mount = "{issuer.mount}"\nrole = "app"\njwt_file = "jwt"',
    )
    for login in logins:
        path = write(
            f'url = "{tenancy.server.mutual_url}/"\nkey = "{tenancy.key}"\nmount = "transit"\n{login}\n'
            'ca_file = "ca.pem"\nclient_certificate = "client.pem"\nclient_key = "client-key.pem"\n'
            "connect_timeout = 1\nread_timeout = 2.5\npool_size = 2\nbatch_size = 3\nallow_http = false"
        )
        with Vault.open(path) as vault:
            assert (
                len({vault.encrypt(tenant, field="f", tenant=tenant) for tenant in ("acme", "globex")}) == 2
            )


def test_a_key_a_tenant(tenancy: Tenancy, write: Write, tmp_path: Path) -> None:
    """The one that was made for it wraps the tenant's keys."""
    (tmp_path / "token").write_text(tenancy.token("A key a tenant"))
    login = 'token_file = "token"\ndedicated = true'
    tenancy.create(f"{tenancy.key}-acme")
    before = tenancy.server.audit_mark()
    with Vault.open(write(f'url = "{tenancy.server.url}"\nkey = "{tenancy.key}"\n{login}')) as vault:
        vault.encrypt("ann@example.com", field="customers.email", tenant="acme")
    paths = {entry["request"]["path"] for entry in tenancy.server.audited(before)}
    assert f"transit/encrypt/{tenancy.key}-acme" in paths
    assert f"transit/encrypt/{tenancy.key}" not in paths


GOOD = 'url = "http://127.0.0.1:8200"\ntoken_file = "token"\n'
BAD = {
    "no url": ('token_file = "token"', "kms.url is missing"),
    "a url that is none": (
        GOOD.replace("http:", "ftp:"),
        "line 5: kms.url cannot be used: the url of a KMS is like",
    ),
    "http to elsewhere": (
        GOOD.replace("127.0.0.1", "bao.example.com"),
        "kms.url cannot be used: http to bao",
    ),
    "no token": ('url = "http://127.0.0.1:8200"', "kms.token_env is missing, and so is token_file"),
    "a token in the file itself": (
        GOOD + 'token = "s.iAmNotShown"',
        "line 7: kms.token is a secret, and does not stand here; give token_env or token_file",
    ),
    "a token in the file and nothing else": (
        'url = "http://127.0.0.1:8200"\ntoken = "s.iAmNotShown"',
        "line 6: kms.token is a secret, and does not stand here; give token_env or token_file",
    ),
    "a secret id in the file": (
        'url = "http://127.0.0.1:8200"\nauth = "approle"\nrole_id = "x"\nsecret_id = "s.iAmNotShown"',
        "line 8: kms.secret_id is a secret, and does not stand here",
    ),
    "a login that is none": (
        GOOD + 'auth = "password"',
        "kms.auth is 'password'; it is one of token, approle",
    ),
    "no role": ('url = "http://127.0.0.1:8200"\nauth = "jwt"\njwt_file = "token"', "kms.role is missing"),
    "no secret id": (
        'url = "http://127.0.0.1:8200"\nauth = "approle"\nrole_id = "x"',
        "kms.secret_id_env is missing, and so is secret_id_file",
    ),
    "a key with a slash": (GOOD + 'key = "a/b"', "line 7: kms.key cannot be used"),
    "a mount that is none": (GOOD + 'mount = "//"', "line 7: kms.mount cannot be used"),
    "an authority that is not there": (
        GOOD + 'ca_file = "ca.pem"',
        "kms.ca_file cannot be used: there is no file",
    ),
    "a certificate without its key": (
        GOOD + 'client_certificate = "token"',
        "kms.client_certificate stands alone; give client_certificate and client_key",
    ),
    "a key without its certificate": (GOOD + 'client_key = "token"', "kms.client_key stands alone"),
    "no time at all": (GOOD + "read_timeout = 0", "line 7: kms.read_timeout is not positive"),
    "no connections": (GOOD + "pool_size = -1", "kms.pool_size is not positive"),
    "half a connection": (GOOD + "pool_size = 1.5", "kms.pool_size is a whole number, not a number"),
    "a word for a flag": (GOOD + 'dedicated = "yes"', "kms.dedicated is true or false, not text in quotes"),
    "a slip of the pen": (GOOD + 'namspace = "team"', "did you mean namespace"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_mistake_is_told_with_its_line(write: Write, tmp_path: Path, what: str) -> None:
    """When the vault is opened; the server is not asked for it."""
    (tmp_path / "token").write_text("s.iAmNotShown")
    section, problem = BAD[what]
    with pytest.raises(ConfigurationError, match=re.escape(problem)) as caught:
        Vault.open(write(section))
    assert "iAmNotShown" not in str(caught.value)


def test_what_can_stand_there_is_told_once(write: Write, tmp_path: Path) -> None:
    """However often a member is looked at."""
    (tmp_path / "token").write_text("s.iAmNotShown")
    with pytest.raises(ConfigurationError) as caught:
        Vault.open(write(GOOD + 'ca_file = "token"\nnamspace = "team"'))
    known = str(caught.value).partition("here can stand: ")[2].partition(";")[0].split(", ")
    assert {"token_env", "token_file", "ca_file"} <= set(known)
    assert len(known) == len(set(known))


DEFAULTS = {
    name: int(given.default) if type(given.default) is float else given.default
    for name, given in inspect.signature(TransitKMS).parameters.items()
    if name not in {"url", "token", "auth"} and given.default is not None
}


def test_each_member_is_on_the_page_with_its_default() -> None:
    """And the page has no other."""
    page = PAGE.read_text(encoding="utf-8")
    section = page.partition("\n## In `fieldvault.toml`\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| .+? \| (.+?) \|", section, re.MULTILINE)
    members = {member for names, _ in rows for member in re.findall(r"`(\w+)`", names)}
    source = (ROOT / "src/fieldvault/kms/transit/configuring.py").read_text(encoding="utf-8")
    taken = set(re.findall(r'(?:section\.\w+|_file)\((?:section, )?"(\w+)"', source))
    secrets = set(re.findall(r'_secret\(section, "(\w+)"', source))
    assert members == taken | {f"{name}_{where}" for name in secrets for where in ("env", "file")}
    for names, defaults in rows:
        for name, default in zip(
            re.findall(r"`(\w+)`", names), re.findall(r"`([\w.]+)`", defaults), strict=False
        ):
            if name in DEFAULTS:
                assert default == str(DEFAULTS.pop(name)).lower()
    assert not DEFAULTS


def test_the_name_is_imported_when_it_is_asked_for() -> None:
    """As the entry point does, which the configuration's type names."""
    from fieldvault.kms import TransitKMS as Again

    assert Again is TransitKMS

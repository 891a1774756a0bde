"""What docs/kms/transit.md says: its commands run, its policies suffice, the log is as it says."""

import base64
import dataclasses
import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fieldvault import Vault
from fieldvault.context import encode_context
from fieldvault.errors import KMSDenied
from fieldvault.keys.policy import CachePolicy
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit.batches import MAX_ITEMS
from tests.docs.console import run_console
from tests.docs.pages import Block, blocks
from tests.docs.python import page_module, run_python
from tests.kms.transit.conftest import PAGE, Tenancy, documented_policy
from tests.servers.openbao import OpenBaoServer

CONTEXT = {"tenant": "acme", "purpose": "data"}
KEY = bytes(range(32))
Open = Callable[..., TransitKMS]
TEXT = PAGE.read_text(encoding="utf-8")
HERE = "tests/kms/transit/test_page.py runs it against OpenBao"


class Reader(NamedTuple):
    """The page's reader: in a namespace of their own."""

    server: OpenBaoServer
    namespace: str

    def admin(self) -> Any:
        """The namespace's administrator."""
        return self.server.client(self.server.root_token, self.namespace)


@pytest.fixture
def reader(openbao_server: OpenBaoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """In a folder with the files that the page speaks of."""
    namespace = f"page-{secrets.token_hex(4)}"
    openbao_server.admin.adapter.post(f"/v1/sys/namespaces/{namespace}")
    for name, value in {
        "BAO_ADDR": openbao_server.url, "BAO_TOKEN": openbao_server.root_token, "BAO_NAMESPACE": namespace,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "application.hcl").write_text(documented_policy("The application"))
    (tmp_path / "operator.hcl").write_text(documented_policy("The operator"))
    (tmp_path / "bao-ca.pem").write_bytes(openbao_server.authority.certificate.read_bytes())
    monkeypatch.chdir(tmp_path)
    return Reader(openbao_server, namespace)


def test_the_commands_of_the_page_run_from_top_to_bottom(
    reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of the page's blocks does, against a real server, what the page shows."""
    page = list(blocks(TEXT, "docs/kms/transit.md"))
    assert [block.language for block in page] == ["console", "python", "console", "console"]
    assert {block.not_run for block in page} == {HERE}
    with page_module("page_transit") as module:
        for block in page:
            if block.language == "console":
                run_console(block, tmp_path)
            else:
                run_python(_with_this_server(block, reader, tmp_path), module)
    assert capsys.readouterr().out.startswith("transit key fieldvault version 1, mount transit, at https://")


def test_the_section_of_the_page_opens_a_vault(reader: Reader, tmp_path: Path) -> None:
    """With this server's address, and the role of its AppRole."""
    admin = reader.admin()
    admin.sys.enable_secrets_engine("transit")
    admin.secrets.transit.create_key("fieldvault", derived=True)
    admin.sys.create_or_update_policy("application", documented_policy("The application"))
    admin.sys.enable_auth_method("approle")
    admin.auth.approle.create_or_update_approle("shop", token_policies=["application"])
    role_id = admin.auth.approle.read_role_id("shop")["data"]["role_id"]
    secret_id = admin.auth.approle.generate_secret_id("shop")["data"]["secret_id"]
    (tmp_path / "secret-id").write_text(secret_id)
    (section,) = re.findall(r"^~~~toml\n(.*?)^~~~$", TEXT, re.DOTALL | re.MULTILINE)
    for shown, here in {
        'url = "https://bao.example.com:8200"': f'url = "{reader.server.tls_url}"\n'
        f'namespace = "{reader.namespace}"',
        'role_id = "shop"': f'role_id = "{role_id}"',
    }.items():
        assert shown in section
        section = section.replace(shown, here)
    (tmp_path / "fieldvault.toml").write_text(f'{section}\n[key_store]\ntype = "memory"\n')
    with Vault.open(tmp_path / "fieldvault.toml") as vault:
        sealed = vault.encrypt("ann", field="customers.name", tenant="acme")
        assert vault.decrypt(sealed, field="customers.name", tenant="acme") == "ann"


def _with_this_server(block: Block, reader: Reader, folder: Path) -> Block:
    admin = reader.admin()
    role_id = admin.auth.approle.read_role_id("shop")["data"]["role_id"]
    made = admin.auth.approle.generate_secret_id("shop")
    (folder / "secret-id").write_text(made["data"]["secret_id"])
    code = block.code
    for shown, here in {
        '"https://bao.example.com:8200",': f'"{reader.server.tls_url}", namespace="{reader.namespace}",',
        "shop-role-id": role_id,
    }.items():
        assert shown in code
        code = code.replace(shown, here)
    return dataclasses.replace(block, code=code)


def _capabilities(tenancy: Tenancy, token: str) -> set[tuple[str, str]]:
    """All that a token may do under the mount's paths, and under some that are nobody's business."""
    key = tenancy.key
    verbs = ("encrypt", "decrypt", "rewrap", "datakey/plaintext", "sign", "hmac", "export/encryption-key")
    paths = [f"transit/{verb}/{name}" for verb in verbs for name in (key, f"{key}-acme", "other")]
    parts = ("", "/rotate", "/config", "/trim", "/soft-delete")
    paths += [f"transit/keys/{name}{part}" for part in parts for name in (key, f"{key}-acme", "other")]
    paths += [
        "transit/keys",
        f"transit/backup/{key}",
        "transit/config/keys",
        "sys/mounts/transit",
        "sys/policy",
    ]
    client = tenancy.server.client(token)
    allowed = client.sys.get_capabilities(paths=paths)["data"]
    return {
        (path.replace(key, "fieldvault"), capability)
        for path in paths
        for capability in allowed[path]
        if capability != "deny"
    }


POLICIES = {
    "The application": {("transit/encrypt/fieldvault", "update"), ("transit/decrypt/fieldvault", "update")},
    "The operator": {
        ("transit/keys/fieldvault", "read"),
        ("transit/keys/fieldvault/rotate", "update"),
        ("transit/rewrap/fieldvault", "update"),
    },
    "A key a tenant": {
        ("transit/encrypt/fieldvault", "update"),
        ("transit/decrypt/fieldvault", "update"),
        ("transit/encrypt/fieldvault-acme", "update"),
        ("transit/decrypt/fieldvault-acme", "update"),
    },
    "Beginning a tenant": {
        (f"transit/keys/fieldvault-acme{part}", "update")
        for part in ("", "/rotate", "/config", "/trim", "/soft-delete")
    },
    "Ending a tenant": {
        (f"transit/keys/fieldvault-acme{part}", capability)
        for part in ("", "/rotate", "/config", "/trim", "/soft-delete")
        for capability in ("update", "delete")
    },
}


@pytest.mark.parametrize("title", POLICIES)
def test_a_policy_allows_this_and_nothing_else(tenancy: Tenancy, title: str) -> None:
    """As the server understands the very text of the page."""
    assert _capabilities(tenancy, tenancy.token(title)) == POLICIES[title]


def test_the_application_can_do_its_work_and_no_other(tenancy: Tenancy, open_kms: Open) -> None:
    """Wrap, unwrap and check; not rotate, rewrap or delete, nor use another key."""
    kms = open_kms()
    wrapped = kms.wrap(KEY, context=CONTEXT)
    assert kms.unwrap(wrapped, context=CONTEXT) == KEY
    kms.check()
    other = f"{tenancy.key}-other"
    tenancy.create(other)
    stranger = open_kms(key=other)
    for forbidden in (
        kms.rotate_root_key,
        lambda: kms.rewrap_many([WrappedKey(wrapped, CONTEXT)]),
        lambda: kms.destroy_tenant_key("acme"),
        lambda: stranger.wrap(KEY, context=CONTEXT),
        lambda: stranger.unwrap(wrapped, context=CONTEXT),
    ):
        with pytest.raises(KMSDenied, match="permission denied"):
            forbidden()


def test_the_operator_can_rotate_and_rewrap_and_not_read(tenancy: Tenancy, open_kms: Open) -> None:
    """No key comes out."""
    wrapped = open_kms().wrap(KEY, context=CONTEXT)
    operator = open_kms(token=tenancy.token("The operator"))
    assert operator.rotate_root_key() == 2
    assert operator.version_of(_bytes(operator.rewrap_many([WrappedKey(wrapped, CONTEXT)])[0])) == 2
    calls: tuple[Callable[[], object], ...] = (
        lambda: operator.unwrap(wrapped, context=CONTEXT),
        lambda: operator.wrap(KEY, context=CONTEXT),
    )
    for forbidden in calls:
        with pytest.raises(KMSDenied, match="permission denied"):
            forbidden()


def _bytes(answer: object) -> bytes:
    assert isinstance(answer, bytes)
    return answer


def test_the_audit_log_shows_who_asked_and_neither_keys_nor_contexts(
    tenancy: Tenancy, open_kms: Open
) -> None:
    """Path, time and address are there; token, keys, contexts and ciphertexts are HMACs."""
    token = tenancy.token()
    kms = open_kms(token=token)
    before = tenancy.server.audit_mark()
    wrapped = kms.wrap(KEY, context=CONTEXT)
    kms.unwrap(wrapped, context=CONTEXT)
    entries = tenancy.server.audited(before)
    log = json.dumps(entries)
    for hidden in (KEY, encode_context(CONTEXT), wrapped[5:]):
        assert base64.b64encode(hidden).decode() not in log
    assert token not in log
    assert "acme" not in log
    last = entries[-1]
    assert last["request"]["path"] == f"transit/decrypt/{tenancy.key}"
    assert last["request"]["remote_address"] == "127.0.0.1"
    assert last["auth"]["accessor"].startswith("hmac-sha256:")
    (item,) = last["request"]["data"]["batch_input"]
    assert {name: value.split(":")[0] for name, value in item.items()} == {
        "ciphertext": "hmac-sha256", "context": "hmac-sha256",
    }  # fmt: skip
    assert last["response"]["data"]["batch_results"][0]["plaintext"].startswith("hmac-sha256:")


def test_the_requests_are_as_many_as_the_page_says(tenancy: Tenancy, open_kms: Open) -> None:
    """Three for the first key that a process wraps, two of which fail on purpose; then two a key."""
    kms = open_kms()
    kms.unwrap_many([WrappedKey(bytes([1, 0, 0, 0, 1]) + bytes(60), CONTEXT)])
    counts = []
    for _ in range(2):
        before = tenancy.server.audit_mark()
        kms.wrap(KEY, context=CONTEXT)
        entries = tenancy.server.audited(before)
        failed = [
            entry
            for entry in entries
            if entry["type"] == "response" and entry["response"]["data"].get("http_status_code") == 400
        ]
        counts.append((sum(entry["type"] == "request" for entry in entries), len(failed)))
    assert counts == [(3, 2), (2, 0)]
    assert "two requests a new key, three for the first one of a process" in " ".join(TEXT.split())
    assert "should let two a process pass" in TEXT


def test_the_arithmetic_of_the_page_is_right() -> None:
    """With the defaults that the page names."""
    said = re.search(
        r"With ([\d,]+) tenants, (\d+) processes and the defaults of (\d+) s and ([\d.]+): "
        r"([\d,]+), or (\d+) a second",
        " ".join(TEXT.split()),
    )
    assert said is not None
    tenants, processes, ttl, ahead, keys, rate = (float(each.replace(",", "")) for each in said.groups())
    assert (ttl, ahead) == (CachePolicy().ttl, CachePolicy().refresh_ahead)
    a_day = tenants * processes * 2 * 86_400 / (ttl * (1 - ahead))
    assert (round(a_day), round(a_day / 86_400)) == (keys, rate)
    assert f"at most {MAX_ITEMS} keys" in TEXT
    assert -(-1000 // MAX_ITEMS) == 5
    assert "is five requests" in TEXT

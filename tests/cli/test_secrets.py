"""No command prints a key, wrapped or not, a passphrase or a plaintext."""

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fieldvault import Vault
from fieldvault.keys.material import LocalWrapper, unwrap_records
from fieldvault.kms import rootfile
from fieldvault.secret import Secret
from tests.cli.calling import Answer, call, records

PASSPHRASE = "staple battery"
PLAINTEXT = "plaintext of a customer"


def forms(secret: bytes) -> Iterator[str]:
    """Yield the ways in which bytes get printed."""
    yield secret.hex()
    yield secret.hex(" ")
    yield base64.b64encode(secret).decode().rstrip("=")
    yield base64.urlsafe_b64encode(secret).decode().rstrip("=")
    yield repr(secret)[2:-1]
    yield str(list(secret))[1:-1]


def keys_of(tenant: str) -> Iterator[bytes]:
    """Yield what a tenant's keys must not show: each one wrapped and bare."""
    found = records(tenant)
    with Vault.open("fieldvault.toml") as vault:
        bare = unwrap_records(vault.kms, [each for each in found if each.parent is None and each.wrapped])
    for record in found:
        if record.wrapped is not None:
            yield record.wrapped
            parent = bare.get(record.parent or record.key_id)
            assert isinstance(parent, Secret)
            yield (
                parent if record.parent is None else LocalWrapper(parent, record.parent).open(record)
            ).reveal()


def answers() -> Iterator[Answer]:
    """Call every command in every way, with success and without."""
    ways = [
        ("status",),
        ("doctor",),
        ("tenants",),
        ("keys", "acme", "--subjects"),
        ("keys", "nobody"),
        ("rotate", "acme"),
        ("rotate", "--all"),
        ("init",),
        ("shred", "acme", "--reason", "r"),
        ("shred", "acme", "--subject", "ann", "--reason", "r", "--yes"),
        ("completion", "bash"),
    ]
    for way, json in itertools.product(ways, ((), ("--json",))):
        yield call(*way, *json)


def test_nothing_that_is_printed_is_a_key(vault_folder: Path) -> None:
    """Of all commands: no root key, no data key, no wrapped one, and nothing that was encrypted."""
    with Vault.open("fieldvault.toml") as vault:
        blob = vault.encrypt(PLAINTEXT, field="a.b", tenant="acme")
        vault.encrypt(PLAINTEXT, field="a.b", tenant="acme", subject="ann")
    secrets = [
        *keys_of("acme"),
        *(each.key.reveal() for each in rootfile.read(vault_folder / "root.keys", None)[0]),
    ]
    printed = list(answers())
    secrets += keys_of("acme")
    assert {answer.code for answer in printed} == {0, 6, 7}
    everything = "".join(answer.out + answer.err for answer in printed)
    assert len(everything) > 5_000
    assert len(secrets) > 10
    assert PLAINTEXT not in everything
    for secret in (blob, *secrets):
        assert not [form for form in forms(secret) if form in everything]


def test_no_passphrase_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the right one nor a wrong one."""
    monkeypatch.setenv("WORDS", PASSPHRASE)
    printed = [call("init", "--passphrase-env", "WORDS"), call("status", "--json")]
    monkeypatch.setenv("WORDS", "another guess")
    printed += [call("status"), call("doctor", "--json")]
    (folder / "fieldvault.toml").write_text(f'[kms]\ntype = "local"\npassphrase = "{PASSPHRASE}"\n')
    printed += [call("status"), call("doctor")]
    assert [answer.code for answer in printed] == [0, 0, 4, 1, 3, 1]
    everything = "".join(answer.out + answer.err for answer in printed)
    for passphrase in (PASSPHRASE, "another guess"):
        assert not [form for form in (passphrase, *forms(passphrase.encode())) if form in everything]


@pytest.mark.usefixtures("folder")
def test_a_database_password_is_not_printed(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the key store answers nor where nobody listens."""
    url = make_url(postgresql_url)
    monkeypatch.setenv("KEYS_URL", url.set(password="hunter2").render_as_string(hide_password=False))
    printed = [call("init", "--key-store-env", "KEYS_URL"), call("status"), call("doctor", "--json")]
    assert [answer.code for answer in printed] == [0, 0, 0]
    monkeypatch.setenv("KEYS_URL", "postgresql+psycopg://someone:hunter2@127.0.0.1:1/none")
    printed += [call("status"), call("doctor"), call("doctor", "--json")]
    assert [answer.code for answer in printed[3:]] == [5, 1, 1]
    assert "hunter2" not in "".join(answer.out + answer.err for answer in printed)

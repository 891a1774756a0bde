"""Rewrapping: after the root key was replaced, each wrapped key once, inside AWS KMS where that may be."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fieldvault import Vault
from fieldvault.errors import KMSDenied, KMSError
from fieldvault.keys.protocols import Rewrapping
from fieldvault.kms import AWSKMS
from fieldvault.kms.aws.failures import OPERATIONS
from tests.cli.calling import call
from tests.kms.aws.conftest import RootKey, User, new_key
from tests.servers.moto import REGION, MotoServer

CONTEXT = {"tenant": "acme", "purpose": "data", "key_id": "00" * 16}
KEY = bytes(range(32))


def _asked(kms: AWSKMS) -> list[tuple[str, Mapping[str, Any]]]:
    """What it asks of the service from now on."""
    asked: list[tuple[str, Mapping[str, Any]]] = []

    def look(model: Any, params: Mapping[str, Any], **_: object) -> None:
        asked.append((model.name, params))

    kms._clients.get().meta.events.register("before-parameter-build.kms", look)
    return asked


@pytest.fixture
def repointed(root_key: RootKey) -> Iterator[tuple[AWSKMS, bytes]]:
    """A KMS whose alias was pointed at another key, and what the former key wrapped."""
    before = root_key.open()
    wrapped = before.wrap(KEY, context=CONTEXT)
    before.close()
    _point_elsewhere(root_key)
    kms = root_key.open(previous=[root_key.arn], grant_tokens=["token"])
    yield kms, wrapped
    kms.close()


def _point_elsewhere(root_key: RootKey) -> None:
    successor = new_key(root_key.server)
    root_key.server.client("kms").update_alias(AliasName=root_key.alias, TargetKeyId=successor.key_id)


def test_what_the_former_key_wrapped_is_not_current_until_it_is_rewrapped(
    repointed: tuple[AWSKMS, bytes], root_key: RootKey
) -> None:
    """Then it opens without the former key."""
    kms, wrapped = repointed
    assert isinstance(kms, Rewrapping)
    assert kms.is_current(wrapped, context=CONTEXT) is False
    again = kms.rewrap(wrapped, context=CONTEXT)
    assert kms.is_current(again, context=CONTEXT) is True
    alone = root_key.open()
    assert alone.unwrap(again, context=CONTEXT) == KEY
    with pytest.raises(KMSError):
        alone.unwrap(wrapped, context=CONTEXT)


def test_while_the_key_is_exchanged_every_process_opens_what_each_of_them_wraps(root_key: RootKey) -> None:
    """Those that are told to wrap under the new one already, and those that are not yet."""
    new = new_key(root_key.server)
    early, late = root_key.open(previous=[new.alias]), new.open(previous=[root_key.alias])
    for each, other in ((early, late), (late, early)):
        assert other.unwrap(each.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
    assert not late.is_current(early.wrap(KEY, context=CONTEXT), context=CONTEXT)


def test_it_is_rewrapped_inside_aws_kms(repointed: tuple[AWSKMS, bytes], root_key: RootKey) -> None:
    """Both contexts and both keys are named, and no key comes out."""
    kms, wrapped = repointed
    asked = _asked(kms)
    assert kms.rewrap(wrapped, context=CONTEXT)
    ((name, given),) = asked
    assert name == "ReEncrypt"
    assert (given["SourceKeyId"], given["DestinationKeyId"]) == (root_key.arn, root_key.alias)
    assert given["SourceEncryptionContext"] == given["DestinationEncryptionContext"] == CONTEXT
    assert given["GrantTokens"] == ["token"]


def test_a_key_that_is_moved_takes_three_requests(repointed: tuple[AWSKMS, bytes]) -> None:
    """What the page says: one to see that it is due, one to move it, and one to prove it."""
    kms, wrapped = repointed
    asked = _asked(kms)
    _moved(kms, wrapped)
    assert [name for name, _ in asked] == ["Decrypt", "ReEncrypt", "Decrypt"]


def test_who_may_not_reencrypt_unwraps_and_wraps(
    repointed: tuple[AWSKMS, bytes], root_key: RootKey, allowed: Callable[..., AWSKMS]
) -> None:
    """With the application's own rights, in four requests more; with less than those nothing is moved."""
    _, wrapped = repointed
    kms = allowed("kms:Encrypt", "kms:Decrypt")
    asked = _asked(kms)
    with root_key.server.enforcing():  # type: ignore[union-attr]  # it is moto
        _moved(kms, wrapped)
    assert [name for name, _ in asked] == [
        *("Decrypt", "ReEncrypt", "ReEncrypt"),
        *("Decrypt", "Decrypt", "Encrypt", "Decrypt"),
    ]
    kms = allowed("kms:Decrypt")
    with root_key.server.enforcing(), pytest.raises(KMSDenied):  # type: ignore[union-attr]  # as above
        kms.rewrap(wrapped, context=CONTEXT)


def _moved(kms: AWSKMS, wrapped: bytes) -> None:
    """As ``fieldvault rewrap`` does it."""
    assert not kms.is_current(wrapped, context=CONTEXT)
    assert kms.unwrap(kms.rewrap(wrapped, context=CONTEXT), context=CONTEXT) == KEY


def test_a_server_that_cannot_reencrypt_is_asked_to_decrypt_and_encrypt(stateful_key: RootKey) -> None:
    """As MiniStack is."""
    kms = stateful_key.open()
    asked = _asked(kms)
    wrapped = kms.wrap(KEY, context=CONTEXT)
    again = kms.rewrap(wrapped, context=CONTEXT)
    assert [name for name, _ in asked] == ["Encrypt", "ReEncrypt", "Decrypt", "Encrypt"]
    assert kms.unwrap(again, context=CONTEXT) == KEY


def test_a_tenants_keys_move_under_its_own_root_key(root_key: RootKey) -> None:
    """From the one that all tenants shared; another tenant's stay where they are."""
    shared = root_key.open()
    wrapped = shared.wrap(KEY, context=CONTEXT)
    own = root_key.open(tenant_key=f"{root_key.alias}-{{tenant}}", previous=[root_key.arn])
    made = own.tenant_keys().create("acme")
    assert own.is_current(wrapped, context=CONTEXT) is False
    again = own.rewrap(wrapped, context=CONTEXT)
    assert own.is_current(again, context=CONTEXT) is True
    answered = root_key.server.client("kms").decrypt(CiphertextBlob=again, EncryptionContext=CONTEXT)
    assert (answered["KeyId"], answered["Plaintext"]) == (made.arn, KEY)


def test_no_operation_is_called_whose_errors_are_not_looked_at(root_key: RootKey) -> None:
    """And none is looked at in vain."""
    kms = root_key.open(tenant_key=f"{root_key.alias}-{{tenant}}")
    asked = _asked(kms)
    kms.check()
    kms.tenant_keys().create("acme")
    kms.rewrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT)
    kms.tenant_keys().schedule_deletion("acme")
    assert {name for name, _ in asked} == set(OPERATIONS)


@pytest.fixture
def allowed(root_key: RootKey, user: User, moto_server: MotoServer) -> Callable[..., AWSKMS]:
    """Opens the root key, and the former one, as a user who may do these things."""
    iam = moto_server.client("iam")

    def opened(*actions: str) -> AWSKMS:
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=user.name, PolicyName="some", PolicyDocument=document)
        client = moto_server.client(
            "kms", aws_access_key_id=user.access_key, aws_secret_access_key=user.secret
        )
        return AWSKMS(root_key.alias, client, previous=[root_key.arn])

    return opened


def test_the_command_rewraps_each_key_once(
    root_key: RootKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the alias was pointed at another key; then the former one is needed no more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FIELDVAULT_CONFIG", raising=False)
    kms = f'[kms]\ntype = "aws"\nkey = "{root_key.alias}"\nregion = "{REGION}"\n'
    kms += f'endpoint_url = "{root_key.server.url}"\n'
    store = '[key_store]\ntype = "sql"\nurl = "sqlite:///keys.db"\n'
    configuration = Path("fieldvault.toml")
    configuration.write_text(kms + store)
    with Vault.open(configuration) as vault:
        blob = vault.encrypt("ann@example.com", field="customers.email", tenant="acme")
    _point_elsewhere(root_key)
    configuration.write_text(f'{kms}previous = "{root_key.arn}"\n{store}')
    told = [call("rewrap", *options, "--json").document for options in (["--dry-run"], [], [])]
    assert [(len(each["due"]), len(each["rewrapped"]), each["current"]) for each in told] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]
    configuration.write_text(kms + store)
    with Vault.open(configuration) as vault:
        assert vault.decrypt(blob, field="customers.email", tenant="acme") == "ann@example.com"

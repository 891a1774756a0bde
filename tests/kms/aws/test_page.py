"""What docs/kms/aws.md says: its code runs, its policies suffice, and none of their actions is spare."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fieldvault.errors import KMSDenied
from fieldvault.kms import AWSKMS
from tests.docs.pages import ROOT, blocks
from tests.docs.python import page_module, run_python
from tests.kms.aws.conftest import RootKey, User
from tests.servers.ministack import MinistackServer
from tests.servers.moto import MotoServer

TEXT = (ROOT / "docs/kms/aws.md").read_text(encoding="utf-8")
CONTEXT = {"tenant": "acme", "purpose": "data", "key_id": "00" * 16}
KEY = bytes(range(32))


def _policies() -> list[dict[str, Any]]:
    return [json.loads(each) for each in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


def test_the_code_of_the_page_works(
    ministack_server: MinistackServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a server that the SDK is told of by the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack_server.url)
    page = list(blocks(TEXT, "docs/kms/aws.md"))
    with page_module("page_aws") as module:
        for block in page:
            run_python(block, module)
    assert capsys.readouterr().out.startswith("AWS KMS in eu-central-1, key arn:aws:kms:eu-central-1:")


@pytest.fixture
def allow(moto_server: MotoServer, user: User) -> Iterator[Any]:
    """Gives the user the actions of a policy, on every resource: the server knows no other."""
    iam = moto_server.client("iam")

    def put(policy: Mapping[str, Any]) -> None:
        (statement,) = policy["Statement"]
        wide = {"Effect": "Allow", "Action": statement["Action"], "Resource": "*"}
        document = json.dumps({"Version": policy["Version"], "Statement": [wide]})
        iam.put_user_policy(UserName=user.name, PolicyName="page", PolicyDocument=document)

    yield put
    iam.delete_user_policy(UserName=user.name, PolicyName="page")


def _as(server: MotoServer, user: User, alias: str) -> AWSKMS:
    client = server.client("kms", aws_access_key_id=user.access_key, aws_secret_access_key=user.secret)
    return AWSKMS(alias, client, tenant_key=f"{alias}-{{tenant}}")


def test_the_application_needs_these_actions_and_no_others(
    root_key: RootKey, moto_server: MotoServer, user: User, allow: Any
) -> None:
    """With them it does all its work, and nothing of the operator's; without one of them it does not."""
    application, _, operator = _policies()
    assert application["Statement"][0]["Condition"] == {"Null": {"kms:EncryptionContext:purpose": "false"}}
    assert "purpose" in CONTEXT
    shared = {"purpose": "check"}
    kms = _as(moto_server, user, root_key.alias)
    allow(application)
    with moto_server.enforcing():
        wrapped = kms.wrap(KEY, context=shared)
        assert kms.unwrap(wrapped, context=shared) == KEY
        kms.check()
        with pytest.raises(KMSDenied):
            kms.tenant_keys().create("acme")
    for missing in application["Statement"][0]["Action"]:
        left = [each for each in application["Statement"][0]["Action"] if each != missing]
        allow({**application, "Statement": [{"Action": left}]})
        with moto_server.enforcing(), pytest.raises(KMSDenied):
            kms.check()
    allow(operator)
    with moto_server.enforcing():
        made = kms.tenant_keys().create("acme")
        assert kms.tenant_keys().schedule_deletion("acme", days=7).arn == made.arn
        with pytest.raises(KMSDenied):
            kms.check()
    for missing in operator["Statement"][0]["Action"]:
        left = [each for each in operator["Statement"][0]["Action"] if each != missing]
        allow({**operator, "Statement": [{"Action": left}]})
        tenant = missing.partition(":")[2].lower()
        with moto_server.enforcing(), pytest.raises(KMSDenied):
            _make_and_delete(kms, tenant)


def test_who_rewraps_needs_these_actions_and_no_others(
    root_key: RootKey, moto_server: MotoServer, user: User, allow: Any
) -> None:
    """The application's right to encrypt is not among them."""
    _, rewrapping, _ = _policies()
    assert rewrapping["Statement"][0]["Condition"] == {"Null": {"kms:EncryptionContext:purpose": "false"}}
    client = moto_server.client("kms", aws_access_key_id=user.access_key, aws_secret_access_key=user.secret)
    kms, wrapped = AWSKMS(root_key.alias, client), root_key.open().wrap(KEY, context=CONTEXT)
    allow(rewrapping)
    with moto_server.enforcing():
        assert kms.is_current(wrapped, context=CONTEXT)
        assert kms.unwrap(kms.rewrap(wrapped, context=CONTEXT), context=CONTEXT) == KEY
        with pytest.raises(KMSDenied):
            kms.wrap(KEY, context=CONTEXT)
    for missing in rewrapping["Statement"][0]["Action"]:
        left = [each for each in rewrapping["Statement"][0]["Action"] if each != missing]
        allow({**rewrapping, "Statement": [{"Action": left}]})
        with moto_server.enforcing(), pytest.raises(KMSDenied):
            kms.unwrap(kms.rewrap(wrapped, context=CONTEXT), context=CONTEXT)


def _make_and_delete(kms: AWSKMS, tenant: str) -> None:
    kms.tenant_keys().create(tenant)
    kms.tenant_keys().schedule_deletion(tenant)

"""Root keys on the two servers, each used for what it gets right."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import pytest

from fieldvault.kms import AWSKMS
from tests.servers.ministack import MinistackServer
from tests.servers.moto import CREDENTIALS, REGION, MotoServer

_NUMBERS = count(1)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the standard chain finds, and nothing of this machine's."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name.upper(), value)


class RootKey(NamedTuple):
    """A root key of a test's own, and where it is."""

    server: MotoServer | MinistackServer
    alias: str
    key_id: str
    arn: str

    def open(self, **options: object) -> AWSKMS:
        """Open it by its alias."""
        given = {"region_name": REGION, "endpoint_url": self.server.url, **options}
        return AWSKMS(self.alias, **given)  # type: ignore[arg-type]


def new_key(server: MotoServer | MinistackServer) -> RootKey:
    """A new root key with an alias of its own."""
    client, alias = server.client("kms"), f"alias/fieldvault-{next(_NUMBERS)}"
    about = client.create_key()["KeyMetadata"]
    client.create_alias(AliasName=alias, TargetKeyId=about["KeyId"])
    return RootKey(server, alias, about["KeyId"], about["Arn"])


@pytest.fixture
def root_key(moto_server: MotoServer) -> RootKey:
    """On moto, which checks associated data and tampering."""
    return new_key(moto_server)


class User(NamedTuple):
    """A user of the account, and an access key of theirs."""

    name: str
    arn: str
    access_key: str
    secret: str


@pytest.fixture
def user(moto_server: MotoServer) -> User:
    """A user with no rights at all."""
    iam, name = moto_server.client("iam"), f"user-{next(_NUMBERS)}"
    arn = iam.create_user(UserName=name)["User"]["Arn"]
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return User(name, arn, made["AccessKeyId"], made["SecretAccessKey"])


@pytest.fixture
def stateful_key(ministack_server: MinistackServer) -> RootKey:
    """On MiniStack, which enforces the states of keys."""
    return new_key(ministack_server)


@pytest.fixture
def kms(root_key: RootKey) -> Iterator[AWSKMS]:
    """The KMS under test, on moto."""
    opened = root_key.open()
    yield opened
    opened.close()

"""Clients: regions, roles, time limits, and what becomes of them in a forked child."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fieldvault.aws.clients import ClientOptions, Clients, blaming_members
from fieldvault.aws.workers import Workers
from fieldvault.errors import ConfigurationError
from fieldvault.settings import Section, Source
from fieldvault.testing.samples import in_a_fork
from tests.servers.moto import CREDENTIALS, REGION, MotoServer


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No region, no profile, and credentials that the chain finds in the environment."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name.upper(), value)


def test_calls_are_not_repeated_by_the_sdk_and_do_not_wait_long() -> None:
    """Who calls has a deadline; what the SDK did by itself would come on top of it."""
    config = ClientOptions(region_name=REGION).open("kms", 7).meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (1.0, 2.0, 7)


def test_no_region_is_told_when_the_client_is_opened() -> None:
    """Not at the first call."""
    with pytest.raises(ConfigurationError, match="region"):
        ClientOptions().open("kms", 1)
    with pytest.raises(ConfigurationError, match="kms"):
        ClientOptions(region_name=REGION, endpoint_url="no url").open("kms", 1)


@pytest.mark.parametrize(
    ("members", "blamed"),
    [
        ({}, "kms.region cannot be used: no client for AWS kms: You must specify a region"),
        ({"region": "no region!"}, "kms.region cannot be used"),
        ({"region": REGION, "endpoint_url": "no url"}, "kms.endpoint_url cannot be used"),
        ({"region": REGION, "endpoint_url": "http://kms.example"}, "kms.endpoint_url cannot be used"),
        ({"region": REGION, "read_timeout": 0}, "kms.read_timeout cannot be used"),
        ({"region": REGION, "connect_timeout": -1}, "kms.connect_timeout cannot be used"),
    ],
)
def test_a_mistake_is_told_of_the_member_that_is_to_be_mended(
    members: dict[str, object], blamed: str
) -> None:
    """Not of the whole section."""
    section = Section(members, ("kms",), Source("fieldvault.toml", Path(), None))
    with pytest.raises(ConfigurationError) as caught, blaming_members(section):
        Clients("kms", None, ClientOptions.from_config(section), 1)
    assert str(caught.value).startswith(f"fieldvault.toml: {blamed}")


def test_a_profile_that_is_not_there_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no member: it stands in the environment."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    section = Section({"type": "aws"}, ("kms",), Source("fieldvault.toml", Path(), None))
    with (
        pytest.raises(ConfigurationError, match=r"kms\.type .* profile \(nobody\)"),
        blaming_members(section),
    ):
        Clients("kms", None, ClientOptions(region_name=REGION), 1)


def test_the_chain_finds_the_region_and_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's standard one."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert ClientOptions().open("kms", 1).meta.region_name == "eu-west-1"


def test_a_client_that_is_passed_in_is_taken_as_it_is() -> None:
    """Options beside it, or a client of another service, are mistakes."""
    client = ClientOptions(region_name=REGION).open("kms", 1)
    assert Clients("kms", client, ClientOptions(), 1).get() is client
    with pytest.raises(ConfigurationError, match="leave them out"):
        Clients("kms", client, ClientOptions(region_name=REGION), 1)
    with pytest.raises(ConfigurationError, match="one for kms"):
        Clients("dynamodb", client, ClientOptions(), 1)


def test_keys_are_not_shown_to_the_network() -> None:
    """Plain HTTP is for servers of this machine."""
    for shown in ("http://kms.example.com", "http://127.0.0.1.example.com:80"):
        with pytest.raises(ConfigurationError, match="not https"):
            Clients("kms", None, ClientOptions(region_name=REGION, endpoint_url=shown), 1)
    for hidden in ("https://kms.example.com", "http://127.0.0.1:4566", "http://localhost:4566"):
        Clients("kms", None, ClientOptions(region_name=REGION, endpoint_url=hidden), 1)


@pytest.fixture
def role(moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role that anyone may assume, and the token service where it is assumed."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_server.url)
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}],
    }
    made = moto_server.client("iam").create_role(
        RoleName="fieldvault-test", AssumeRolePolicyDocument=json.dumps(trust)
    )
    arn: str = made["Role"]["Arn"]
    yield arn
    moto_server.client("iam").delete_role(RoleName="fieldvault-test")


def _identity(client: Any) -> str:
    return str(client.get_caller_identity()["Arn"])


def test_a_role_is_assumed_and_assumed_again_before_it_expires(moto_server: MotoServer, role: str) -> None:
    """By credentials that renew themselves."""
    options = ClientOptions(
        region_name=REGION, endpoint_url=moto_server.url, role_arn=role, external_id="shop"
    )
    client = options.open("sts", 1)
    assert ":assumed-role/fieldvault-test/fieldvault" in _identity(client)
    credentials = client._request_signer._credentials
    first = credentials.get_frozen_credentials().access_key
    assert credentials.get_frozen_credentials().access_key == first
    soon = datetime.now(UTC) + timedelta(minutes=1)
    for kept in credentials._refresh_using.__self__._cache.values():
        kept["Credentials"]["Expiration"] = soon.isoformat()
    credentials._expiry_time = soon
    assert ":assumed-role/fieldvault-test/fieldvault" in _identity(client)
    assert credentials.get_frozen_credentials().access_key != first


def test_without_a_role_it_is_the_chains_identity(moto_server: MotoServer) -> None:
    """As it was found."""
    client = ClientOptions(region_name=REGION, endpoint_url=moto_server.url).open("sts", 1)
    assert "assumed-role" not in _identity(client)


def test_a_forked_child_opens_a_client_of_its_own() -> None:
    """The parent's stays as it is."""
    clients = Clients("kms", None, ClientOptions(region_name=REGION), 1)
    before = clients.get()

    def child() -> None:
        assert clients.get() is not before

    in_a_fork(child)
    assert clients.get() is before


def test_a_forked_child_starts_threads_of_its_own() -> None:
    """The parent's are not there; a task given to them would never be done."""
    workers = Workers(2, "test")
    numbers = list(range(20))
    assert workers.map(str, numbers) == list(map(str, numbers))

    def child() -> None:
        assert workers.map(str, numbers) == list(map(str, numbers))
        workers.close()

    in_a_fork(child)
    workers.close()
    workers.close()
    assert workers.map(str, numbers) == list(map(str, numbers))
    workers.close()

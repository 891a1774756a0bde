"""Who is throttled slows down, and nobody waits long for his turn."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import CapacityNotAvailableError, ClientError

from fieldvault import CachePolicy, Vault
from fieldvault.aws.clients import ClientOptions
from fieldvault.errors import KMSUnavailable
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import AWSKMS
from tests.servers.moto import CREDENTIALS, REGION, MotoServer
from tests.servers.proxy import Answer, Proxy

THROTTLED = Answer(400, b'{"__type":"ThrottlingException","message":"Rate exceeded"}')
FIELD = "customers.email"
BOUND = 12.0
"""Seconds that nobody waits, even on a slow machine; without a bound it was more than a minute."""


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the chain finds in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name.upper(), value)


@pytest.fixture
def proxy(moto_server: MotoServer) -> Iterator[Proxy]:
    """Between the client and moto."""
    with closing(Proxy(moto_server.port)) as proxy:
        yield proxy


def _root_key(server: MotoServer) -> str:
    return str(server.client("kms").create_key()["KeyMetadata"]["Arn"])


def test_a_turn_that_is_too_far_off_is_refused_and_comes_when_the_service_recovers(
    moto_server: MotoServer, proxy: Proxy
) -> None:
    """The SDK's own limiter would have each of these calls wait two seconds for the one before it."""
    key = _root_key(moto_server)
    client: Any = ClientOptions(region_name=REGION, endpoint_url=proxy.url).open("kms", 4)
    with proxy.meeting(THROTTLED):
        with pytest.raises(ClientError, match="Throttling"):
            client.describe_key(KeyId=key)
        begun = time.monotonic()
        met = []
        for _ in range(6):
            with pytest.raises((CapacityNotAvailableError, ClientError)) as raised:
                client.describe_key(KeyId=key)
            met.append(raised.type)
        assert met.count(CapacityNotAvailableError) >= 3
        assert time.monotonic() - begun < BOUND
    deadline = time.monotonic() + 60
    while True:
        try:
            assert client.describe_key(KeyId=key)["KeyMetadata"]["Arn"] == key
            break
        except CapacityNotAvailableError:
            assert time.monotonic() < deadline, "never let in again"


def test_a_page_of_cold_tenants_and_a_key_in_use_under_endless_throttling(
    moto_server: MotoServer, proxy: Proxy
) -> None:
    """The page is told of the outage within the deadline and some; the key in use is served; closing ends."""
    key, store = _root_key(moto_server), MemoryKeyStore()
    tenants = [f"tenant {number}" for number in range(60)]
    with Vault(kms=AWSKMS(key, region_name=REGION, endpoint_url=moto_server.url), key_store=store) as vault:
        blobs = {tenant: vault.encrypt("x", field=FIELD, tenant=tenant) for tenant in tenants}
    kms = AWSKMS(key, region_name=REGION, endpoint_url=proxy.url)
    vault = Vault(kms=kms, key_store=store, cache=CachePolicy(lease=1))
    hot = blobs.pop("tenant 0")
    assert vault.decrypt(hot, field=FIELD, tenant="tenant 0") == "x"
    with proxy.meeting(THROTTLED):
        begun = time.monotonic()
        failed = vault.prefetch(list(blobs))
        assert failed.keys() == blobs.keys()
        assert all(isinstance(error, KMSUnavailable) for error in failed.values())
        page = time.monotonic()
        assert page - begun < BOUND
        # By now its permission has to be proved anew, which the throttled service does not do.
        while time.monotonic() < begun + 3:
            assert vault.decrypt(hot, field=FIELD, tenant="tenant 0") == "x"
        assert time.monotonic() - max(page, begun + 3) < BOUND
        begun = time.monotonic()
        vault.close()
        assert time.monotonic() - begun < BOUND

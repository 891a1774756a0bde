"""``AWSKMS``: calls side by side, keys that take over, grants, logs, and a tenant's own root key."""

import base64
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from fieldvault.errors import (
    ConfigurationError,
    KMSDenied,
    KMSError,
    KMSKeyDisabled,
    KMSUnavailable,
)
from fieldvault.keys.protocols import NotAsked, RootKeyRotation, WrappedKey
from fieldvault.kms import AWSKMS
from fieldvault.kms.aws.failures import Unreachable
from fieldvault.settings import Section, Source
from fieldvault.testing.samples import told_by
from tests.kms.aws.conftest import RootKey, User, new_key
from tests.servers.moto import REGION, MotoServer
from tests.servers.tcp import LOOPBACK, free_port

CONTEXT = {"tenant": "acme", "purpose": "data"}
KEY = bytes(range(32))


def _client(kms: AWSKMS) -> Any:
    return kms._clients.get()


def test_sixteen_keys_are_unwrapped_side_by_side(kms: AWSKMS) -> None:
    """No call returns before sixteen are on their way, and the answers are in order all the same."""
    keys = [os.urandom(32) for _ in range(48)]
    items = [WrappedKey(kms.wrap(key, context=CONTEXT), CONTEXT) for key in keys]
    together = threading.Barrier(16)

    def meet(**_: object) -> None:
        together.wait(timeout=30)

    _client(kms).meta.events.register("before-send.kms.Decrypt", meet)
    assert list(kms.unwrap_many(items)) == keys


def test_the_pool_holds_a_connection_for_each_call() -> None:
    """Else calls side by side would open and close one each time."""
    kms = AWSKMS("alias/fieldvault", region_name=REGION, parallel=40)
    assert _client(kms).meta.config.max_pool_connections == 40
    with pytest.raises(ConfigurationError, match="parallel"):
        AWSKMS("alias/fieldvault", region_name=REGION, parallel=0)


def test_nobody_waits_for_each_item_of_a_server_that_does_not_answer(kms: AWSKMS, root_key: RootKey) -> None:
    """Those that were not asked for yet are given up with the first."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    impatient = root_key.open(parallel=4, read_timeout=0.3)
    begun = time.monotonic()
    with root_key.server.stopped():
        answers = impatient.unwrap_many([WrappedKey(wrapped, CONTEXT)] * 200)
    assert {type(answer) for answer in answers} == {Unreachable, NotAsked}
    assert sum(type(answer) is NotAsked for answer in answers) >= 100
    assert time.monotonic() - begun < 200 / 4 * 0.3
    impatient.close()


def test_a_server_that_is_not_there_is_an_outage() -> None:
    """Connection refused."""
    kms = AWSKMS("alias/x", region_name=REGION, endpoint_url=f"http://{LOOPBACK}:{free_port()}")
    with pytest.raises(KMSUnavailable, match="EndpointConnectionError"):
        kms.wrap(KEY, context=CONTEXT)


def test_the_region_is_that_of_the_arn(root_key: RootKey) -> None:
    """Nobody has to say it twice; saying another one is a mistake."""
    kms = AWSKMS(root_key.arn, endpoint_url=root_key.server.url)
    assert kms.check() == f"AWS KMS in {REGION}, key {root_key.arn}"
    with pytest.raises(ConfigurationError, match="multi-region"):
        AWSKMS(root_key.arn, region_name="us-east-1")


def test_a_client_can_be_shared(root_key: RootKey) -> None:
    """It stays open when the KMS is closed."""
    client = root_key.server.client("kms")
    kms = AWSKMS(root_key.alias, client)
    wrapped = kms.wrap(KEY, context=CONTEXT)
    kms.close()
    assert client.decrypt(CiphertextBlob=wrapped, EncryptionContext=CONTEXT)["Plaintext"] == KEY


def test_decrypt_names_the_key(kms: AWSKMS, root_key: RootKey) -> None:
    """So a blob that a stranger's key wrapped is not opened, though this caller may use that key too."""
    stranger = new_key(root_key.server)
    foreign = stranger.open().wrap(KEY, context=CONTEXT)
    with pytest.raises(KMSError):
        kms.unwrap(foreign, context=CONTEXT)
    asked: list[Mapping[str, Any]] = []

    def look(params: Mapping[str, Any], **_: object) -> None:
        asked.append(params)

    _client(kms).meta.events.register("before-parameter-build.kms.Decrypt", look)
    kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT)
    assert asked[0]["KeyId"] == root_key.alias


def test_a_key_takes_over_from_a_previous_one(root_key: RootKey) -> None:
    """What either wrapped is opened, until all is rewrapped; a third key's is not."""
    new, other = new_key(root_key.server), new_key(root_key.server)
    both = new.open(previous=[root_key.arn])
    for each in (root_key, new):
        assert both.unwrap(each.open().wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
    with pytest.raises(KMSError):
        both.unwrap(other.open().wrap(KEY, context=CONTEXT), context=CONTEXT)
    with pytest.raises(KMSError):
        root_key.open().unwrap(both.wrap(KEY, context=CONTEXT), context=CONTEXT)


def test_a_root_key_is_named_where_it_is_known(root_key: RootKey) -> None:
    """By tenant where each has its own; with previous ones each wrapped key stands for itself."""
    other = {**CONTEXT, "tenant": "globex"}
    alone = root_key.open()
    assert alone.root_key_of(b"a", context=CONTEXT) == alone.root_key_of(b"b", context=other)
    own = root_key.open(tenant_key="alias/own-{tenant}")
    assert own.root_key_of(b"a", context=CONTEXT) == own.root_key_of(b"b", context=CONTEXT)
    assert own.root_key_of(b"a", context=CONTEXT) != own.root_key_of(b"a", context=other)
    former = root_key.open(previous=["alias/former"])
    assert former.root_key_of(b"a", context=CONTEXT) != former.root_key_of(b"b", context=CONTEXT)
    assert former.root_key_of(b"a", context=CONTEXT) == former.root_key_of(b"a", context=CONTEXT)


def test_an_outage_is_not_asked_about_under_the_previous_key(root_key: RootKey) -> None:
    """It would only take as long again."""
    kms = root_key.open(previous=["alias/a", "alias/b"], endpoint_url=f"http://{LOOPBACK}:{free_port()}")
    sent: list[object] = []

    def look(**_: object) -> None:
        sent.append(1)

    _client(kms).meta.events.register("before-send.kms.Decrypt", look)
    with pytest.raises(KMSUnavailable):
        kms.unwrap(b"wrapped", context=CONTEXT)
    assert len(sent) == 1


def test_grant_tokens_go_along(root_key: RootKey) -> None:
    """With each call that uses the key, for as long as a grant is not everywhere yet."""
    kms = root_key.open(grant_tokens=["token"])
    asked: list[Mapping[str, Any]] = []

    def look(params: Mapping[str, Any], **_: object) -> None:
        asked.append(params)

    _client(kms).meta.events.register("before-parameter-build.kms", look)
    kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT)
    assert [each["GrantTokens"] for each in asked] == [["token"], ["token"]]


def test_a_context_that_is_too_long_is_refused_before_it_is_sent(kms: AWSKMS) -> None:
    """Contexts of the vault are far from it."""
    long = {"tenant": "x" * 8_192}
    with pytest.raises(ConfigurationError, match="8192"):
        kms.wrap(KEY, context=long)
    with pytest.raises(KMSError):
        kms.unwrap(b"wrapped", context=long)
    with pytest.raises(ConfigurationError, match="32 bytes"):
        kms.wrap(KEY[:-1], context=CONTEXT)


def test_the_sdks_debug_log_holds_no_key(kms: AWSKMS, caplog: pytest.LogCaptureFixture) -> None:
    """By itself it logs each request and each answer whole."""
    with caplog.at_level(logging.DEBUG):
        assert kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
    assert "botocore" in caplog.text
    for shown in (base64.b64encode(KEY).decode(), repr(KEY)[2:-1], KEY.hex()):
        assert shown not in caplog.text


@pytest.mark.parametrize(
    "body", [b"{}", b"no json", b'{"Plaintext": "AAAA"}', b'{"Plaintext": 7}', b'{"Plaintext": "!"}', b"[]"]
)
def test_an_answer_that_makes_no_sense_is_no_key(kms: AWSKMS, body: bytes) -> None:
    """It is an error of its own, and no outage."""
    wrapped = kms.wrap(KEY, context=CONTEXT)

    def answer(**_: object) -> object:
        from botocore.awsrequest import AWSResponse

        class Raw:
            def stream(self, **_: object) -> list[bytes]:
                return [body]

        return AWSResponse("http://kms", 200, {}, Raw())

    _client(kms).meta.events.register("before-send.kms.Decrypt", answer)
    with pytest.raises(KMSError, match="no sense") as caught:
        kms.unwrap(wrapped, context=CONTEXT)
    assert type(caught.value) is KMSError
    assert all("!" not in text for text in told_by(caught.value))


def test_credentials_that_are_not_there_are_a_denial(
    root_key: RootKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told at the first call: the chain looks for them then."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(KMSDenied, match="NoCredentialsError"):
        root_key.open().check()


def test_the_root_key_is_not_rotated_from_here() -> None:
    """AWS KMS does it by itself, keeps every version, and tells nobody which one it used."""
    assert not isinstance(AWSKMS("alias/fieldvault", region_name=REGION), RootKeyRotation)


def test_a_configuration_describes_it(root_key: RootKey) -> None:
    """And a mistake in it is told with its place."""
    members = {
        "key": root_key.alias,
        "previous": "alias/old",
        "region": REGION,
        "endpoint_url": root_key.server.url,
        "tenant_key": "alias/fieldvault-{tenant}",
        "parallel": 16,
        "read_timeout": 5,
    }
    kms = AWSKMS.from_config(_section(members))
    assert (
        kms.check() == f"AWS KMS in {REGION}, key {root_key.arn}, tenants' keys alias/fieldvault-{{tenant}}"
    )
    for mistake in (
        {"key": "fieldvault"},
        {"kye": "x"},
        {"parallel": "many"},
        {"parallel": 0},
        {"previous": "old"},
        {"tenant_key": "alias/all-the-same"},
        {"endpoint_url": "http://kms.example"},
        {"region": "us-east-1", "key": root_key.arn},
    ):
        with pytest.raises(ConfigurationError, match=f"kms.{next(iter(mistake))}"):
            AWSKMS.from_config(_section({**members, **mistake}))


def _section(members: Mapping[str, object]) -> Section:
    from pathlib import Path

    return Section(members, ("kms",), Source("the configuration", Path(), None))


# -- a tenant's own root key --------------------------------------------------------------------------------


@pytest.fixture
def own_keys(stateful_key: RootKey) -> AWSKMS:
    """Each tenant under a root key of its own."""
    return stateful_key.open(tenant_key=f"{stateful_key.alias}-{{tenant}}")


def test_a_tenants_own_root_key_wraps_its_keys(own_keys: AWSKMS, stateful_key: RootKey) -> None:
    """It has to be made before, and making it twice makes one."""
    keys = own_keys.tenant_keys()
    assert keys.find("acme") is None
    with pytest.raises(KMSKeyDisabled, match=r"its first value: tenant_keys\(\)\.create\(tenant\)"):
        own_keys.wrap(KEY, context=CONTEXT)
    made = keys.create("acme")
    assert keys.create("acme") == keys.find("acme") == made
    assert made.alias == f"{stateful_key.alias}-acme"
    assert own_keys.unwrap(own_keys.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
    answered = stateful_key.server.client("kms").decrypt(
        CiphertextBlob=own_keys.wrap(KEY, context=CONTEXT), EncryptionContext=CONTEXT
    )
    assert answered["KeyId"] == made.arn


def test_a_tenants_own_root_key_goes_without_the_others(own_keys: AWSKMS) -> None:
    """From the day on which its deletion is scheduled; that day stays when it is asked for again."""
    keys, other = own_keys.tenant_keys(), {**CONTEXT, "tenant": "globex"}
    keys.create("acme")
    keys.create("globex")
    wrapped, kept = own_keys.wrap(KEY, context=CONTEXT), own_keys.wrap(KEY, context=other)
    with pytest.raises(ConfigurationError, match="7 to 30"):
        keys.schedule_deletion("acme", days=6)
    scheduled = keys.schedule_deletion("acme", days=7)
    assert scheduled.deleted_at is not None
    assert keys.schedule_deletion("acme", days=30) == keys.find("acme") == scheduled
    with pytest.raises(KMSKeyDisabled):
        own_keys.unwrap(wrapped, context=CONTEXT)
    with pytest.raises(KMSKeyDisabled):
        keys.create("acme")
    with pytest.raises(KMSKeyDisabled):
        keys.schedule_deletion("nobody")
    assert own_keys.unwrap(kept, context=other) == KEY


def test_without_a_template_no_tenant_has_a_root_key(kms: AWSKMS) -> None:
    """And nobody can ask for one by mistake."""
    with pytest.raises(ConfigurationError, match="tenant_key"):
        kms.tenant_keys()


def test_who_has_no_policy_is_denied(root_key: RootKey, user: User, moto_server: MotoServer) -> None:
    """An item at a time, and as a whole."""
    wrapped = root_key.open().wrap(KEY, context=CONTEXT)
    with moto_server.enforcing():
        client = moto_server.client(
            "kms", aws_access_key_id=user.access_key, aws_secret_access_key=user.secret
        )
        denied = AWSKMS(root_key.alias, client)
        assert [type(each) for each in denied.unwrap_many([WrappedKey(wrapped, CONTEXT)] * 2)] == [
            KMSDenied
        ] * 2

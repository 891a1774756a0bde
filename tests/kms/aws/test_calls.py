"""Calls of AWS KMS that fail before they are sent: with credentials that have run out already."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials
from botocore.session import get_session

from fieldvault.errors import KeyStoreError, KMSUnavailable
from fieldvault.keys.protocols import NotAsked, WrappedKey
from fieldvault.keystores import DynamoDBKeyStore
from fieldvault.kms import AWSKMS
from tests.servers.moto import REGION
from tests.servers.tcp import LOOPBACK

CONTEXT = {"tenant": "acme"}


def _run_out(asked: list[int]) -> Mapping[str, str]:
    """What a container's service hands out whose cache is old, or whose clock is wrong."""
    asked.append(1)
    at = datetime.now(UTC) - timedelta(seconds=10)
    return {"access_key": "a", "secret_key": "b", "token": "c", "expiry_time": at.isoformat()}


def _client(service: str, asked: list[int]) -> Any:
    session = get_session()
    session._credentials = DeferredRefreshableCredentials(
        refresh_using=partial(_run_out, asked), method="container-role"
    )
    return boto3.Session(botocore_session=session).client(
        service,
        region_name=REGION,
        endpoint_url=f"http://{LOOPBACK}:9",
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_credentials_that_come_expired_are_an_outage() -> None:
    """Whoever hands them out may have better ones in a moment: cached keys serve meanwhile."""
    kms = AWSKMS("alias/fieldvault", _client("kms", []), parallel=1)
    for ask in (partial(kms.wrap, bytes(32)), partial(kms.unwrap, b"x" * 100)):
        with pytest.raises(KMSUnavailable, match="came expired already"):
            ask(context=CONTEXT)
    answers = kms.unwrap_many([WrappedKey(b"x" * 100, CONTEXT)] * 3)
    assert all(isinstance(answer, KMSUnavailable) for answer in answers)
    assert [isinstance(answer, NotAsked) for answer in answers] == [False, True, True]
    kms.close()


def test_the_key_store_is_asked_again_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for any outage, for a while."""
    monkeypatch.setattr("fieldvault.keystores.dynamodb.table._OUTAGE_SECONDS", 0.2)
    asked: list[int] = []
    store = DynamoDBKeyStore("fieldvault-keys", _client("dynamodb", asked))
    with pytest.raises(KeyStoreError, match=f"table fieldvault-keys in {REGION}: .* came expired already"):
        store.generation()
    assert len(asked) > 1
    store.close()

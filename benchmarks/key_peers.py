"""The peers that keep keys for many tenants and ask a KMS for them: the AWS Encryption SDK and Asherah."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contenders import TEXT, Contender, Making, Opened
from benchmarks.peers import library
from benchmarks.servers import Servers

__all__ = ["ASHERAH", "AWS_SDK", "KEY_PEERS", "caching_materials"]

AWS_SDK, ASHERAH = "AWS Encryption SDK, moto", "Asherah, moto"
HOUR = 3_600.0
CAPACITY = 10_000
"""Tenants whose keys are kept, as a vault's cache holds by default."""


def caching_materials(provider: Any, capacity: int) -> Any:
    """The SDK's caching materials manager over a master key, or a provider of them."""
    sdk = library("aws_encryption_sdk")
    cache = sdk.LocalCryptoMaterialsCache(capacity)
    return sdk.CachingCryptoMaterialsManager(master_key_provider=provider, cache=cache, max_age=HOUR)


@contextmanager
def _sdk(arn: str, requests: Callable[[], int]) -> Iterator[Opened]:
    sdk = library("aws_encryption_sdk")
    client = sdk.EncryptionSDKClient()
    manager = caching_materials(sdk.StrictAwsKmsMasterKeyProvider(key_ids=[arn]), CAPACITY)
    # Without a signature for each message, which the default suite adds and costs far more than all the rest.
    suite = sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def seal(tenant: str) -> Any:
        context = {"tenant": tenant}
        return client.encrypt(
            source=TEXT, materials_manager=manager, encryption_context=context, algorithm=suite
        )[0]

    def open_(tenant: str, blob: Any) -> str:
        text, header = client.decrypt(source=blob, materials_manager=manager)
        if header.encryption_context["tenant"] != tenant:
            raise AssertionError("a value of another tenant")
        return str(text.decode())

    yield Opened(seal, open_, requests)


def _aws_sdk(servers: Servers, _: ExitStack) -> Contender:
    library("aws_encryption_sdk")
    return Contender(partial(_sdk, servers.root_key_arn, servers.aws_requests))


@contextmanager
def _factory(settings: Mapping[str, Any], requests: Callable[[], int], kept: ExitStack) -> Iterator[Opened]:
    # Closed at the end of all: a coroutine that has answered holds on to the factory for a moment, and
    # Asherah panics where that was the last hold.
    factory = kept.enter_context(library("asherah").SessionFactory(dict(settings)))

    async def aopen(tenant: str, blob: Any) -> str:
        return bytes(await factory.get_session(tenant).decrypt_bytes_async(blob)).decode()

    yield Opened(
        seal=lambda tenant: factory.get_session(tenant).encrypt_text(TEXT),
        open=lambda tenant, blob: str(factory.get_session(tenant).decrypt_text(blob)),
        requests=requests,
        aopen=aopen,
    )


def _asherah(servers: Servers, stack: ExitStack) -> Contender:
    library("asherah")
    arn = servers.root_key_arn
    region = arn.split(":")[3]
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="fieldvault-benchmark-")))
    settings = {
        "ServiceName": "benchmark",
        "ProductID": "benchmark",
        "Metastore": "sqlite",
        "ConnectionString": f"sqlite://{folder / 'keys.db'}",
        "KMS": "aws",
        "RegionMap": {region: arn},
        "PreferredRegion": region,
        "EnableSessionCaching": True,
        "SessionCacheMaxSize": CAPACITY,
    }
    return Contender(partial(_factory, settings, servers.aws_requests, stack))


KEY_PEERS: Mapping[str, Making] = {AWS_SDK: _aws_sdk, ASHERAH: _asherah}
"""By name."""

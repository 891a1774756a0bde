"""Vaults on each KMS backend, as the benchmarks ask them, and as they ask peers that keep tenants' keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.measure import Call
from benchmarks.peers import FIELD, library
from benchmarks.servers import ROOT_KEY, TOKEN_PIN, Abreast, Servers
from benchmarks.world import World, world
from fieldvault.keys.material import unwrap_records
from fieldvault.keys.protocols import KMS
from fieldvault.keys.records import KeySlot

__all__ = ["TEXT", "VAULTS", "Contender", "Making", "Opened"]

TEXT = "0123456789abcdef0123456789abcdef"
PARALLEL = 32
"""Connections to AWS KMS, as ``AWSKMS`` opens by itself."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One that is ready to work, as after the start of a process: it holds no tenant's key yet.

    ``requests`` counts what the KMS was asked so far. ``fetch`` has tenants' keys at hand in one go,
    ``aopen`` is ``open`` for coroutines, ``bare`` makes the call that only has the KMS unwrap a tenant's key;
    ``None`` for who has no such.
    """

    seal: Callable[[str], Any]
    open: Callable[[str, Any], str]
    requests: Callable[[], int]
    aopen: Callable[[str, Any], Awaitable[str]] | None = None
    fetch: Callable[[Sequence[str]], object] | None = None
    bare: Callable[[str], Call] | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """Opens anew each time it is asked, over keys that stay.

    ``requests`` is the most that ``fetch`` may make for so many keys; without it nothing is fetched.
    ``abreast`` sees requests side by side.
    """

    opened: Callable[[], AbstractContextManager[Opened]]
    requests: Callable[[int], int] | None = None
    abreast: Abreast | None = None


Making = Callable[[Servers, ExitStack], Contender]
"""Prepares a contender, whatever it needs going on the stack; raises ``Missing``."""


@contextmanager
def _vault(made: World, kms: Callable[[], KMS], count: Callable[[], int] | None) -> Iterator[Opened]:
    opened = kms()
    with made.vault(opened) as vault:

        def bare(tenant: str) -> Call:
            records = vault.key_store.current([KeySlot(tenant)]).records
            return partial(unwrap_records, opened, list(records.values()))

        yield Opened(
            seal=lambda tenant: vault.encrypt(TEXT, field=FIELD, tenant=tenant),
            open=lambda tenant, blob: vault.decrypt(blob, field=FIELD, tenant=tenant),
            requests=count or (lambda: vault.stats().kms.calls),
            aopen=lambda tenant, blob: vault.adecrypt(blob, field=FIELD, tenant=tenant),
            fetch=vault.prefetch,
            bare=bare,
        )


def _local(_: Servers, stack: ExitStack) -> Contender:
    made = stack.enter_context(world())
    return Contender(partial(_vault, made, made.local, None), requests=lambda _: 1)


def _pkcs11(servers: Servers, stack: ExitStack) -> Contender:
    of_token = {
        "module": servers.softhsm,
        "token_label": ROOT_KEY,
        "key_label": ROOT_KEY,
        "pin": TOKEN_PIN,
    }
    kms = library("fieldvault.kms.pkcs11").PKCS11KMS
    kms.create(**of_token).close()
    made = stack.enter_context(world())
    return Contender(partial(_vault, made, partial(kms, **of_token), None), requests=lambda _: 1)


def _transit_kms(servers: Servers) -> Callable[[], KMS]:
    server = servers.openbao
    return partial(
        library("fieldvault.kms.transit").TransitKMS, server.url, ROOT_KEY, token=server.root_token
    )


def _transit(servers: Servers, stack: ExitStack) -> Contender:
    kms = _transit_kms(servers)
    made = stack.enter_context(world())
    return Contender(partial(_vault, made, kms, servers.transit_requests), requests=_transit_batches)


def _transit_batches(keys: int) -> int:
    most: int = library("fieldvault.kms.transit.batches").MAX_ITEMS
    return -(-keys // most)


def _aws_kms(servers: Servers, abreast: Abreast) -> Callable[[], KMS]:
    arn, kms = servers.root_key_arn, library("fieldvault.kms.aws").AWSKMS
    options = library("fieldvault.aws.clients").ClientOptions()

    def opened() -> KMS:
        client = options.open("kms", PARALLEL)
        abreast.watch(client)
        made: KMS = kms(arn, client)
        return made

    return opened


def _aws(servers: Servers, stack: ExitStack) -> Contender:
    abreast = Abreast()
    kms = _aws_kms(servers, abreast)
    made = stack.enter_context(world())
    return Contender(
        partial(_vault, made, kms, servers.aws_requests), requests=lambda keys: keys, abreast=abreast
    )


def _multi(servers: Servers, stack: ExitStack) -> Contender:
    transit, aws = _transit_kms(servers), _aws_kms(servers, Abreast())
    multi = library("fieldvault.kms.multi").MultiKMS
    made = stack.enter_context(world())

    def kms() -> KMS:
        both: KMS = multi({"transit": transit(), "aws": aws()})
        return both

    def count() -> int:
        return servers.transit_requests() + servers.aws_requests()

    return Contender(partial(_vault, made, kms, count), requests=_transit_batches)


VAULTS: Mapping[str, Making] = {
    "LocalKMS": _local,
    "PKCS11KMS, SoftHSM": _pkcs11,
    "TransitKMS, OpenBao": _transit,
    "AWSKMS, moto": _aws,
    "MultiKMS, OpenBao then moto": _multi,
}
"""By name."""

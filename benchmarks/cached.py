"""What a tenant's key costs that is kept ready to seal, beside the peers' caches: as the process grows.

As a program it is one such process: ``python -m benchmarks.cached WHOSE FOLDER KEYS`` gets so many tenants'
keys ready and prints the bytes that all of it has added.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contenders import TEXT
from benchmarks.key_peers import caching_materials
from benchmarks.memory import resident
from benchmarks.peers import FIELD, Missing, library
from benchmarks.processes import in_fresh_process
from benchmarks.report import Row
from benchmarks.world import World
from fieldvault.keys.material import new_record
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeySlot

__all__ = ["cached_rows"]

VAULT, AWS_SDK, ASHERAH = "fieldvault", "AWS Encryption SDK", "Asherah"
BATCH = 10_000
PAGE = 1000


def cached_rows(*, keys: int) -> Iterator[Row]:
    """Bytes of a cached key, each contender in a process of its own."""
    section = f"Memory of {keys:,} keys ready to seal, as the operating system counts"
    with TemporaryDirectory(prefix="fieldvault-benchmark-") as folder, ThreadPoolExecutor() as pool:
        # Side by side, as nothing here is timed; the vault's last, whose keys are made meanwhile.
        answers = {
            whose: pool.submit(in_fresh_process, "cached", whose, folder, keys)
            for whose in (AWS_SDK, ASHERAH)
        }
        _store(Path(folder), keys)
        answers[VAULT] = pool.submit(in_fresh_process, "cached", VAULT, folder, keys)
        for whose, (_, note) in WHOSE.items():
            answer = answers[whose].result()
            if "missing" in answer:
                yield Row(section, whose, None, "bytes a key", note=answer["missing"])
            else:
                added = answer["added"]
                each = round(added / keys)
                yield Row(section, whose, each, "bytes a key", None, f"{added / 2**20:.0f} MiB", note=note)


def _store(folder: Path, keys: int) -> None:
    """Fill a key store with tenants' keys that no process has unwrapped yet."""
    made = World(folder)
    with made.vault(made.local()) as vault:
        for first in range(0, keys, BATCH):
            numbers = range(first, min(first + BATCH, keys))
            records = [new_record(KeySlot(_tenant(each)), 1, vault.kms, uses=1)[0] for each in numbers]
            vault.key_store.add_active([Addition(record, None) for record in records])
    made.engine.dispose()


def _fieldvault(folder: Path, keys: int) -> int:
    made = World(folder)
    tenants = [_tenant(number) for number in range(keys)]
    with made.vault(made.local(), max_keys=keys) as vault:
        vault.encrypt(TEXT, field=FIELD, tenant=tenants[0])  # whatever is made once is made
        before = resident()
        for first in range(0, keys, PAGE):
            page = tenants[first : first + PAGE]
            vault.prefetch(page)
            for tenant in page:
                vault.encrypt(TEXT, field=FIELD, tenant=tenant)
        added = resident() - before
        if vault.stats().keys != keys:
            raise AssertionError("not all keys are held")
        return added


def _aws_sdk(_: Path, keys: int) -> int:
    sdk, raw = library("aws_encryption_sdk"), library("aws_encryption_sdk.key_providers.raw")
    names = library("aws_encryption_sdk.identifiers")
    wrapping = library("aws_encryption_sdk.internal.crypto.wrapping_keys").WrappingKey(
        wrapping_algorithm=names.WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
        wrapping_key=os.urandom(32),
        wrapping_key_type=names.EncryptionKeyType.SYMMETRIC,
    )
    root_key = raw.RawMasterKey(provider_id="benchmark", key_id=b"benchmark", wrapping_key=wrapping)
    manager = caching_materials(root_key, keys)
    asked = library("aws_encryption_sdk.materials_managers").EncryptionMaterialsRequest

    def materials(number: int) -> Any:
        # As ``EncryptionSDKClient.encrypt`` asks for them, whose own work leaves nothing behind.
        return manager.get_encryption_materials(
            asked(
                encryption_context={"tenant": _tenant(number)},
                frame_length=4_096,
                commitment_policy=names.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
                algorithm=sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
                plaintext_length=len(TEXT),
            )
        )

    first = materials(0)
    before = resident()
    for number in range(keys):
        materials(number)
    added = resident() - before
    if materials(0) is not first:
        raise AssertionError("not all keys are held")
    return added


def _asherah(_: Path, keys: int) -> int:
    settings = {
        "ServiceName": "benchmark",
        "ProductID": "benchmark",
        "Metastore": "memory",
        "KMS": "static",
        "StaticMasterKeyHex": os.urandom(32).hex(),
        "EnableSessionCaching": True,
        "SessionCacheMaxSize": keys,
    }
    with library("asherah").SessionFactory(settings) as factory:
        factory.get_session(_tenant(0)).encrypt_text(TEXT)
        before = resident()
        for number in range(keys):
            factory.get_session(_tenant(number)).encrypt_text(TEXT)
        return resident() - before


WHOSE: Mapping[str, tuple[Callable[[Path, int], int], str]] = {
    VAULT: (
        _fieldvault,
        "keys of a SQLite key store and a LocalKMS, each has sealed a value",
    ),
    AWS_SDK: (
        _aws_sdk,
        "encryption materials in a LocalCryptoMaterialsCache, under a raw key",
    ),
    ASHERAH: (
        _asherah,
        "cached sessions, each has sealed a value; a static KMS; the metastore is in the same memory",
    ),
}
"""By name: gets keys ready and returns the bytes added, or raises ``Missing``; what they are."""


def _tenant(number: int) -> str:
    return f"tenant {number:06d}"


def main() -> None:
    """Measure in this process and print the bytes added."""
    whose, folder, keys = sys.argv[1:]
    get_ready, _ = WHOSE[whose]
    answer: dict[str, Any]
    try:
        answer = {"added": get_ready(Path(folder), int(keys))}
    except Missing as error:
        answer = {"missing": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

"""A process that reads some ciphertexts each time that it is told: ``python -m tests.keys.reader JOB``.

A line on standard input has it read; it answers with ``ok``, or the error's name, for each. With ``"forked"``
it is a forked child that does so, whose parent had the keys in its cache.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from fieldvault import CachePolicy, Vault
from fieldvault.errors import FieldVaultError
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS

FIELD = "customers.email"


def main(job: dict[str, Any]) -> None:
    """Read on command until the input ends."""
    vault = Vault(
        kms=LocalKMS(job["root_keys"]),
        key_store=SQLKeyStore(job["database"]),
        cache=CachePolicy(ttl=3600, lease=job["lease"], grace=0),
    )

    def read(blob: str) -> str:
        try:
            assert vault.decrypt(bytes.fromhex(blob), field=FIELD, tenant="acme") == "secret"
        except FieldVaultError as error:
            return type(error).__name__
        return "ok"

    if job["forked"]:
        assert [read(blob) for blob in job["blobs"]] == ["ok"] * len(job["blobs"])
        child = os.fork()
        if child:
            sys.exit(os.waitpid(child, 0)[1])
    for _ in sys.stdin:
        sys.stdout.write(" ".join(read(blob) for blob in job["blobs"]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

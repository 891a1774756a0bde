"""A program that makes tokens when it is told: ``python -m tests.search.herd JOB``.

For each tenant that a line of its input names it answers with a line: the token that it writes, in hex.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from fieldvault import Vault
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.search.tokens import IndexSpec

SPEC = IndexSpec(["customers.email"], "email", ["email"])


def main(job: dict[str, Any]) -> None:
    """Open a vault, say so, and answer until the input ends."""
    content = SPEC.normalized(["ann@example.com"]) or b""
    out = sys.stdout
    with Vault(kms=LocalKMS(job["root_keys"]), key_store=SQLKeyStore(job["database"])) as vault:
        out.write("ready\n")
        out.flush()
        for line in sys.stdin:
            keys = vault.ring.index_keys(line.strip())
            out.write(keys.token(SPEC, content).hex() + "\n")
            out.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""A program of several processes that meet one cold key at once: ``python -m tests.keys.cold JOB``.

Each opens a vault of its own and waits at a gate; then each of its threads opens the same ciphertext. It
answers with its vault's figures.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from fieldvault import Vault
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from tests.keys.parties import FIELD, in_threads


def member(job: dict[str, Any], gate: int) -> dict[str, Any]:
    """Open the ciphertext in many threads at once."""
    vault = Vault(kms=LocalKMS(job["root_keys"]), key_store=SQLKeyStore(job["database"]))
    blob = bytes.fromhex(job["blob"])
    os.read(gate, 1)
    opened = in_threads(job["threads"], lambda _: vault.decrypt(blob, field=FIELD, tenant="acme"))
    stats = vault.stats()
    vault.close()
    return {
        "opened": opened,
        "kms": stats.kms.operations,
        "key_store": stats.key_store.operations,
        "misses": stats.misses,
    }


def main(job: dict[str, Any]) -> None:
    """Fork the members, open the gate, print everybody's answer."""
    gate_reading, gate_writing = os.pipe()
    children: list[tuple[int, int]] = []
    for _ in range(job["processes"]):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(gate_writing)
                os.write(writing, json.dumps(member(job, gate_reading)).encode())
            except BaseException as error:  # noqa: BLE001 - told by the exit code; a child must not go on
                print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - this is a program
                os._exit(1)
            os._exit(0)
        os.close(writing)
        children.append((child, reading))
    os.close(gate_writing)
    answers = []
    for _, reading in children:
        with os.fdopen(reading) as answer:
            answers.append(json.loads(answer.read() or "null"))
    failed = [child for child, _ in children if os.waitpid(child, 0)[1] != 0]
    json.dump(answers, sys.stdout)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

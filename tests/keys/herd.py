"""A program of several processes that do one thing at the same moment: ``python -m tests.keys.herd JOB…``.

It forks them before anything has a thread. Each opens vaults of its own; all wait at a gate, work, and answer
with JSON; at a second gate each gets all answers and reads what the others wrote.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NoReturn

from fieldvault import Vault
from fieldvault.keys.policy import RotationPolicy
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS

FIELD = "customers.email"
VALUES = 12

SCOPES: list[tuple[str, str | None]] = [("acme", None), ("acme", "alice"), ("busy", None)]
"""Whose values they seal; those of ``busy`` in a vault that rotates all the time."""


def member(job: dict[str, Any], number: int, gate: int, answers: int, everything: int) -> None:
    """Seal, say so, then open what everybody sealed."""
    vaults = {
        tenant: Vault(
            kms=LocalKMS(job["root_keys"]), key_store=SQLKeyStore(job["database"]), rotation=rotation
        )
        for tenant, rotation in (("acme", None), ("busy", RotationPolicy(max_uses=24, block=8)))
    }
    os.read(gate, 1)
    sealed = [
        [
            vaults[tenant].encrypt(f"{number}/{index}", field=FIELD, tenant=tenant, subject=subject).hex()
            for index in range(VALUES)
        ]
        for tenant, subject in SCOPES
    ]
    with os.fdopen(answers, "w") as out:
        json.dump(sealed, out)
    with os.fdopen(everything) as whole:
        of_all = json.load(whole)
    for other, theirs in enumerate(of_all):
        for (tenant, subject), blobs in zip(SCOPES, theirs, strict=True):
            opened = vaults[tenant].decrypt_many(
                map(bytes.fromhex, blobs), field=FIELD, tenant=tenant, subject=subject
            )
            assert opened == [f"{other}/{index}" for index in range(VALUES)]
    for vault in vaults.values():
        vault.close()


def run(job: dict[str, Any], number: int, gate: int, answers: int, everything: int) -> NoReturn:
    """Be a member, and end."""
    try:
        member(job, number, gate, answers, everything)
    except BaseException as error:  # noqa: BLE001 - told by the exit code; a forked child must not go on
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - this is a program
        os._exit(1)
    os._exit(0)


def main(job: dict[str, Any]) -> None:
    """Fork the members, open the gates, print everybody's ciphertexts."""
    gate_reading, gate_writing = os.pipe()
    members: list[tuple[int, int, int]] = []
    for number in range(job["processes"]):
        answer_reading, answer_writing = os.pipe()
        all_reading, all_writing = os.pipe()
        child = os.fork()
        if child == 0:
            for descriptor in (gate_writing, answer_reading, all_writing, *(it[2] for it in members)):
                os.close(descriptor)
            run(job, number, gate_reading, answer_writing, all_reading)
        os.close(answer_writing)
        os.close(all_reading)
        members.append((child, answer_reading, all_writing))
    os.close(gate_writing)
    sealed: list[list[list[str]]] = []
    for _, reading, _ in members:
        with os.fdopen(reading) as answer:
            sealed.append(json.loads(answer.read() or "[]"))
    for _, _, writing in members:
        with os.fdopen(writing, "w") as whole:
            json.dump(sealed, whole)
    failed = [child for child, _, _ in members if os.waitpid(child, 0)[1] != 0]
    json.dump(sealed, sys.stdout)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

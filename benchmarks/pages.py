"""A page of entities, each of another subject: loaded by the ORM with cold keys, and with warm ones.

As a program it is one process: ``python -m benchmarks.pages VARIANT SUBJECTS`` prints one JSON object with
nanoseconds, and for fieldvault the counted requests of the cold page.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from time import process_time_ns
from typing import Any

from sqlalchemy import Engine, String, create_engine, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from benchmarks.measure import collected, quiet
from benchmarks.models import TENANT, Model, model_of, utils_type
from benchmarks.peers import Missing
from benchmarks.processes import in_fresh_process
from benchmarks.report import Row, ratio_row
from benchmarks.world import world
from fieldvault import KeyScope
from fieldvault.keys.records import KeySlot
from fieldvault.sqlalchemy import Encrypted, protect

__all__ = ["subject_page_rows"]

PLAIN, VAULT = "plaintext", "fieldvault"
WARM, COLD = "warm", "cold"
FIRST = 1_000_000
"""The id of the first row of the page, so that a name has one length whatever the number of rows."""


def subject_page_rows(*, subjects: int, processes: int) -> Iterator[Row]:
    """The rows for the page, from so many processes a variant, in turn."""
    section = f"Page of {subjects:,} ORM rows of {subjects:,} subjects, 3 encrypted columns"
    taken: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    counted: dict[str, int] = {}
    for _ in range(processes):
        for variant in VARIANTS:
            if variant in absent:
                continue
            answer = in_fresh_process("pages", variant, subjects)
            if "missing" in answer:
                absent[variant] = answer["missing"]
                continue
            taken.setdefault(variant, []).append(answer[WARM])
            if variant == VAULT:
                taken.setdefault(f"{VAULT}, {COLD} keys", []).append(answer[COLD])
                counted = answer["counted"]
    samples = quiet(taken)
    for name, sample in samples.items():
        what = f"{VAULT}, {WARM} keys" if name == VAULT else name
        yield ratio_row(section, what, sample, samples[PLAIN], unit=f"× {PLAIN}", scale="ms")
    for variant, reason in absent.items():
        yield Row(section, variant, None, f"× {PLAIN}", note=reason)
    for unit, count in counted.items():
        yield Row(section, f"{VAULT}, {COLD} keys", count, unit, 1)


def _plaintext(subjects: int) -> dict[str, Any]:
    return _one_key(model_of(String), subjects)


def _utils(engine: str) -> Callable[[int], dict[str, Any]]:
    return lambda subjects: _one_key(model_of(utils_type(engine, os.urandom(32).hex())), subjects)


def _one_key(model: Model, subjects: int) -> dict[str, Any]:
    # Everybody's key is the column's, and there is nothing that could be cold.
    engine = _filled(model, subjects)
    _page(engine, model)
    return {WARM: _timed(engine, model)}


def _fieldvault(subjects: int) -> dict[str, Any]:
    with world() as made:
        model = model_of(lambda: Encrypted(String), KeyScope(tenant="tenant_id", subject="id"))
        with made.vault() as vault:
            protect(model.base, vault)
            names = [str(number) for number in range(FIRST, FIRST + subjects)]
            vault.ring.prefetch(slots=[KeySlot(TENANT, name) for name in names])
            engine = _filled(model, subjects)
            # Once, so that statements are compiled and modules loaded; the keys are in this vault only.
            _page(engine, model)
        kms = made.kms()
        with made.vault(kms) as vault:
            protect(model.base, vault)
            with made.statements() as statements:
                cold = _timed(engine, model)
            counted = {"key-store statements": statements.count, "KMS calls": kms.calls}
            return {COLD: cold, WARM: _timed(engine, model), "counted": counted}


VARIANTS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    PLAIN: _plaintext,
    VAULT: _fieldvault,
    "sqlalchemy-utils, AES-GCM": _utils("AesGcmEngine"),
    "sqlalchemy-utils, AES-CBC": _utils("AesEngine"),
}
"""By name; each fills a table and times its page, or raises ``Missing``."""


def _filled(model: Model, subjects: int) -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    model.base.metadata.create_all(engine)
    customers = [
        {
            "id": number,
            "tenant_id": TENANT,
            "name": _name(number),
            "email": f"grace.hopper{number:08d}@example.com",
            "phone": f"+1 212 555 {number:09d}",
        }
        for number in range(FIRST, FIRST + subjects)
    ]
    with Session(engine) as session:
        session.execute(insert(model.customer), customers)
        session.commit()
    return engine


def _name(number: int) -> str:
    return f"Grace Brewster Hopper {number:09d}"


def _page(engine: Engine, model: Model) -> list[str]:
    with Session(engine) as session:
        customers = session.scalars(select(model.customer).order_by(model.customer.id)).all()
        return [(customer.phone, customer.email, customer.name)[-1] for customer in customers]


def _timed(engine: Engine, model: Model) -> int:
    with collected():
        begun = process_time_ns()
        names = _page(engine, model)
        took = process_time_ns() - begun
    if names != [_name(number) for number in range(FIRST, FIRST + len(names))] or not names:
        raise AssertionError("a page came back as another than it went in")
    return took


def main() -> None:
    """Measure one variant and print what it took."""
    variant, subjects = sys.argv[1:]
    try:
        answer = VARIANTS[variant](int(subjects))
    except Missing as error:
        answer = {"missing": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

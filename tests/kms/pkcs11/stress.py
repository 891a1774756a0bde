"""A program that uses a token as roughly as can be, in a process that may crash without harm.

    python -X faulthandler -m tests.kms.pkcs11.stress MODULE SECONDS

Threads of two objects wrap and unwrap, while the process forks, loses its sessions, has the module
initialised again, rotates, logs out. Whatever goes wrong ends it with a traceback.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.kms import PKCS11KMS
from fieldvault.kms.pkcs11.modules import MODULES
from fieldvault.testing.samples import in_a_fork, together
from tests.kms.pkcs11.calls import lose_sessions
from tests.servers.softhsm import PIN, TOKEN

T = TypeVar("T")

THREADS = 16
VERSIONS = 6


def patient(call: Callable[..., T], *arguments: object, **named: object) -> T:
    """The answer, asked for again in an outage, as a vault does.

    While another process logs in to a token of SoftHSM, this one may not find it.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(KMSUnavailable),
        wait=wait_random(0, 0.05),
        stop=stop_after_delay(20),
        reraise=True,
    )
    return retrying(call, *arguments, **named)


def work(kms: PKCS11KMS, times: int) -> None:
    """Wrap and unwrap, in the right context and in another."""
    context = {"tenant": "acme"}
    kept: list[tuple[bytes, bytes]] = []
    for _ in range(times):
        new = os.urandom(32)
        kept.append((new, patient(kms.wrap, new, context=context)))
        for key, wrapped in (kept[0], kept[-1]):
            assert patient(kms.unwrap, wrapped, context=context) == key
    with pytest.raises(KMSError) as caught:
        patient(kms.unwrap, kept[0][1], context={"tenant": "other"})
    assert caught.type is KMSError


def until(stop: threading.Event, kms: PKCS11KMS) -> None:
    """Work, again and again."""
    try:
        while not stop.is_set():
            work(kms, 10)
    finally:
        stop.set()


def child(kms: PKCS11KMS) -> None:
    """What a forked child does: the same, in threads of its own."""
    together([partial(work, kms, 5)] * 4)
    kms.close()


def trouble(module: str, first: PKCS11KMS, second: PKCS11KMS) -> list[Callable[[], object]]:
    """What may happen meanwhile."""
    known = MODULES.at(module)

    def rotate() -> None:
        if patient(first.check).count(",") < VERSIONS:
            patient(first.rotate_root_key)

    return [
        partial(in_a_fork, partial(child, first)),
        lambda: known.renew(known.generation),
        partial(lose_sessions, module, TOKEN),
        first.close,
        second.close,
        rotate,
    ]


def run(module: str, seconds: float) -> None:
    """Make trouble for so long."""
    opening: dict[str, Any] = {"module": module, "token_label": TOKEN, "key_label": "stress", "pin": PIN}
    stop, end = threading.Event(), time.monotonic() + seconds
    with (
        closing(PKCS11KMS.create(**opening)) as first,
        closing(PKCS11KMS(**opening)) as second,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        busy = [threads.submit(until, stop, second if number % 4 else first) for number in range(THREADS)]
        troubles = trouble(module, first, second)
        choice = random.Random(7431)  # noqa: S311 - which trouble comes next is no secret
        try:
            while time.monotonic() < end and not stop.is_set():
                choice.choice(troubles)()
        finally:
            stop.set()
        for each in busy:
            each.result()
    assert MODULES.at(module).locks


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]))

"""Outages: told as such, in bounded time, and over when they are over."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.testing.promises.kms.samples import CONTEXT, TellsNothing, all_met_by, served
from fieldvault.testing.samples import together

__all__ = ["OutagePromises"]

_BATCH = 40


class OutagePromises:
    """A KMS that cannot be reached, is slow, or refuses this caller."""

    def test_an_outage_is_told_as_one_and_ends(
        self,
        kms: KMS,
        key: bytes,
        break_connection: Callable[[], AbstractContextManager[None]],
        patience: float,
        tells_nothing: TellsNothing,
    ) -> None:
        """Every call says ``KMSUnavailable``; afterwards the same object works again by itself."""
        wrapped = served(kms, key)
        with break_connection():
            all_met_by(kms, wrapped, key, KMSUnavailable, tells_nothing, patience=patience)
        assert _recovered(kms, wrapped, patience) == key

    def test_a_slow_server_is_not_waited_for_without_end(
        self,
        kms: KMS,
        key: bytes,
        slow_down: Callable[[], AbstractContextManager[None]],
        patience: float,
        tells_nothing: TellsNothing,
    ) -> None:
        """It is an outage; whoever waits has somebody waiting for them."""
        wrapped = served(kms, key)
        with slow_down():
            all_met_by(kms, wrapped, key, KMSUnavailable, tells_nothing, patience=patience)
        assert _recovered(kms, wrapped, patience) == key

    def test_a_refused_caller_is_told_so_and_served_once_allowed(
        self,
        kms: KMS,
        key: bytes,
        deny: Callable[[], AbstractContextManager[None]],
        tells_nothing: TellsNothing,
    ) -> None:
        """It is neither an outage nor a wrong key."""
        wrapped = served(kms, key)
        with deny():
            all_met_by(kms, wrapped, key, KMSDenied, tells_nothing)
        assert kms.unwrap(wrapped, context=CONTEXT) == key

    def test_an_outage_in_the_midst_of_a_batch_is_told_as_one(
        self, kms: KMS, break_connection: Callable[[], AbstractContextManager[None]], patience: float
    ) -> None:
        """What was not answered any more is no wrong key."""
        keys = [os.urandom(32) for _ in range(_BATCH)]
        items = [WrappedKey(kms.wrap(key, context=CONTEXT), CONTEXT) for key in keys]
        answered, done = threading.Semaphore(0), threading.Event()

        def unwrap() -> list[bytes | KMSError]:
            seen: list[bytes | KMSError] = []
            try:
                while not done.is_set():
                    seen += _neither_keys_nor_outages(kms, items, keys)
                    answered.release()
            finally:
                # Nobody waits for what went wrong here.
                answered.release(3)
            return seen

        def interrupt() -> list[bytes | KMSError]:
            try:
                assert answered.acquire(timeout=60)
                with break_connection():
                    while answered.acquire(blocking=False):
                        pass
                    # One that was begun before, and one that was not.
                    for _ in range(2):
                        assert answered.acquire(timeout=60)
            finally:
                done.set()
            return []

        racing: list[Callable[[], list[bytes | KMSError]]] = [unwrap, interrupt]
        assert together(racing) == [[], []]
        assert _recovered(kms, items[0].wrapped, patience) == keys[0]


def _neither_keys_nor_outages(
    kms: KMS, items: Sequence[WrappedKey], keys: Sequence[bytes]
) -> list[bytes | KMSError]:
    try:
        answers = kms.unwrap_many(items)
    except KMSUnavailable:
        return []
    return [
        answer
        for key, answer in zip(keys, answers, strict=True)
        if answer != key and not isinstance(answer, KMSUnavailable)
    ]


def _recovered(kms: KMS, wrapped: bytes, patience: float) -> bytes:
    """The key, asked for until a breaker, or a connection, has recovered as well."""
    return Retrying(
        retry=retry_if_exception_type(KMSUnavailable),
        wait=wait_fixed(0.05),
        stop=stop_after_delay(patience),
        reraise=True,
    )(kms.unwrap, wrapped, context=CONTEXT)

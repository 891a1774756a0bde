"""Outages: told as such, in bounded time, and over when they are over."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from fieldvault.errors import KMSDenied, KMSUnavailable
from fieldvault.keys.protocols import KMS
from fieldvault.testing.promises.kms.samples import CONTEXT, TellsNothing, every_call, met_by

__all__ = ["OutagePromises"]


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
        wrapped = kms.wrap(key, context=CONTEXT)
        with break_connection():
            _unavailable(kms, wrapped, key, patience, tells_nothing)
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
        wrapped = kms.wrap(key, context=CONTEXT)
        with slow_down():
            _unavailable(kms, wrapped, key, patience, tells_nothing)
        assert _recovered(kms, wrapped, patience) == key

    def test_a_refused_caller_is_told_so_and_served_once_allowed(
        self,
        kms: KMS,
        key: bytes,
        deny: Callable[[], AbstractContextManager[None]],
        tells_nothing: TellsNothing,
    ) -> None:
        """It is neither an outage nor a wrong key."""
        wrapped = kms.wrap(key, context=CONTEXT)
        with deny():
            for call in every_call(kms, wrapped, key).values():
                met_by(call, KMSDenied, tells_nothing)
        assert kms.unwrap(wrapped, context=CONTEXT) == key


def _unavailable(kms: KMS, wrapped: bytes, key: bytes, patience: float, tells_nothing: TellsNothing) -> None:
    for name, call in every_call(kms, wrapped, key).items():
        begun = time.monotonic()
        met_by(call, KMSUnavailable, tells_nothing)
        assert time.monotonic() - begun < patience, name


def _recovered(kms: KMS, wrapped: bytes, patience: float) -> bytes:
    """The key, asked for until a breaker, or a connection, has recovered as well."""
    return Retrying(
        retry=retry_if_exception_type(KMSUnavailable),
        wait=wait_fixed(0.05),
        stop=stop_after_delay(patience),
        reraise=True,
    )(kms.unwrap, wrapped, context=CONTEXT)

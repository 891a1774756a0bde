"""Waiting for keys: beside the event loop where there is one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from fieldvault.keys.records import KeySlot
from fieldvault.vault import Vault

__all__ = ["fetch_index_keys", "fetch_keys_of", "fetch_slots"]


def fetch_slots(vault: Vault, slots: Iterable[KeySlot]) -> None:
    """Have the active keys of slots at hand, those that are missing in one batch."""
    cold = [slot for slot in dict.fromkeys(slots) if vault.ring.sealing_may_wait(slot)]
    if cold:
        _wait(partial(vault.ring.prefetch, slots=cold))


def fetch_index_keys(vault: Vault, tenants: Iterable[str]) -> None:
    """Have the index keys of tenants at hand, those that are missing in one call of the KMS.

    Raises:
        KeyShredded, KeySuspended, KMSError, KeyStoreError: one cannot be had.
    """
    cold = [tenant for tenant in dict.fromkeys(tenants) if vault.ring.indexing_may_wait(tenant)]
    if cold:
        _wait(partial(_index_keys, vault, cold))


def fetch_keys_of(vault: Vault, blobs: Iterable[bytes]) -> None:
    """Have the keys of ciphertexts at hand, those that are missing in one batch."""
    wanted = list(blobs)
    if any(map(vault.ring.opening_may_wait, wanted)):
        _wait(partial(vault.ring.prefetch, blobs=wanted))


def _index_keys(vault: Vault, tenants: Sequence[str]) -> None:
    if len(tenants) > 1:
        vault.ring.prefetch_index(tenants)
    for tenant in tenants:
        vault.ring.index_keys(tenant)


def _wait(work: Callable[[], Any]) -> None:
    # What an asynchronous engine does runs in greenlets, which can wait for a thread as for a driver.
    if "greenlet" in sys.modules and in_greenlet():
        await_only(asyncio.to_thread(work))
    else:
        work()

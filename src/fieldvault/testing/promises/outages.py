"""Outages of a key store: told as errors, in bounded time, and over when they are over."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from fieldvault.errors import KeyStoreError, KeyStoreRefused
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import KeyRecord, KeyState
from fieldvault.testing.samples import acme, add, fence, first_key, record, shows, together, told_by

__all__ = ["OutagePromises"]


class OutagePromises:
    """A storage that cannot be reached, does not answer, or refuses this caller."""

    def test_in_an_outage_each_call_is_an_error_and_nothing_happens(
        self,
        store: KeyStore,
        break_connection: Callable[[], AbstractContextManager[None]],
        patience: float,
        secrets: Sequence[str],
    ) -> None:
        """None says that there is no such key, or that there is one already; the same object recovers."""
        key = first_key(store, acme())
        with break_connection():
            _all_fail(_every_call(store, key), patience, secrets)
        assert _recovered(store, patience) == [key]
        assert add(store, record(acme("ann")))
        assert store.fence("acme", None) is None

    def test_a_refused_caller_is_told_so_and_served_once_allowed(
        self,
        store: KeyStore,
        deny: Callable[[], AbstractContextManager[None]],
        patience: float,
        secrets: Sequence[str],
    ) -> None:
        """It is no outage, through which a cache would help: somebody took the permission away."""
        key = first_key(store, acme())
        calls = _every_call(store, key)
        with deny():
            some = {name: calls[name] for name in ("generation", "fetch", "a first key", "reserve", "check")}
            _all_fail(some, patience, secrets, KeyStoreRefused)
        assert _recovered(store, patience) == [key]

    def test_a_slow_storage_is_not_waited_for_without_end(
        self,
        store: KeyStore,
        slow_down: Callable[[], AbstractContextManager[None]],
        patience: float,
        secrets: Sequence[str],
    ) -> None:
        """What was written meanwhile may have happened, or not; what is read is no answer."""
        key = first_key(store, acme())
        calls = _every_call(store, key)
        with slow_down():
            _all_fail({name: calls[name] for name in ("current", "fetch", "reserve")}, patience, secrets)
        assert [each.key_id for each in _recovered(store, patience)] == [key.key_id]


def _every_call(store: KeyStore, key: KeyRecord) -> Mapping[str, Callable[[], object]]:
    destroy = partial(store.transition, key.key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED)
    return {
        "generation": store.generation,
        "changes": partial(store.changes, 0),
        "fetch": partial(store.fetch, [key.key_id]),
        "current": partial(store.current, [acme()]),
        "a first key": partial(add, store, record(acme("ann"))),
        "a rotation": partial(add, store, record(acme(), 2), key),
        "transition": destroy,
        "reserve": partial(store.reserve, [key.key_id], 1, limit=10),
        "rewrap": partial(store.rewrap, key.key_id, expect=key.wrapped or b"", wrapped=b"again"),
        "shred": partial(store.shred, fence()),
        "fence": partial(store.fence, "acme", None),
        "keys": partial(store.keys, "acme", None),
        "all_keys": lambda: list(store.all_keys("acme")),
        "tenants": lambda: list(store.tenants()),
        "declare_lease": partial(store.declare_lease, 30),
        "check": store.check,
    }


def _all_fail(
    calls: Mapping[str, Callable[[], object]],
    patience: float,
    secrets: Sequence[str],
    kind: type[KeyStoreError] = KeyStoreError,
) -> None:
    """Made at the same moment, as each may take its time."""

    def run(name: str) -> None:
        begun = time.monotonic()
        with pytest.raises(kind) as caught:
            calls[name]()
        assert time.monotonic() - begun < patience, name
        assert str(caught.value), "an error has a message"
        for text in told_by(caught.value):
            assert not any(shows(text, secret) for secret in secrets), name

    together([partial(run, name) for name in calls])


def _recovered(store: KeyStore, patience: float) -> Sequence[KeyRecord]:
    """The tenant's keys, asked for until connections have recovered as well."""
    return Retrying(
        retry=retry_if_exception_type(KeyStoreError),
        wait=wait_fixed(0.05),
        stop=stop_after_delay(patience),
        reraise=True,
    )(store.keys, "acme", None)

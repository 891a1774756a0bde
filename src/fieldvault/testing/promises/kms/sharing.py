"""One KMS object used by many: threads, and the children of a fork."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import os
import threading
from functools import partial

import pytest

from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.testing.promises.kms.samples import CONTEXT
from fieldvault.testing.samples import THREADS, in_a_fork, together

__all__ = ["SharingPromises"]

_FORKS = 3


class SharingPromises:
    """Threads and forked children."""

    def test_many_threads_are_served_at_once(self, kms: KMS) -> None:
        """Each gets its own answer."""
        together([partial(_work, kms, 20)] * THREADS)

    def test_a_forked_child_is_served_and_so_is_its_parent(self, kms: KMS, key: bytes) -> None:
        """By the object that was opened before the fork, which the two share from then on."""
        _needs_fork()
        wrapped = kms.wrap(key, context=CONTEXT)

        def child() -> None:
            assert kms.unwrap(wrapped, context=CONTEXT) == key
            _work(kms, 2)
            kms.close()

        for _ in range(_FORKS):
            in_a_fork(child)
            assert kms.unwrap(wrapped, context=CONTEXT) == key
        _work(kms, 2)

    def test_a_child_forked_in_the_midst_of_calls_is_served(self, kms: KMS) -> None:
        """What a thread of the parent held is not held in the child."""
        _needs_fork()
        stop, begun = threading.Event(), threading.Barrier(3)

        def busy() -> None:
            begun.wait(timeout=60)
            while not stop.is_set():
                _work(kms, 1)

        def forks() -> None:
            begun.wait(timeout=60)
            try:
                for _ in range(_FORKS):
                    in_a_fork(partial(_work, kms, 2))
            finally:
                stop.set()

        together([busy, busy, forks])


def _work(kms: KMS, times: int) -> None:
    for _ in range(times):
        key, context = os.urandom(32), {**CONTEXT, "tenant": os.urandom(4).hex()}
        wrapped = kms.wrap(key, context=context)
        assert kms.unwrap(wrapped, context=context) == key
        assert list(kms.unwrap_many([WrappedKey(wrapped, context)])) == [key]


def _needs_fork() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this operating system does not fork")

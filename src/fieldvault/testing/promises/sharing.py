"""One key store object used by the children of a fork, and what it shows of itself."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Sequence
from functools import partial

import pytest

from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import KeyRecord
from fieldvault.testing.samples import acme, add, first_key, in_a_fork, record, shows, successor, together

__all__ = ["SharingPromises"]

_FORKS = 3
_TURNS = 4


class SharingPromises:
    """Forked children, and secrecy."""

    dies_with_its_process: bool = False
    """Whether it is the memory of a process: what a forked child writes nobody else sees."""

    def test_a_forked_child_is_served_and_so_is_its_parent(self, store: KeyStore) -> None:
        """By the object that was opened before the fork, which the two share from then on."""
        _needs_fork()
        key = first_key(store, acme())
        for turn in range(_FORKS):
            in_a_fork(partial(_child, store, key, f"of child {turn}"))
            assert store.fetch([key.key_id]).records == {key.key_id: key}
            first_key(store, acme(f"of the parent {turn}"))
        successor(store, key)

    def test_of_many_processes_that_make_a_first_key_at_once_one_wins(self, store: KeyStore) -> None:
        """A lock that the threads of a process share is not enough."""
        _needs_fork()
        if self.dies_with_its_process:
            pytest.skip("this store is the memory of one process")
        forking = multiprocessing.get_context("fork")
        barrier, won = forking.Barrier(_FORKS), forking.RawArray("b", _FORKS * _TURNS)

        def child(number: int) -> None:
            for turn in range(_TURNS):
                barrier.wait(timeout=20)
                won[number * _TURNS + turn] = add(store, record(acme(f"subject {turn}")))

        together([partial(in_a_fork, partial(child, number)) for number in range(_FORKS)])
        for turn in range(_TURNS):
            assert sum(won[turn::_TURNS]) == 1
            assert len(store.keys("acme", f"subject {turn}")) == 1

    def test_nothing_that_is_shown_holds_a_secret(
        self, store: KeyStore, secrets: Sequence[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The object itself, what its check says, and what is logged while it works."""
        with caplog.at_level(logging.INFO):
            successor(store, first_key(store, acme()))
            shown = [repr(store), str(store), store.check()]
        for text in (*shown, caplog.text):
            assert not any(shows(text, secret) for secret in secrets)


def _child(store: KeyStore, key: KeyRecord, subject: str) -> None:
    assert store.fetch([key.key_id]).records == {key.key_id: key}
    first_key(store, acme(subject))
    store.close()


def _needs_fork() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this operating system does not fork")

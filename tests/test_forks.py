"""Objects renew in forked children what they cannot share with the parent."""

from __future__ import annotations

import gc
import os
import weakref

from fieldvault.forks import in_forked_children
from fieldvault.keystores import MemoryKeyStore


class Counter:
    """Something that counts its renewals."""

    renewed = 0

    def renew(self) -> None:
        """Count one."""
        self.renewed += 1


def status_of_child(work: object) -> int:
    """The exit code of a forked child that runs ``work``; 1 where it takes longer than ten seconds."""
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(10)
        os._exit(work())  # type: ignore[operator]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_owner_is_renewed_in_the_child_and_not_in_the_parent() -> None:
    """Once a fork, in the child only."""
    counter = Counter()
    in_forked_children(counter, Counter.renew)

    assert status_of_child(lambda: counter.renewed) == 1
    assert counter.renewed == 0


def test_an_owner_is_not_kept_alive() -> None:
    """It goes when its user lets go of it, and later forks pass it over."""
    counter = Counter()
    in_forked_children(counter, Counter.renew)
    reference = weakref.ref(counter)
    del counter
    gc.collect()

    assert reference() is None
    assert status_of_child(lambda: 0) == 0


def test_a_child_forked_in_the_midst_of_a_change_does_not_hang() -> None:
    """The lock that a thread of the parent held does not exist in the child."""
    store = MemoryKeyStore()
    with store._lock:
        assert status_of_child(lambda: len(list(store.tenants()))) == 0

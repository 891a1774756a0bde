"""Modules: initialised with locks, by one object a process, and again in a child."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from fieldvault.errors import ConfigurationError, KMSUnavailable
from fieldvault.kms import PKCS11KMS
from fieldvault.kms.pkcs11 import modules
from fieldvault.kms.pkcs11.cryptoki import Cryptoki
from fieldvault.kms.pkcs11.modules import MODULES, Module
from fieldvault.testing.samples import in_a_fork, together
from tests.kms.pkcs11.calls import CKR_CANT_LOCK, CKR_DEVICE_ERROR, Call, in_the_way
from tests.kms.pkcs11.conftest import Opening

KEY = bytes(range(32))
CONTEXT = {"tenant": "acme"}
LONG = 30.0


@pytest.fixture
def kms(opening: Opening, root_key: str) -> Iterator[PKCS11KMS]:
    """The test's root key, open."""
    with closing(opening(key_label=root_key)) as kms:
        yield kms


@pytest.fixture
def renew(module: str) -> Callable[[], None]:
    """A function that has the module initialised again before it is next used."""

    def renew() -> None:
        known = MODULES.at(module)
        known.renew(known.generation)

    return renew


def test_a_module_is_told_that_threads_will_come(
    module: str, kms: PKCS11KMS, renew: Callable[[], None]
) -> None:
    """Without that SoftHSM crashes."""
    seen: list[Call] = []
    with in_the_way(module, seen.append, "C_Initialize"):
        renew()
        kms.close()
        assert kms.check()
    assert seen[-1].asks_for_locks
    assert MODULES.at(module).locks


def test_a_module_that_cannot_lock_is_used_by_one_thread_at_a_time(
    module: str, kms: PKCS11KMS, renew: Callable[[], None]
) -> None:
    """In one session."""
    inside, most, sessions = [0], [0], set()
    wrapped = kms.wrap(KEY, context=CONTEXT)

    def cannot(call: Call) -> int | None:
        return CKR_CANT_LOCK if call.asks_for_locks else None

    def count(call: Call) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        sessions.add(call.session)
        time.sleep(0.001)
        inside[0] -= 1

    with in_the_way(module, cannot, "C_Initialize"), in_the_way(module, count, "C_DecryptInit"):
        renew()
        kms.close()
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY
        assert together([lambda: kms.unwrap(wrapped, context=CONTEXT)] * 8) == [KEY] * 8
        assert (most, len(sessions)) == ([1], 1)
        assert not MODULES.at(module).locks
        renew()
        kms.close()
    assert kms.check()
    assert MODULES.at(module).locks


def test_a_module_that_somebody_else_initialised_is_left_as_it_is(module: str, kms: PKCS11KMS) -> None:
    """Their sessions would end; whether it has locks nobody knows."""
    assert kms.check()
    seen: list[Call] = []
    with in_the_way(module, seen.append, "C_Initialize", "C_Finalize"):
        known = Module(module, Cryptoki(module))
        assert known.ready(time.monotonic() + LONG).get_slots()
    assert (seen, known.locks) == ([], False)


def test_a_module_under_another_name_is_the_same(module: str, kms: PKCS11KMS, tmp_path: Path) -> None:
    """A process has it once."""
    assert kms.check()
    (tmp_path / "link.so").symlink_to(module)
    assert MODULES.at(str(tmp_path / "link.so")) is MODULES.at(module)


@pytest.mark.parametrize("name", ["/no/such/module.so", "libc.so.6"])
def test_what_is_no_module_is_a_mistake_of_the_configuration(opening: Opening, name: str) -> None:
    """Waiting does not help."""
    with closing(opening(module=name)) as kms, pytest.raises(ConfigurationError, match="cannot be loaded"):
        kms.check()


def test_a_module_that_cannot_be_initialised_is_an_outage_until_it_can(
    module: str, kms: PKCS11KMS, renew: Callable[[], None]
) -> None:
    """As one is whose server cannot be reached."""
    assert kms.check()
    with in_the_way(module, lambda _: CKR_DEVICE_ERROR, "C_Initialize"):
        renew()
        kms.close()
        for _ in range(2):
            with pytest.raises(KMSUnavailable, match="C_Initialize: 0x30"):
                kms.check()
    assert kms.check()


def test_a_fork_waits_for_the_calls_at_work(module: str, kms: PKCS11KMS) -> None:
    """So that no child gets a module in the midst of one."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    begun, order = threading.Event(), []
    gate = MODULES.at(module).gate

    def hold(_: Call) -> None:
        begun.set()
        until = time.monotonic() + LONG
        while not gate._waiting and time.monotonic() < until:
            time.sleep(0.001)
        order.append("the call ended")

    def unwrapped() -> None:
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY

    def forked() -> None:
        assert order == ["the call ended"]

    with in_the_way(module, hold, "C_DecryptInit"), ThreadPoolExecutor(1) as threads:
        call = threads.submit(unwrapped)
        assert begun.wait(LONG)
        in_a_fork(forked)
        call.result()
    in_a_fork(unwrapped)


def test_a_child_that_was_forked_in_the_midst_of_a_call_does_not_use_the_module(
    module: str, kms: PKCS11KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks may be held by a thread that is not there."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    monkeypatch.setattr(modules, "_PATIENCE", 0.05)
    begun, leave = threading.Event(), threading.Event()

    def hold(_: Call) -> None:
        begun.set()
        leave.wait(LONG)

    def child() -> None:
        for _ in range(2):
            with pytest.raises(KMSUnavailable, match="was forked while a call"):
                kms.check()

    with in_the_way(module, hold, "C_DecryptInit"), ThreadPoolExecutor(1) as threads:
        call = threads.submit(lambda: kms.unwrap(wrapped, context=CONTEXT))
        assert begun.wait(LONG)
        try:
            in_a_fork(child)
        finally:
            leave.set()
        assert call.result() == KEY
    assert kms.check()
    in_a_fork(kms.check)

"""Sessions: a few at a time, each one thread's, given up when lost and after a fork."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pkcs11
import pytest

from fieldvault.errors import KMSUnavailable
from fieldvault.kms import PKCS11KMS
from fieldvault.kms.pkcs11.modules import MODULES
from fieldvault.kms.pkcs11.rootkeys import version_of
from fieldvault.testing.samples import in_a_fork, together
from tests.kms.pkcs11.calls import CKR_DEVICE_ERROR, Call, in_the_way, lose_sessions
from tests.kms.pkcs11.conftest import Opening
from tests.servers.softhsm import TOKEN

KEY = bytes(range(32))
CONTEXT = {"tenant": "acme"}
LONG = 30.0


@pytest.fixture
def kms(opening: Opening, root_key: str) -> Iterator[PKCS11KMS]:
    """The test's root key, open, with three sessions."""
    with closing(opening(key_label=root_key, pool_size=3)) as kms:
        yield kms


class Crowd:
    """Decryptions that wait in the module until ``number`` of them are in it at the same time."""

    def __init__(self, number: int) -> None:
        self.sessions: list[int] = []
        self.all_in = threading.Event()
        self.leave = threading.Event()
        self._number = number

    def __call__(self, call: Call) -> None:
        """A decryption begins; those that come later than that many do not wait."""
        if not self.all_in.is_set():
            self.sessions.append(call.session)
            if len(self.sessions) >= self._number:
                self.all_in.set()
            self.leave.wait(LONG)


@contextmanager
def crowd(module: str, kms: PKCS11KMS, wrapped: bytes, number: int) -> Iterator[Crowd]:
    """So many threads that are in the module, and stay there until the block ends."""
    crowd = Crowd(number)
    with in_the_way(module, crowd, "C_DecryptInit"), ThreadPoolExecutor(number) as threads:
        answers = [threads.submit(kms.unwrap, wrapped, context=CONTEXT) for _ in range(number)]
        try:
            assert crowd.all_in.wait(LONG), f"only {len(crowd.sessions)} got in together"
            yield crowd
        finally:
            crowd.leave.set()
        assert [each.result() for each in answers] == [KEY] * number


def test_as_many_threads_are_in_the_token_as_there_are_sessions(module: str, kms: PKCS11KMS) -> None:
    """Together, each in a session of its own; those sessions are kept."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    for _ in range(2):
        with crowd(module, kms, wrapped, 3) as inside:
            assert len(set(inside.sessions)) == 3
    opened: list[Call] = []
    with in_the_way(module, opened.append, "C_OpenSession"):
        together([lambda: kms.unwrap(wrapped, context=CONTEXT)] * 12)
    assert opened == []


def test_whoever_finds_all_sessions_in_use_waits_and_not_without_end(
    module: str, opening: Opening, root_key: str
) -> None:
    """An outage to whoever waits; the others are served."""
    with closing(opening(key_label=root_key, pool_size=2, pool_timeout=0.1)) as kms:
        wrapped = kms.wrap(KEY, context=CONTEXT)
        with crowd(module, kms, wrapped, 2) as inside:
            begun = time.monotonic()
            with pytest.raises(KMSUnavailable, match="all 2 sessions"):
                kms.unwrap(wrapped, context=CONTEXT)
            assert 0.1 <= time.monotonic() - begun < 5
            assert len(inside.sessions) == 2
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY


def test_a_session_more_that_cannot_be_opened_does_not_end_those_that_work(
    module: str, kms: PKCS11KMS
) -> None:
    """The module is initialised again only while none works."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    seen: list[Call] = []
    with in_the_way(module, seen.append, "C_Initialize"):
        with crowd(module, kms, wrapped, 1) as inside:

            def fail(_: Call) -> int:
                inside.leave.set()
                until = time.monotonic() + LONG
                while not kms._connection._pool._idle and time.monotonic() < until:
                    time.sleep(0.001)
                return CKR_DEVICE_ERROR

            with in_the_way(module, fail, "C_OpenSession"), pytest.raises(KMSUnavailable):
                kms.unwrap(wrapped, context=CONTEXT)
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY
        with crowd(module, kms, wrapped, 3):
            pass
    assert seen == []


def test_a_module_that_is_not_left_is_waited_for_for_a_while_only(
    module: str, kms: PKCS11KMS, opening: Opening, root_key: str
) -> None:
    """Whoever needs it alone, to initialise it again, is told that it is an outage."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with closing(opening(key_label=root_key, pool_timeout=0.1)) as other:
        with crowd(module, kms, wrapped, 1):
            known = MODULES.at(module)
            known.renew(known.generation)
            begun = time.monotonic()
            with pytest.raises(KMSUnavailable, match="has not ended in time"):
                other.check()
            assert time.monotonic() - begun < 5
        assert other.check()


def test_a_call_that_hangs_holds_up_its_own_session_only(module: str, kms: PKCS11KMS) -> None:
    """The others go on, and more are opened."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with crowd(module, kms, wrapped, 1):
        sealed = kms.wrap(KEY, context={"tenant": "other"})
        assert kms.check()
    assert kms.unwrap(sealed, context={"tenant": "other"}) == KEY


def test_a_new_version_is_taken_up_by_every_session(module: str, kms: PKCS11KMS) -> None:
    """Whichever of them made it, or looked."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with crowd(module, kms, wrapped, 3):
        pass
    assert kms.rotate_root_key() == 2
    versions = together([lambda: version_of(kms.wrap(KEY, context=CONTEXT)[1:9])] * 12)
    assert set(versions) == {2}


def test_a_check_finds_a_version_that_another_made_for_every_session(
    module: str, kms: PKCS11KMS, opening: Opening, root_key: str
) -> None:
    """As a process does that did not rotate itself."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with crowd(module, kms, wrapped, 3), closing(opening(key_label=root_key)) as other:
        other.rotate_root_key()
    assert version_of(kms.wrap(KEY, context=CONTEXT)[1:9]) == 1
    kms.check()
    assert set(together([lambda: version_of(kms.wrap(KEY, context=CONTEXT)[1:9])] * 12)) == {2}


def test_sessions_that_are_lost_are_opened_again(module: str, kms: PKCS11KMS) -> None:
    """All at once, under the threads that use them; the module is initialised again, with locks."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with crowd(module, kms, wrapped, 3):
        pass
    seen: list[Call] = []

    def lose() -> None:
        for _ in range(5):
            lose_sessions(module, TOKEN)
            assert kms.unwrap(wrapped, context=CONTEXT) == KEY

    def work() -> None:
        for _ in range(20):
            assert kms.unwrap(wrapped, context=CONTEXT) == KEY

    with in_the_way(module, seen.append, "C_Initialize"):
        together([lose, *[work] * 5])
    assert all(each.asks_for_locks for each in seen)
    assert len(seen) >= 5


def test_a_module_that_somebody_else_initialised_again_is_no_outage(module: str, kms: PKCS11KMS) -> None:
    """All sessions ended with that, and so did the locks, until it is initialised once more."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    seen: list[Call] = []
    with in_the_way(module, seen.append, "C_Initialize"):
        with MODULES.at(module).entered(time.monotonic() + LONG, alone=True):
            pkcs11.lib(module).reinitialize()
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY
    assert seen[0].asks_for_locks is False
    assert seen[-1].asks_for_locks is True
    with MODULES.at(module).entered(time.monotonic() + LONG, alone=True):
        pkcs11.lib(module).finalize()
    assert kms.unwrap(wrapped, context=CONTEXT) == KEY


def test_a_handle_from_before_is_neither_used_nor_closed(
    module: str, kms: PKCS11KMS, opening: Opening, root_key: str
) -> None:
    """Once the module was initialised again it may be the handle of somebody else's session."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    known = MODULES.at(module)
    theirs: list[Call] = []
    ours: list[Call] = []
    with closing(opening(key_label=root_key)) as other:
        known.renew(known.generation)
        with in_the_way(module, theirs.append, "C_DecryptInit"):
            other.check()
        with in_the_way(module, ours.append, "C_DecryptInit", "C_CloseSession", "C_Logout"):
            assert kms.unwrap(wrapped, context=CONTEXT) == KEY
            assert [each.function for each in ours] == ["C_DecryptInit"]
            assert ours[0].session != theirs[0].session
            known.renew(known.generation)
            other.close()
            other.check()
            del ours[:]
            kms.close()
            assert ours == []
        with in_the_way(module, ours.append, "C_OpenSession"):
            other.check()
        assert ours == []


def test_a_lost_session_makes_no_noise(module: str, kms: PKCS11KMS, monkeypatch: pytest.MonkeyPatch) -> None:
    """python-pkcs11 writes to stderr what goes wrong with a search."""
    noise: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    for call in (kms.check, kms.rotate_root_key):
        kms.check()
        lose_sessions(module, TOKEN)
        assert call()
    assert noise == []


def test_a_search_that_failed_is_over_before_anybody_else_has_the_module(
    module: str, kms: PKCS11KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-pkcs11 ends it when it is forgotten; by then the handle may be somebody else's."""
    noise: list[object] = []
    inside: list[bool] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    gate = MODULES.at(module).gate

    def final(_: Call) -> None:
        inside.append(threading.get_ident() in gate._inside)

    with (
        in_the_way(module, lambda _: CKR_DEVICE_ERROR, "C_FindObjectsInit"),
        in_the_way(module, final, "C_FindObjectsFinal"),
        pytest.raises(KMSUnavailable, match="DeviceError"),
    ):
        kms.check()
    assert inside == [True]
    assert kms.check()


def test_a_session_that_fails_is_given_up_and_the_call_repeated_in_a_new_one(
    module: str, kms: PKCS11KMS
) -> None:
    """Once; then it is an outage."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    failed: list[int] = []

    def once(call: Call) -> int | None:
        if failed and call.session not in failed:
            return None
        failed.append(call.session)
        return CKR_DEVICE_ERROR

    def always(call: Call) -> int:
        failed.append(call.session)
        return CKR_DEVICE_ERROR

    closed: list[Call] = []
    with in_the_way(module, once, "C_DecryptInit"), in_the_way(module, closed.append, "C_CloseSession"):
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY
    assert [each.session for each in closed] == failed[:1]
    with in_the_way(module, always, "C_DecryptInit"), pytest.raises(KMSUnavailable, match="DeviceError"):
        kms.unwrap(wrapped, context=CONTEXT)
    assert len(set(failed)) > 1
    assert kms.unwrap(wrapped, context=CONTEXT) == KEY


def test_a_fault_of_a_moment_is_not_taken_for_a_wrong_key(module: str, kms: PKCS11KMS) -> None:
    """The token is asked again, once it has proved that it works."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    answers = iter([CKR_DEVICE_ERROR])
    with in_the_way(module, lambda _: next(answers, None), "C_DecryptInit"):
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY


def test_a_forked_child_opens_sessions_of_its_own(module: str, kms: PKCS11KMS) -> None:
    """It initialises the module before it does anything with it; the parent's sessions go on."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with crowd(module, kms, wrapped, 3) as inside:
        pass

    def child() -> None:
        seen: list[Call] = []
        with in_the_way(
            module, seen.append, "C_Initialize", "C_OpenSession", "C_DecryptInit", "C_CloseSession"
        ):
            together([lambda: kms.unwrap(wrapped, context=CONTEXT)] * 6)
            kms.close()
        assert seen[0].function == "C_Initialize"
        assert {each.asks_for_locks for each in seen if each.function == "C_Initialize"} == {True}
        assert Counter(each.function for each in seen)["C_OpenSession"] >= 2

    in_a_fork(child)
    opened: list[Call] = []
    with in_the_way(module, opened.append, "C_OpenSession"), crowd(module, kms, wrapped, 3) as again:
        assert set(again.sessions) == set(inside.sessions)
    assert opened == []


def test_close_gives_up_every_session(module: str, opening: Opening, root_key: str) -> None:
    """And waits for the calls at work; whoever comes later opens anew."""
    opened: list[Call] = []
    closed: list[Call] = []
    with (
        in_the_way(module, opened.append, "C_OpenSession"),
        in_the_way(module, closed.append, "C_CloseSession"),
        closing(opening(key_label=root_key)) as kms,
    ):
        wrapped = kms.wrap(KEY, context=CONTEXT)
        with crowd(module, kms, wrapped, 3):
            pass
        kms.close()
        # One of them keeps the login.
        assert len(opened) >= 4
        assert len(closed) == len(opened)
        kms.close()
        assert kms.unwrap(wrapped, context=CONTEXT) == KEY

"""PINs: asked for when needed, tried once, shown to nobody but the token."""

import ctypes
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import TracebackType

import pytest

from fieldvault.errors import KMSDenied, KMSKeyDisabled
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import PKCS11KMS
from fieldvault.testing.samples import in_a_fork, together, told_by
from tests.kms.pkcs11.calls import Call, in_the_way
from tests.kms.pkcs11.conftest import Asked, Opening
from tests.servers.softhsm import LOCKED_TOKEN, PIN, SoftHSM

KEY = bytes(range(32))
CONTEXT = {"tenant": "acme"}


@contextmanager
def given_pins(softhsm: SoftHSM) -> Iterator[list[str]]:
    """The PINs that tokens are given meanwhile."""
    given: list[str] = []

    def note(call: Call) -> None:
        _session, _user, pin, size = call.arguments
        given.append(ctypes.string_at(pin, size).decode())

    with in_the_way(str(softhsm.module), note, "C_Login"):
        yield given


def test_a_wrong_pin_is_denied_and_not_tried_again(softhsm: SoftHSM, opening: Opening) -> None:
    """Tokens lock themselves after a few; another PIN is tried."""
    pin = Asked("0000-wrong", "0000-wrong", "0000-wrong", PIN)
    with closing(opening(token_label=LOCKED_TOKEN, pin=pin)) as kms, given_pins(softhsm) as given:
        for told in ("PinIncorrect", "not tried again", "not tried again"):
            with pytest.raises(KMSDenied, match=told) as caught:
                kms.wrap(KEY, context=CONTEXT)
            assert all("0000-wrong" not in text for text in told_by(caught.value))
            assert all("0000-wrong" not in text for text in locals_of(caught.tb))
        assert "0000-wrong" not in repr(vars(kms._connection._login))
        assert given == ["0000-wrong"]
        with pytest.raises(KMSKeyDisabled, match=r"has no root key .*; see key_label"):
            kms.wrap(KEY, context=CONTEXT)
        assert given == ["0000-wrong", PIN]


def test_a_wrong_pin_is_tried_once_by_all_threads_together(softhsm: SoftHSM, opening: Opening) -> None:
    """However many of them find nobody logged in."""
    with closing(opening(token_label=LOCKED_TOKEN, pin="0000-wrong")) as kms, given_pins(softhsm) as given:

        def denied() -> None:
            with pytest.raises(KMSDenied):
                kms.wrap(KEY, context=CONTEXT)

        together([denied] * 8)
        assert given == ["0000-wrong"]


def test_one_login_does_for_all_sessions(softhsm: SoftHSM, opening: Opening) -> None:
    """It is the process's."""
    opening(make=PKCS11KMS.create, token_label=LOCKED_TOKEN).close()
    pin = Asked(PIN)
    with closing(opening(token_label=LOCKED_TOKEN, pin=pin)) as kms, given_pins(softhsm) as given:
        together([kms.check] * 8)
        assert (given, pin.times) == ([PIN], 1)


def test_of_many_items_none_is_asked_for_after_a_denial(opening: Opening) -> None:
    """Nor after an outage: each would wait for as long."""
    pin = Asked("0000-wrong")
    with closing(opening(token_label=LOCKED_TOKEN, pin=pin)) as kms:
        item = WrappedKey(b"\x01" + bytes(68), CONTEXT)
        answers = kms.unwrap_many([item] * 5)
    assert [type(each) for each in answers] == [KMSDenied] * 5
    assert len({id(each) for each in answers}) == 5
    assert pin.times == 1


def test_a_callback_is_asked_at_each_login_and_not_before(opening: Opening) -> None:
    """So that the PIN need not be kept in memory, nor be the same for good."""
    opening(make=PKCS11KMS.create, token_label=LOCKED_TOKEN).close()
    pin = Asked(PIN)
    with closing(opening(token_label=LOCKED_TOKEN, pin=pin)) as kms:
        assert pin.times == 0
        kms.wrap(KEY, context=CONTEXT)
        kms.wrap(KEY, context=CONTEXT)
        assert pin.times == 1

        def child() -> None:
            kms.check()
            assert pin.times == 2

        in_a_fork(child)
        kms.close()
        kms.check()
        assert pin.times == 2


def test_one_object_that_logs_out_does_not_lock_out_another(opening: Opening, root_key: str) -> None:
    """The login is the process's, and is made good."""
    first, second = opening(key_label=root_key), opening(key_label=root_key)
    wrapped = first.wrap(KEY, context=CONTEXT)
    assert second.unwrap(wrapped, context=CONTEXT) == KEY
    first.close()
    assert second.unwrap(wrapped, context=CONTEXT) == KEY
    second.close()
    assert second.unwrap(wrapped, context=CONTEXT) == KEY
    second.close()


def locals_of(traceback: TracebackType | None) -> Iterator[str]:
    """What a tool that reports errors with their frames' variables would show, of our own frames."""
    while traceback is not None:
        if "fieldvault/kms" in traceback.tb_frame.f_code.co_filename:
            yield repr(traceback.tb_frame.f_locals)
        traceback = traceback.tb_next

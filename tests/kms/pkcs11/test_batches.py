"""Many calls: in a row where the token is quick, in all sessions where it is slow."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.protocols import NotAsked, WrappedKey
from fieldvault.kms import PKCS11KMS
from fieldvault.kms.pkcs11 import batches
from fieldvault.kms.pkcs11.batches import ask_all
from tests.kms.pkcs11.calls import CKR_DEVICE_ERROR, Call, in_the_way
from tests.kms.pkcs11.conftest import Opening

KEYS = [bytes([number]) * 32 for number in range(20)]


@pytest.fixture
def kms(opening: Opening, root_key: str) -> Iterator[PKCS11KMS]:
    """The test's root key, open, with three sessions."""
    with closing(opening(key_label=root_key, pool_size=3)) as kms:
        yield kms


@pytest.fixture
def wrapped(kms: PKCS11KMS) -> list[WrappedKey]:
    """Each of the keys."""
    return [
        WrappedKey(kms.wrap(key, context={"tenant": str(number)}), {"tenant": str(number)})
        for number, key in enumerate(KEYS)
    ]


@pytest.mark.parametrize(("slow", "most"), [(0.0, 3), (float("inf"), 1)])
def test_a_slow_token_is_asked_in_all_sessions_at_a_time(
    *,
    module: str,
    kms: PKCS11KMS,
    wrapped: list[WrappedKey],
    monkeypatch: pytest.MonkeyPatch,
    slow: float,
    most: int,
) -> None:
    """And a quick one in a row; the answers are in order."""
    monkeypatch.setattr(batches, "_SLOW", slow)
    lock, inside, seen = threading.Lock(), 0, 0

    def stay(_: Call) -> None:
        nonlocal inside, seen
        with lock:
            inside += 1
            seen = max(seen, inside)
        time.sleep(0.002)
        with lock:
            inside -= 1

    with in_the_way(module, stay, "C_DecryptInit"):
        assert kms.unwrap_many(wrapped) == KEYS
    assert seen == most


def test_once_the_token_cannot_be_reached_it_is_not_asked_for_the_rest(
    module: str, kms: PKCS11KMS, wrapped: list[WrappedKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait for as long; what was opened before stays opened."""
    monkeypatch.setattr(batches, "_SLOW", 0.0)
    asked: list[Call] = []

    def fail(call: Call) -> int | None:
        asked.append(call)
        return CKR_DEVICE_ERROR if len(asked) > 2 else None

    with in_the_way(module, fail, "C_DecryptInit"):
        answers = kms.unwrap_many(wrapped)
    assert list(answers[:2]) == KEYS[:2]
    assert all(isinstance(each, KMSUnavailable) for each in answers[2:])
    # Three at a time had begun, each with what makes sure of a failure.
    assert sum(type(each) is KMSUnavailable for each in answers) <= 3
    assert sum(type(each) is NotAsked for each in answers) >= 15
    assert len(asked) < 30
    assert kms.unwrap_many(wrapped) == KEYS


def test_an_item_that_does_not_open_is_its_own_affair(
    kms: PKCS11KMS, wrapped: list[WrappedKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others open."""
    monkeypatch.setattr(batches, "_SLOW", 0.0)
    wrapped[5] = WrappedKey(wrapped[5].wrapped, {"tenant": "other"})
    answers = kms.unwrap_many(wrapped)
    assert type(answers[5]) is KMSError
    assert [each for number, each in enumerate(answers) if number != 5] == [*KEYS[:5], *KEYS[6:]]


@pytest.mark.parametrize("number", range(5))
def test_few_items_need_no_threads(number: int) -> None:
    """Nor does none."""
    me = threading.get_ident()
    answers = ask_all(lambda item: (item, threading.get_ident()), range(number), parallel=lambda: 1)
    assert answers == [(item, me) for item in range(number)]

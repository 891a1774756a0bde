"""A root key of its own for each test, in the token that all share."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pkcs11
import pytest
from pkcs11 import Attribute, ObjectClass

from fieldvault.kms import PKCS11KMS
from fieldvault.kms.pkcs11.modules import MODULES
from tests.servers.softhsm import PIN, TOKEN, SoftHSM

Opening = Callable[..., PKCS11KMS]


class Asked:
    """A PIN that is asked for, and counts it."""

    def __init__(self, *pins: str) -> None:
        self.pins = list(pins)
        self.times = 0

    def __call__(self) -> str:
        """The next one; the last again and again."""
        self.times += 1
        return self.pins.pop(0) if len(self.pins) > 1 else self.pins[0]


@pytest.fixture
def key_label(softhsm: SoftHSM) -> str:
    """The label of a root key that is not made yet."""
    return softhsm.key_label()


@pytest.fixture
def module(softhsm: SoftHSM) -> str:
    """The path of the module."""
    return str(softhsm.module)


@pytest.fixture
def opening(softhsm: SoftHSM, key_label: str) -> Opening:
    """A function that opens, or ``make``s, the test's root key; with other arguments where it gets some."""

    def opened(make: Opening = PKCS11KMS, **others: Any) -> PKCS11KMS:
        arguments = {"module": softhsm.module, "token_label": TOKEN, "key_label": key_label, "pin": PIN}
        return make(**{**arguments, **others})

    return opened


@pytest.fixture
def root_key(opening: Opening, key_label: str) -> str:
    """The label of a root key that was made."""
    opening(make=PKCS11KMS.create).close()
    return key_label


@pytest.fixture
def as_administrator(softhsm: SoftHSM, key_label: str) -> Callable[[Callable[[Any], object]], None]:
    """A function that does something with each object of the root key, as the vendor's tools would."""

    @contextmanager
    def session() -> Iterator[Any]:
        module, until = MODULES.at(str(softhsm.module)), time.monotonic() + 30
        library = module.ready(until)
        with module.entered(until, alone=True):
            token = library.get_token(token_label=TOKEN)
            try:
                opened = token.open(rw=True, user_pin=PIN)
            except pkcs11.UserAlreadyLoggedIn:
                opened = token.open(rw=True)
            try:
                yield opened
            finally:
                opened.close()

    def do(work: Callable[[Any], object]) -> None:
        with session() as opened:
            template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: key_label}
            for key in list(opened.get_objects(template)):
                work(key)

    return do

"""Standing in the way of calls of a PKCS#11 module: the real one, with something before a function of it."""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fieldvault.kms.pkcs11.modules import MODULES

# CK_FUNCTION_LIST (PKCS #11 v2.40, 5.4): where the function stands, and how many arguments it takes.
_FUNCTIONS = {
    "C_Initialize": (0, 1),
    "C_Finalize": (1, 1),
    "C_OpenSession": (12, 5),
    "C_CloseSession": (13, 1),
    "C_Login": (18, 4),
    "C_Logout": (19, 1),
    "C_FindObjectsInit": (26, 3),
    "C_FindObjectsFinal": (28, 1),
    "C_DecryptInit": (33, 3),
}
_VERSION_SIZE = 8
_CKF_OS_LOCKING_OK = 2

CKR_CANT_LOCK = 0x0A
CKR_DEVICE_ERROR = 0x30

Answering = Callable[["Call"], int | None]


class Call(NamedTuple):
    """A call: the function, its arguments as numbers, and of C_Initialize whether it asks for locks."""

    function: str
    arguments: tuple[int, ...]
    asks_for_locks: bool = False

    @property
    def session(self) -> int:
        """The handle of the session, of a function that takes one."""
        return self.arguments[0]


@contextmanager
def in_the_way(module: str, answer: Answering, *functions: str) -> Iterator[None]:
    """Have ``answer`` asked before these functions are called, in the thread that calls.

    What it returns is the function's answer; with ``None`` the function itself is called.
    """
    library = ctypes.CDLL(module)
    found = ctypes.c_void_p()
    assert library.C_GetFunctionList(ctypes.byref(found)) == 0
    assert found.value is not None
    kept: list[tuple[ctypes.c_void_p, int | None]] = []
    alive = []
    for name in functions:
        place, number = _FUNCTIONS[name]
        size = ctypes.sizeof(ctypes.c_void_p)
        entry = ctypes.c_void_p.from_address(found.value + _VERSION_SIZE + place * size)
        kind = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * number)
        instead = kind(_asking(name, answer, kind(entry.value or 0)))
        alive.append(instead)
        kept.append((entry, entry.value))
        entry.value = ctypes.cast(instead, ctypes.c_void_p).value
    try:
        yield
    finally:
        for entry, value in kept:
            entry.value = value


def _asking(name: str, answer: Answering, function: Callable[..., int]) -> Callable[..., int]:
    def ask(*arguments: int | None) -> int:
        numbers = tuple(each or 0 for each in arguments)
        told = answer(Call(name, numbers, name == "C_Initialize" and _asks_for_locks(numbers[0])))
        return function(*arguments) if told is None else told

    return ask


def _asks_for_locks(arguments: int) -> bool:
    """Whether these CK_C_INITIALIZE_ARGS, if they are there, say that threads will come."""
    flags = arguments + 4 * ctypes.sizeof(ctypes.c_void_p)
    return bool(arguments) and ctypes.c_ulong.from_address(flags).value == _CKF_OS_LOCKING_OK


def lose_sessions(module: str, token: str) -> None:
    """Close every session of this process with a token, as a token does that was pulled out."""
    known, until = MODULES.at(module), time.monotonic() + 30
    library = known.ready(until)
    close_all = ctypes.CDLL(module).C_CloseAllSessions
    close_all.argtypes = [ctypes.c_ulong]
    with known.entered(until, alone=True):
        assert close_all(library.get_token(token_label=token).slot.slot_id) == 0

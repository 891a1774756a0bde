"""What python-pkcs11 cannot have a module do: lock, so that several threads may be in it."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from pkcs11.exceptions import FunctionFailed

__all__ = ["Cryptoki"]

# Names and numbers are those of PKCS #11 v2.40 (OASIS), 5.4 and the header pkcs11t.h.
_CKF_OS_LOCKING_OK = 0x02
_CKR_OK = 0x00
_CKR_ARGUMENTS_BAD = 0x07
_CKR_CANT_LOCK = 0x0A
_CKR_CRYPTOKI_NOT_INITIALIZED = 0x190
_CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191

# No shorter than CK_INFO on any platform.
_INFO_SIZE = 256

_OfOnePointer = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)


class _Structure(ctypes.Structure):
    if sys.platform == "win32":
        # The standard has structures packed there.
        _pack_ = 1
        _layout_ = "ms"


class _InitializeArgs(_Structure):
    _fields_ = (
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("pReserved", ctypes.c_void_p),
    )


class _FunctionList(_Structure):
    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", _OfOnePointer),
        ("C_Finalize", _OfOnePointer),
        ("C_GetInfo", _OfOnePointer),
    )


class Cryptoki:
    """The functions of a module that need no session.

    The module is the one that python-pkcs11 loads under this name: a process has it, and its state, once.

    Raises:
        OSError: there is no such library, or it cannot be loaded.
        AttributeError: it is no PKCS#11 module.
    """

    def __init__(self, path: str) -> None:
        get_function_list: Any = ctypes.CDLL(path).C_GetFunctionList
        functions = ctypes.POINTER(_FunctionList)()
        _expect(get_function_list(ctypes.byref(functions)), "C_GetFunctionList")
        self._functions = functions.contents

    @property
    def address(self) -> int:
        """The same for the same module, under whatever path."""
        return ctypes.addressof(self._functions)

    def is_initialised(self) -> bool:
        """Whether somebody in this process has initialised the module."""
        answer = self._functions.C_GetInfo(ctypes.create_string_buffer(_INFO_SIZE))
        return bool(answer != _CKR_CRYPTOKI_NOT_INITIALIZED)

    def initialise(self) -> bool:
        """Initialise the module anew, with locks; whether it has some.

        All sessions of this process with its tokens end. Nobody may be in the module meanwhile.

        Raises:
            FunctionFailed: it could not be; it has then to be tried again.
        """
        arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK)
        answer = self._initialise(ctypes.byref(arguments))
        locks = answer not in (_CKR_CANT_LOCK, _CKR_ARGUMENTS_BAD)
        if not locks:
            answer = self._initialise(None)
        _expect(answer, "C_Initialize")
        return locks

    def _initialise(self, arguments: Any) -> int:
        # To finalize comes second: in a forked child what it finalizes may be the parent's.
        answer: int = self._functions.C_Initialize(arguments)
        if answer == _CKR_CRYPTOKI_ALREADY_INITIALIZED:
            _expect(self._functions.C_Finalize(None), "C_Finalize")
            answer = self._functions.C_Initialize(arguments)
        return answer


def _expect(answer: int, function: str) -> None:
    if answer != _CKR_OK:
        raise FunctionFailed(f"{function}: 0x{answer:x}")

"""What a vendor's library can raise, listed from the library itself, as it is installed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, TypeAlias

from fieldvault.errors import FieldVaultError

__all__ = ["Meaning", "VendorError", "error_codes", "exceptions_of"]

VendorError: TypeAlias = type[Exception] | str
"""An exception class of the vendor's library, or a code that the vendor's server answers with."""

Meaning: TypeAlias = Callable[[VendorError], type[FieldVaultError] | None]
"""What a backend raises in the place of one, or ``None`` where nobody has said it yet."""


def exceptions_of(*modules: ModuleType) -> frozenset[type[Exception]]:
    """Every exception class in these modules that their library defines; of a package, in all below it.

    Warnings are none. A module that cannot be imported, for want of an optional part, cannot raise either
    and is passed over; so is one that is a program.
    """
    return frozenset(
        each
        for module in modules
        for part in _parts(module)
        for each in vars(part).values()
        if inspect.isclass(each)
        and issubclass(each, Exception)
        and not issubclass(each, Warning)
        and _library(each.__module__) == _library(module.__name__)
    )


def error_codes(service_model: Any, operations: Iterable[str]) -> frozenset[str]:
    """Every code that the model of an AWS service declares for these operations.

    ``service_model`` is ``client.meta.service_model``. Codes that all services answer with stand in no model.
    """
    return frozenset(
        shape.error_code for name in operations for shape in service_model.operation_model(name).error_shapes
    )


def _parts(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if found.name == "__main__":
            continue
        try:
            part = importlib.import_module(f"{module.__name__}.{found.name}")
        except ImportError:
            continue
        yield from _parts(part)


def _library(module: str) -> str:
    return module.partition(".")[0]

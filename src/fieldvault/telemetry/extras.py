"""What an adapter needs of its vendor, told where it is missing."""

from __future__ import annotations

from importlib import import_module

__all__ = ["require"]


def require(module: str, *, of: str, extra: str) -> None:
    """See that a vendor's module is there.

    Raises:
        ImportError: it is not; the message says what to install.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        return
    raise ImportError(f"{of} needs the module {missing}, which is not installed; install fieldvault[{extra}]")

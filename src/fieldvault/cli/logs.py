"""What the library logs while a command runs, told on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fieldvault.cli.terminal import shown

__all__ = ["warnings_told"]


@contextmanager
def warnings_told() -> Iterator[None]:
    """Each warning of the library once, as a word to the person at the terminal."""
    logger, handler = logging.getLogger("fieldvault"), _Teller()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Teller(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless that was said."""
        text = record.getMessage()
        if text not in self._told:
            self._told.add(text)
            click.echo(shown(f"Warning: {text}"), err=True)

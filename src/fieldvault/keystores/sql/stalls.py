"""Databases that take a statement and never answer it: a limit of time for each, in the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from sqlalchemy import URL, Engine, event

__all__ = ["STALL_SECONDS", "bound_waits", "limits"]

STALL_SECONDS = 40.0
"""How long an answer is waited for; longer than the store itself waits for locks and for others' changes."""

_CONNECT_SECONDS = 10


def limits(url: URL) -> dict[str, Any]:
    """What the driver takes of such limits by itself, where the URL says nothing of them."""
    wanted: dict[str, Any] = {}
    if url.get_driver_name() in ("psycopg", "psycopg2", "pymysql"):
        wanted["connect_timeout"] = _CONNECT_SECONDS
    if url.get_driver_name() == "pymysql":
        wanted |= {"read_timeout": STALL_SECONDS, "write_timeout": STALL_SECONDS}
    return {name: value for name, value in wanted.items() if name not in url.query}


def bound_waits(engine: Engine) -> Engine:
    """The engine, whose connections, of psycopg, wait for no answer longer than ``STALL_SECONDS``.

    PostgreSQL's own ``statement_timeout`` is kept by the server, and so not by one that stands still, nor by
    a network that swallows its answer.
    """
    if engine.driver == "psycopg":
        event.listen(engine, "do_connect", partial(_connect, _bounded(engine.dialect.loaded_dbapi)))
    return engine


def _connect(kind: Any, _dialect: object, _record: object, arguments: Any, options: Any) -> Any:
    return kind.connect(*arguments, **options)


def _bounded(driver: Any) -> type:
    class Bounded(driver.Connection):  # type: ignore[misc]  # known when the driver is
        def wait(self, steps: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
            late = partial(driver.OperationalError, f"no answer within {STALL_SECONDS:g} s")
            try:
                return super().wait(_until(time.monotonic() + STALL_SECONDS, steps, late), *args, **options)
            except driver.OperationalError:
                if self.info.transaction_status == driver.pq.TransactionStatus.ACTIVE:
                    # Its answer may yet come, and would be taken for that to the next statement.
                    self.close()
                raise

    return Bounded


def _until(
    deadline: float, steps: Generator[Any, Any, Any], late: Callable[[], Exception]
) -> Generator[Any, Any, Any]:
    """The driver's steps, which are told now and then that nothing is ready yet, up to the deadline."""
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise late()
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value

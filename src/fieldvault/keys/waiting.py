"""Single flight for coroutines: what blocks runs in a thread, once for all tasks that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from fieldvault.keys.flight import own_copy

__all__ = ["TaskFlight"]

_Place = tuple[asyncio.AbstractEventLoop, Hashable]


class TaskFlight:
    """Runs blocking calls in the event loop's threads, one at a time a key.

    However many tasks wait for one key, they take one thread: the loop's other users of threads are not
    starved while a KMS is slow. A task that is cancelled leaves the call to those who still wait for it.
    """

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[_Place, asyncio.Future[Exception | None]] = {}

    async def run(self, key: Hashable, call: Callable[[], object]) -> None:
        """Have ``call`` run, or wait for the one that runs for this key; its error is raised by everyone."""
        place = (asyncio.get_running_loop(), key)
        flight = self._flights.get(place)
        led = flight is None
        if flight is None:
            flight = asyncio.ensure_future(asyncio.to_thread(_outcome, call))
            self._flights[place] = flight
            flight.add_done_callback(lambda _: self._flights.pop(place))
        error = await asyncio.shield(flight)
        if error is not None:
            raise error if led else own_copy(error)


def _outcome(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - raised by every task that waits
        return error
    return None

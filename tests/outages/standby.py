"""What can befall a ``TransitKMS`` that talks to a standby node of OpenBao."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tests.outages.transit import TransitLab
from tests.servers.openbao_cluster import OpenBaoCluster


class StandbyLab(TransitLab):
    """A transit key of its own, and a proxy before one of the standby nodes."""

    def __init__(self, cluster: OpenBaoCluster, timeout: float, *, reads: bool) -> None:
        self._cluster = cluster
        self._node = cluster.reader if reads else cluster.standby
        super().__init__(self._node, timeout)

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        events: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "standby": nullcontext,
            "standby_cut_off": self._cluster.cut_off,
            "standby_alone": self._cluster.active.stopped,
            "reader_alone": self._cluster.active.stopped,
            "reader_cut_off": self._out_of_touch,
        }
        return events[played]()

    def _token(self) -> str:
        token = super()._token()
        # A standby hears of it a moment later.
        self._node.wait_until(200, "auth/token/lookup-self", token=token)
        return token

    @contextmanager
    def _out_of_touch(self) -> Iterator[None]:
        with self._cluster.reader.cluster.refusing(), self._denied():
            yield

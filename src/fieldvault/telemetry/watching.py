"""What the adapters share: the vaults whose figures they read, and the bounds of their histograms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

from fieldvault.keys.stats import Stats

__all__ = ["SECONDS", "Readable", "Watched"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of the histograms: from a key store next door to a KMS that times out."""


class Readable(Protocol):
    """A vault, as far as metrics go."""

    def stats(self) -> Stats:
        """See ``Vault.stats``."""
        ...


class Watched:
    """The vaults of this process that metrics speak of, taken together; one that is gone is forgotten."""

    def __init__(self) -> None:
        self._vaults: WeakSet[Readable] = WeakSet()

    def add(self, vault: Readable) -> None:
        """Read its figures, too."""
        self._vaults.add(vault)

    def total(self, figure: Callable[[Stats], int]) -> int:
        """One figure, of all vaults together."""
        return sum(figure(vault.stats()) for vault in self._vaults)

    def lease_age(self) -> float | None:
        """The highest age of a lease; ``None`` where no vault has one."""
        ages = [vault.stats().lease_age for vault in self._vaults]
        return max((age for age in ages if age is not None), default=None)

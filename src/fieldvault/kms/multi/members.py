"""The members of a ``MultiKMS``: their order of preference, and how they are."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from fieldvault.errors import ConfigurationError, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.clock import Clock
from fieldvault.keys.protocols import KMS

__all__ = ["Members", "combined"]

_LOG = logging.getLogger("fieldvault")
_NAME = re.compile("[a-z0-9][a-z0-9._-]{0,62}")


class Members:
    """KMSs by name, in order of preference; ``None`` for one that is not at hand.

    One that was unavailable is asked after the others for ``cooldown`` seconds. That is a thing of this
    process, and nothing waits for it: threads that find out at once find out each for itself.
    """

    def __init__(self, members: Mapping[str, KMS | None], *, cooldown: float, clock: Clock) -> None:
        for name in members:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} cannot name a member: 1 to 63 of a-z, 0-9, '.', '_' and '-' can"
                )
        self.at_hand: dict[str, KMS] = {name: kms for name, kms in members.items() if kms is not None}
        self.absent = tuple(name for name, kms in members.items() if kms is None)
        if not self.at_hand:
            raise ConfigurationError("a MultiKMS needs a member that is at hand")
        self._cooldown = cooldown
        self._clock = clock
        self._ailing_until: dict[str, float] = {}

    def in_order(self) -> Sequence[tuple[str, KMS]]:
        """Those at hand: the healthy ones, then the ailing ones, each in order of preference."""
        return sorted(self.at_hand.items(), key=lambda member: self.ailing(member[0]))

    def ailing(self, name: str) -> bool:
        """Whether a member was unavailable a short while ago."""
        return self._clock() < self._ailing_until.get(name, 0.0)

    def note(self, name: str, answers: Sequence[bytes | KMSError]) -> None:
        """Remember whether a member was there to give these answers."""
        if not any(isinstance(answer, KMSUnavailable) for answer in answers):
            self._ailing_until.pop(name, None)
            return
        if not self.ailing(name):
            _LOG.warning("the KMS member %s is unavailable; others are asked first", name)
        self._ailing_until[name] = self._clock() + self._cooldown

    def lied(self, name: str) -> KMSError:
        """A member's answer was not the key that was wrapped."""
        _LOG.warning("the KMS member %s answered with another key than was wrapped", name)
        return KMSError(
            "answered with another key than was wrapped, or a part of the wrapped key was changed"
        )


def combined(doing: str, errors: Mapping[str, KMSError]) -> KMSError:
    """One error for those of several members.

    Whoever could not be asked may have known better, so an outage comes before a denial, a denial before a
    root key that is gone, and a wrapped key is only wrong where everybody says so.
    """
    kinds: tuple[type[KMSError], ...] = (KMSUnavailable, KMSDenied, KMSKeyDisabled)
    kind = next((kind for kind in kinds if any(isinstance(each, kind) for each in errors.values())), KMSError)
    told = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in errors.items())
    return kind(f"{doing}: {told}")

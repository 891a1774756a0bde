"""The members of a ``MultiKMS``: in which order they are asked, how they are, and what they answer."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from fieldvault.errors import FieldVaultError, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable, kind_of
from fieldvault.forks import in_forked_children
from fieldvault.keys.clock import Clock
from fieldvault.keys.flight import own_copy
from fieldvault.keys.protocols import KMS, ManyRootKeys, NotAsked, Rewrapping, WrappedKey

__all__ = ["Members", "combined"]

_LOG = logging.getLogger("fieldvault")


class Members:
    """KMSs by name, in order of preference; ``None`` for one that is not at hand.

    One that was unavailable is asked after the others. Each ``cooldown`` seconds one call, and no more, tries
    it in its turn, so that an outage costs the others nothing. That is a thing of this process; threads that
    meet the beginning of an outage at once find out each for itself.

    Whatever a member raises is its answer, as a ``KMSError``, so that the others are asked.
    """

    def __init__(self, members: Mapping[str, KMS | None], *, cooldown: float, clock: Clock) -> None:
        self.at_hand: dict[str, KMS] = {name: kms for name, kms in members.items() if kms is not None}
        self.absent = tuple(name for name, kms in members.items() if kms is None)
        self._cooldown = cooldown
        self._clock = clock
        self._next_trial: dict[str, float] = {}
        self._lock = threading.Lock()
        in_forked_children(self, Members.renew_lock)

    def renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread of the parent, which is not there."""
        self._lock = threading.Lock()

    def in_order(self, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[tuple[str, bool]]:
        """The names of those at hand that are wanted when their turn comes, and whether each is ailing.

        The healthy ones, then the ailing ones, each in order of preference. One that is due for a trial has
        its turn among the healthy ones: whoever asks for it here is the one that tries it.
        """
        ailing: list[str] = []
        for name in self.at_hand:
            if wanted(name):
                if self._passed_over(name):
                    ailing.append(name)
                else:
                    yield name, False
        for name in ailing:
            if wanted(name):
                yield name, True

    def wrap(self, name: str, key: bytes, context: Mapping[str, str]) -> bytes | KMSError:
        """What a member wraps, or the error that it met."""
        answer: bytes | KMSError
        try:
            answer = self.at_hand[name].wrap(key, context=context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            answer = _told(name, error)
        self._note(name, [answer])
        return answer

    def unwrap_many(self, name: str, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """What a member makes of each item."""
        answers: Sequence[bytes | KMSError]
        try:
            answers = list(self.at_hand[name].unwrap_many(items))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one is asked
            met = _told(name, error)
            answers = [own_copy(met) for _ in items]
        if len(answers) != len(items):
            answers = [KMSError(f"answered {len(answers)} of {len(items)} items") for _ in items]
        self._note(name, answers)
        return answers

    def says_current(self, name: str, wrapped: bytes, context: Mapping[str, str], *, untold: bool) -> bool:
        """Whether a member calls what it wrapped current; ``untold`` where it cannot say."""
        kms = self.at_hand[name]
        if not isinstance(kms, Rewrapping):
            return untold
        try:
            return kms.is_current(wrapped, context=context)
        except KMSError:
            # To wrap again is never wrong.
            return False
        except Exception as error:  # noqa: BLE001 - it is asked to wrap then, and meets it again
            _told(name, error)
            return False

    def root_key_of(self, name: str, wrapped: bytes, context: Mapping[str, str]) -> str:
        """What a member calls the root key of its part; nothing where it has one, or cannot read the part."""
        kms = self.at_hand[name]
        if not isinstance(kms, ManyRootKeys):
            return ""
        try:
            return kms.root_key_of(wrapped, context=context)
        except KMSError:
            # What it cannot read it will not unwrap either, so it depends on none of its root keys.
            return ""
        except Exception as error:  # noqa: BLE001 - nothing is known of it, so it stands for itself
            _told(name, error)
            return hashlib.sha256(wrapped).hexdigest()

    def check(self, name: str) -> str | FieldVaultError:
        """What a member says when it proves itself, or the error that it met."""
        try:
            return self.at_hand[name].check()
        except FieldVaultError as error:
            return error
        except Exception as error:  # noqa: BLE001 - its fault is its answer
            return _told(name, error)

    def lied(self, name: str) -> KMSError:
        """A member's answer was not the key that was wrapped."""
        _LOG.warning("the KMS member %s answered with another key than was wrapped", name)
        return KMSError(
            "answered with another key than was wrapped, or a part of the wrapped key was changed"
        )

    def _passed_over(self, name: str) -> bool:
        with self._lock:
            due_at = self._next_trial.get(name)
            if due_at is None:
                return False
            if self._clock() < due_at:
                return True
            # The trial is the caller's. Where nothing is heard of it, the next one is due as after any other.
            self._next_trial[name] = self._clock() + self._cooldown
            return False

    def _note(self, name: str, answers: Sequence[bytes | KMSError]) -> None:
        """Remember whether a member was there to give these answers."""
        out = any(isinstance(answer, KMSUnavailable) for answer in answers)
        with self._lock:
            was_out = name in self._next_trial
            if out:
                self._next_trial[name] = self._clock() + self._cooldown
            else:
                self._next_trial.pop(name, None)
        if out and not was_out:
            _LOG.warning("the KMS member %s is unavailable; others are asked first", name)


def _told(name: str, error: Exception) -> KMSError:
    """What a member raised, as an error of a KMS.

    What is no error of this package is a fault of the member. It is logged, and told by its class alone: it
    may quote what it was given.
    """
    if isinstance(error, KMSError):
        return own_copy(error)
    if isinstance(error, FieldVaultError):
        return KMSError(f"{type(error).__name__}: {error}")
    _LOG.warning("the KMS member %s failed with %s", name, type(error).__name__)
    return KMSError(f"failed with {type(error).__name__}")


def combined(doing: str, errors: Mapping[str, FieldVaultError]) -> KMSError:
    """One error for those of several members.

    Whoever could not be asked may have known better, so an outage comes before a denial, a denial before a
    root key that is gone, and a wrapped key is only wrong where everybody says so.
    """
    kinds: tuple[type[KMSError], ...] = (KMSUnavailable, KMSDenied, KMSKeyDisabled)
    kind = next((kind for kind in kinds if any(isinstance(each, kind) for each in errors.values())), KMSError)
    if kind is KMSUnavailable and all(
        isinstance(each, NotAsked) for each in errors.values() if isinstance(each, KMSUnavailable)
    ):
        kind = NotAsked
    said = "; ".join(f"{name}: {kind_of(error)}: {error}" for name, error in errors.items())
    return kind(f"{doing}: {said}")

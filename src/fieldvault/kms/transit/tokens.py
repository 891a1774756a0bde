"""A token's life: got at the first use, renewed while it is used, got anew when it ran out or was revoked."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any

from hvac.api.auth_methods import Token as TokenMethod

from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.forks import in_forked_children
from fieldvault.keys.clock import Clock, boot_clock
from fieldvault.keys.flight import SingleFlight
from fieldvault.kms.transit.auth import Auth, Grant, SecretText
from fieldvault.kms.transit.connection import Connection

__all__ = ["Held", "TokenKeeper"]

_LOGIN = "login"
_PAUSE = 5.0
"""Seconds between two attempts to renew a token that still serves, or to replace one in vain."""
_BELIEVED = 1.0
"""Seconds for which a token that the server knows is not asked about again, and a refused login not tried."""


@dataclass(slots=True)
class Held:
    """A token in use. ``fresh_until``: when to renew it; ``good_until``: when the server forgets it."""

    token: SecretText
    lease: float
    renewable: bool
    fresh_until: float
    good_until: float

    @classmethod
    def of(cls, grant: Grant, since: float) -> Held:
        """What was granted at a time by this process's clock."""
        lease = grant.lease if grant.lease > 0 else float("inf")
        return cls(grant.token, lease, grant.renewable, since + lease * 2 / 3, since + lease)


class TokenKeeper:
    """Gives the token to use now. However many threads want one, one of them logs in."""

    def __init__(self, auth: Auth, connection: Connection, clock: Clock | None = None) -> None:
        self._auth = auth
        self._connection = connection
        self._clock = boot_clock() if clock is None else clock
        self._held: Held | None = None
        self._not_to_blame: tuple[Held | None, float] = (None, 0.0)
        self._refused_login: tuple[str, float] = ("", 0.0)
        self._flight: SingleFlight[str, Held] = SingleFlight()
        self._renewing = Lock()
        in_forked_children(self, TokenKeeper.after_fork)

    def after_fork(self) -> None:
        """In a child: it uses its parent's token, and waits for none of its threads."""
        self._flight.reset()
        self._renewing = Lock()

    def current(self) -> Held:
        """The token to use.

        Raises:
            KMSDenied: the login was refused.
            KMSUnavailable: the server cannot be asked.
        """
        held = self._held
        now = self._clock()
        if held is None or now >= held.good_until:
            return self._anew(held)
        if now >= held.fresh_until and self._renewing.acquire(blocking=False):
            # The others go on with what still serves.
            try:
                return self._refreshed(held)
            finally:
                self._renewing.release()
        return held

    def instead(self, refused: Held) -> Held | None:
        """Another token in place of one that was refused; ``None`` if it was not the token's fault.

        ``None`` too where nobody can say whose fault it was: the refusal was said, and stands.

        Raises:
            KMSDenied: the token is no longer good, and the login was refused.
            KMSUnavailable: the token is no longer good, and a login cannot be had now.
        """
        if self._held is not refused:
            return self._held
        blameless, until = self._not_to_blame
        if blameless is refused and self._clock() < until:
            return None
        self._heed_refused_login()
        try:
            serves = self._serves(refused)
        except KMSUnavailable:
            return None
        if serves:
            self._not_to_blame = refused, self._clock() + _BELIEVED
            return None
        held = self._anew(refused)
        if held.token.reveal() == refused.token.reveal():
            self.was_in_vain(held)
            return None
        return held

    def was_in_vain(self, held: Held) -> None:
        """A token that was got in place of a refused one is refused too: no other is got for a while."""
        self._not_to_blame = held, self._clock() + _PAUSE

    def _serves(self, held: Held) -> bool:
        try:
            self._connection.ask(lambda adapter: TokenMethod(adapter).lookup_self(), held.token)
        except KMSDenied:
            return False
        return True

    def _refreshed(self, held: Held) -> Held:
        now = self._clock()
        if self._held is not held or now < held.fresh_until:
            return self._held or held
        try:
            renewed = self._renewed(held, now)
        except KMSUnavailable:
            held.fresh_until = min(now + _PAUSE, held.good_until)
            return held
        if renewed is None:
            return self._anew(held)
        self._held = renewed
        return renewed

    def _renewed(self, held: Held, now: float) -> Held | None:
        """The token with a longer lease; ``None`` if it cannot be renewed, or only for a short while more."""
        if not held.renewable:
            return None
        answer: Any
        try:
            answer = self._connection.ask(lambda adapter: TokenMethod(adapter).renew_self(), held.token)
        except KMSUnavailable:
            raise
        except KMSError:
            return None
        auth = answer.get("auth") if isinstance(answer, dict) else None
        lease = auth.get("lease_duration") if isinstance(auth, dict) else None
        if type(lease) is not int or lease < held.lease / 2:
            return None
        return Held.of(Grant(held.token, lease, held.renewable), now)

    def _anew(self, previous: Held | None) -> Held:
        outcome = self._flight.run(["login"], lambda keys: dict.fromkeys(keys, self._login(previous)))[
            "login"
        ]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _heed_refused_login(self) -> None:
        told, until = self._refused_login
        if self._clock() < until:
            raise KMSDenied(told)

    def _login(self, previous: Held | None) -> Held:
        if self._held is not previous and self._held is not None:
            return self._held
        self._heed_refused_login()
        now = self._clock()
        problem: KMSError
        try:
            granted = self._connection.ask(self._auth.login)
        except KMSUnavailable:
            raise
        except KMSError as error:
            problem = error
        else:
            self._held = Held.of(granted, now)
            return self._held
        # A login that is refused, by whatever status, is a matter of permission.
        told = f"the login by {type(self._auth).__name__} failed: {problem}"
        self._refused_login = told, self._clock() + _BELIEVED
        raise KMSDenied(told)

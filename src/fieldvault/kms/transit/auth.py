"""The ways to log in, as small frozen objects; what is secret in them is never shown."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from hvac import adapters
from hvac.api import auth_methods
from hvac.exceptions import Forbidden

from fieldvault.errors import ConfigurationError, KMSUnavailable

__all__ = ["JWT", "AppRole", "Auth", "Grant", "Kubernetes", "SecretText", "Token"]

_log = logging.getLogger(__name__)
_OTHERS = stat.S_IRWXO | stat.S_IWGRP

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class SecretText:
    """A token or a password whose ``repr`` is blank and which refuses to be pickled or copied.

    It does not protect against code in this process that asks for the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError("a token, JWT or secret id is printable ASCII without blanks")
        self._text = text

    def reveal(self) -> str:
        """The text. Only what sends it calls this."""
        return self._text

    def __repr__(self) -> str:
        return "<SecretText>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretText is not pickled or copied")


SecretSource = str | Path | SecretText
"""A secret, or the file that holds it, read anew at each login."""


class Grant(NamedTuple):
    """What a login gives: a token, its seconds to live (0: for good, or unknown), if it can be renewed."""

    token: SecretText
    lease: float
    renewable: bool


class Auth(Protocol):
    """A way to log in."""

    def login(self, adapter: adapters.Adapter) -> Grant:
        """Log in with an adapter that holds no token; what it raises of hvac's and requests' is mapped."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """A token made by somebody else; one in a file, which an agent keeps fresh, is read anew when refused."""

    token: SecretSource

    def __post_init__(self) -> None:
        _hide(self, "token")

    def login(self, adapter: adapters.Adapter) -> Grant:
        """See ``Auth``: asks the server how long the token lives."""
        token = _secret(self.token)
        adapter.token = token.reveal()
        try:
            answer = auth_methods.Token(adapter).lookup_self()
        except Forbidden:
            # Not good, or not allowed to ask: the next request tells.
            return Grant(token, 0, renewable=False)
        known = _object(answer, "data")
        return Grant(token, _seconds(known.get("ttl")), known.get("renewable") is True)


@dataclass(frozen=True, slots=True)
class AppRole:
    """A role id and a secret id (the AppRole method)."""

    role_id: str
    secret_id: SecretSource
    mount: str = "approle"

    def __post_init__(self) -> None:
        _hide(self, "secret_id")

    def login(self, adapter: adapters.Adapter) -> Grant:
        """See ``Auth``."""
        method = auth_methods.AppRole(adapter)
        secret_id = _secret(self.secret_id).reveal()
        return _granted(method.login(self.role_id, secret_id, use_token=False, mount_point=self.mount))


@dataclass(frozen=True, slots=True)
class JWT:
    """A role and a signed token of an identity provider (the JWT method)."""

    role: str
    jwt: SecretSource
    mount: str = "jwt"

    def __post_init__(self) -> None:
        _hide(self, "jwt")

    def login(self, adapter: adapters.Adapter) -> Grant:
        """See ``Auth``."""
        jwt = _secret(self.jwt, lasting=False).reveal()
        return _granted(auth_methods.JWT(adapter).jwt_login(self.role, jwt, use_token=False, path=self.mount))


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """A role and the pod's service account, whose token Kubernetes keeps fresh in a file."""

    role: str
    jwt: SecretSource = SERVICE_ACCOUNT
    mount: str = "kubernetes"

    def __post_init__(self) -> None:
        _hide(self, "jwt")

    def login(self, adapter: adapters.Adapter) -> Grant:
        """See ``Auth``."""
        method = auth_methods.Kubernetes(adapter)
        jwt = _secret(self.jwt, lasting=False).reveal()
        return _granted(method.login(self.role, jwt, use_token=False, mount_point=self.mount))


def _hide(auth: object, name: str) -> None:
    source = getattr(auth, name)
    if isinstance(source, str):
        object.__setattr__(auth, name, SecretText(source))


def _secret(source: SecretSource, *, lasting: bool = True) -> SecretText:
    """The secret; one that lasts is not for others' eyes, whereas Kubernetes shows its short-lived JWTs."""
    if isinstance(source, SecretText):
        return source
    problem: str
    try:
        with Path(source).open(encoding="utf-8") as file:
            secret, mode = SecretText(file.read().strip()), os.fstat(file.fileno()).st_mode
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except (ConfigurationError, UnicodeDecodeError):
        problem = "it holds no token, JWT or secret id"
    else:
        if lasting and mode & _OTHERS:
            told = f"{source} holds a secret and is open to others (mode {stat.S_IMODE(mode):04o})"
            _log.warning("%s: chmod 600 %s", told, source)
        return secret
    raise KMSUnavailable(f"{source} cannot be read: {problem}")


def _granted(answer: object) -> Grant:
    auth = _object(answer, "auth")
    token = auth.get("client_token")
    if isinstance(token, str):
        with suppress(ConfigurationError):
            lease = _seconds(auth.get("lease_duration"))
            return Grant(SecretText(token), lease, auth.get("renewable") is True)
    raise KMSUnavailable("the answer to the login holds no token; see what stands between")


def _seconds(given: object) -> float:
    """A time to live; none is 0."""
    if given is None:
        return 0
    if type(given) is not int or given < 0:
        raise KMSUnavailable("the answer does not say how long the token lives; see what stands between")
    return given


def _object(answer: object, member: str) -> dict[str, Any]:
    """A member of an answer; hvac gives something else than a mapping where the answer was no JSON."""
    found = answer.get(member) if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise KMSUnavailable("the answer is not one of OpenBao or Vault; see what stands between")
    return found

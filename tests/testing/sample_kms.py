"""A KMS that keeps every promise, written so that each can be broken by a line; and the server behind it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import ClassVar, NoReturn

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fieldvault.context import encode_context
from fieldvault.errors import FieldVaultError, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.forks import in_forked_children
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.testing import KMSConformance
from fieldvault.testing.vendors import Meaning, VendorError

TOKEN = "s.tokenTOKENtoken"
PATIENCE = 0.4

Context = Mapping[str, str]


class ServerError(Exception):
    """What the server's own library raises."""


class Unreachable(ServerError):
    """No connection."""


class TimedOut(ServerError):
    """No answer in time."""


class Forbidden(ServerError):
    """Not for this token; it says for which."""


class NoSuchKey(ServerError):
    """Neither here nor ever."""


class KeyInactive(ServerError):
    """Disabled or deleted."""


MEANING: dict[VendorError, type[FieldVaultError]] = {
    ServerError: KMSError,
    Unreachable: KMSUnavailable,
    TimedOut: KMSUnavailable,
    Forbidden: KMSDenied,
    NoSuchKey: KMSKeyDisabled,
    KeyInactive: KMSKeyDisabled,
}


class Server:
    """Keeps root keys, of several versions each, and has the trouble that it is told to have."""

    def __init__(self) -> None:
        self.keys = {"root": [os.urandom(32)], "other": [os.urandom(32)]}
        self.disabled: set[bytes] = set()
        self.trouble: ServerError | None = None

    def versions(self, name: str) -> list[bytes]:
        """The versions of a root key."""
        if self.trouble is not None:
            raise self.trouble
        if name not in self.keys:
            raise NoSuchKey(f"no key {name} for {TOKEN}")
        return self.keys[name]

    def require(self, root_key: bytes) -> None:
        """Or refuse its use."""
        if root_key in self.disabled:
            raise KeyInactive(f"one version, {TOKEN}")

    @contextmanager
    def troubled(self, trouble: ServerError) -> Iterator[None]:
        """Answer everything with it."""
        self.trouble = trouble
        yield
        self.trouble = None


class SampleKMS:
    """AES-256-GCM with the context as associated data, under the versions of a root key."""

    log = logging.getLogger("fieldvault.sample")

    def __init__(self, server: Server, name: str = "root", token: str = TOKEN) -> None:
        self.server = server
        self.name = name
        self.token = token
        self.renew()
        in_forked_children(self, SampleKMS.renew)

    def renew(self) -> None:
        """In a forked child too."""
        self.lock = threading.Lock()
        self.process = os.getpid()

    def versions(self) -> list[bytes]:
        """What the server says, in the words of this package."""
        try:
            return self.server.versions(self.name)
        except ServerError as error:
            told = self.translated(error)
        raise told

    def translated(self, error: ServerError) -> FieldVaultError:
        """The error for one of the server's, whose words hold a token."""
        return MEANING[type(error)](f"the server answered {type(error).__name__}")

    def bound(self, context: Context) -> bytes:
        """What a wrapped key is bound to."""
        return encode_context(context)

    def sealed(self, key: bytes, version: int, context: Context) -> bytes:
        """A key under a version of the root key."""
        nonce, root_key = os.urandom(12), self.versions()[version - 1]
        return bytes([version]) + nonce + AESGCM(root_key).encrypt(nonce, key, self.bound(context))

    def opened(self, wrapped: bytes, context: Context) -> bytes:
        """The key, or ``InvalidTag``."""
        versions = self.versions()
        if not wrapped or not 1 <= wrapped[0] <= len(versions):
            raise KMSError("not a key that was wrapped here")
        root_key = versions[wrapped[0] - 1]
        self.require(root_key)
        return AESGCM(root_key).decrypt(wrapped[1:13], wrapped[13:], self.bound(context))

    def require(self, root_key: bytes) -> None:
        """That the server lets it be used."""
        try:
            return self.server.require(root_key)
        except ServerError as error:
            told = self.translated(error)
        raise told

    def wrap(self, key: bytes, *, context: Context) -> bytes:
        """See ``KMS.wrap``."""
        with self.lock:
            self.log.info("wrapping for %s", context.get("tenant"))
            return self.sealed(key, len(self.versions()), context)

    def unwrap(self, wrapped: bytes, *, context: Context) -> bytes:
        """See ``KMS.unwrap``."""
        with self.lock:
            try:
                return self.opened(wrapped, context)
            except (InvalidTag, ValueError):
                pass
        raise KMSError("changed, or wrapped under another context")

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """See ``KMS.unwrap_many``."""
        answers: list[bytes | KMSError] = []
        for item in items:
            try:
                answers.append(self.unwrap(item.wrapped, context=item.context))
            except KMSError as error:
                answers.append(error)
        return answers

    def rotate_root_key(self) -> int:
        """See ``RootKeyRotation``."""
        self.versions().append(os.urandom(32))
        return len(self.versions())

    def root_key_of(self, wrapped: bytes, *, context: Context) -> str:  # noqa: ARG002 - as the protocol has it
        """See ``ManyRootKeys``."""
        return f"{self.name} {wrapped[0]}"

    def is_current(self, wrapped: bytes, *, context: Context) -> bool:
        """See ``Rewrapping``."""
        self.unwrap(wrapped, context=context)
        return wrapped[0] == len(self.versions())

    def rewrap(self, wrapped: bytes, *, context: Context) -> bytes:
        """See ``Rewrapping``."""
        return self.wrap(self.unwrap(wrapped, context=context), context=context)

    def check(self) -> str:
        """See ``KMS.check``."""
        return f"sample with {len(self.versions())} versions"

    def close(self) -> None:
        """See ``KMS.close``."""

    def __repr__(self) -> str:
        return f"SampleKMS({self.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("not pickled or copied")


class SampleConformance(KMSConformance):
    """The kit, with all that it can look at."""

    kms_class: ClassVar[type[SampleKMS]] = SampleKMS

    @pytest.fixture
    def server(self) -> Server:
        """A server of the test's own."""
        return Server()

    @pytest.fixture
    def open_kms(self, server: Server) -> Callable[[], KMS]:
        """Another client."""
        return partial(self.kms_class, server)

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """Those of the server's library."""
        return [*MEANING]

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """The table."""
        return MEANING.get

    @pytest.fixture
    def stranger(self, server: Server) -> KMS:
        """The other root key."""
        return self.kms_class(server, "other")

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """The token."""
        return [TOKEN]

    @pytest.fixture
    def open_unknown(self, server: Server) -> Callable[[], KMS]:
        """A root key that nobody made."""
        return partial(self.kms_class, server, "unknown")

    @pytest.fixture
    def disable(self, server: Server) -> Callable[[], None]:
        """The server refuses its use."""
        return partial(setattr, server, "trouble", KeyInactive(f"disabled, {TOKEN}"))

    @pytest.fixture
    def enable(self, server: Server) -> Callable[[], None]:
        """And no longer does."""
        return partial(setattr, server, "trouble", None)

    @pytest.fixture
    def disable_one(self, server: Server) -> Callable[[bytes], None]:
        """The server refuses the use of one version."""
        return lambda wrapped: server.disabled.add(server.keys["root"][wrapped[0] - 1])

    @pytest.fixture
    def delete(self, server: Server) -> Callable[[], None]:
        """It is gone."""
        return partial(server.keys.__delitem__, "root")

    @pytest.fixture
    def break_connection(self, server: Server) -> Callable[[], AbstractContextManager[None]]:
        """Nobody is there."""
        return partial(server.troubled, Unreachable(f"no route with {TOKEN}"))

    @pytest.fixture
    def slow_down(self, server: Server) -> Callable[[], AbstractContextManager[None]]:
        """Nobody answers."""
        return partial(server.troubled, TimedOut(f"no answer to {TOKEN}"))

    @pytest.fixture
    def deny(self, server: Server) -> Callable[[], AbstractContextManager[None]]:
        """Not with this token."""
        return partial(server.troubled, Forbidden(TOKEN))

    @pytest.fixture
    def patience(self) -> float:
        """Not much, where somebody is to lose it."""
        return 10.0 if self.kms_class is SampleKMS else PATIENCE

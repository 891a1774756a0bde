"""``TransitKMS``: data keys wrapped by the transit engine of OpenBao or Vault."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from fieldvault.errors import ConfigurationError, KMSDenied, KMSError
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms.transit import configuring
from fieldvault.kms.transit.auth import Auth, SecretText, Token
from fieldvault.kms.transit.batches import MAX_ITEMS, in_batches
from fieldvault.kms.transit.connection import Server
from fieldvault.kms.transit.engine import Engine, Item
from fieldvault.kms.transit.mapping import TransitKeyMissing
from fieldvault.kms.transit.wrapping import Ciphertext, check_key, check_mount, tenant_key
from fieldvault.secret import KEY_SIZE
from fieldvault.settings import Section

__all__ = ["TransitKMS"]

_CHECK = {"purpose": "check"}
_OTHER = {"purpose": "check that the context is bound"}
_NOTHING = Item(Ciphertext(dedicated=False, version=1, sealed=bytes(60)), _CHECK)


class TransitKMS:
    """Wraps data keys with a transit key, type ``aes256-gcm96`` with ``derived=true``, that never leaves it.

    Transit derives the wrapping key from the context, tenant and key id among it: a wrapped key opens under
    its own context only. It protects against whoever gets the database, the key store or their backups. It
    does not protect against whoever holds a token that may decrypt, nor against the server's operators.

    Args:
        url: ``https://host:port``; ``http`` to another machine is refused without ``allow_http``.
        key: The transit key, or what the names of the tenants' own ones begin with.
        token: A token, or a file that holds one; in place of ``auth``.
        auth: ``AppRole``, ``JWT``, ``Kubernetes`` or ``Token``; the login happens at the first use.
        mount: Where the transit engine is mounted.
        namespace: The namespace of the mount and of the login.
        ca_file: The authorities, PEM, of the server's certificate; else those that Python's requests trusts.
        client_certificate: Certificate and unencrypted private key, PEM files, that the server asks for.
        connect_timeout: Seconds until a connection stands.
        read_timeout: Seconds between two bytes of an answer.
        pool_size: Connections, and so requests, at once.
        batch_size: Items a request; lower it where the server's ``max_request_json_strings`` is below 1,000.
        dedicated: Each tenant has a transit key of its own, which ``create_tenant_key`` makes.
        allow_http: Tokens and keys may cross the network in the clear.

    Raises:
        ConfigurationError: an argument that cannot work. The server is not asked yet.
    """

    def __init__(
        self,
        url: str,
        key: str = "fieldvault",
        *,
        token: str | Path | SecretText | None = None,
        auth: Auth | None = None,
        mount: str = "transit",
        namespace: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        client_certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        connect_timeout: float = 2.0,
        read_timeout: float = 5.0,
        pool_size: int = 16,
        batch_size: int = MAX_ITEMS,
        dedicated: bool = False,
        allow_http: bool = False,
    ) -> None:
        login = Token(token) if token is not None and auth is None else auth
        if login is None or (token is not None and auth is not None):
            raise ConfigurationError("a TransitKMS has either a token or an auth, such as AppRole")
        if batch_size < 1:
            raise ConfigurationError("a batch holds at least one item")
        self._key, self._mount = check_key(key), check_mount(mount)
        self._batch_size, self._dedicated = batch_size, dedicated
        server = Server(
            url=url.rstrip("/"),
            namespace=namespace,
            ca_file=None if ca_file is None else Path(ca_file),
            client_certificate=_paths(client_certificate),
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            pool_size=pool_size,
            allow_http=allow_http,
        )
        self._engine = Engine(server, login, self._mount)
        self._samples: dict[str, Item] = {}

    @classmethod
    def from_config(cls, section: Section) -> TransitKMS:
        """Open the server that a configuration names; see docs/configuration.md."""
        arguments = configuring.arguments(section)
        section.finish()
        return cls(**arguments)

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key under the newest version of the transit key; 65 bytes.

        Raises:
            ConfigurationError: the key has another size, or the transit key is not derived.
            KMSKeyDisabled: the transit key is not there, or no longer; it is not made here.
        """
        if len(key) != KEY_SIZE:
            raise ConfigurationError(f"a KMS wraps keys of {KEY_SIZE} bytes, not of {len(key)}")
        dedicated = self._is_dedicated(context)
        name = tenant_key(self._key, context["tenant"]) if dedicated else self._key
        self._look_for(name, dedicated=dedicated)
        made = Item(self._engine.encrypt(name, key, context, dedicated=dedicated), context)
        if name not in self._samples:
            self._prove_bound(name, made)
            self._samples[name] = made
        return made.ciphertext.wrapped()

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context.

        Raises:
            KMSKeyDisabled: the transit key is gone, or no longer opens this version.
            KMSError: changed, or wrapped under another context.
        """
        (answer,) = self.unwrap_many([WrappedKey(wrapped, context)])
        if isinstance(answer, KMSError):
            raise answer
        return answer

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item's key, or the error that it met; a request holds as many as the server takes."""
        return self._in_batches(items, self._engine.decrypt)

    def rewrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item under the newest version of the same transit key; the data keys stay in the server."""
        return self._in_batches(items, self._engine.rewrap)

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """Whether this is under the newest version of the transit key that ``wrap`` would use, and opens.

        Told by the server's rewrapping; ``False`` to a token that may not rewrap.
        """
        read = Ciphertext.parse(wrapped)
        if read.dedicated != self._is_dedicated(context):
            return False
        try:
            (again,) = self.rewrap_many([WrappedKey(wrapped, context)])
        except KMSDenied:
            return False
        return not isinstance(again, KMSError) and self.version_of(again) == read.version

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The same key under the transit key that ``wrap`` would use.

        Inside the server where that is the same transit key and the token may rewrap; else unwrapped and
        wrapped again.
        """
        if Ciphertext.parse(wrapped).dedicated == self._is_dedicated(context):
            try:
                (again,) = self.rewrap_many([WrappedKey(wrapped, context)])
            except KMSDenied:
                return self.wrap(self.unwrap(wrapped, context=context), context=context)
            if isinstance(again, KMSError):
                raise again
            return again
        return self.wrap(self.unwrap(wrapped, context=context), context=context)

    def create_tenant_key(self, tenant: str) -> None:
        """Make a tenant's own transit key, before anything of the tenant's is wrapped; again: no error.

        Nothing else makes one, so that one that was deleted stays deleted, and so does its name.
        """
        self._engine.create(tenant_key(self._key, tenant))

    def rotate_root_key(self, tenant: str | None = None) -> int:
        """Add a version to the transit key, or to a tenant's own; its number."""
        return self._engine.rotate(self._key if tenant is None else tenant_key(self._key, tenant))

    def destroy_tenant_key(self, tenant: str) -> None:
        """Delete a tenant's own transit key, at once and for good; again: no error.

        What it wrapped opens nowhere but from a backup of the server that is older.
        """
        self._engine.delete(tenant_key(self._key, tenant))

    @staticmethod
    def version_of(wrapped: bytes) -> int:
        """The version of the transit key that wrapped this, to know which ones are still needed."""
        return Ciphertext.parse(wrapped).version

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """The transit key that wrapped this, and its version: each version can be made to open no more."""
        read = Item(Ciphertext.parse(wrapped), context)
        return f"{self._name(read)} version {read.ciphertext.version}"

    def check(self) -> str:
        """Wrap and unwrap a random key, and see that another context does not open it."""
        probe = os.urandom(KEY_SIZE)
        wrapped = self.wrap(probe, context=_CHECK)
        if self.unwrap(wrapped, context=_CHECK) != probe:
            raise KMSError("the transit KMS does not unwrap what it wraps")
        whose = ", and one a tenant" if self._dedicated else ""
        return (
            f"transit key {self._key} version {self.version_of(wrapped)}{whose}, mount {self._mount}, "
            f"at {self._engine.connection.server}"
        ).rstrip(",")

    def close(self) -> None:
        """Close the connections. The token lives on until its lease ends: other processes may hold it too."""
        self._engine.connection.close()

    def __repr__(self) -> str:
        return f"TransitKMS({self._engine.connection.server.url!r}, key={self._key!r}, mount={self._mount!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a TransitKMS is not pickled or copied; open one in each process")

    def _in_batches(
        self,
        items: Sequence[WrappedKey],
        ask: Callable[[str, Sequence[Item]], Sequence[bytes | KMSError]],
    ) -> list[bytes | KMSError]:
        answers: dict[int, bytes | KMSError] = {}
        asked: dict[int, tuple[str, Item]] = {}
        for number, item in enumerate(items):
            try:
                read = Item(Ciphertext.parse(item.wrapped), item.context)
                asked[number] = self._name(read), read
            except KMSError as error:
                answers[number] = error
        at_once = self._engine.connection.server.pool_size
        given = in_batches(list(asked.values()), ask, size=self._batch_size, at_once=at_once)
        answers.update(zip(asked, given, strict=True))
        return [answers[number] for number in range(len(items))]

    def _is_dedicated(self, context: Mapping[str, str]) -> bool:
        return self._dedicated and "tenant" in context

    def _name(self, item: Item) -> str:
        if not item.ciphertext.dedicated:
            return self._key
        if "tenant" not in item.context:
            raise KMSError("a key wrapped under a tenant's own transit key, and no tenant in the context")
        return tenant_key(self._key, item.context["tenant"])

    def _look_for(self, name: str, *, dedicated: bool) -> None:
        """See that a key is there: asked to encrypt, a server makes a missing one for whoever may make keys.

        Raises:
            KMSKeyDisabled: it is not.
        """
        sample = self._samples.get(name, _NOTHING)
        missing: TransitKeyMissing
        try:
            (answer,) = self._engine.decrypt(name, [sample])
        except TransitKeyMissing as error:
            missing = error
        else:
            if isinstance(answer, KMSError):
                # One of a version that is no longer opened, say: the next one is a sample as good.
                self._samples.pop(name, None)
            return
        if dedicated:
            raise TransitKeyMissing(
                f"there is no transit key {name}; for a new tenant create_tenant_key makes it, and what one "
                "that was deleted wrapped is lost"
            )
        raise missing

    def _prove_bound(self, name: str, made: Item) -> None:
        """See that a key does not open what was wrapped under another context.

        A transit key that is not derived takes a context and ignores it.
        """
        (answer,) = self._engine.decrypt(name, [made._replace(context=_OTHER)])
        if not isinstance(answer, KMSError):
            raise ConfigurationError(
                f"the transit key {name} ignores the context; make one of type aes256-gcm96 with derived=true"
            )


def _paths(
    files: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None,
) -> tuple[Path, Path] | None:
    return None if files is None else (Path(files[0]), Path(files[1]))

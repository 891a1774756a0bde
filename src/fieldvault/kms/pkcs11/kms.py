"""``PKCS11KMS``: wraps data keys in a token, under a root key that never leaves it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from fieldvault.context import encode_context
from fieldvault.errors import ConfigurationError, KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.protocols import NotAsked, WrappedKey
from fieldvault.kms.pkcs11.batches import ask_all
from fieldvault.kms.pkcs11.connection import Connection, OpenToken
from fieldvault.kms.pkcs11.login import Login, Pin
from fieldvault.kms.pkcs11.rootkeys import (
    ID_SIZE,
    NONCE_SIZE,
    SEALED_SIZE,
    generate,
    newest,
    version_of,
)
from fieldvault.secret import KEY_SIZE
from fieldvault.settings import Section

__all__ = ["PKCS11KMS"]

_VERSION = b"\x01"
_PREFIX_SIZE = 1 + ID_SIZE
_POOL_SIZE = 4
_POOL_TIMEOUT = 5.0
_SIZE = _PREFIX_SIZE + NONCE_SIZE + SEALED_SIZE


class PKCS11KMS:
    """Wraps data keys with AES-256-GCM (NIST SP 800-38D) inside a PKCS#11 token.

    ``module`` is the path of the vendor's library, ``token_label`` the token's CKA label, ``key_label`` that
    of the root key, each version of which is one AES-256 object (``create`` makes the first). ``pin`` is the
    user PIN, or a callable that is asked for it whenever the token wants a login. Nothing is opened before
    the first use, so that a server may fork first.

    Threads share ``pool_size`` sessions, opened as they are needed; whoever finds all in use waits, at most
    ``pool_timeout`` seconds. A module that has no locks is used by one thread at a time.

    The token sees each data key, and authenticates its context. It protects the root key from whoever gets
    this machine's memory or disks; it does not keep whoever runs code in this process from having keys
    unwrapped.

    Raises:
        ConfigurationError: an argument is empty, or no positive number.
    """

    def __init__(
        self,
        *,
        module: str | os.PathLike[str],
        token_label: str,
        key_label: str,
        pin: str | Callable[[], str],
        pool_size: int = _POOL_SIZE,
        pool_timeout: float = _POOL_TIMEOUT,
    ) -> None:
        self._token_label = _text("token_label", token_label)
        self._key_label = _text("key_label", key_label)
        if pool_size < 1 or pool_timeout <= 0:
            raise ConfigurationError("pool_size is at least 1 session, pool_timeout more than 0 seconds")
        login = Login(token_label, pin if callable(pin) else Pin(_text("pin", pin)))
        self._connection = Connection(
            _text("module", os.fspath(module)),
            token_label,
            key_label,
            login,
            size=pool_size,
            patience=pool_timeout,
        )

    @classmethod
    def create(
        cls,
        *,
        module: str | os.PathLike[str],
        token_label: str,
        key_label: str,
        pin: str | Callable[[], str],
    ) -> PKCS11KMS:
        """Have the token make a new root key, and open it; one that is there is never replaced.

        Raises:
            ConfigurationError: the token has a key of that label.
            KMSError: the token refused, or cannot be reached.
        """
        kms = cls(module=module, token_label=token_label, key_label=key_label, pin=pin)
        try:
            kms._connection.use(kms._first)
        except BaseException:
            kms.close()
            raise
        return kms

    @classmethod
    def from_config(cls, section: Section) -> PKCS11KMS:
        """Open what a configuration names.

        ``module``, ``token_label``, ``key_label``; ``pin_env`` or ``pin_file``; ``pool_size``,
        ``pool_timeout``.
        """
        names = {name: section.text(name) for name in ("module", "token_label", "key_label")}
        pin = section.secret("pin")
        pool_size = section.whole("pool_size", _POOL_SIZE)
        pool_timeout = section.number("pool_timeout", _POOL_TIMEOUT)
        section.finish()
        if pin is None:
            raise section.error("pin_env", "or pin_file is missing: one of them says where the PIN is")
        with section.blaming("pool_size" if pool_size < 1 else "pool_timeout"):
            return cls(**names, pin=pin, pool_size=pool_size, pool_timeout=pool_timeout)

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key under the newest version; 69 bytes (docs/kms/pkcs11.md).

        Raises:
            ConfigurationError: the key has another size.
            KMSError: the token refused, or cannot be reached.
        """
        if len(key) != KEY_SIZE:
            raise ConfigurationError(f"a KMS wraps keys of {KEY_SIZE} bytes, not of {len(key)}")
        bound_to = encode_context(context)

        def seal(token: OpenToken) -> bytes:
            root_key = newest(token.keys, self._key_label)
            prefix, nonce = _VERSION + root_key.key_id, os.urandom(NONCE_SIZE)
            return prefix + nonce + root_key.seal(key, nonce, prefix + bound_to)

        return self._connection.use(seal)

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context.

        Raises:
            KMSKeyDisabled: the token no longer has the version that wrapped it, or does not let it decrypt.
            KMSError: changed, or wrapped under another context; or the token refused, or cannot be reached.
        """
        if len(wrapped) != _SIZE or wrapped[:1] != _VERSION:
            raise KMSError("not a key that a PKCS#11 token wrapped")
        prefix, nonce, sealed = (
            wrapped[:_PREFIX_SIZE],
            wrapped[_PREFIX_SIZE:-SEALED_SIZE],
            wrapped[-SEALED_SIZE:],
        )
        bound_to = prefix + encode_context(context)
        return self._connection.use(lambda token: token.version(prefix[1:]).open(sealed, nonce, bound_to))

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item's key, or the error that it met; a token that is slow is asked in all sessions at a time.

        Once the token cannot be reached, or refuses, it is not asked for the rest.
        """
        refused: list[KMSError] = []

        def ask(item: WrappedKey) -> bytes | KMSError:
            if refused:
                kind = KMSDenied if isinstance(refused[0], KMSDenied) else NotAsked
                return kind(str(refused[0]))
            try:
                return self.unwrap(item.wrapped, context=item.context)
            except (KMSUnavailable, KMSDenied) as error:
                refused.append(error)
                return error
            except KMSError as error:
                return error

        return ask_all(ask, items, parallel=lambda: self._connection.parallel)

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """Whether the newest version of the root key wrapped it, and opens it.

        Raises:
            KMSError: the token refused, or cannot be reached.
        """
        newest_id = self._connection.use(lambda token: newest(token.keys, self._key_label).key_id)
        if wrapped[:_PREFIX_SIZE] != _VERSION + newest_id:
            return False
        (answer,) = self.unwrap_many([WrappedKey(wrapped, context)])
        if isinstance(answer, (KMSUnavailable, KMSDenied)):
            raise answer
        return isinstance(answer, bytes)

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The same key, wrapped under the newest version; raises as ``unwrap``."""
        return self.wrap(self.unwrap(wrapped, context=context), context=context)

    def rotate_root_key(self) -> int:
        """Have the token make a new version and wrap under it from now on; its number.

        Raises:
            KMSError: the token refused, or cannot be reached.
        """
        return self._connection.use(self._next)

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:  # noqa: ARG002 - see ManyRootKeys
        """The version of the root key that wrapped this."""
        return wrapped[:_PREFIX_SIZE].hex()

    def check(self) -> str:
        """Wrap and unwrap a random key under the newest version.

        Raises:
            ConfigurationError, KMSError: the token cannot be used as it is configured.
        """
        return self._connection.use(self._look)

    def close(self) -> None:
        """Close the sessions with the token; they are opened again if need be."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"PKCS11KMS(token_label={self._token_label!r}, key_label={self._key_label!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PKCS11KMS is not pickled or copied; open the token in each process")

    def _first(self, token: OpenToken) -> None:
        if token.keys:
            raise ConfigurationError(
                f"the token {self._token_label!r} has a key {self._key_label!r}, and none is replaced"
            )
        self._generate(token, 1)

    def _next(self, token: OpenToken) -> int:
        token.look_again()
        version = version_of(newest(token.keys, self._key_label).key_id) + 1
        self._generate(token, version)
        return version

    def _generate(self, token: OpenToken, version: int) -> None:
        writing = token.token.open(rw=True)
        try:
            generate(writing, self._key_label, version)
        finally:
            writing.close()
        self._connection.outdate()

    def _look(self, token: OpenToken) -> str:
        self._connection.outdate()
        token.look_again()
        newest(token.keys, self._key_label).prove()
        versions = [str(version_of(key_id)) for key_id in sorted(token.keys)]
        which = "version" if len(versions) == 1 else "versions"
        maker = f"{token.token.manufacturer_id} {token.token.model}"
        return (
            f"PKCS#11 token {self._token_label} ({maker}), root key {self._key_label}, "
            f"{which} {', '.join(versions)}"
        )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"the {name} of a PKCS#11 token is text, and not empty")
    return value

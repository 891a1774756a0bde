"""One mount of the transit engine: what is asked of it, and what its answers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hvac.api.secrets_engines import Transit

from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.kms.base64text import from_text, to_text
from fieldvault.kms.transit.auth import Auth
from fieldvault.kms.transit.batches import results
from fieldvault.kms.transit.connection import Connection, Server
from fieldvault.kms.transit.mapping import TransitKeyMissing, of_encryption, of_item
from fieldvault.kms.transit.tokens import TokenKeeper
from fieldvault.kms.transit.wrapping import Ciphertext, context_text
from fieldvault.secret import KEY_SIZE

__all__ = ["Engine", "Item"]


class Item(NamedTuple):
    """A wrapped key, read, and the context it was wrapped under."""

    ciphertext: Ciphertext
    context: Mapping[str, str]


class Engine:
    """Asks a mount by way of one connection, with whatever token is good. Names are those of transit keys."""

    def __init__(self, server: Server, auth: Auth, mount: str) -> None:
        self.connection = Connection(server)
        self._tokens = TokenKeeper(auth, self.connection)
        self._mount = mount

    def encrypt(self, name: str, key: bytes, context: Mapping[str, str], *, dedicated: bool) -> Ciphertext:
        """Encrypt a key under the newest version; to a caller who may make keys, a missing one is made."""
        batch = [{"plaintext": to_text(key), "context": context_text(context)}]
        answer = self._ask(
            lambda transit: transit.encrypt_data(name, None, batch_input=batch, mount_point=self._mount)
        )
        (result,) = results(answer, 1)
        if result.get("error"):
            raise of_encryption(str(result["error"]), name)
        return Ciphertext.of_answer(result.get("ciphertext"), dedicated=dedicated)

    def decrypt(self, name: str, items: Sequence[Item]) -> list[bytes | KMSError]:
        """Each item's key, or the error that it met."""
        batch = _batch(items)
        answer = self._ask(
            lambda transit: transit.decrypt_data(name, None, batch_input=batch, mount_point=self._mount)
        )
        return [_key(result, name) for result in results(answer, len(items))]

    def rewrap(self, name: str, items: Sequence[Item]) -> list[bytes | KMSError]:
        """Each item under the newest version, as a key store keeps it, or the error that it met."""
        batch = _batch(items)
        answer = self._ask(
            lambda transit: transit.rewrap_data(name, None, batch_input=batch, mount_point=self._mount)
        )
        return [
            of_item(str(result["error"]), name)
            if result.get("error")
            else Ciphertext.of_answer(result.get("ciphertext"), dedicated=item.ciphertext.dedicated).wrapped()
            for result, item in zip(results(answer, len(items)), items, strict=True)
        ]

    def rotate(self, name: str) -> int:
        """Add a version; its number."""
        answer = self._ask(lambda transit: transit.rotate_key(name, mount_point=self._mount))
        if not isinstance(answer, dict):
            # Older servers rotate without a word.
            answer = self._ask(lambda transit: transit.read_key(name, mount_point=self._mount))
        data = answer.get("data") if isinstance(answer, dict) else None
        version = data.get("latest_version") if isinstance(data, dict) else None
        if type(version) is not int:
            raise KMSUnavailable("the answer does not say the key's version; see what stands between")
        return version

    def create(self, name: str) -> None:
        """Make a derived key; one that is there stays as it is."""
        self._ask(
            lambda transit: transit.create_key(
                name, key_type="aes256-gcm96", derived=True, mount_point=self._mount
            )
        )

    def delete(self, name: str) -> None:
        """Delete a key, for good; one that is not there is no error."""
        try:
            self._ask(
                lambda transit: transit.update_key_configuration(
                    name, deletion_allowed=True, mount_point=self._mount
                )
            )
            self._ask(lambda transit: transit.delete_key(name, mount_point=self._mount))
        except TransitKeyMissing:
            return

    def _ask(self, request: Callable[[Transit], Any]) -> Any:
        """The answer to a request; a token that the server no longer knows is replaced once."""
        held = self._tokens.current()
        denied: KMSDenied
        try:
            return self.connection.ask(lambda adapter: request(Transit(adapter)), held.token)
        except KMSDenied as error:
            denied = error
        other = self._tokens.instead(held)
        if other is None:
            raise denied
        try:
            return self.connection.ask(lambda adapter: request(Transit(adapter)), other.token)
        except KMSDenied as error:
            denied = error
        self._tokens.was_in_vain(other)
        raise denied


def _batch(items: Sequence[Item]) -> list[dict[str, str]]:
    return [{"ciphertext": item.ciphertext.text(), "context": context_text(item.context)} for item in items]


def _key(result: Mapping[str, Any], name: str) -> bytes | KMSError:
    if result.get("error"):
        return of_item(str(result["error"]), name)
    plaintext = result.get("plaintext")
    try:
        key = from_text(plaintext) if isinstance(plaintext, str) else b""
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        return KMSUnavailable("the answer holds no key; see what stands between")
    return key

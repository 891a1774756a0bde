"""What ``MultiKMS`` makes of a key: what its members wrapped, bound together (docs/kms/multi.md)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from fieldvault.errors import KMSError
from fieldvault.secret import KEY_SIZE, Secret

__all__ = ["MAGIC", "Container", "fits", "sealed"]

MAGIC = b"fv-multi\x01"

_SEAL_SIZE = 32
_INFO = b"fieldvault/1 multi wrap"


@dataclass(frozen=True, slots=True)
class Container:
    """The wrapped form of one key by each member's name, and the seal over all of it."""

    parts: Mapping[str, bytes]
    seal: bytes

    @classmethod
    def parse(cls, wrapped: bytes) -> Container:
        """The container of these bytes; there is one encoding of each.

        Raises:
            KMSError: they are none.
        """
        parts: dict[str, bytes] = {}
        rest = wrapped[len(MAGIC) + _SEAL_SIZE :]
        while rest:
            name, rest = _taken(rest, 1)
            part, rest = _taken(rest, 4)
            try:
                parts[name.decode()] = part
            except UnicodeDecodeError:
                break
        found = cls(parts, wrapped[len(MAGIC) : len(MAGIC) + _SEAL_SIZE])
        if not parts or found.encoded() != wrapped:
            raise KMSError("not a key that a MultiKMS wrapped")
        return found

    def encoded(self) -> bytes:
        """The bytes to keep."""
        return MAGIC + self.seal + _body(self.parts)


def sealed(key: bytes, parts: Mapping[str, bytes]) -> Container:
    """A container whose seal only the key itself makes, and only for these parts."""
    return Container(parts, Secret(key).derive(_INFO + _body(parts), _SEAL_SIZE))


def fits(key: object, container: Container) -> bool:
    """Whether a member's answer is the key that was wrapped, and every part as it was then."""
    if not isinstance(key, bytes) or len(key) != KEY_SIZE:
        return False
    return hmac.compare_digest(sealed(key, container.parts).seal, container.seal)


def _body(parts: Mapping[str, bytes]) -> bytes:
    """Names and parts in ascending order of the names, each behind its length."""
    return b"".join(
        len(name).to_bytes(1, "big") + name + len(part).to_bytes(4, "big") + part
        for name, part in sorted((name.encode(), part) for name, part in parts.items())
    )


def _taken(content: bytes, size: int) -> tuple[bytes, bytes]:
    """What stands behind its length, and the rest; short where the content is."""
    end = size + int.from_bytes(content[:size], "big")
    return content[size:end], content[end:]

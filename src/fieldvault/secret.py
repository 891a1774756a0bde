"""Key material that does not print, pickle or copy itself."""

from __future__ import annotations

from typing import NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["KEY_SIZE", "Secret"]

KEY_SIZE = 32


class Secret:
    """32 bytes of key material whose ``repr`` is blank and which refuses to be pickled, copied or compared.

    It keeps keys out of logs, tracebacks that print locals, ``dataclasses.asdict`` and caches that pickle. It
    does not protect against code in this process that asks for the bytes, nor does it wipe memory: Python may
    have copied them.
    """

    __slots__ = ("_bytes",)

    def __init__(self, material: bytes) -> None:
        if len(material) != KEY_SIZE:
            raise ValueError(f"key material has {KEY_SIZE} bytes, not {len(material)}")
        self._bytes = material

    def derive(self, info: bytes, size: int) -> bytes:
        """``size`` bytes of HKDF-SHA256 (RFC 5869, empty salt) of the material for ``info``."""
        return HKDF(algorithm=hashes.SHA256(), length=size, salt=None, info=info).derive(self._bytes)

    def reveal(self) -> bytes:
        """The 32 bytes. Only what wraps a key calls this."""
        return self._bytes

    def __repr__(self) -> str:
        return "<Secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied")

    __hash__ = None  # type: ignore[assignment]  # key material is no dictionary key

    def __eq__(self, other: object) -> bool:
        raise TypeError("a Secret is not compared; compare key ids")

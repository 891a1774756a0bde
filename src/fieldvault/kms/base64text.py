"""Bytes in JSON: standard base64 (RFC 4648, section 4), in its one canonical form."""

from __future__ import annotations

import base64

__all__ = ["from_text", "to_text"]


def to_text(data: bytes) -> str:
    """Bytes to text."""
    return base64.b64encode(data).decode("ascii")


def from_text(text: str) -> bytes:
    """Text to bytes.

    Raises:
        ValueError: not what ``to_text`` makes of any bytes.
    """
    data = base64.b64decode(text, validate=True)
    if to_text(data) != text:
        raise ValueError
    return data

"""Passwords, as scrypt hashes (RFC 7914) with their parameters and salt."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os

_N, _R, _P = 2**14, 8, 1
_UNKNOWN = f"{_N}${_R}${_P}${'00' * 16}${'00' * 32}"


async def hash_password(password: str) -> str:
    """``n$r$p$salt$hash``, the last two in hexadecimal digits."""
    salt = os.urandom(16)
    digest = await asyncio.to_thread(_scrypt, password, salt, _N, _R, _P)
    return f"{_N}${_R}${_P}${salt.hex()}${digest.hex()}"


async def is_password(password: str, hashed: str | None) -> bool:
    """Whether that is the password; without a hash it takes as long, and is not."""
    n, r, p, salt, digest = (hashed or _UNKNOWN).split("$")
    found = await asyncio.to_thread(_scrypt, password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(digest)) and hashed is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=32)

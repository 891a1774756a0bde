"""Format 1, written a second time: from docs/format.md alone, for the test vectors, without fieldvault.

Values come in as neutral descriptions (``vector_values.py``); primitives are those of ``cryptography`` and
PyNaCl. It writes and does not read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

Description = Mapping[str, Any]

SUITES = {
    "AES-256-GCM": (1, 32, 12),
    "AES-256-SIV": (2, 64, 0),
    "XChaCha20-Poly1305": (3, 32, 24),
    "SM4-GCM": (4, 16, 12),
}
TYPES = (
    *("text", "bytes", "boolean", "integer", "float", "decimal", "date", "time", "datetime", "duration"),
    *("uuid", "enumeration", "json"),
)


# -- conventions and sections 2, 3 and 5 -------------------------------------------------------------------


def u32(number: int) -> bytes:
    """Four bytes, big-endian."""
    return number.to_bytes(4, "big")


def lp(part: bytes) -> bytes:
    """The part with its length in front."""
    return u32(len(part)) + part


def hkdf(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256 with an empty salt."""
    return HKDF(hashes.SHA256(), size, b"", info).derive(key)


def key_id_of(data_key: bytes) -> bytes:
    """Section 2."""
    return hkdf(data_key, b"fieldvault/1 key id", 16)


def siv(key: bytes, associated: bytes, plaintext: bytes) -> bytes:
    """AES-256-SIV with one string of associated data."""
    return AESSIV(key).encrypt(plaintext, [associated])


def sealed_part(suite: str, data_key: bytes, nonce: bytes, payload: bytes, associated: bytes) -> bytes:
    """Section 3."""
    key = hkdf(data_key, b"fieldvault/1 suite " + suite.encode(), SUITES[suite][1])
    if suite == "AES-256-SIV":
        return siv(key, associated, payload)
    if suite == "XChaCha20-Poly1305":
        return crypto_aead_xchacha20poly1305_ietf_encrypt(payload, associated, nonce, key)
    block = algorithms.SM4(key) if suite == "SM4-GCM" else algorithms.AES(key)
    gcm = Cipher(block, modes.GCM(nonce)).encryptor()
    gcm.authenticate_additional_data(associated)
    return gcm.update(payload) + gcm.finalize() + gcm.tag


def associated_data(
    header: bytes, tenant: str, field: str, subject: str | None, row: list[str] | None
) -> bytes:
    """Section 5."""
    joined = None if row is None else b"".join(lp(part.encode()) for part in row)
    parts = header + lp(tenant.encode()) + lp(field.encode())
    for part in (None if subject is None else subject.encode(), joined):
        parts += b"\x00" if part is None else b"\x01" + lp(part)
    return parts


# -- section 6 ---------------------------------------------------------------------------------------------


def body_of(value: Description) -> tuple[int, bytes]:
    """The type and the body of a described value."""
    ((name, content),) = value.items()
    return TYPES.index(name) + 1, _BODIES[name](content)


def integer(value: int) -> bytes:
    """Two's complement in the fewest bytes."""
    size = 1
    while not -(1 << (8 * size - 1)) <= value < 1 << (8 * size - 1):
        size += 1
    return (value % (1 << (8 * size))).to_bytes(size, "big")


def decimal(content: Description) -> bytes:
    """To-scientific-string."""
    sign, digits, exponent = "-" * content["sign"], content["digits"], content["exponent"]
    if isinstance(exponent, str):
        return f"{sign}{exponent}{digits}".encode()
    adjusted = exponent + len(digits) - 1
    if exponent == 0:
        text = digits
    elif exponent < 0 and adjusted >= -6:
        padded = digits.zfill(1 - exponent)
        text = f"{padded[:exponent]}.{padded[exponent:]}"
    else:
        text = f"{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}E{adjusted:+d}"
    return f"{sign}{text}".encode()


def date(content: Description) -> str:
    """``YYYY-MM-DD``."""
    return f"{content['year']:04}-{content['month']:02}-{content['day']:02}"


def fraction(microseconds: int) -> str:
    """Six digits, or nothing."""
    return f".{microseconds:06}" if microseconds else ""


def clock(content: Description) -> str:
    """``HH:MM:SS`` and perhaps a fraction."""
    whole = f"{content['hour']:02}:{content['minute']:02}:{content['second']:02}"
    return whole + fraction(content["microsecond"])


def zone(content: Description) -> str:
    """The offset in microseconds and the name, either of which may be absent."""
    offset, name, text = content["offset"], content["zone"], ""
    if offset is not None:
        seconds, microseconds = divmod(abs(offset), 1_000_000)
        text = f"{'-' if offset < 0 else '+'}{seconds // 3600:02}:{seconds // 60 % 60:02}"
        if seconds % 60 or microseconds:
            text += f":{seconds % 60:02}{fraction(microseconds)}"
    return text if name is None else f"{text}[{name}]"


def json_text(value: object) -> str:
    """JSON as a writer writes it."""
    if isinstance(value, dict):
        return (
            "{" + ",".join(f"{json_text(name)}:{json_text(member)}" for name, member in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(json_text(member) for member in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(character, character) for character in value) + '"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value))


_ESCAPES = {chr(code): f"\\u{code:04x}" for code in range(0x20)}
_ESCAPES |= {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

_BODIES: dict[str, Callable[[Any], bytes]] = {
    "text": lambda content: content.encode(),
    "bytes": bytes.fromhex,
    "boolean": lambda content: bytes([content]),
    "integer": lambda content: integer(int(content)),
    "float": bytes.fromhex,
    "decimal": decimal,
    "date": lambda content: date(content).encode(),
    "time": lambda content: bytes([content["fold"]]) + (clock(content) + zone(content)).encode(),
    "datetime": lambda content: (
        bytes([content["fold"]]) + f"{date(content)}T{clock(content)}{zone(content)}".encode()
    ),
    "duration": lambda content: integer(int(content)),
    "uuid": lambda content: bytes.fromhex(content.replace("-", "")),
    "enumeration": lambda content: lp(content["class"].encode()) + content["member"].encode(),
    "json": lambda content: json_text(json.loads(content)).encode(),
}


def padded(body: bytes, block: int) -> bytes:
    """ISO/IEC 7816-4."""
    body += b"\x80"
    while len(body) % block:
        body += b"\x00"
    return body


# -- section 4 ---------------------------------------------------------------------------------------------


def text_form(blob: bytes) -> str:
    """For text columns."""
    return "$fv1$" + base64.urlsafe_b64encode(blob).decode().rstrip("=")


# -- section 7 -------------------------------------------------------------------------------------------


def encoded_context(context: Mapping[str, str]) -> bytes:
    """Section 7."""
    entries = sorted((name.encode(), value.encode()) for name, value in context.items())
    return u32(len(entries)) + b"".join(lp(name) + lp(value) for name, value in entries)


def key_context(
    data_key: bytes, tenant: str, purpose: str = "data", subject: str | None = None
) -> dict[str, str]:
    """Section 7."""
    context = {"tenant": tenant, "purpose": purpose, "key_id": key_id_of(data_key).hex()}
    return context if subject is None else {"subject": subject, **context}

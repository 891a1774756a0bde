"""The peers, each used as its own documentation shows, with everything prepared that it lets one prepare.

A peer that is not installed is left out, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.dialects import sqlite

from benchmarks.measure import Call

__all__ = ["FIELD", "PEERS", "Missing", "Peer", "library"]

FIELD = "customers.email"


class Missing(Exception):
    """A peer is not installed; the message names its package."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Makes the calls to time: one that seals a text, one that opens what such a call returned."""

    sealing: Callable[[str], Call]
    opening: Callable[[Any], Call]


def library(name: str) -> Any:
    """A peer's module.

    Raises:
        Missing: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        absent = error.name or name
    raise Missing(f"the module {absent} is not installed")


def _hand_written() -> Peer:
    # What one writes in ten lines: one key, nothing bound, nothing checked.
    aead = AESGCM(AESGCM.generate_key(256))
    random = os.urandom

    def seal(text: str) -> bytes:
        nonce = random(12)
        return nonce + aead.encrypt(nonce, text.encode(), None)

    def open_(blob: bytes) -> str:
        return aead.decrypt(blob[:12], blob[12:], None).decode()

    return Peer(lambda text: lambda: seal(text), lambda blob: lambda: open_(blob))


def _asherah() -> Peer:
    factory = library("asherah").SessionFactory(
        {
            "ServiceName": "benchmark",
            "ProductID": "benchmark",
            "Metastore": "memory",
            "KMS": "static",
            "StaticMasterKeyHex": os.urandom(32).hex(),
            "EnableSessionCaching": True,
        }
    )
    session = factory.get_session("acme")
    return Peer(
        lambda text: lambda: session.encrypt_text(text), lambda blob: lambda: session.decrypt_text(blob)
    )


def _tink() -> Peer:
    tink, aead = library("tink"), library("tink.aead")
    aead.register()
    primitive = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    associated = FIELD.encode()
    return Peer(
        lambda text: lambda: primitive.encrypt(text.encode(), associated),
        lambda blob: lambda: primitive.decrypt(blob, associated).decode(),
    )


def _fernet() -> Peer:
    fernet = Fernet(Fernet.generate_key())
    return Peer(
        lambda text: lambda: fernet.encrypt(text.encode()), lambda blob: lambda: fernet.decrypt(blob).decode()
    )


def _sqlalchemy_utils(engine: str) -> Peer:
    encrypted = library("sqlalchemy_utils.types.encrypted.encrypted_type")
    column = encrypted.StringEncryptedType(key=os.urandom(32).hex(), engine=getattr(encrypted, engine))
    dialect = sqlite.dialect()
    return Peer(
        lambda text: lambda: column.process_bind_param(text, dialect),
        lambda blob: lambda: column.process_result_value(blob, dialect),
    )


PEERS: Mapping[str, Callable[[], Peer]] = {
    "hand-written": _hand_written,
    "Asherah": _asherah,
    "Tink": _tink,
    "Fernet": _fernet,
    "sqlalchemy-utils, AES-GCM": lambda: _sqlalchemy_utils("AesGcmEngine"),
    "sqlalchemy-utils, Fernet": lambda: _sqlalchemy_utils("FernetEngine"),
}
"""By name; each function prepares one, or raises ``Missing``."""

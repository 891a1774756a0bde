"""Root-key files, with a passphrase that does not take a second to stretch."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nacl.pwhash import argon2id

from fieldvault.kms import rootfile
from fieldvault.kms.base64text import to_text
from fieldvault.kms.passphrase import Passphrase
from fieldvault.kms.rootfile import RootKey
from fieldvault.secret import Secret

PASSPHRASE = "correct horse 电池 staple"


def cheap(passphrase: str = PASSPHRASE) -> Passphrase:
    """A passphrase stretched as little as Argon2id allows."""
    return Passphrase(
        passphrase,
        {
            "kdf": "argon2id",
            "salt": to_text(os.urandom(argon2id.SALTBYTES)),
            "operations": argon2id.OPSLIMIT_MIN,
            "memory": argon2id.MEMLIMIT_MIN,
        },
    )


def root_key(version: int = 1) -> RootKey:
    """A new root key."""
    return RootKey(version, datetime.now(UTC), Secret(os.urandom(32)))


@pytest.fixture(params=[None, PASSPHRASE], ids=["no passphrase", "with a passphrase"])
def passphrase(request: pytest.FixtureRequest) -> str | None:
    """No passphrase, then one."""
    chosen: str | None = request.param
    return chosen


@pytest.fixture
def root_file(tmp_path: Path, passphrase: str | None) -> Path:
    """A new root-key file of two versions."""
    path = tmp_path / "root.keys"
    rootfile.create(path, [root_key(1), root_key(2)], None if passphrase is None else cheap(passphrase))
    return path

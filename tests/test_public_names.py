"""The names that people import are a promise: they change on purpose only, and here first."""

from importlib import import_module

import pytest

PUBLIC = {
    "fieldvault": [
        "CachePolicy",
        "ErasureReceipt",
        "KeyInfo",
        "KeyScope",
        "KeyState",
        "Purpose",
        "RAISE",
        "RetryPolicy",
        "RotationPolicy",
        "Vault",
        "errors",
    ],
    "fieldvault.keystores": ["DynamoDBKeyStore", "MemoryKeyStore", "SQLKeyStore"],
    "fieldvault.kms": ["AWSKMS", "LocalKMS", "MultiKMS", "PKCS11KMS", "TransitKMS"],
    "fieldvault.sqlalchemy": [
        "BlindIndex",
        "Encrypted",
        "KeyScope",
        "NotUnique",
        "RAISE",
        "Rebuilt",
        "protect",
        "rebuild",
    ],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_package_offers_exactly_the_names_it_promises(module: str) -> None:
    """A name that comes or goes is seen in review, and every promised name is there."""
    package = import_module(module)
    assert sorted(package.__all__) == PUBLIC[module]
    assert all(hasattr(package, name) for name in package.__all__)

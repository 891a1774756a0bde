"""Conformance kits: whoever writes a KMS or a key store backend subclasses one and knows that it is right.

::

    from fieldvault.testing import KeyStoreConformance

    class TestMyKeyStore(KeyStoreConformance):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyKeyStore(tmp_path / "keys")

They are pytest test classes; this package is the only one that needs pytest.
"""

import pytest

pytest.register_assert_rewrite("fieldvault.testing.kms", "fieldvault.testing.promises")

from fieldvault.testing.key_store import KeyStoreConformance  # noqa: E402 - after the registration
from fieldvault.testing.kms import KMSConformance  # noqa: E402

__all__ = ["KMSConformance", "KeyStoreConformance"]

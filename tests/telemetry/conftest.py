"""The rig of the tests of keys."""

from tests.keys.conftest import clock, local_kms, memory_rig

__all__ = ["clock", "local_kms", "memory_rig"]

"""The rigs of the tests of keys, for the tests of what happens to keys."""

from tests.keys.conftest import clock, local_kms, memory_rig, rig, sqlite_rig

__all__ = ["clock", "local_kms", "memory_rig", "rig", "sqlite_rig"]

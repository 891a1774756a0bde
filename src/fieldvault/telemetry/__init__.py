"""Metrics and traces: what an observer is told, what ``Vault.stats`` says, and adapters behind extras."""

from fieldvault.keys.observing import Call, Observer
from fieldvault.keys.stats import CallStats, Stats

__all__ = ["Call", "CallStats", "Observer", "Stats"]

"""Data keys: records, protocols, and the ring that caches them."""

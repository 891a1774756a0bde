"""The promises of a key store, one group a file; ``KeyStoreConformance`` is all of them."""

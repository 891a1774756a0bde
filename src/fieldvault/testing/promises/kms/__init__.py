"""The promises of the KMS protocol, a theme a module; ``KMSConformance`` is all of them."""

"""Every failure of a backend, by class and by what the cache holds."""

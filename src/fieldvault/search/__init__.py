"""Blind-index search: normalizers, tokens, and advice on how long a token should be."""

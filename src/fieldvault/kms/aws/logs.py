"""Keeps key material out of the SDK's debug log, which holds whole requests and answers."""

from __future__ import annotations

import logging

__all__ = ["silence_key_material"]

_LOGGERS = ("botocore.endpoint", "botocore.parsers")


class _NoKeyMaterial(logging.Filter):
    """Drops records that show a request to AWS KMS, or an answer with a plaintext."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for these."""
        for shown in record.args if isinstance(record.args, tuple) else ():
            model = getattr(shown, "service_model", None)
            if getattr(model, "service_name", None) == "kms":
                return False
            if isinstance(shown, bytes) and b'"Plaintext"' in shown:
                return False
        return True


_FILTER = _NoKeyMaterial()


def silence_key_material() -> None:
    """Put the filter on the SDK's loggers; once is enough, and again does no harm."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)

"""The arguments of ``TransitKMS`` from a section of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fieldvault.kms.transit.auth import JWT, SERVICE_ACCOUNT, AppRole, Auth, Kubernetes, Token
from fieldvault.kms.transit.batches import MAX_ITEMS
from fieldvault.kms.transit.connection import check_file, check_url
from fieldvault.kms.transit.wrapping import check_key, check_mount
from fieldvault.settings import Section

__all__ = ["arguments"]


def arguments(section: Section) -> dict[str, Any]:
    """What ``TransitKMS`` is opened with; docs/configuration.md names the members.

    Raises:
        ConfigurationError: with file and line.
    """
    url, allow_http = section.text("url"), section.flag("allow_http", default=False)
    with section.blaming("url"):
        check_url(url, allow_http=allow_http)
    key, mount = section.optional_text("key") or "fieldvault", section.optional_text("mount") or "transit"
    with section.blaming("key"):
        check_key(key)
    with section.blaming("mount"):
        check_mount(mount)
    certificate, private_key = _file(section, "client_certificate"), _file(section, "client_key")
    if (certificate is None) != (private_key is None):
        given = "client_certificate" if private_key is None else "client_key"
        raise section.error(given, "stands alone; give client_certificate and client_key")
    return {
        "url": url,
        "key": key,
        "auth": _auth(section),
        "mount": mount,
        "namespace": section.optional_text("namespace"),
        "ca_file": _file(section, "ca_file"),
        "client_certificate": None if certificate is None else (certificate, private_key),
        "connect_timeout": _positive(section, "connect_timeout", section.number("connect_timeout", 2.0)),
        "read_timeout": _positive(section, "read_timeout", section.number("read_timeout", 5.0)),
        "pool_size": int(_positive(section, "pool_size", section.whole("pool_size", 16))),
        "batch_size": int(_positive(section, "batch_size", section.whole("batch_size", MAX_ITEMS))),
        "dedicated": section.flag("dedicated", default=False),
        "allow_http": allow_http,
    }


def _positive(section: Section, name: str, value: float) -> float:
    if value <= 0:
        raise section.error(name, "is not positive")
    return value


def _file(section: Section, name: str) -> Path | None:
    if section.optional_text(name) is None:
        return None
    path = section.path(name)
    with section.blaming(name):
        check_file(path)
    return path


def _auth(section: Section) -> Auth:
    method = section.optional_text("auth") or "token"
    if method == "token":
        return Token(_secret(section, "token"))
    if method not in {"approle", "jwt", "kubernetes"}:
        raise section.error("auth", f"is {method!r}; it is one of token, approle, jwt, kubernetes")
    mount = section.optional_text("auth_mount") or method
    if method == "approle":
        return AppRole(section.text("role_id"), _secret(section, "secret_id"), mount)
    if method == "jwt":
        return JWT(section.text("role"), _secret(section, "jwt"), mount)
    return Kubernetes(section.text("role"), _secret(section, "jwt", SERVICE_ACCOUNT), mount)


def _secret(section: Section, name: str, default: Path | None = None) -> str | Path:
    """A secret, or the file that holds it: that one is read at each login, for what keeps it fresh."""
    if name in section:
        raise section.error(name, f"is a secret, and does not stand here; give {name}_env or {name}_file")
    value = section.secret(name)
    if f"{name}_file" in section:
        return section.path(f"{name}_file")
    if value is None and default is None:
        raise section.error(f"{name}_env", f"is missing, and so is {name}_file; give one of them")
    return value or default  # type: ignore[return-value]

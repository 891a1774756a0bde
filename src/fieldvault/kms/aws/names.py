"""Names of root keys in AWS KMS: ARNs, aliases, key ids, and an alias a tenant."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from fieldvault.aws.clients import MemberError
from fieldvault.errors import ConfigurationError

__all__ = ["KeyName", "TenantAlias"]

_ARN = re.compile(
    r"(?P<head>arn:aws[a-z-]*:kms:)(?P<region>[a-z0-9-]+)"
    r"(?P<tail>:\d{12}:(?:key/(?P<id>[A-Za-z0-9-]+)|alias/[A-Za-z0-9/_-]+))"
)
_ID = re.compile(r"mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ALIAS = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}")
_MULTI_REGION = "mrk-"

_PLACE = "{tenant}"
_LONGEST = 160
"""Characters that a tenant takes in an alias; what would be longer is named by its hash."""


@dataclass(frozen=True, slots=True)
class KeyName:
    """What AWS KMS is told to use: a key ARN, an alias, an alias ARN or a key id.

    ``region`` is what an ARN says, ``None`` for the other names, which mean the client's region.
    """

    text: str
    region: str | None = None

    @classmethod
    def parse(cls, text: object) -> KeyName:
        """The name, checked.

        Raises:
            ConfigurationError: it is none of these.
        """
        if isinstance(text, str):
            arn = _ARN.fullmatch(text)
            if arn is not None:
                return cls(text, arn["region"])
            if _ALIAS.fullmatch(text) or _ID.fullmatch(text):
                return cls(text)
        raise ConfigurationError(
            f"{text!r} names no key of AWS KMS; give a key ARN, a key id or an alias such as alias/fieldvault"
        )

    def in_region(self, region: str) -> KeyName:
        """The same key where the client is: of a multi-region key the replica there.

        Raises:
            ConfigurationError: the ARN is another region's, and not that of a multi-region key.
        """
        if self.region in (None, region):
            return self
        arn = _ARN.fullmatch(self.text)
        if arn is None or not (arn["id"] or "").startswith(_MULTI_REGION):
            raise MemberError(
                f"the key is one of the region {self.region}, the client is in {region}; only a multi-region "
                f"key ({_MULTI_REGION}…) has replicas in others",
                "region",
            )
        return replace(self, text=f"{arn['head']}{region}{arn['tail']}", region=region)


class TenantAlias:
    """The alias of each tenant's own root key: a template such as ``alias/fieldvault-{tenant}``.

    No two tenants share an alias. Lower-case letters, digits and hyphens stand for themselves, each other
    byte of the name in UTF-8 is ``_`` and two hexadecimal digits; a name that gets too long for an alias is
    ``__`` and the SHA-256 of it.

    Raises:
        ConfigurationError: the template is no alias with one ``{tenant}`` in it.
    """

    __slots__ = ("template",)

    def __init__(self, template: str) -> None:
        self.template = template
        fits = template.count(_PLACE) == 1 and _ALIAS.fullmatch(template.replace(_PLACE, "x" * _LONGEST))
        if not fits or template.startswith("alias/aws/"):
            raise MemberError(
                f"{template!r} is no template of aliases; give one such as alias/fieldvault-{_PLACE}",
                "tenant_key",
            )

    def of(self, tenant: str) -> str:
        """The alias of a tenant."""
        data = tenant.encode()
        text = "".join(chr(byte) if _plain(byte) else f"_{byte:02x}" for byte in data)
        if len(text) > _LONGEST:
            text = f"__{hashlib.sha256(data).hexdigest()}"
        return self.template.replace(_PLACE, text)


def _plain(byte: int) -> bool:
    return chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789-"

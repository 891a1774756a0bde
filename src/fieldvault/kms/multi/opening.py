"""What a ``MultiKMS`` is made of: its arguments checked, and its members opened as a configuration says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

from fieldvault.errors import ConfigurationError, FieldVaultError, KMSUnavailable
from fieldvault.keys.protocols import KMS
from fieldvault.settings import Section

__all__ = ["Absent", "check_arguments", "close_all", "opened", "opened_all"]

_NAME = re.compile("[a-z0-9][a-z0-9._-]{0,62}")


class Absent(NamedTuple):
    """A member that is not at hand, and why."""

    reason: str


def check_arguments(
    members: Mapping[str, KMS | None],
    *,
    required: int | None,
    alone: str | None,
    cooldown: float,
    blaming: Callable[[str], AbstractContextManager[None]],
) -> None:
    """See that a ``MultiKMS`` can be made of these; each mistake is told inside ``blaming`` of its argument.

    Raises:
        ConfigurationError: it cannot.
    """
    at_hand = [name for name, kms in members.items() if kms is not None]
    with blaming("members"):
        for name in members:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} cannot name a member: 1 to 63 of a-z, 0-9, '.', '_' and '-' can"
                )
        if not at_hand:
            raise ConfigurationError("a MultiKMS needs a member that is at hand")
    with blaming("required"):
        if required is not None and not 1 <= required <= len(at_hand):
            raise ConfigurationError(
                f"{required} members cannot be required to wrap: {len(at_hand)} are at hand; "
                f"give 1 to {len(at_hand)}"
            )
    with blaming("alone"):
        if alone is not None and alone not in at_hand:
            raise ConfigurationError(f"alone names {alone!r}, which is no member that is at hand")
    with blaming("cooldown"):
        if not (math.isfinite(cooldown) and cooldown >= 0):
            raise ConfigurationError(f"cooldown is a number of seconds, 0 or more, not {cooldown:g}")


def opened_all(described: Section) -> tuple[dict[str, KMS | None], dict[str, str]]:
    """The members that the sections within this one describe, and why those are absent that are.

    Raises:
        FieldVaultError: one of them cannot be opened; the others are closed.
    """
    members: dict[str, KMS | None] = {}
    absent: dict[str, str] = {}
    try:
        for name in described:
            member = opened(described.section(name))
            if isinstance(member, Absent):
                members[name], absent[name] = None, member.reason
            else:
                members[name] = member
    except BaseException:
        close_all(members)
        raise
    return members, absent


def close_all(members: Mapping[str, KMS | None]) -> None:
    """Close those that are at hand."""
    for kms in members.values():
        if kms is not None:
            kms.close()


def opened(section: Section) -> KMS | Absent:
    """The member that a section describes.

    With ``offline = true`` it may be absent: the file that ``path`` names is not there, or, of a member
    without one, opening it or asking it met ``KMSUnavailable``. A section that cannot be used as it is is a
    mistake all the same.

    Raises:
        FieldVaultError: it cannot be opened.
    """
    offline = section.flag("offline", default=False)
    kms: KMS
    try:
        kms = section.backend("fieldvault.kms").from_config(section)
    except FieldVaultError as error:
        absent = _absent(section, error) if offline else None
        if absent is None:
            raise
        return absent
    if not offline:
        return kms
    try:
        kms.check()
    except KMSUnavailable as error:
        # Many open without asking anybody.
        absent = Absent(str(error))
    except FieldVaultError:
        # It is at hand. What is wrong with it, it says to whoever asks.
        return kms
    else:
        return kms
    kms.close()
    return absent


def _absent(section: Section, error: FieldVaultError) -> Absent | None:
    """Why a member is not at hand that could not be opened; ``None`` where it is, or may be."""
    if "path" not in section:
        return Absent(str(error)) if isinstance(error, KMSUnavailable) else None
    if _is_mistyped(section, error):
        return None
    path = section.path("path")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Absent(f"{path} is not there")
    except OSError:
        # It may be there.
        return None
    return None


def _is_mistyped(section: Section, error: FieldVaultError) -> bool:
    """Whether a member that is not known is what stood against it, and not that the file is away."""
    try:
        section.finish()
    except ConfigurationError as mistake:
        return str(mistake) == str(error)
    return False

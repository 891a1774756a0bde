"""``MultiKMS``: wraps under several KMSs, unwraps with any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from fieldvault.errors import ConfigurationError, FieldVaultError, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.clock import Clock, boot_clock
from fieldvault.keys.protocols import KMS, ManyRootKeys, Rewrapping, WrappedKey
from fieldvault.kms.multi.container import MAGIC, Container, fits, sealed
from fieldvault.kms.multi.members import Members, combined
from fieldvault.secret import KEY_SIZE
from fieldvault.settings import Section

__all__ = ["MultiKMS"]

_COOLDOWN = 15.0
_UNSEALED = b""


class MultiKMS:
    """Wraps each data key under the root keys of several KMSs; any one of them unwraps it.

    ``members`` are KMSs by name, in order of preference; the name is kept with what the member wraps, so it
    is for good. ``None`` stands for a member that is not at hand, such as an offline recovery key: its parts
    are kept. ``required`` is how many members have to wrap a new key (default: all that are at hand); what is
    missing, ``fieldvault rewrap`` fills in. A member that was unavailable is asked last for ``cooldown``
    seconds. What a member wrapped by itself is unwrapped too, and ``alone`` names one that goes on to wrap
    so: the first step from one KMS to several, and the last one back.

    The data is as safe as the weakest member: any of them alone opens everything, and to stop the reading
    all have to be denied. A key counts as wrong only where every member says so.

    Raises:
        ConfigurationError: no member at hand, or arguments that do not fit them.
    """

    def __init__(
        self,
        members: Mapping[str, KMS | None],
        *,
        required: int | None = None,
        alone: str | None = None,
        cooldown: float = _COOLDOWN,
        clock: Clock | None = None,
    ) -> None:
        self._members = Members(members, cooldown=cooldown, clock=boot_clock() if clock is None else clock)
        at_hand = len(self._members.at_hand)
        self._required = at_hand if required is None else required
        self._alone = alone
        if not 1 <= self._required <= at_hand:
            raise ConfigurationError(
                f"{required} members cannot be required to wrap: {at_hand} are at hand; give 1 to {at_hand}"
            )
        if alone is not None and alone not in self._members.at_hand:
            raise ConfigurationError(f"alone names {alone!r}, which is no member that is at hand")

    @classmethod
    def from_config(cls, section: Section) -> MultiKMS:
        """Open the members that a configuration describes, each in a section of its own.

        ``members.<name>`` as ``[kms]`` would be for that member alone, with ``offline = true`` for one that
        may be missing; ``required``, ``alone`` and ``cooldown``.
        """
        described = section.section("members", required=True)
        required = section.whole("required", 0) if "required" in section else None
        alone, cooldown = section.optional_text("alone"), section.number("cooldown", _COOLDOWN)
        section.finish()
        members: dict[str, KMS | None] = {}
        try:
            for name in described:
                members[name] = _opened(described.section(name))
            with section.blaming("members"):
                return cls(members, required=required, alone=alone, cooldown=cooldown)
        except BaseException:
            _close(members)
            raise

    @property
    def members(self) -> Mapping[str, KMS]:
        """The members that are at hand."""
        return dict(self._members.at_hand)

    @property
    def absent(self) -> Sequence[str]:
        """The names of those that are not."""
        return self._members.absent

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key under each member that answers, or under ``alone``.

        Raises:
            ConfigurationError: the key has another size.
            KMSError: fewer than ``required`` members wrapped it; unavailable if one of the others is.
        """
        return self._wrapped(key, context, kept={})

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context.

        Raises:
            KMSError: no member unwraps it; unavailable if one of those that hold a part is.
        """
        (answer,) = self.unwrap_many([WrappedKey(wrapped, context)])
        if isinstance(answer, KMSError):
            raise answer
        return answer

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item's key, or the error that it met.

        A batch a member, of what those before it did not open.
        """
        answers: dict[int, bytes | KMSError] = {}
        pending: dict[int, Container] = {}
        for index, item in enumerate(items):
            try:
                pending[index] = self._parsed(item.wrapped)
            except KMSError as error:
                answers[index] = error
        errors: dict[int, dict[str, KMSError]] = {index: {} for index in pending}
        for name, kms in self._members.in_order():
            mine = [index for index, container in pending.items() if name in container.parts]
            batch = [WrappedKey(pending[index].parts[name], items[index].context) for index in mine]
            for index, answer in zip(mine, self._asked(name, kms, batch), strict=True):
                if isinstance(answer, KMSError):
                    errors[index][name] = answer
                elif self._fits(answer, pending[index]):
                    answers[index] = answer
                    del pending[index]
                else:
                    errors[index][name] = self._members.lied(name)
        for index, container in pending.items():
            answers[index] = self._nobody(container, errors[index])
        return [answers[index] for index in range(len(items))]

    def unwrap_by_member(self, items: Sequence[WrappedKey]) -> Mapping[str, Sequence[bytes | KMSError]]:
        """What each member at hand answers for each item by itself: the proof that any one is enough.

        An item that a member has no part of, or whose parts were changed, is a ``KMSError``.
        """
        outcome: dict[str, Sequence[bytes | KMSError]] = {}
        for name, kms in self._members.at_hand.items():
            outcome[name] = MultiKMS({name: kms}).unwrap_many(items)
        return outcome

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """Whether exactly the members hold a part, and each says that it is current, if it can tell.

        Where one wraps alone: whether that one says so.
        """
        at_hand = self._members.at_hand
        if self._alone is not None:
            return _is_current(at_hand[self._alone], wrapped, context, untold=False)
        if not wrapped.startswith(MAGIC):
            return False
        parts = Container.parse(wrapped).parts
        return set(at_hand) <= set(parts) <= {*at_hand, *self._members.absent} and all(
            _is_current(kms, parts[name], context, untold=True) for name, kms in at_hand.items()
        )

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The same key, wrapped anew by each member that answers, or by ``alone``.

        Parts of members that are not at hand, or do not answer, stay; those of former members go.

        Raises:
            KMSError: it cannot be unwrapped, or fewer than ``required`` members would hold a part.
        """
        key = self.unwrap(wrapped, context=context)
        old = Container.parse(wrapped).parts if wrapped.startswith(MAGIC) else {}
        known = {*self._members.at_hand, *self._members.absent}
        return self._wrapped(key, context, kept={name: part for name, part in old.items() if name in known})

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """The root keys of all members that hold a part: those that do are refused together."""
        parts = self._parsed(wrapped).parts
        told = dict.fromkeys(parts, "")
        for name, kms in self._members.at_hand.items():
            if name in parts and isinstance(kms, ManyRootKeys):
                told[name] = kms.root_key_of(parts[name], context=context)
        return "; ".join(f"{name}: {root_key}" for name, root_key in told.items())

    def check(self) -> str:
        """Have each member at hand prove itself.

        Raises:
            KMSError: one of them failed; the others may well do.
        """
        told: list[str] = []
        errors: dict[str, KMSError] = {}
        for name, kms in self._members.at_hand.items():
            try:
                told.append(f"{name}: {kms.check()}")
            except KMSError as error:
                errors[name] = error
        if errors:
            raise combined(f"{len(errors)} of {len(told) + len(errors)} members fail", errors)
        told += [f"{name}: not at hand" for name in self._members.absent]
        return "; ".join(told)

    def close(self) -> None:
        """Close all members."""
        _close(self._members.at_hand)

    def __repr__(self) -> str:
        names = [*self._members.at_hand, *self._members.absent]
        return f"MultiKMS({', '.join(names)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a MultiKMS is not pickled or copied; open it in each process")

    def _wrapped(self, key: bytes, context: Mapping[str, str], *, kept: Mapping[str, bytes]) -> bytes:
        if len(key) != KEY_SIZE:
            raise ConfigurationError(f"a KMS wraps keys of {KEY_SIZE} bytes, not of {len(key)}")
        if self._alone is not None:
            return self._members.at_hand[self._alone].wrap(key, context=context)
        parts = dict(kept)
        errors: dict[str, KMSError] = {}
        for name, kms in self._members.in_order():
            if self._members.ailing(name) and self._enough(parts):
                continue
            try:
                parts[name] = kms.wrap(key, context=context)
            except KMSError as error:
                errors[name] = error
            self._members.note(name, [errors.get(name, b"")])
        if not self._enough(parts):
            raise combined(f"fewer than {self._required} members wrapped the key", errors)
        return sealed(key, parts).encoded()

    def _enough(self, parts: Mapping[str, bytes]) -> bool:
        # A part that a rewrap kept counts: it is one more way to the key.
        return len(parts.keys() & self._members.at_hand.keys()) >= self._required

    def _parsed(self, wrapped: bytes) -> Container:
        if wrapped.startswith(MAGIC):
            return Container.parse(wrapped)
        # What one of the members wrapped by itself, and nobody here can tell which.
        return Container(dict.fromkeys(self._members.at_hand, wrapped), _UNSEALED)

    @staticmethod
    def _fits(answer: object, container: Container) -> bool:
        # Without a seal the member is believed, as it was before: the key id above commits to the key.
        return isinstance(answer, bytes) if container.seal == _UNSEALED else fits(answer, container)

    def _asked(self, name: str, kms: KMS, batch: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        if not batch:
            return []
        answers: Sequence[bytes | KMSError]
        try:
            answers = kms.unwrap_many(batch)
        except KMSError as error:
            answers = [type(error)(str(error)) for _ in batch]
        if len(answers) != len(batch):
            answers = [KMSError(f"answered {len(answers)} of {len(batch)} items") for _ in batch]
        self._members.note(name, answers)
        return answers

    def _nobody(self, container: Container, errors: Mapping[str, KMSError]) -> KMSError:
        """The error for a key that no member opened."""
        if errors:
            return combined("no member unwraps the key", errors)
        holders = ", ".join(sorted(container.parts))
        if any(name in self._members.absent for name in container.parts):
            return KMSUnavailable(f"only {holders} can unwrap the key, and they are not at hand")
        return KMSKeyDisabled(f"the key was wrapped by {holders}, none of them a member any more")


def _is_current(kms: KMS, wrapped: bytes, context: Mapping[str, str], *, untold: bool) -> bool:
    if not isinstance(kms, Rewrapping):
        return untold
    try:
        return kms.is_current(wrapped, context=context)
    except KMSError:
        # To wrap again is never wrong.
        return False


def _opened(section: Section) -> KMS | None:
    offline = section.flag("offline", default=False)
    kms_class = section.backend("fieldvault.kms")
    try:
        kms: KMS = kms_class.from_config(section)
    except FieldVaultError:
        if not offline:
            raise
        return None
    return kms


def _close(members: Mapping[str, KMS | None]) -> None:
    for kms in members.values():
        if kms is not None:
            kms.close()

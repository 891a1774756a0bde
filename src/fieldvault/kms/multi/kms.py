"""``MultiKMS``: wraps under several KMSs, unwraps with any of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NoReturn

from fieldvault.errors import (
    ConfigurationError,
    FieldVaultError,
    KMSError,
    KMSKeyDisabled,
)
from fieldvault.keys.clock import Clock, boot_clock
from fieldvault.keys.material import key_id_of
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.kms.multi.container import MAGIC, Container, fits, sealed
from fieldvault.kms.multi.members import Members, combined
from fieldvault.kms.multi.opening import check_arguments, close_all, opened_all
from fieldvault.kms.multi.rewrapping import RewrappedByMember, proved, renewed
from fieldvault.secret import KEY_SIZE, Secret
from fieldvault.settings import Section

__all__ = ["MultiKMS"]

_COOLDOWN = 15.0
_UNSEALED = b""


class MultiKMS:
    """Wraps each data key under the root keys of several KMSs; any one of them unwraps it.

    ``members`` are KMSs by name, in order of preference; the name is kept with what the member wraps, so it
    is for good. ``None`` stands for a member that is not at hand, such as an offline recovery key: its parts
    are kept. ``required`` is how many members have to wrap a new key (default: all that are at hand); what is
    missing, ``fieldvault rewrap`` fills in. A member that was unavailable is asked last, and one call each
    ``cooldown`` seconds tries it in its turn. What a member wrapped by itself is unwrapped too, and ``alone``
    names one that goes on to wrap so: the first step from one KMS to several, and the last one back.

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
        check_arguments(
            members, required=required, alone=alone, cooldown=cooldown, blaming=lambda _: nullcontext()
        )
        self._members = Members(members, cooldown=cooldown, clock=boot_clock() if clock is None else clock)
        self._required = len(self._members.at_hand) if required is None else required
        self._alone = alone
        self._why_absent = dict.fromkeys(self._members.absent, "")

    @classmethod
    def from_config(cls, section: Section) -> MultiKMS:
        """Open the members that a configuration describes, each in a section of its own.

        ``members.<name>`` as ``[kms]`` would be for that member alone, with ``offline = true`` for one that
        may not be at hand; ``required``, ``alone`` and ``cooldown``. An offline member is asked once, whether
        it is there.
        """
        described = section.section("members", required=True)
        required = section.whole("required", 0) if "required" in section else None
        alone, cooldown = section.optional_text("alone"), section.number("cooldown", _COOLDOWN)
        section.finish()
        members, absent = opened_all(described)
        try:
            check_arguments(
                members, required=required, alone=alone, cooldown=cooldown, blaming=section.blaming
            )
            made = cls(members, required=required, alone=alone, cooldown=cooldown)
        except BaseException:
            close_all(members)
            raise
        made._why_absent = absent
        return made

    @property
    def members(self) -> Mapping[str, KMS]:
        """The members that are at hand."""
        return dict(self._members.at_hand)

    @property
    def absent(self) -> Mapping[str, str]:
        """Those that are not, by name, and why; empty where nobody said."""
        return dict(self._why_absent)

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key under each member that answers, or under ``alone``.

        Raises:
            ConfigurationError: the key has another size.
            KMSError: fewer than ``required`` members wrapped it; unavailable if one of the others is.
        """
        if len(key) != KEY_SIZE:
            raise ConfigurationError(f"a KMS wraps keys of {KEY_SIZE} bytes, not of {len(key)}")
        if self._alone is not None:
            return self._members.at_hand[self._alone].wrap(key, context=context)
        parts: dict[str, bytes] = {}
        errors: dict[str, KMSError] = {}
        for name, is_ailing in self._members.in_order():
            if is_ailing and self._enough(parts):
                continue
            answer = self._members.wrap(name, key, context)
            if isinstance(answer, KMSError):
                errors[name] = answer
            else:
                parts[name] = answer
        if not self._enough(parts):
            raise combined(f"fewer than {self._required} members wrapped the key", errors)
        return sealed(key, parts).encoded()

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
        pending, wrong = self._parsed_all(items)
        answers: dict[int, bytes | KMSError] = {**wrong}
        errors: dict[int, dict[str, KMSError]] = {index: {} for index in pending}
        for name, _ in self._members.in_order(partial(_is_held_by, pending)):
            for index, answer in self._answers(name, pending, items).items():
                if isinstance(answer, KMSError):
                    errors[index][name] = answer
                else:
                    answers[index] = answer
                    del pending[index]
        for index, container in pending.items():
            answers[index] = self._nobody(container, errors[index])
        return [answers[index] for index in range(len(items))]

    def unwrap_by_member(self, items: Sequence[WrappedKey]) -> Mapping[str, Sequence[bytes | KMSError]]:
        """What each member at hand answers for each item by itself: the proof that any one is enough.

        An item that a member has no part of, or whose parts were changed, is a ``KMSError``.
        """
        containers, wrong = self._parsed_all(items)
        outcome: dict[str, Sequence[bytes | KMSError]] = {}
        for name in self._members.at_hand:
            answers = {**wrong, **self._answers(name, containers, items)}
            outcome[name] = [
                answers[index] if index in answers else KMSError("it has not wrapped this key")
                for index in range(len(items))
            ]
        return outcome

    def check_by_member(self) -> Mapping[str, str | FieldVaultError]:
        """What each member at hand says when it proves itself, or the error that it met."""
        return {name: self._members.check(name) for name in self._members.at_hand}

    def may_wrap(self, serving: Collection[str]) -> bool:
        """Whether a new key can be made while only these members serve."""
        return len(serving) >= self._required if self._alone is None else self._alone in serving

    def without_part(self, wrapped: bytes) -> Sequence[str]:
        """The absent members that hold no part of it: with them alone it could not be unwrapped."""
        if self._alone is not None:
            return []
        try:
            parts = Container.parse(wrapped).parts if wrapped.startswith(MAGIC) else {}
        except KMSError:
            return []
        return [name for name in self._members.absent if name not in parts]

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """Whether it opens, and each member holds a part, and calls it current if it can tell.

        Where one wraps alone: whether that one says so. A part of a former member makes it old; an absent
        member need hold none. It takes one unwrapping: that every part opens, ``unwrap_by_member`` proves.
        """
        at_hand = self._members.at_hand
        if self._alone is not None:
            return self._members.says_current(self._alone, wrapped, context, untold=False)
        if not wrapped.startswith(MAGIC):
            return False
        try:
            parts = Container.parse(wrapped).parts
            if not set(at_hand) <= set(parts) <= {*at_hand, *self._members.absent}:
                return False
            self.unwrap(wrapped, context=context)
        except KMSError:
            return False
        return all(self._members.says_current(name, parts[name], context, untold=True) for name in at_hand)

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The same key, wrapped anew by each member that proves it, or by ``alone``.

        Raises:
            KMSError: as ``rewrap_by_member``.
        """
        return self.rewrap_by_member(wrapped, context=context, every=True).wrapped

    def rewrap_by_member(
        self, wrapped: bytes, *, context: Mapping[str, str], every: bool
    ) -> RewrappedByMember:
        """The same key, wrapped anew by each member that does not call its part current, or by ``every`` one.

        A member proves what it wrapped: it unwraps it, into this key. Where it does not, its old part stays,
        and so do those of absent members; those of former ones go. A member that may wrap and not unwrap here
        cannot prove anything: what it wrapped is taken where it had no part.

        Raises:
            KMSError: it cannot be unwrapped, or fewer than ``required`` members would hold a part, or
                ``alone`` did not prove the new one.
        """
        key = Secret(self.unwrap(wrapped, context=context))
        if self._alone is not None:
            part, error = proved(self._members, self._alone, key, context)
            if error is not None:
                raise error
            return RewrappedByMember(part, {})
        old = Container.parse(wrapped).parts if wrapped.startswith(MAGIC) else {}
        parts, missed = renewed(self._members, key, old, context, every=every, enough=self._enough)
        if not self._enough(parts):
            raise combined(f"fewer than {self._required} members wrapped the key", missed)
        return RewrappedByMember(sealed(key.reveal(), parts).encoded(), missed)

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """The root keys of all members that hold a part: those that do are refused together.

        Of what a member wrapped by itself, or of a part that was changed, those that cannot read it name
        none.
        """
        try:
            parts = self._parsed(wrapped).parts
        except KMSError:
            return ""
        names = dict.fromkeys(parts, "")
        for name in self._members.at_hand:
            if name in parts:
                names[name] = self._members.root_key_of(name, parts[name], context)
        return "; ".join(f"{name}: {root_key}" for name, root_key in names.items())

    def check(self) -> str:
        """Have each member at hand prove itself.

        Raises:
            KMSError: one of them failed; the others may well do.
        """
        answers = self.check_by_member()
        errors = {name: answer for name, answer in answers.items() if isinstance(answer, FieldVaultError)}
        if errors:
            raise combined(f"{len(errors)} of {len(answers)} members fail", errors)
        said = [f"{name}: {answer}" for name, answer in answers.items()]
        said += [f"{name}: not at hand{why and f': {why}'}" for name, why in self.absent.items()]
        return "; ".join(said)

    def close(self) -> None:
        """Close all members."""
        close_all(self._members.at_hand)

    def __repr__(self) -> str:
        names = [*self._members.at_hand, *self._members.absent]
        return f"MultiKMS({', '.join(names)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a MultiKMS is not pickled or copied; open it in each process")

    def _enough(self, parts: Mapping[str, bytes]) -> bool:
        # A part that a rewrap kept counts: it is one more way to the key.
        return len(parts.keys() & self._members.at_hand.keys()) >= self._required

    def _parsed(self, wrapped: bytes) -> Container:
        if wrapped.startswith(MAGIC):
            return Container.parse(wrapped)
        # What one of the members wrapped by itself, and nobody here can tell which.
        return Container(dict.fromkeys(self._members.at_hand, wrapped), _UNSEALED)

    def _parsed_all(self, items: Sequence[WrappedKey]) -> tuple[dict[int, Container], dict[int, KMSError]]:
        """The items by their places, and what is wrong with those that are no containers."""
        containers: dict[int, Container] = {}
        wrong: dict[int, KMSError] = {}
        for index, item in enumerate(items):
            try:
                containers[index] = self._parsed(item.wrapped)
            except KMSError as error:
                wrong[index] = error
        return containers, wrong

    def _answers(
        self, name: str, containers: Mapping[int, Container], items: Sequence[WrappedKey]
    ) -> Mapping[int, bytes | KMSError]:
        """What a member makes of its parts, by the items' places; another key is an error."""
        mine = [index for index, container in containers.items() if name in container.parts]
        if not mine:
            return {}
        batch = [WrappedKey(containers[index].parts[name], items[index].context) for index in mine]
        answers = dict(zip(mine, self._members.unwrap_many(name, batch), strict=True))
        for index, answer in answers.items():
            fitting = isinstance(answer, KMSError) or _fits(answer, containers[index], items[index].context)
            if not fitting:
                answers[index] = self._members.lied(name)
        return answers

    def _nobody(self, container: Container, errors: Mapping[str, KMSError]) -> KMSError:
        """The error for a key that no member opened.

        That a member is absent is no outage: to try again would be in vain, until somebody brings it.
        """
        absent = [name for name in self._members.absent if name in container.parts]
        if errors:
            away = {name: KMSKeyDisabled("is not at hand") for name in absent}
            return combined("no member unwraps the key", {**errors, **away})
        holders = ", ".join(sorted(container.parts))
        if absent:
            return KMSKeyDisabled(
                f"only {holders} can unwrap the key, and {', '.join(absent)} is not at hand"
            )
        return KMSKeyDisabled(f"the key was wrapped by {holders}, none of them a member any more")


def _is_held_by(containers: Mapping[int, Container], name: str) -> bool:
    return any(name in container.parts for container in containers.values())


def _fits(answer: object, container: Container, context: Mapping[str, str]) -> bool:
    """Whether it is the key that was wrapped; without a seal, the key that the context names, if it does."""
    if container.seal != _UNSEALED:
        return fits(answer, container)
    if not isinstance(answer, bytes) or len(answer) != KEY_SIZE:
        return False
    return context.get("key_id") in (None, key_id_of(Secret(answer)).hex())

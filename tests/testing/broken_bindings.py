"""KMSs that bind a key to less than its context, or keep what is not theirs to keep."""
# ruff: noqa: ARG002 - what they do not look at is what is wrong with them

from __future__ import annotations

import hmac
import time
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fieldvault.context import encode_context
from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from tests.testing.sample_kms import Context, SampleConformance, SampleKMS, Server

__all__ = ["BROKEN_BINDINGS"]

_BATCH = 250

_ALIKE = ("test_contexts_that_look_alike_are_told_apart",)
_TROUBLES = (
    "test_a_disabled_root_key_serves_nobody_until_it_is_enabled",
    "test_a_deleted_root_key_serves_nobody",
    "test_a_refused_caller_is_told_so_and_served_once_allowed",
    "test_an_outage_is_told_as_one_and_ends",
    "test_a_slow_server_is_not_waited_for_without_end",
)


class _Folds(SampleKMS):
    """Binds to what becomes of each value."""

    def folded(self, value: str) -> str:
        """What becomes of it."""
        raise NotImplementedError

    def bound(self, context: Context) -> bytes:
        return encode_context({name: self.folded(value) for name, value in context.items()})


class SpeaksASCII(_Folds):
    """To it all tenants of a script are one, if their names are equally long."""

    caught_by = _ALIKE

    def folded(self, value: str) -> str:
        return value.encode("ascii", "replace").decode()


class Normalises(_Folds):
    """Takes for the same what looks the same."""

    caught_by = _ALIKE

    def folded(self, value: str) -> str:
        return unicodedata.normalize("NFC", value)


class CutsOff(_Folds):
    """Has 128 letters for a name."""

    caught_by = _ALIKE

    def folded(self, value: str) -> str:
        return value[:128]


class CutsOffBytes(_Folds):
    """Has 255 bytes, one less than some names have behind a prefix."""

    caught_by = _ALIKE

    def folded(self, value: str) -> str:
        return value.encode()[:254].decode(errors="ignore")


class TrimsLeft(_Folds):
    """No name begins with a space."""

    caught_by = _ALIKE

    def folded(self, value: str) -> str:
        return value.lstrip()


class JoinsWithoutLengths(SampleKMS):
    """As a query of a URL does that nobody quotes."""

    caught_by = ("test_a_value_does_not_run_over_into_the_next_name",)

    def bound(self, context: Context) -> bytes:
        return "&".join(f"{name}={value}" for name, value in sorted(context.items())).encode()


class ForgetsSubjects(SampleKMS):
    """Binds to what it has heard of."""

    caught_by = _ALIKE

    def bound(self, context: Context) -> bytes:
        return encode_context({name: value for name, value in context.items() if name != "subject"})


class BindsOneByOneOnly(SampleKMS):
    """Of many it looks at the tenants alone."""

    caught_by = (*_ALIKE, "test_another_context_opens_nothing")

    def wrap(self, key: bytes, *, context: Context) -> bytes:
        wrapped = super().wrap(key, context=context)
        return wrapped + super().wrap(key, context={"tenant": context.get("tenant", "")})

    def unwrap(self, wrapped: bytes, *, context: Context) -> bytes:
        if len(wrapped) % 2:
            raise KMSError("cut")
        return super().unwrap(wrapped[: len(wrapped) // 2], context=context)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        answers: list[bytes | KMSError] = []
        for item in items:
            own = {"tenant": item.context.get("tenant", "")}
            try:
                half = item.wrapped[len(item.wrapped) // 2 :]
                answers.append(super().unwrap(half, context=own))
            except KMSError as error:
                answers.append(error)
        return answers


class KeepsKeys(SampleKMS):
    """Serves again what it has served."""

    caught_by = _TROUBLES

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept: dict[tuple[bytes, bytes], bytes] = {}

    def unwrap(self, wrapped: bytes, *, context: Context) -> bytes:
        name = wrapped, encode_context(context)
        if name not in self._kept:
            self._kept[name] = super().unwrap(wrapped, context=context)
        return self._kept[name]


class KeepsKeysOfBatches(SampleKMS):
    """Where it was asked for many."""

    caught_by = _TROUBLES

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept: dict[bytes, Sequence[bytes | KMSError]] = {}

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        name = b"".join(item.wrapped + encode_context(item.context) for item in items)
        if name not in self._kept:
            self._kept[name] = super().unwrap_many(items)
        return self._kept[name]


class ChecksOnce(SampleKMS):
    """All was well when somebody asked."""

    caught_by = _TROUBLES

    _said = ""

    def check(self) -> str:
        self._said = self._said or super().check()
        return self._said


class SpoilsItsBatch(SampleKMS):
    """Of more items than fit into one batch, a bad one spoils those of its own."""

    caught_by = ("test_many_are_unwrapped_in_order",)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        answers: list[bytes | KMSError] = []
        for start in range(0, len(items), _BATCH):
            part = super().unwrap_many(items[start : start + _BATCH])
            bad = [answer for answer in part if isinstance(answer, KMSError)]
            answers += [bad[0]] * len(part) if bad and len(items) > _BATCH else part
        return answers


class BlamesKeysForTheOutage(SampleKMS):
    """What it could not ask for any more was not to be unwrapped."""

    caught_by = (
        "test_an_outage_is_told_as_one_and_ends",
        "test_an_outage_in_the_midst_of_a_batch_is_told_as_one",
    )

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        answers = [*super().unwrap_many(items)]
        for index, answer in enumerate(answers[1:], start=1):
            if isinstance(answer, KMSUnavailable):
                answers[index] = KMSError("cannot be unwrapped")
        return answers


class BlamesLaterKeys(SampleKMS):
    """Where the first batch was answered, and the connection was lost before the next."""

    caught_by = ("test_an_outage_in_the_midst_of_a_batch_is_told_as_one",)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        answers = [*super().unwrap_many(items[:5])]
        time.sleep(0.02)
        later = [*super().unwrap_many(items[5:])]
        if not any(isinstance(answer, KMSError) for answer in answers):
            later = [
                KMSError("cannot be unwrapped") if isinstance(answer, KMSUnavailable) else answer
                for answer in later
            ]
        return answers + later


class WrapsInBase64(SampleKMS):
    """A key and a MAC: authenticated, and for all to read who know base64."""

    caught_by = ("test_a_wrapped_key_does_not_show_the_key",)

    def sealed(self, key: bytes, version: int, context: Context) -> bytes:
        shown = bytes([version]) + b64encode(b"k:" + key)
        return shown + self._mac(shown, context)

    def opened(self, wrapped: bytes, context: Context) -> bytes:
        shown, mac = wrapped[:-32], wrapped[-32:]
        if (
            not shown
            or shown[0] > len(self.versions())
            or not hmac.compare_digest(mac, self._mac(shown, context))
        ):
            raise KMSError("changed")
        return b64decode(shown[1:])[2:]

    def _mac(self, shown: bytes, context: Context) -> bytes:
        return hmac.digest(self.versions()[shown[0] - 1], shown + self.bound(context), "sha256")


class HasOneName(SampleKMS):
    """All versions go by one name, and a disabled one is never noticed."""

    caught_by = ("test_what_is_refused_by_itself_has_a_name_of_its_own",)

    def root_key_of(self, wrapped: bytes, *, context: Context) -> str:
        return self.name


class NamesItByObject(SampleKMS):
    """Each object has names of its own."""

    caught_by = ("test_the_name_of_a_root_key_is_the_same_everywhere",)

    def root_key_of(self, wrapped: bytes, *, context: Context) -> str:
        return f"{id(self)} {wrapped[0]}"


class AsksForTheName(SampleKMS):
    """Looks up at the server what the name is."""

    caught_by = ("test_the_name_of_a_root_key_is_known_in_an_outage",)

    def root_key_of(self, wrapped: bytes, *, context: Context) -> str:
        return f"{self.name} {wrapped[0]} of {len(self.versions())}"


class _RotatedElsewhere(SampleKMS):
    """Only the server rotates."""

    rotate_root_key = None  # type: ignore[assignment]  # that it has none

    def is_current(self, wrapped: bytes, *, context: Context) -> bool:
        self.unwrap(wrapped, context=context)
        return True


class CallsAllCurrentThatOpens(SampleConformance):
    """What the server has rotated away is as good as new."""

    caught_by = ("test_what_an_older_version_wrapped_is_not_current_until_it_is_rewrapped",)

    kms_class = _RotatedElsewhere

    @pytest.fixture
    def rotate(self, server: Server) -> Callable[[], object]:
        return lambda: server.keys["root"].append(bytes(32))


BROKEN_BINDINGS: list[Any] = [
    each for each in dict(vars()).values() if isinstance(each, type) and "caught_by" in vars(each)
]

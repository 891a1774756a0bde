"""KMSs that break one promise each, and the tests of the kit that have to see it."""
# ruff: noqa: ARG002 - what they do not look at is what is wrong with them

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fieldvault.errors import (
    FieldVaultError,
    KMSDenied,
    KMSError,
    KMSKeyDisabled,
    KMSUnavailable,
)
from fieldvault.keys.protocols import WrappedKey
from fieldvault.testing import KMSConformance
from fieldvault.testing.vendors import Meaning, VendorError
from tests.testing.sample_kms import (
    MEANING,
    PATIENCE,
    Context,
    KeyInactive,
    NoSuchKey,
    SampleConformance,
    SampleKMS,
    ServerError,
    TimedOut,
    Unreachable,
)

__all__ = ["BROKEN_KMS"]


class Forgets(SampleKMS):
    """Another key comes out than went in."""

    caught_by = ("test_what_was_wrapped_is_unwrapped",)

    def opened(self, wrapped: bytes, context: Context) -> bytes:
        return super().opened(wrapped, context)[::-1]


class IgnoresContext(SampleKMS):
    """As a transit key does that is not derived."""

    caught_by = ("test_another_context_opens_nothing", "test_of_many_each_meets_its_own_error")

    def bound(self, context: Context) -> bytes:
        return b""


class JoinsContext(SampleKMS):
    """Two contexts share an encoding."""

    caught_by = ("test_another_context_opens_nothing",)

    def bound(self, context: Context) -> bytes:
        return "".join(name + context[name] for name in sorted(context)).encode()


class OrdersContext(SampleKMS):
    """One context has two encodings."""

    caught_by = ("test_the_order_of_a_context_does_not_matter",)

    def bound(self, context: Context) -> bytes:
        return repr(list(context.items())).encode()


class ReadsASCII(SampleKMS):
    """Tenants of other scripts are strangers to it."""

    caught_by = ("test_names_in_any_script_are_contexts",)

    def bound(self, context: Context) -> bytes:
        return repr(sorted(context.items())).encode("ascii")


class AuthenticatesNothing(SampleKMS):
    """Encrypts, and takes whatever comes back."""

    caught_by = (
        "test_a_wrapped_key_that_was_changed_opens_nothing",
        "test_a_wrapped_key_of_another_length_opens_nothing",
        "test_bytes_that_nobody_wrapped_open_nothing",
        "test_what_another_root_key_wrapped_opens_nothing",
        "test_of_many_each_meets_its_own_error",
    )

    def sealed(self, key: bytes, version: int, context: Context) -> bytes:
        return bytes([version]) + self._stream(version, key)

    def opened(self, wrapped: bytes, context: Context) -> bytes:
        return self._stream(1, wrapped[1:])

    def _stream(self, version: int, text: bytes) -> bytes:
        return (
            Cipher(algorithms.AES(self.versions()[version - 1]), modes.CTR(bytes(16)))
            .encryptor()
            .update(text)
        )


class MixesUpBatches(SampleKMS):
    """The answers of a batch come as they please."""

    caught_by = ("test_many_are_unwrapped_in_order",)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        return [*super().unwrap_many(items)][::-1]


class SpoilsBatches(SampleKMS):
    """One bad item, and no item is answered."""

    caught_by = ("test_of_many_each_meets_its_own_error",)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        return [self.unwrap(item.wrapped, context=item.context) for item in items]


class BlamesTheOutage(SampleKMS):
    """What was tampered with is told as something to wait for."""

    caught_by = ("test_a_wrapped_key_that_was_changed_opens_nothing", "test_another_context_opens_nothing")

    def unwrap(self, wrapped: bytes, *, context: Context) -> bytes:
        with self.lock:
            try:
                return self.opened(wrapped, context)
            except InvalidTag:
                pass
        raise KMSUnavailable("try again")


class MakesMissingKeys(SampleKMS):
    """As a transit engine does for a token that may create."""

    caught_by = ("test_a_root_key_that_is_not_there_is_told_as_such",)

    def versions(self) -> list[bytes]:
        self.server.keys.setdefault(self.name, [os.urandom(32)])
        return super().versions()


class WaitsForMissingKeys(SampleKMS):
    """Takes a root key that is not there for an outage."""

    caught_by = ("test_a_root_key_that_is_not_there_is_told_as_such", "test_a_deleted_root_key_serves_nobody")

    def translated(self, error: ServerError) -> FieldVaultError:
        return KMSUnavailable("soon") if isinstance(error, NoSuchKey) else super().translated(error)


class WaitsForDisabledKeys(SampleKMS):
    """Takes a disabled root key for an outage."""

    caught_by = ("test_a_disabled_root_key_serves_nobody_until_it_is_enabled",)

    def translated(self, error: ServerError) -> FieldVaultError:
        return KMSUnavailable("soon") if isinstance(error, KeyInactive) else super().translated(error)


class KeepsRootKeys(SampleKMS):
    """Goes on with a root key that the server no longer gives out."""

    caught_by = (
        "test_a_disabled_root_key_serves_nobody_until_it_is_enabled",
        "test_a_deleted_root_key_serves_nobody",
        "test_a_refused_caller_is_told_so_and_served_once_allowed",
        "test_an_outage_is_told_as_one_and_ends",
        "test_what_an_older_version_wrapped_is_not_current_until_it_is_rewrapped",
    )

    _kept: list[bytes] | None = None

    def versions(self) -> list[bytes]:
        if self._kept is None:
            self._kept = [*super().versions()]
        return self._kept

    def rotate_root_key(self) -> int:
        super().versions().append(os.urandom(32))
        return len(super().versions())


class LosesVersions(SampleKMS):
    """A rotation leaves what was wrapped before to itself."""

    caught_by = ("test_a_new_version_of_the_root_key_opens_what_older_ones_wrapped",)

    def rotate_root_key(self) -> int:
        number = super().rotate_root_key()
        self.versions()[0] = bytes(32)
        return number


class NeverDisabled(SampleKMS):
    """Once disabled, always disabled."""

    caught_by = ("test_a_disabled_root_key_serves_nobody_until_it_is_enabled",)

    _dead = False

    def translated(self, error: ServerError) -> FieldVaultError:
        self._dead |= isinstance(error, KeyInactive)
        return super().translated(error)

    def versions(self) -> list[bytes]:
        if self._dead:
            raise KMSKeyDisabled("as before")
        return super().versions()


class TellsOutagesAsErrors(SampleKMS):
    """An outage is an error like any other, and nobody tries again."""

    caught_by = (
        "test_an_outage_is_told_as_one_and_ends",
        "test_in_an_outage_nothing_is_current_or_rewrapped",
    )

    def translated(self, error: ServerError) -> FieldVaultError:
        return KMSError("no route") if isinstance(error, Unreachable) else super().translated(error)


class NeverRecovers(SampleKMS):
    """One outage, and the object is of no use."""

    caught_by = ("test_an_outage_is_told_as_one_and_ends",)

    _down = False

    def versions(self) -> list[bytes]:
        if self._down:
            raise KMSUnavailable("still")
        try:
            return super().versions()
        except KMSUnavailable:
            self._down = True
            raise


class WaitsForEver(SampleKMS):
    """Nobody answers, and it goes on waiting."""

    caught_by = ("test_a_slow_server_is_not_waited_for_without_end",)

    def translated(self, error: ServerError) -> FieldVaultError:
        if isinstance(error, TimedOut):
            time.sleep(PATIENCE * 1.2)
        return super().translated(error)


class TellsDenialsAsOutages(SampleKMS):
    """A revoked permission is waited out with cached keys."""

    caught_by = ("test_a_refused_caller_is_told_so_and_served_once_allowed",)

    def translated(self, error: ServerError) -> FieldVaultError:
        told = super().translated(error)
        return KMSUnavailable("busy") if isinstance(told, KMSDenied) else told


class SharesABuffer(SampleKMS):
    """What one thread unwraps another one gets."""

    caught_by = ("test_many_threads_are_served_at_once",)

    _buffer = b""

    def unwrap(self, wrapped: bytes, *, context: Context) -> bytes:
        self._buffer = super().unwrap(wrapped, context=context)
        time.sleep(0.0005)
        return self._buffer


class DoesNotFork(SampleKMS):
    """Its connection is of no use to a child."""

    caught_by = (
        "test_a_forked_child_is_served_and_so_is_its_parent",
        "test_a_child_forked_in_the_midst_of_calls_is_served",
    )

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # as they came
        self._opened_in = os.getpid()

    def versions(self) -> list[bytes]:
        if os.getpid() != self._opened_in:
            raise KMSUnavailable("bad file descriptor")
        return super().versions()


class ShowsItself(SampleKMS):
    """Its representation is that of all its members."""

    caught_by = ("test_nothing_that_is_shown_holds_a_secret",)

    def __repr__(self) -> str:
        return f"SampleKMS({vars(self)})"


class ShowsMostOfItself(SampleKMS):
    """Somebody thought that a token with a gap in it is none."""

    caught_by = ("test_nothing_that_is_shown_holds_a_secret",)

    def __repr__(self) -> str:
        return f"SampleKMS(token={self.token[:4]}...{self.token[4:]})"


class ShowsItselfInChecks(SampleKMS):
    """Its check says how it logged in."""

    caught_by = ("test_nothing_that_is_shown_holds_a_secret",)

    def check(self) -> str:
        return f"{super().check()}, token {self.token}"


class LogsKeys(SampleKMS):
    """Somebody needed to see what was going on."""

    caught_by = ("test_nothing_that_is_shown_holds_a_secret",)

    def sealed(self, key: bytes, version: int, context: Context) -> bytes:
        self.log.warning("sealing %r", key)
        return super().sealed(key, version, context)


class QuotesTheServer(SampleKMS):
    """An error says what the server said."""

    caught_by = (
        "test_an_outage_is_told_as_one_and_ends",
        "test_a_slow_server_is_not_waited_for_without_end",
        "test_a_refused_caller_is_told_so_and_served_once_allowed",
        "test_a_disabled_root_key_serves_nobody_until_it_is_enabled",
        "test_a_root_key_that_is_not_there_is_told_as_such",
    )

    def translated(self, error: ServerError) -> FieldVaultError:
        return MEANING[type(error)](str(error))


class ChainsTheServer(SampleKMS):
    """The vendor's error hangs on, hidden and not gone."""

    caught_by = ("test_a_refused_caller_is_told_so_and_served_once_allowed",)

    def versions(self) -> list[bytes]:
        try:
            return self.server.versions(self.name)
        except ServerError as error:
            raise MEANING[type(error)]("no luck") from None


class QuotesTheKey(SampleKMS):
    """An error says what could not be opened."""

    caught_by = ("test_a_wrapped_key_that_was_changed_opens_nothing",)

    _last = b""

    def sealed(self, key: bytes, version: int, context: Context) -> bytes:
        self._last = key
        return super().sealed(key, version, context)

    def unwrap(self, wrapped: bytes, *, context: Context) -> bytes:
        try:
            return super().unwrap(wrapped, context=context)
        except KMSError:
            pass
        raise KMSError(f"expected {self._last.hex()}")


class WrapsInTheClear(SampleKMS):
    """Authenticated, and for all to read."""

    caught_by = ("test_a_wrapped_key_does_not_show_the_key",)

    def sealed(self, key: bytes, version: int, context: Context) -> bytes:
        return super().sealed(key, version, context) + key


class Travels(SampleKMS):
    """It can be pickled, its token with it."""

    caught_by = ("test_it_is_not_pickled_or_copied",)

    def __reduce__(self) -> tuple[object, ...]:  # type: ignore[override]  # that is what is wrong with it
        return type(self), (self.server, self.name, self.token)


class SaysNothing(SampleKMS):
    """A check of no words."""

    caught_by = ("test_a_check_says_what_was_reached",)

    def check(self) -> str:
        return ""


class ClosesOnce(SampleKMS):
    """The second time there is nothing to close."""

    caught_by = ("test_closing_twice_is_fine",)

    def close(self) -> None:
        del self.server


class CallsAllCurrent(SampleKMS):
    """Nothing is ever rewrapped."""

    caught_by = (
        "test_what_an_older_version_wrapped_is_not_current_until_it_is_rewrapped",
        "test_what_does_not_open_is_neither_current_nor_rewrapped",
        "test_what_another_root_key_wrapped_is_neither_current_nor_rewrapped",
    )

    def is_current(self, wrapped: bytes, *, context: Context) -> bool:
        return True


class CallsNothingCurrent(SampleKMS):
    """Everything is rewrapped, again and again."""

    caught_by = ("test_what_was_just_wrapped_is_current_and_can_be_wrapped_again",)

    def is_current(self, wrapped: bytes, *, context: Context) -> bool:
        return False


class BlessesWhatWasMoved(SampleKMS):
    """Rewraps whatever it can open in any context into the one that it is given."""

    caught_by = ("test_what_does_not_open_is_neither_current_nor_rewrapped",)

    _contexts: ClassVar[list[Context]] = []

    def wrap(self, key: bytes, *, context: Context) -> bytes:
        self._contexts.append(context)
        return super().wrap(key, context=context)

    def rewrap(self, wrapped: bytes, *, context: Context) -> bytes:
        for each in self._contexts:
            try:
                return self.wrap(self.unwrap(wrapped, context=each), context=context)
            except KMSError:
                continue
        raise KMSError("no")


class RewrapsInPlace(SampleKMS):
    """What it rewraps it does not rewrap for this context."""

    caught_by = ("test_what_was_just_wrapped_is_current_and_can_be_wrapped_again",)

    def rewrap(self, wrapped: bytes, *, context: Context) -> bytes:
        return self.wrap(self.unwrap(wrapped, context=context), context={})


class SaysNothingOfItsVendor(SampleConformance):
    """A backend that neither lists the vendor's errors nor says that there are none."""

    caught_by = ("test_every_error_of_the_vendor_is_mapped",)

    vendor_errors = KMSConformance.vendor_errors


class MissesOne(SampleConformance):
    """Its table has no line for one of the vendor's errors."""

    caught_by = ("test_every_error_of_the_vendor_is_mapped",)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        return {error: told for error, told in MEANING.items() if error is not TimedOut}.get


class MissesACode(SampleConformance):
    """It has none for a code either."""

    caught_by = ("test_every_error_of_the_vendor_is_mapped",)

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        return [*MEANING, "ThrottlingException"]


class RaisesSomethingElse(SampleConformance):
    """One of the vendor's errors becomes an error of nobody's tree."""

    caught_by = ("test_every_error_of_the_vendor_is_mapped",)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        table: dict[VendorError, object] = {**MEANING, TimedOut: TimeoutError}
        return table.get  # type: ignore[return-value]  # that is what is wrong with it


class BlamesTheStore(SampleConformance):
    """An error of the tree, and none that a KMS has."""

    caught_by = ("test_every_error_of_the_vendor_is_mapped",)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        return {**MEANING, TimedOut: FieldVaultError}.get


class KnowsEverything(SampleConformance):
    """Whatever a release adds, it has a meaning for."""

    caught_by = ("test_an_error_that_nobody_heard_of_is_not_mapped",)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        return lambda error: MEANING.get(error, KMSError)


class GoesByBaseClasses(SampleConformance):
    """Whatever a release adds means what its base class does."""

    caught_by = ("test_an_error_that_nobody_heard_of_is_not_mapped",)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        def told(error: VendorError) -> type[FieldVaultError] | None:
            bases = () if isinstance(error, str) else error.__mro__
            return next((MEANING[each] for each in bases if each in MEANING), None)

        return told


BROKEN_KMS: list[Any] = [
    each for each in dict(vars()).values() if isinstance(each, type) and "caught_by" in vars(each)
]

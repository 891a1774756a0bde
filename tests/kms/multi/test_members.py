"""The members of a ``MultiKMS``: whatever befalls one, the others serve, and an outage costs them nothing."""

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from fieldvault import CachePolicy, Vault
from fieldvault.errors import ConfigurationError, KMSError, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import MultiKMS
from fieldvault.kms.multi.container import Container
from fieldvault.testing.fakes import FaultyKMS, ManualClock

KEY = bytes(range(32))
CONTEXT = {"tenant": "a"}


class Broken(FaultyKMS):
    """One that raises what no KMS is to raise, once it is told to."""

    raised: Exception | None = None

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``KMS.wrap``."""
        if self.raised is not None:
            raise self.raised
        return super().wrap(key, context=context)

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """See ``KMS.unwrap_many``."""
        if self.raised is not None:
            raise self.raised
        return super().unwrap_many(items)

    def check(self) -> str:
        """See ``KMS.check``."""
        if self.raised is not None:
            raise self.raised
        return super().check()

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """See ``Rewrapping.is_current``."""
        return bool(self.unwrap(wrapped, context=context))

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``Rewrapping.rewrap``."""
        return self.wrap(self.unwrap(wrapped, context=context), context=context)

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:  # noqa: ARG002 - it has one
        """See ``ManyRootKeys.root_key_of``."""
        if self.raised is not None:
            raise self.raised
        return f"of {context['tenant']}"


@pytest.fixture
def broken(east: FaultyKMS) -> Broken:
    """The member that is preferred."""
    return Broken(east)


# -- what a member raises --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ConfigurationError("the module is gone"), "ConfigurationError: the module is gone"),
        (RuntimeError("still expired: secret"), "failed with RuntimeError"),
        (KMSError("odd"), "odd"),
    ],
)
def test_whatever_a_member_raises_the_next_one_serves(
    broken: Broken, west: FaultyKMS, raised: Exception, told: str
) -> None:
    """A library that is gone, credentials that nobody renews, a mistake in somebody's backend."""
    multi = MultiKMS({"broken": broken, "west": west}, required=1)
    wrapped = multi.wrap(KEY, context=CONTEXT)
    broken.raised = raised
    assert multi.unwrap(wrapped, context=CONTEXT) == KEY
    assert list(Container.parse(multi.wrap(KEY, context=CONTEXT)).parts) == ["west"]
    assert not multi.is_current(wrapped, context=CONTEXT)
    again = multi.rewrap_by_member(wrapped, context=CONTEXT, every=False)
    assert {name: str(error) for name, error in again.missed.items()} == {"broken": told}
    with pytest.raises(KMSError, match=f"1 of 2 members fail: broken: .*{told}"):
        multi.check()
    both = MultiKMS({"broken": broken, "west": west})
    with pytest.raises(KMSError, match=f"fewer than 2 members wrapped the key: broken: KMSError: {told}"):
        both.wrap(KEY, context=CONTEXT)


def test_a_member_that_breaks_takes_no_cached_key_with_it(broken: Broken, west: FaultyKMS) -> None:
    """The proof that the vault asks for once a lease is given by the other one."""
    clock = ManualClock()
    kms = MultiKMS({"broken": broken, "west": west}, clock=clock)
    cache = CachePolicy(refresh_ahead=0)
    with Vault(kms=kms, key_store=MemoryKeyStore(), cache=cache, clock=clock) as vault:
        blob = vault.encrypt("x", field="f", tenant="acme")
        broken.raised = RuntimeError("still expired")
        clock.advance(cache.lease + 1)
        assert vault.decrypt(blob, field="f", tenant="acme") == "x"
        assert vault.stats().keys == 1


def test_what_a_fault_quotes_is_not_told(
    broken: Broken, west: FaultyKMS, caplog: pytest.LogCaptureFixture
) -> None:
    """It may quote a key. Its class is logged."""
    multi = MultiKMS({"broken": broken, "west": west})
    wrapped = multi.wrap(KEY, context=CONTEXT)
    broken.raised = RuntimeError(f"cannot work with {KEY.hex()}")
    west.fail(KMSError("no"))
    with caplog.at_level(logging.WARNING, "fieldvault"), pytest.raises(KMSError) as caught:
        multi.unwrap(wrapped, context=CONTEXT)
    assert caplog.messages == ["the KMS member broken failed with RuntimeError"]
    assert KEY.hex() not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_member_that_cannot_name_a_root_key_spoils_nothing(broken: Broken, west: FaultyKMS) -> None:
    """What it cannot read depends on none of its root keys; of a fault, each part stands for itself."""
    multi = MultiKMS({"broken": broken, "west": west})
    bare, wrapped = west.wrap(KEY, context=CONTEXT), multi.wrap(KEY, context=CONTEXT)
    assert multi.root_key_of(bare, context=CONTEXT) == "broken: of a; west: "
    broken.raised = KMSError("not a key that this KMS wrapped")
    assert multi.root_key_of(bare, context=CONTEXT) == "broken: ; west: "
    broken.raised = IndexError()
    part = Container.parse(wrapped).parts["broken"]
    told = multi.root_key_of(wrapped, context=CONTEXT)
    assert told == f"broken: {hashlib.sha256(part).hexdigest()}; west: "
    assert multi.root_key_of(wrapped[:-1], context=CONTEXT) == ""


# -- outages ---------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> ManualClock:
    """A clock set by hand."""
    return ManualClock()


def test_one_call_at_a_time_tries_a_member_that_was_out(
    east: FaultyKMS, west: FaultyKMS, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The others do not wait for its time-out, each time that the cooldown is over."""
    multi = MultiKMS({"east": east, "west": west}, cooldown=15, clock=clock)
    wrapped = multi.wrap(KEY, context=CONTEXT)
    unwrap = partial(multi.unwrap, wrapped, context=CONTEXT)
    with caplog.at_level(logging.WARNING, "fieldvault"):
        east.fail(KMSUnavailable("no route"))
        unwrap()
        clock.advance(15)
        east.calls.clear()
        east.heal()
        with east.hold(limit=10) as hold, ThreadPoolExecutor(1) as trial:
            east.fail(KMSUnavailable("no route"))
            trying = trial.submit(unwrap)
            assert hold.reached.wait(30)
            assert [unwrap() for _ in range(3)] == [KEY] * 3
            hold.release()
            assert trying.result(30) == KEY
        assert len(east.calls) == 1
        clock.advance(14)
        unwrap()
        assert len(east.calls) == 1
        clock.advance(1)
        unwrap()
        assert len(east.calls) == 2
    assert caplog.messages == ["the KMS member east is unavailable; others are asked first"]


def test_of_many_threads_one_tries(east: FaultyKMS, west: FaultyKMS, clock: ManualClock) -> None:
    """However many come at once."""
    multi = MultiKMS({"east": east, "west": west}, cooldown=15, clock=clock)
    wrapped = multi.wrap(KEY, context=CONTEXT)
    east.fail(KMSUnavailable("no route"))
    multi.unwrap(wrapped, context=CONTEXT)
    east.calls.clear()
    clock.advance(15)
    start = threading.Barrier(16)

    def unwrap() -> bytes:
        start.wait(30)
        return multi.unwrap(wrapped, context=CONTEXT)

    with ThreadPoolExecutor(16) as pool:
        assert [each.result(30) for each in [pool.submit(unwrap) for _ in range(16)]] == [KEY] * 16
    assert len(east.calls) == 1


def test_a_trial_is_not_spent_on_a_key_that_the_member_has_no_part_of(
    east: FaultyKMS, west: FaultyKMS, clock: ManualClock
) -> None:
    """Nor on a batch that others have opened by then."""
    multi = MultiKMS({"east": east, "west": west}, required=1, cooldown=15, clock=clock)
    theirs = MultiKMS({"west": west}).wrap(KEY, context=CONTEXT)
    wrapped = multi.wrap(KEY, context=CONTEXT)
    east.fail(KMSUnavailable("no route"), times=1)
    multi.unwrap(wrapped, context=CONTEXT)
    clock.advance(15)
    east.calls.clear()
    multi.unwrap(theirs, context=CONTEXT)
    multi.unwrap(wrapped, context=CONTEXT)
    multi.unwrap(wrapped, context=CONTEXT)
    assert len(east.calls) == 2


def test_a_rewrap_leaves_a_member_that_is_out_alone(
    east: FaultyKMS, west: FaultyKMS, clock: ManualClock
) -> None:
    """A thousand keys would wait a thousand time-outs; and each says that it was left out."""
    multi = MultiKMS({"east": east, "west": west}, required=1, cooldown=15, clock=clock)
    wrapped = multi.wrap(KEY, context=CONTEXT)
    west.fail(KMSUnavailable("no route"))
    told = [
        str(multi.rewrap_by_member(wrapped, context=CONTEXT, every=True).missed["west"]) for _ in range(3)
    ]
    assert told == ["no route"] + ["was unavailable a moment ago, and is left alone for a while"] * 2
    assert len(west.calls) == 2

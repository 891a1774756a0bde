"""Several KMSs together keep every promise of one."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import KMS
from fieldvault.kms import LocalKMS, MultiKMS
from fieldvault.testing import KMSConformance
from fieldvault.testing.fakes import FaultyKMS
from fieldvault.testing.vendors import VendorError


class _Member(FaultyKMS):
    """A fake that can tell what is current."""

    def __init__(self, kms: LocalKMS) -> None:
        super().__init__(kms)
        self.local = kms

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """See ``Rewrapping.is_current``."""
        self.unwrap(wrapped, context=context)
        return self.local.is_current(wrapped, context=context)

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """See ``Rewrapping.rewrap``."""
        return self.wrap(self.unwrap(wrapped, context=context), context=context)


class TestMultiKMS(KMSConformance):
    """Two members, and a third that is not at hand."""

    @pytest.fixture
    def east(self, tmp_path: Path) -> _Member:
        """The member that is preferred."""
        return _Member(LocalKMS.create(tmp_path / "east.keys"))

    @pytest.fixture
    def west(self, tmp_path: Path) -> _Member:
        """The other one."""
        return _Member(LocalKMS.create(tmp_path / "west.keys"))

    @pytest.fixture
    def open_kms(self, east: FaultyKMS, west: FaultyKMS) -> Callable[[], KMS]:
        """The same members once more."""
        return lambda: MultiKMS({"east": east, "west": west, "recovery": None}, cooldown=0.05)

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """Those are the members' affair."""
        return ()

    @pytest.fixture
    def stranger(self, tmp_path: Path) -> KMS:
        """Members of the same names with other root keys."""
        return MultiKMS({name: LocalKMS.create(tmp_path / f"other {name}.keys") for name in ("east", "west")})

    @pytest.fixture
    def open_unknown(self, tmp_path: Path) -> Callable[[], KMS]:
        """A member whose file is not there."""
        return lambda: MultiKMS({"east": LocalKMS(tmp_path / "missing.keys")})

    @pytest.fixture
    def disable(self, east: FaultyKMS, west: FaultyKMS) -> Callable[[], None]:
        """All members' root keys."""

        def disabled() -> None:
            for member in (east, west):
                member.fail(KMSKeyDisabled("disabled"))

        return disabled

    @pytest.fixture
    def enable(self, east: FaultyKMS, west: FaultyKMS) -> Callable[[], None]:
        """All of them."""

        def enabled() -> None:
            for member in (east, west):
                member.heal()

        return enabled

    @pytest.fixture
    def rotate(self, west: _Member) -> Callable[[], object]:
        """That of one member: each key has a part that is old."""
        return west.local.rotate_root_key

    @pytest.fixture
    def delete(self, disable: Callable[[], None]) -> Callable[[], None]:
        """Which a member tells as it tells a disabled one."""
        return disable

    @pytest.fixture
    def break_connection(
        self, east: FaultyKMS, west: FaultyKMS
    ) -> Callable[[], AbstractContextManager[None]]:
        """With all members."""
        return partial(_failing, (east, west), KMSUnavailable("no route"))

    @pytest.fixture
    def deny(self, east: FaultyKMS, west: FaultyKMS) -> Callable[[], AbstractContextManager[None]]:
        """By all members."""
        return partial(_failing, (east, west), KMSDenied("no"))


@contextmanager
def _failing(members: tuple[FaultyKMS, ...], error: KMSError) -> Iterator[None]:
    for member in members:
        member.fail(error)
    yield
    for member in members:
        member.heal()

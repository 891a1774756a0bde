"""The recovery key keeps every promise of the public kit, and some of its own."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import nacl.exceptions
import pytest
from recovery_kms import MEANING, RecoveryKMS

from fieldvault.errors import ConfigurationError, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import KMS
from fieldvault.kms import LocalKMS, MultiKMS
from fieldvault.testing import KMSConformance
from fieldvault.testing.fakes import FaultyKMS
from fieldvault.testing.vendors import Meaning, VendorError, exceptions_of

KEY, CONTEXT = bytes(range(32)), {"tenant": "acme"}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A public key and its private key."""
    pair = tmp_path / "recovery.pub", tmp_path / "recovery.key"
    RecoveryKMS.create(*pair)
    return pair


class TestRecoveryKMS(KMSConformance):
    """Where the private key is at hand."""

    @pytest.fixture
    def open_kms(self, files: tuple[Path, Path]) -> Callable[[], KMS]:
        """Another reader of the same files."""
        return partial(RecoveryKMS, *files)

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """PyNaCl's, as it is installed."""
        return exceptions_of(nacl.exceptions)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """The table."""
        table: Meaning = MEANING.__getitem__
        return table

    @pytest.fixture
    def stranger(self, tmp_path: Path) -> KMS:
        """Another pair of keys."""
        other: KMS = RecoveryKMS.create(tmp_path / "other.pub", tmp_path / "other.key")
        return other

    @pytest.fixture
    def secrets(self, files: tuple[Path, Path]) -> Sequence[str]:
        """The private key."""
        return (files[1].read_text().strip(),)

    @pytest.fixture
    def open_unknown(self, tmp_path: Path) -> Callable[[], KMS]:
        """A file that is not there."""
        return partial(RecoveryKMS, tmp_path / "missing.pub")


def test_without_its_private_key_it_wraps_and_unwraps_nothing(files: tuple[Path, Path]) -> None:
    """On every machine but one."""
    here, safe = RecoveryKMS(files[0]), RecoveryKMS(*files)
    wrapped = here.wrap(KEY, context=CONTEXT)
    with pytest.raises(KMSDenied, match="not on this machine"):
        here.unwrap(wrapped, context=CONTEXT)
    assert "cannot be proven here" in here.check()
    assert safe.unwrap(wrapped, context=CONTEXT) == KEY


def test_what_another_recovery_key_wrapped_says_so(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Somebody brought the wrong one from the safe."""
    other = RecoveryKMS.create(tmp_path / "other.pub", tmp_path / "other.key")
    with pytest.raises(KMSKeyDisabled, match="which this is not"):
        RecoveryKMS(*files).unwrap(other.wrap(KEY, context=CONTEXT), context=CONTEXT)


def test_it_brings_back_what_a_lost_kms_wrapped(files: tuple[Path, Path], tmp_path: Path) -> None:
    """As a member of a MultiKMS, on the day that the other member is gone."""
    daily = LocalKMS.create(tmp_path / "root.keys")
    multi = MultiKMS({"daily": daily, "recovery": RecoveryKMS(files[0])})
    wrapped = multi.wrap(KEY, context=CONTEXT)
    assert multi.unwrap(wrapped, context=CONTEXT) == KEY
    assert MultiKMS({"recovery": RecoveryKMS(*files)}).unwrap(wrapped, context=CONTEXT) == KEY


@pytest.mark.parametrize("error", [KMSUnavailable, KMSDenied])
def test_it_does_not_change_what_the_other_members_say(
    files: tuple[Path, Path], tmp_path: Path, error: type[KMSError]
) -> None:
    """An outage stays one, and a denial does not become an outage that would be waited out."""
    daily = FaultyKMS(LocalKMS.create(tmp_path / "root.keys"))
    multi = MultiKMS({"daily": daily, "recovery": RecoveryKMS(files[0])})
    wrapped = multi.wrap(KEY, context=CONTEXT)
    daily.fail(error("as it said"))
    with pytest.raises(error):
        multi.unwrap(wrapped, context=CONTEXT)


def test_no_file_is_overwritten_and_the_private_one_is_private(files: tuple[Path, Path]) -> None:
    """What it opens would be lost with it."""
    assert files[1].stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="cannot be made"):
        RecoveryKMS.create(*files)


@pytest.mark.parametrize("content", ["", "zz", "00" * 31, "é"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: str) -> None:
    """When it is opened."""
    (tmp_path / "wrong.pub").write_text(content)
    with pytest.raises(ConfigurationError):
        RecoveryKMS(tmp_path / "wrong.pub")


def test_keys_that_do_not_belong_together_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Before anything is wrapped that cannot be unwrapped."""
    RecoveryKMS.create(tmp_path / "other.pub", tmp_path / "other.key")
    with pytest.raises(ConfigurationError, match="is not the private key of"):
        RecoveryKMS(files[0], tmp_path / "other.key")


def test_only_keys_of_32_bytes_are_wrapped(files: tuple[Path, Path]) -> None:
    """A KMS is for keys."""
    with pytest.raises(ConfigurationError, match="not of 16"):
        RecoveryKMS(files[0]).wrap(KEY[:16], context=CONTEXT)

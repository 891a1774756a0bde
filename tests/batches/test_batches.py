"""Many values at once: shreds, leases and budgets in the midst of a page."""

import os
from pathlib import Path
from typing import Any

import pytest

from fieldvault import CachePolicy, RotationPolicy, Vault, errors
from fieldvault.batches import open_many, seal_many
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.suites import AES_256_GCM
from fieldvault.testing.fakes import ManualClock

FIELD = "customers.email"


class Pair:
    """Two processes' vaults on one key store; the first has a clock that is moved by hand."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.clock = ManualClock()
        store, kms = MemoryKeyStore(), LocalKMS.create(path / "root.keys")
        self.first = Vault(kms=kms, key_store=store, clock=self.clock, **options)
        self.second = Vault(kms=LocalKMS(path / "root.keys"), key_store=store)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return two vaults on one key store."""
    return Pair(tmp_path, cache=CachePolicy(ttl=300, lease=30))


def _sealed(vault: Vault, tenant: str, subject: str | None, *texts: str) -> list[bytes]:
    return [vault.encrypt(text, field=FIELD, tenant=tenant, subject=subject) for text in texts]


@pytest.mark.parametrize("outdated", [0, 31, 400], ids=["warm", "past the lease", "past the ttl"])
def test_a_page_around_a_value_that_another_process_shredded(pair: Pair, outdated: float) -> None:
    """It stands in for itself only: what comes before and after opens, at every place in the page."""
    one, two = _sealed(pair.first, "acme", "ada", "1", "2")
    gone, also = _sealed(pair.first, "acme", "bob", "3", "4")
    three = _sealed(pair.first, "acme", None, "5")[0]
    pair.second.shred("acme", "bob", actor="tests", reason="asked for it")
    page = [gone, also, one, gone, two, None, three, also]
    pair.clock.advance(outdated)
    for start in range(len(page)):
        opened = open_many(pair.first.ring, page[start:], FIELD, "acme", None, erased=lambda _: "erased")
        assert opened in (
            ["erased", "erased", "1", "erased", "2", None, "5", "erased"][start:],
            ["3", "4", "1", "3", "2", None, "5", "4"][start:],
        )
        assert outdated == 0 or "erased" in opened or start == len(page)


@pytest.mark.parametrize("outdated", [31, 400])
def test_a_value_beside_a_shredded_one_is_still_checked_against_its_own_row(
    pair: Pair, outdated: float
) -> None:
    """Whichever key came last: a value in another tenant's or subject's row is refused."""
    mine = _sealed(pair.first, "acme", None, "mine")[0]
    theirs = _sealed(pair.first, "globex", None, "theirs")[0]
    pair.second.shred("globex", actor="tests", reason="asked for it")
    pair.clock.advance(outdated)
    with pytest.raises(errors.TenantMismatch):
        open_many(
            pair.first.ring,
            [mine, theirs, mine],
            FIELD,
            None,
            None,
            tenants=["acme", "globex", "globex"],
            erased=lambda _: None,
        )
    assert open_many(
        pair.first.ring,
        [mine, theirs, mine],
        FIELD,
        None,
        None,
        tenants=["acme", "globex", "acme"],
        erased=lambda _: None,
    ) == ["mine", None, "mine"]


@pytest.mark.parametrize("values", [["a"] * 5, ["a", 1, None, "b", b"c"]], ids=["alike", "mixed"])
def test_nothing_is_sealed_under_a_key_that_was_shredded_meanwhile(
    pair: Pair, values: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the midst of a batch, and resumed after the lease, asks again."""
    _sealed(pair.first, "acme", None, "warm")
    pair.first.encrypt_many(values, field=FIELD, tenant="acme")
    draw, drawn = os.urandom, []

    def stop_at_the_second(size: int) -> bytes:
        drawn.append(size)
        if len(drawn) == 2:
            pair.second.shred("acme", actor="tests", reason="asked for it")
            pair.clock.advance(3600)
        return draw(size)

    monkeypatch.setattr("os.urandom", stop_at_the_second)
    with pytest.raises(errors.KeyShredded):
        pair.first.encrypt_many(values, field=FIELD, tenant="acme")
    assert len(drawn) >= 2


def test_a_batch_that_is_larger_than_what_is_reserved_wastes_nothing(tmp_path: Path) -> None:
    """What was drawn seals; the next block is reserved for the rest."""
    vault = Pair(tmp_path, rotation=RotationPolicy(block=100)).first
    for _ in range(20):
        assert len(vault.encrypt_many(["x"] * 101, field=FIELD, tenant="acme")) == 101
    (key,) = vault.keys("acme")
    assert 2020 <= key.uses <= 2100


def test_values_of_several_owners_are_sealed_each_for_its_own(pair: Pair) -> None:
    """Also where owners alternate, and where nothing is to be sealed."""
    ring = pair.first.ring
    owners = [("acme", None), ("globex", None), ("acme", "ada"), ("acme", None)]
    sealed = seal_many(ring, AES_256_GCM, None, ["1", "2", "3", None], FIELD, owners)
    assert sealed[3] is None
    for blob, (tenant, subject), text in zip(sealed, owners, "123", strict=False):
        assert pair.second.decrypt(blob, field=FIELD, tenant=tenant, subject=subject) == text
    assert seal_many(ring, AES_256_GCM, None, [], FIELD, owners[0]) == []
    assert open_many(ring, [], FIELD, None, None) == []


@pytest.mark.parametrize(
    ("tenant", "subject", "field"),
    [(["acme"], None, FIELD), (("acme", "ada"), None, FIELD), ("acme", [], FIELD), ("acme", None, ["f"])],
)
def test_what_is_no_name_is_refused_one_or_many(pair: Pair, tenant: Any, subject: Any, field: Any) -> None:
    """Warm as cold; a pair of names is not taken for a subject's key."""
    _sealed(pair.first, "acme", "ada", "warm")
    names = {"field": field, "tenant": tenant, "subject": subject}
    with pytest.raises(errors.ConfigurationError):
        pair.first.encrypt_many(["x"], **names)
    with pytest.raises(errors.ConfigurationError):
        pair.first.encrypt("x", **names)


@pytest.mark.parametrize("suite", ["AES-256-GCM", "AES-256-SIV", "XChaCha20-Poly1305", "SM4-GCM"])
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_drivers_forms_of_bytes_open_warm_and_cold(tmp_path: Path, suite: str, form: Any) -> None:
    """One by one and in pages."""
    pair = Pair(tmp_path, suite=suite)
    blob = pair.first.encrypt("text", field=FIELD, tenant="acme")
    for vault in (pair.first, pair.second, pair.second):
        assert vault.decrypt(form(blob), field=FIELD, tenant="acme") == "text"
        assert vault.decrypt_many([form(blob)] * 3, field=FIELD, tenant="acme") == ["text"] * 3


def test_a_value_that_lies_about_its_class_is_not_taken_for_text(pair: Pair) -> None:
    """Only its real class counts."""

    class Liar:
        __class__ = str  # type: ignore[assignment]

        def encode(self) -> bytes:
            return b"lie"

    for values in ([Liar()], [Liar(), "x"]):
        with pytest.raises(errors.UnsupportedValue):
            pair.first.encrypt_many(values, field=FIELD, tenant="acme")

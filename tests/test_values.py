"""Sealing and opening, a value at a time and many at once: suites, padding, every part of a ciphertext."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldvault import Vault
from fieldvault.batches import open_many, seal_many
from fieldvault.envelope import as_bytes
from fieldvault.errors import DecryptionError, MalformedCiphertext, UnsupportedValue
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.suites import SUITES, Suite
from fieldvault.values import Values

FIELD = "customers.email"

Seal = Callable[[Any, str, str, str | None], bytes]
Open = Callable[[bytes, str, str | None, str | None], Any]


def sealer(vault: Vault, suite: Suite, padding: int | None = None, *, page: int) -> Seal:
    """Seal a value by itself, or in a page of so many."""
    values = Values(vault.ring, suite, None)

    def seal(value: Any, field: str, tenant: str, subject: str | None) -> bytes:
        if page == 1 and padding is None:
            sealed: bytes | None = values.encrypt(value, field=field, tenant=tenant, subject=subject)
        else:
            sealed = seal_many(vault.ring, suite, padding, [value] * page, field, (tenant, subject))[-1]
        assert sealed is not None
        return sealed

    return seal


def opener(vault: Vault, *, page: int) -> Open:
    """Open a ciphertext by itself, or in a page of so many."""
    if page == 1:
        return lambda blob, field, tenant, subject: vault.decrypt(
            blob, field=field, tenant=tenant, subject=subject
        )
    return lambda blob, field, tenant, subject: open_many(vault.ring, [blob] * page, field, tenant, subject)[
        -1
    ]


@pytest.fixture(params=[1, 3], ids=["one", "many"])
def page(request: pytest.FixtureRequest) -> int:
    """How many values travel together."""
    made: int = request.param
    return made


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """Return a vault of its own."""
    return Vault(kms=LocalKMS.create(tmp_path / "root.keys"), key_store=MemoryKeyStore())


@pytest.mark.parametrize("padding", [None, 16, 64])
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("value", ["", "text", 7, b"bytes", {"a": [1, "字"]}])
def test_every_suite_seals_every_type_padded_or_not(
    vault: Vault, page: int, suite: Suite, padding: int | None, value: object
) -> None:
    """And one opener opens them all."""
    seal, open_ = sealer(vault, suite, padding, page=page), opener(vault, page=page)
    for _ in range(2):
        blob = seal(value, FIELD, "acme", None)
        opened = open_(blob, FIELD, "acme", None)
        assert (opened, type(opened)) == (value, type(value))
        assert blob[1] == suite.number
        assert bool(blob[2] & 0x80) == (padding is not None)


def test_padded_values_of_a_length_class_are_of_one_length(vault: Vault, page: int) -> None:
    """Lengths do not tell."""
    seal = sealer(vault, SUITES[0], 32, page=page)
    lengths = {len(seal("x" * size, FIELD, "acme", None)) for size in range(32)}
    assert len(lengths) == 1
    assert len(seal("x" * 32, FIELD, "acme", None)) - lengths.pop() == 32


def test_the_deterministic_suite_is_deterministic_within_a_field_and_scope(vault: Vault, page: int) -> None:
    """Equal values show there, and nowhere else."""
    seal = sealer(vault, SUITES[1], page=page)
    one = seal("x", FIELD, "acme", None)
    assert seal("x", FIELD, "acme", None) == one
    assert seal("x", "customers.phone", "acme", None)[19:] != one[19:]
    assert seal("x", FIELD, "acme", "alice")[19:] != one[19:]
    assert seal("x", FIELD, "globex", None)[19:] != one[19:]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_every_part_of_every_suites_ciphertext_is_bound(vault: Vault, page: int, suite: Suite) -> None:
    """Header, nonce, sealed part: any other byte is refused."""
    blob = sealer(vault, suite, page=page)("text", FIELD, "acme", "alice")
    open_ = opener(vault, page=page)
    for index in range(len(blob)):
        for other in {blob[index] ^ 1, blob[index] ^ 0x80, 0, 1, 2, 3, 4, 255} - {blob[index]}:
            changed = bytes((*blob[:index], other, *blob[index + 1 :]))
            with pytest.raises((DecryptionError, MalformedCiphertext)):
                open_(changed, FIELD, "acme", "alice")


def test_a_known_header_with_nothing_behind_it_is_malformed(vault: Vault, page: int) -> None:
    """Also while its key is warm, when only the cipher looks at it."""
    open_ = opener(vault, page=page)
    for suite in SUITES:
        blob = sealer(vault, suite, page=page)("text", FIELD, "acme", None)
        assert open_(blob, FIELD, "acme", None) == "text"
        least = 19 + suite.nonce_size + 16
        for size in (*range(20), 19 + suite.nonce_size, least - 1):
            with pytest.raises(MalformedCiphertext):
                open_(blob[:size], FIELD, "acme", None)
        with pytest.raises(DecryptionError):
            open_(blob[:least], FIELD, "acme", None)


def test_without_a_tenant_any_tenants_value_opens(vault: Vault) -> None:
    """For callers that know whose it is; field and subject still bind."""
    seal, open_ = sealer(vault, SUITES[0], page=1), opener(vault, page=2)
    blob = seal("x", FIELD, "acme", "alice")
    assert open_(blob, FIELD, None, None) == "x"
    with pytest.raises(DecryptionError):
        open_(blob, FIELD, None, "bob")
    with pytest.raises(DecryptionError):
        open_(blob, "customers.phone", None, None)


def test_a_surrogate_is_refused_without_its_text_in_the_error(vault: Vault, page: int) -> None:
    """Nor behind it: the codec's own error holds the plaintext."""
    for value in ("secret \ud800", ["secret \ud800"], {"secret \ud800": 1}):
        with pytest.raises(UnsupportedValue) as caught:
            sealer(vault, SUITES[0], page=page)(value, FIELD, "acme", None)
        assert "secret" not in str(caught.value)
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None


def test_an_authentication_failure_has_nothing_behind_it(vault: Vault, page: int) -> None:
    """One message for every cause."""
    blob = vault.encrypt("x", field=FIELD, tenant="acme")
    with pytest.raises(DecryptionError) as caught:
        opener(vault, page=page)(blob, "customers.phone", "acme", None)
    assert caught.value.__context__ is None
    assert "x" not in caught.value.args


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_all_forms_of_bytes_become_bytes(form: Any) -> None:
    """As drivers give them."""
    assert as_bytes(form(b"abc")) == b"abc"
    assert type(as_bytes(form(b"abc"))) is bytes


def test_text_is_no_ciphertext() -> None:
    """The message names the class."""
    with pytest.raises(MalformedCiphertext, match="str"):
        as_bytes("$fv1$")

"""Wrapped keys have one form, and tenants one transit key each."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.kms.transit.wrapping import Ciphertext, check_key, tenant_key

TENANTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            lambda kind, version, sealed: bytes([kind]) + version.to_bytes(4, "big") + sealed,
            st.integers(0, 3),
            st.integers(0, 2),
            st.binary(min_size=27, max_size=61),
        ),
    )
)
def test_whatever_is_read_is_written_again_byte_by_byte(wrapped: bytes) -> None:
    """No two forms mean the same."""
    try:
        read = Ciphertext.parse(wrapped)
    except KMSError:
        assert wrapped[:1] not in {b"\x01", b"\x02"} or len(wrapped) < 34 or wrapped[1:5] == bytes(4)
        return
    assert read.wrapped() == wrapped
    assert Ciphertext.of_answer(read.text(), dedicated=read.dedicated) == read


def test_a_wrapped_key_in_bytes_is_this() -> None:
    """A known answer: what is in the key store today is read tomorrow."""
    sealed = bytes(range(60))
    shared, dedicated = Ciphertext(False, 3, sealed), Ciphertext(True, 0xFFFFFFFF, sealed)
    assert shared.wrapped() == b"\x01\x00\x00\x00\x03" + sealed
    assert dedicated.wrapped() == b"\x02\xff\xff\xff\xff" + sealed
    assert shared.text().startswith("vault:v3:AAECAwQFBgc")


@pytest.mark.parametrize(
    "text",
    [
        None, 7, "", "vault:v0:AAAA", "vault:v01:AAAA", "vault:1:AAAA", "vault:v1:", "vault:v1:AA AA",
        "vault:v1:AAAA\n", "vault:v1:A", "vault:v1:AAB=", "other:v1:AAAA", "vault:v1:AAAA:AAAA",
    ],
)  # fmt: skip
def test_an_answer_of_another_form_is_no_ciphertext(text: object) -> None:
    """It came from somewhere else."""
    with pytest.raises(KMSUnavailable):
        Ciphertext.of_answer(text, dedicated=False)


@given(st.lists(TENANTS, min_size=2, max_size=8, unique=True))
def test_no_two_tenants_share_a_transit_key(tenants: list[str]) -> None:
    """Even where a storage takes capitals for small letters; and each name is one that transit takes."""
    names = [tenant_key("fieldvault", tenant) for tenant in tenants]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert check_key(name) == name


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        ("acme", "fieldvault-acme"),
        ("Acme Ltd.", "fieldvault-_41cme_20_4ctd_2e"),
        ("a_b", "fieldvault-a_5fb"),
        ("商店", "fieldvault-_e5_95_86_e5_ba_97"),
    ],
)
def test_a_tenants_transit_key_is_found_by_its_name(tenant: str, name: str) -> None:
    """A known answer: the name is all there is to find the key by."""
    assert tenant_key("fieldvault", tenant) == name
    assert (
        bytes.fromhex(
            re.sub("[^_]|_(..)", lambda found: found[1] or f"{ord(found[0]):02x}", name[11:])
        ).decode()
        == tenant
    )

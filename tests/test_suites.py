"""Our adapters of the ciphers agree with known answers from outside."""

from collections.abc import Callable, Iterator
from typing import Any

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from hypothesis import given
from hypothesis import strategies as st
from nacl.pwhash import argon2id

from fieldvault.envelope import NONCE_SIZES
from fieldvault.errors import ConfigurationError
from fieldvault.secret import Secret
from fieldvault.suites import (
    AES_256_GCM,
    AES_256_SIV,
    SM4_GCM,
    SUITES,
    XCHACHA20_POLY1305,
    Open,
    Seal,
    Suite,
    suite_named,
    suite_numbered,
)

Case = dict[str, bytes]


def cases(path: str, **wanted: str) -> Iterator[Case]:
    """Each case of a NIST-like response file whose bracketed settings are as wanted.

    A case that must be refused has the member ``FAIL``.
    """
    with cryptography_vectors.open_vector_file(path, "r") as file:
        lines = file.read().splitlines()
    settings: dict[str, str] = {}
    case: Case = {}
    for line in [*lines, "[end]"]:
        name, _, value = (part.strip() for part in line.strip("[]").partition("="))
        if line.startswith("[") or name.upper() == "COUNT":
            if case and wanted.items() <= settings.items():
                yield case
            case = {}
            settings |= {name: value} if line.startswith("[") else {}
        elif name and not line.startswith("#"):
            case[name.upper()] = bytes.fromhex(value)


def check(suite: Suite, case: Case, sealed: bytes) -> None:
    """Hold the adapter to one known answer, in both directions."""
    seal, open_ = suite.prepare(case["KEY"])
    plaintext = case["PT"] if "PT" in case else case["PLAINTEXT"]
    nonce = case.get("IV", b"")
    assert seal(nonce, plaintext, case["AAD"]) == sealed
    assert open_(nonce, sealed, case["AAD"]) == plaintext


def test_aes_256_gcm_agrees_with_nist() -> None:
    """All cases of the CAVP's encryption file with our sizes of key, nonce and tag."""
    found = list(cases("ciphers/AES/GCM/gcmEncryptExtIV256.rsp", Keylen="256", IVlen="96", Taglen="128"))
    assert len(found) == 375
    for case in found:
        check(AES_256_GCM, case, case["CT"] + case["TAG"])


def test_aes_256_gcm_refuses_what_nist_refuses() -> None:
    """All cases of the CAVP's decryption file: those marked FAIL, and only those, do not open."""
    refused = opened = 0
    for case in cases("ciphers/AES/GCM/gcmDecrypt256.rsp", Keylen="256", IVlen="96", Taglen="128"):
        _, open_ = AES_256_GCM.prepare(case["KEY"])
        if "FAIL" in case:
            with pytest.raises(InvalidTag):
                open_(case["IV"], case["CT"] + case["TAG"], case["AAD"])
            refused += 1
        else:
            assert open_(case["IV"], case["CT"] + case["TAG"], case["AAD"]) == case["PT"]
            opened += 1
    assert refused + opened == 375
    assert min(refused, opened) > 100


def test_aes_256_siv_agrees_with_rfc_5297_and_openssl() -> None:
    """Every case with one string of associated data, as ours is: RFC 5297 A.1 and its longer keys."""
    checked = {}
    for case in cases("ciphers/AES/SIV/openssl.txt"):
        if "AAD2" not in case:
            check(AES_256_SIV, case, case["TAG"] + case["CIPHERTEXT"])
            checked[len(case["KEY"])] = case["TAG"].hex()
    assert checked[32] == "85632d07c6e8f37f950acd320a2ecc93"  # RFC 5297, A.1
    assert AES_256_SIV.key_size in checked


def test_sm4_gcm_agrees_with_rfc_8998() -> None:
    """The RFC's example of SM4-GCM (appendix A.1)."""
    (case,) = cases("ciphers/SM4/rfc8998.txt")
    check(SM4_GCM, case, case["CIPHERTEXT"] + case["TAG"])


def test_xchacha20_poly1305_agrees_with_the_draft() -> None:
    """The example of draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    case = {
        "KEY": bytes(range(0x80, 0xA0)),
        "IV": bytes(range(0x40, 0x58)),
        "AAD": bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
        "PLAINTEXT": b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it.",
    }
    sealed = (
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )
    check(XCHACHA20_POLY1305, case, bytes.fromhex(sealed))


def test_the_passphrase_derivation_agrees_with_the_reference_tool() -> None:
    """Argon2id as PyNaCl offers it: ``argon2 ABCDEFGHIJKLMNOP -id -v 13 -k 1024 -t 5`` on ``123``."""
    derived = argon2id.kdf(32, b"123", b"ABCDEFGHIJKLMNOP", opslimit=5, memlimit=1024 * 1024)
    assert derived.hex() == "3c5d010180ba0cf5b6b858cba23b318e42d33088983c404598599c3b029ecac6"


# -- the shape that all suites share -----------------------------------------------------------------------


@pytest.fixture(params=SUITES, ids=lambda suite: suite.name)
def suite(request: pytest.FixtureRequest) -> Suite:
    """Each suite in turn."""
    found: Suite = request.param
    return found


KEY = Secret(bytes(range(32)))
FUNCTIONS: dict[str, tuple[Seal, Open]] = {suite.name: suite.functions(KEY) for suite in SUITES}


def test_a_suite_is_found_by_its_name_and_by_its_number(suite: Suite) -> None:
    """Names are for people, numbers for ciphertexts; both find the one suite."""
    assert suite_named(suite.name) is suite
    assert suite_numbered(suite.number) is suite
    assert suite.nonce_size == NONCE_SIZES[suite.number]
    assert suite.deterministic == (suite.nonce_size == 0)


def test_every_number_that_an_envelope_lets_through_has_a_suite() -> None:
    """The outer form and the suites know the same numbers."""
    assert {suite.number for suite in SUITES} == set(NONCE_SIZES)


@pytest.mark.parametrize("name", ["", "AES-128-GCM", "aes-256-gcm", "AES-256-GCM "])
def test_an_unknown_suite_is_refused_with_the_names_there_are(name: str) -> None:
    """A misspelt suite is found when the vault is made, before data moves."""
    with pytest.raises(ConfigurationError) as caught:
        suite_named(name)
    assert all(suite.name in str(caught.value) for suite in SUITES)


def test_no_two_suites_share_a_key() -> None:
    """One data key gives each suite a key of its own, of the suite's size, and none is the data key."""
    seen = {}
    for suite in SUITES:
        keys: list[bytes] = []

        def note(key: bytes, keys: list[bytes] = keys) -> Any:
            keys.append(key)

        Suite(suite.number, suite.name, suite.key_size, note).functions(KEY)
        (seen[suite.name],) = keys
        assert len(seen[suite.name]) == suite.key_size
    assert len({key[:16] for key in seen.values()} | {KEY.reveal()[:16]}) == len(SUITES) + 1


def test_a_library_without_the_cipher_is_found_out_before_data_moves() -> None:
    """Not every build has SM4: the message names the suite, and nothing is chained to it."""

    def missing(key: bytes) -> Any:  # noqa: ARG001
        raise UnsupportedAlgorithm("SM4 in GCM mode is not there")

    with pytest.raises(ConfigurationError, match="has no SM4-GCM; choose another suite") as caught:
        Suite(4, "SM4-GCM", 16, missing).functions(KEY)
    assert caught.value.__context__ is None


@given(
    payload=st.binary(max_size=200),
    associated=st.binary(max_size=100),
    nonce=st.binary(min_size=24, max_size=24),
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_sealed_opens(name: str, payload: bytes, associated: bytes, nonce: bytes) -> None:
    """Any payload, the empty one too, comes back, and the sealed part is 16 bytes longer."""
    seal, open_ = FUNCTIONS[name]
    nonce = nonce[: suite_named(name).nonce_size]
    sealed = seal(nonce, payload, associated)
    assert len(sealed) == len(payload) + 16
    assert open_(nonce, sealed, associated) == payload


def _refused(open_: Callable[[], bytes]) -> bool:
    try:
        open_()
    except (InvalidTag, ValueError):
        return True
    return False


@given(
    payload=st.binary(max_size=50),
    associated=st.binary(max_size=50),
    other=st.binary(max_size=50),
    bit=st.integers(min_value=0),
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_was_changed_does_not_open(
    name: str, payload: bytes, associated: bytes, other: bytes, bit: int
) -> None:
    """Other associated data, another nonce or any changed bit: refused as promised."""
    seal, open_ = FUNCTIONS[name]
    nonce = bytes(suite_named(name).nonce_size)
    sealed = seal(nonce, payload, associated)
    assert other == associated or _refused(lambda: open_(nonce, sealed, other))
    changed = bytearray(nonce + sealed)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    blob = bytes(changed)
    assert _refused(lambda: open_(blob[: len(nonce)], blob[len(nonce) :], associated))


@pytest.mark.parametrize("size", range(17))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sealed_part_that_is_too_short_is_refused(name: str, size: int) -> None:
    """Fewer bytes than a tag has, or a tag of nothing that was sealed."""
    _, open_ = FUNCTIONS[name]
    assert _refused(lambda: open_(bytes(suite_named(name).nonce_size), bytes(size), b""))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 11, 13, 23, 25])
@pytest.mark.parametrize("name", [suite.name for suite in SUITES if suite.nonce_size])
def test_a_nonce_of_another_size_is_refused(name: str, size: int) -> None:
    """A truncated ciphertext can leave less than a nonce; that is an error like any other."""
    seal, open_ = FUNCTIONS[name]
    sealed = seal(bytes(suite_named(name).nonce_size), b"payload", b"")
    assert _refused(lambda: open_(bytes(size), sealed, b""))


def test_the_deterministic_suite_seals_equal_values_equally() -> None:
    """That is what makes a column of it searchable, and what it leaks."""
    seal, _ = FUNCTIONS[AES_256_SIV.name]
    assert seal(b"", b"value", b"field") == seal(b"", b"value", b"field")
    assert seal(b"", b"value", b"field") != seal(b"", b"value", b"other field")

"""The outer form is exact, and nothing that was changed opens."""

import contextlib
import itertools
from collections.abc import Iterator
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fieldvault import Vault
from fieldvault.envelope import KINDS, NONCE_SIZES, PADDED, VERSION, Envelope, from_text, header, to_text
from fieldvault.errors import DecryptionError, KeyNotFound, MalformedCiphertext
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.suites import SUITES, suite_named

OVERHEADS = {"AES-256-GCM": 47, "AES-256-SIV": 35, "XChaCha20-Poly1305": 59, "SM4-GCM": 47}
REFUSALS = (MalformedCiphertext, DecryptionError)


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Vault]]:
    """A vault a suite, all over the same keys."""
    path = tmp_path_factory.mktemp("envelope") / "root.keys"
    kms, store = LocalKMS.create(path), MemoryKeyStore()
    made = {suite.name: Vault(kms=kms, key_store=store, suite=suite.name) for suite in SUITES}
    yield made
    for vault in made.values():
        vault.close()


@pytest.fixture(params=OVERHEADS)
def suite(request: pytest.FixtureRequest) -> str:
    """The name of each suite in turn."""
    return str(request.param)


def sealed(vaults: dict[str, Vault], suite: str, value: object = "plaintext") -> bytes:
    """A ciphertext of the field and tenant that ``refuses`` reads."""
    return vaults[suite].encrypt(value, field="f", tenant="t")


def refuses(vault: Vault, blob: bytes) -> bool:
    """Whether the vault refuses it with one of the two errors promised, which says nothing of the value."""
    with pytest.raises(REFUSALS) as caught:
        vault.decrypt(blob, field="f", tenant="t")
    error = caught.value
    return error.__context__ is None and "plaintext" not in f"{error} {error!r}"


# -- whatever was changed is refused -----------------------------------------------------------------------


def test_any_flipped_bit_is_refused(vaults: dict[str, Vault], suite: str) -> None:
    """Every single bit of a ciphertext, in header, nonce, ciphertext and tag."""
    blob = sealed(vaults, suite)
    for bit in range(8 * len(blob)):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        assert refuses(vaults[suite], bytes(changed)), f"bit {bit}"


def test_any_two_flipped_bits_of_the_first_three_bytes_are_refused(
    vaults: dict[str, Vault], suite: str
) -> None:
    """Version, suite and type: what a reader looks at before it has a key."""
    blob = sealed(vaults, suite)
    for one, other in itertools.combinations(range(24), 2):
        changed = int.from_bytes(blob[:3], "little") ^ 1 << one ^ 1 << other
        assert refuses(vaults[suite], changed.to_bytes(3, "little") + blob[3:])


def test_any_truncation_is_refused(vaults: dict[str, Vault], suite: str) -> None:
    """Every shorter prefix and every shorter suffix, down to nothing."""
    blob = sealed(vaults, suite)
    assert all(refuses(vaults[suite], blob[:size]) for size in range(len(blob)))
    assert all(refuses(vaults[suite], blob[start:]) for start in range(1, len(blob)))


def test_any_extension_is_refused(vaults: dict[str, Vault], suite: str) -> None:
    """Any byte at the end, any byte in front, and a ciphertext behind a ciphertext."""
    blob = sealed(vaults, suite)
    for byte in map(bytes, zip(range(256))):
        assert refuses(vaults[suite], blob + byte)
        assert refuses(vaults[suite], byte + blob)
    assert refuses(vaults[suite], blob + blob)


def test_any_reordered_header_is_refused(vaults: dict[str, Vault], suite: str) -> None:
    """Every other order of version, suite, type, key id and nonce; a date, so that their numbers differ."""
    blob = sealed(vaults, suite, date(2024, 1, 1))
    end = 19 + suite_named(suite).nonce_size
    parts = [blob[0:1], blob[1:2], blob[2:3], blob[3:19], blob[19:end]]
    for order in itertools.permutations(parts):
        changed = b"".join(order) + blob[end:]
        assert changed == blob or refuses(vaults[suite], changed)


def test_a_byte_exchanged_for_any_other_is_refused(vaults: dict[str, Vault], suite: str) -> None:
    """All 255 other values of each of the first three bytes."""
    blob = sealed(vaults, suite)
    for offset, byte in itertools.product(range(3), range(256)):
        changed = blob[:offset] + bytes([byte]) + blob[offset + 1 :]
        assert changed == blob or refuses(vaults[suite], changed)


def test_any_character_changed_in_the_text_form_is_refused(vaults: dict[str, Vault], suite: str) -> None:
    """Each character, for others of the alphabet, of standard base64, and of neither."""
    text = to_text(sealed(vaults, suite))
    for offset, other in itertools.product(range(len(text)), "AB_-+/=$ \n\x00é\ud800"):
        changed = text[:offset] + other + text[offset + 1 :]
        if changed != text:
            with pytest.raises(REFUSALS):
                vaults[suite].decrypt(from_text(changed), field="f", tenant="t")


def test_a_text_form_cut_or_extended_is_refused(vaults: dict[str, Vault], suite: str) -> None:
    """Every shorter prefix, and every character of the alphabet behind the end."""
    text = to_text(sealed(vaults, suite))
    for changed in [text[:size] for size in range(len(text))] + [text + end for end in "ABCDwxyz0189-_="]:
        with pytest.raises(REFUSALS):
            vaults[suite].decrypt(from_text(changed), field="f", tenant="t")


def test_a_changed_key_id_names_a_key_that_is_not_there(vaults: dict[str, Vault], suite: str) -> None:
    """The one refusal that says more: the key is unknown, which is no secret."""
    blob = sealed(vaults, suite)
    with pytest.raises(KeyNotFound, match="no key"):
        vaults[suite].decrypt(blob[:18] + bytes([blob[18] ^ 1]) + blob[19:], field="f", tenant="t")


@given(noise=st.binary(max_size=120))
@example(noise=b"")
@example(noise=bytes([1, 1, 1]) + bytes(60))
def test_noise_is_refused(vaults: dict[str, Vault], noise: bytes) -> None:
    """Any bytes at all, headers that look right among them."""
    assert refuses(vaults["AES-256-GCM"], noise)


@given(data=st.data())
@pytest.mark.parametrize("name", OVERHEADS)
def test_random_changes_are_refused(vaults: dict[str, Vault], name: str, data: st.DataObject) -> None:
    """Several bytes replaced, removed or put in anywhere."""
    blob = sealed(vaults, name, "plaintext of some length")
    start = data.draw(st.integers(0, len(blob)))
    end = data.draw(st.integers(start, len(blob)))
    changed = blob[:start] + data.draw(st.binary(max_size=40)) + blob[end:]
    assert changed == blob or refuses(vaults[name], changed)


# -- the form itself ---------------------------------------------------------------------------------------


def test_the_overhead_is_what_the_page_says(vaults: dict[str, Vault], suite: str) -> None:
    """Bytes over the encoded value; at most 48 for the default suite."""
    for size in (0, 1, 32, 1000):
        assert len(sealed(vaults, suite, b"x" * size)) == size + OVERHEADS[suite]
    assert OVERHEADS["AES-256-GCM"] <= 48


envelopes = st.builds(
    lambda suite, kind, padded, key_id, nonce, rest: Envelope(
        suite, kind | padded, key_id, nonce[: NONCE_SIZES[suite]], rest
    ),
    st.sampled_from(sorted(NONCE_SIZES)),
    st.sampled_from(KINDS),
    st.sampled_from([0, PADDED]),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=24, max_size=24),
    st.binary(min_size=16, max_size=64),
)


@given(envelope=envelopes)
def test_what_is_serialized_parses_to_the_same_parts(envelope: Envelope) -> None:
    """Out and in again: equal parts, and the header in front."""
    blob = envelope.serialize()
    assert Envelope.parse(blob) == envelope
    assert blob.startswith(header(envelope.suite, envelope.kind, envelope.key_id))


@given(
    blob=st.one_of(
        st.binary(max_size=100),
        st.builds(
            lambda suite, kind, rest: bytes([VERSION, suite, kind]) + rest,
            st.integers(0, 5),
            st.integers(0, 255),
            st.binary(max_size=100),
        ),
    )
)
def test_whatever_parses_serializes_to_the_same_bytes(blob: bytes) -> None:
    """There is one spelling of a ciphertext: parsing loses nothing, and anything else is malformed."""
    with contextlib.suppress(MalformedCiphertext):
        assert Envelope.parse(blob).serialize() == blob


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "too short for a ciphertext"),
        (bytes([1, 1, 1]) + bytes(15), "too short for a ciphertext"),
        (bytes([1, 1, 1]) + bytes(16 + 12 + 15), "too short for a ciphertext of its suite"),
        (bytes([1, 2, 1]) + bytes(16 + 15), "too short for a ciphertext of its suite"),
        (bytes([1, 3, 1]) + bytes(16 + 24 + 15), "too short for a ciphertext of its suite"),
        (bytes([0, 1, 1]) + bytes(60), "unknown ciphertext version"),
        (bytes([2, 1, 1]) + bytes(60), "unknown ciphertext version: written by a newer release"),
        (bytes([1, 0, 1]) + bytes(60), "unknown cipher suite number 0"),
        (bytes([1, 5, 1]) + bytes(60), "unknown cipher suite number 5"),
        (bytes([1, 1, 0]) + bytes(60), "unknown type of value 0"),
        (bytes([1, 1, 14]) + bytes(60), "unknown type of value 14"),
        (bytes([1, 1, 0x80]) + bytes(60), "unknown type of value 128"),
        (bytes([1, 1, 0x8E]) + bytes(60), "unknown type of value 142"),
        (bytes([1, 1, 0x41]) + bytes(60), "unknown type of value 65"),
    ],
)
def test_a_malformed_ciphertext_is_refused_with_the_reason(blob: bytes, message: str) -> None:
    """An operator reads in the message what the bytes are not."""
    with pytest.raises(MalformedCiphertext) as caught:
        Envelope.parse(blob)
    assert str(caught.value).startswith(message)


@given(blob=st.binary(max_size=100))
def test_the_text_form_comes_back_as_the_same_bytes(blob: bytes) -> None:
    """Whatever the length modulo three; the text is ASCII that needs no quoting in SQL, JSON or a URL."""
    text = to_text(blob)
    assert from_text(text) == blob
    assert text.startswith("$fv1$")
    assert set(text[5:]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(text=st.text(max_size=40) | st.text("ABab01-_+/=\n ", max_size=12).map("$fv1$".__add__))
def test_whatever_text_is_taken_is_the_text_form_of_what_it_gives(text: str) -> None:
    """There is one spelling in text, too."""
    with contextlib.suppress(MalformedCiphertext):
        assert to_text(from_text(text)) == text

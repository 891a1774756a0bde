"""The vectors, which a second implementation wrote from docs/format.md, hold for fieldvault too."""

import json
import re
import struct
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fieldvault import Vault, errors
from fieldvault.codecs import decode, encode, pad
from fieldvault.context import associated_data, encode_context, encode_row
from fieldvault.envelope import Envelope, from_text, header, to_text
from fieldvault.keys.material import LocalWrapper, key_context, key_id_of
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.secret import Secret
from fieldvault.suites import suite_named
from scripts import make_vectors

FOLDER = Path(__file__).parent / "vectors"

Vector = dict[str, Any]


def vectors(name: str) -> list[Any]:
    """The vectors of one file, as parameters that carry their names."""
    found = json.loads(FOLDER.joinpath(f"{name}.json").read_text(encoding="ascii"))
    return [pytest.param(vector, id=re.sub(r"[^ -~]", "_", vector["name"])) for vector in found]


# -- descriptions to values --------------------------------------------------------------------------------


def _zone(content: Vector) -> timezone | ZoneInfo | None:
    if content["zone"] is not None:
        return ZoneInfo(content["zone"])
    return None if content["offset"] is None else timezone(timedelta(microseconds=content["offset"]))


def _clock(content: Vector) -> dict[str, Any]:
    names = ("hour", "minute", "second", "microsecond", "fold")
    return {name: content[name] for name in names} | {"tzinfo": _zone(content)}


def _day(content: Vector) -> dict[str, int]:
    return {name: content[name] for name in ("year", "month", "day")}


def _decimal(content: Vector) -> Decimal:
    exponent: Any = {"Infinity": "F", "NaN": "n", "sNaN": "N"}.get(content["exponent"], content["exponent"])
    return Decimal((content["sign"], tuple(map(int, content["digits"])), exponent))


def _member(content: Vector) -> object:
    module, _, name = content["class"].partition(":")
    return getattr(import_module(module), name)[content["member"]]


VALUES: dict[str, Callable[[Any], object]] = {
    "text": str,
    "bytes": bytes.fromhex,
    "boolean": bool,
    "integer": int,
    "float": lambda content: struct.unpack(">d", bytes.fromhex(content))[0],
    "decimal": _decimal,
    "date": lambda content: date(**_day(content)),
    "time": lambda content: time(**_clock(content)),
    "datetime": lambda content: datetime.combine(date(**_day(content)), time(**_clock(content))),
    "duration": lambda content: timedelta(microseconds=int(content)),
    "uuid": uuid.UUID,
    "enumeration": _member,
    "json": json.loads,
}


def value_of(description: Vector) -> object:
    """The Python value that a vector describes."""
    ((name, content),) = description.items()
    return VALUES[name](content)


def distinct(value: object) -> object:
    """What tells two values apart that ``==`` takes for one: a zero's sign, a NaN, an exponent, a zone."""
    if isinstance(value, float):
        return struct.pack(">d", value)
    if isinstance(value, Decimal):
        return value.as_tuple()
    if isinstance(value, datetime | time):
        zone = value.tzinfo
        return repr(value.replace(tzinfo=None)), value.fold, type(zone), zone, str(zone)
    if isinstance(value, dict | list):
        return json.dumps(value)
    return value


def assert_same(found: object, expected: object) -> None:
    """Same class, same value, same everything."""
    assert type(found) is type(expected)
    assert distinct(found) == distinct(expected)


# -- values and ciphertexts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", make_vectors.files())
def test_the_script_makes_the_vectors_that_are_here(name: str) -> None:
    """What the script writes is, byte for byte, what is committed; nobody edits a vector by hand."""
    assert FOLDER.joinpath(name).read_text(encoding="ascii") == make_vectors.files()[name]


def test_every_file_of_vectors_comes_from_the_script() -> None:
    """No vector is left over from an older script."""
    assert {path.name for path in FOLDER.iterdir()} == set(make_vectors.files())


def test_every_vector_says_where_it_comes_from() -> None:
    """Names are unique within a file, and each vector gives its origin."""
    for name in make_vectors.files():
        found = json.loads(FOLDER.joinpath(name).read_text(encoding="ascii"))
        assert len({vector["name"] for vector in found}) == len(found)
        assert all(vector["origin"] for vector in found)


@pytest.mark.parametrize("vector", vectors("values"))
def test_a_value_has_the_body_that_the_page_gives_it(vector: Vector) -> None:
    """Encoding gives the vector's type and body, decoding the value, exactly."""
    value, body = value_of(vector["value"]), bytes.fromhex(vector["body"])
    assert encode(value) == (vector["type"], body)
    assert_same(decode(vector["type"], body), value)


@pytest.mark.parametrize("vector", vectors("ciphertexts"))
def test_a_value_seals_to_the_ciphertext_of_the_vector(vector: Vector) -> None:
    """Under the vector's key, nonce and context every byte is the same, and it opens again."""
    suite = suite_named(vector["suite"])
    kind, payload = encode(value_of(vector["value"]))
    if vector["padding"] is not None:
        kind, payload = kind | 0x80, pad(payload, vector["padding"])
    assert (kind, payload) == (vector["type"], bytes.fromhex(vector["payload"]))
    key = Secret(bytes.fromhex(vector["data_key"]))
    assert key_id_of(key).hex() == vector["key_id"]
    outer = header(suite.number, kind, key_id_of(key))
    row = None if vector["row"] is None else encode_row(vector["row"])
    bound = associated_data(
        outer, tenant=vector["tenant"], field=vector["field"], subject=vector["subject"], row=row
    )
    assert bound.hex() == vector["associated_data"]
    seal, open_ = suite.functions(key)
    nonce, blob = bytes.fromhex(vector["nonce"]), bytes.fromhex(vector["ciphertext"])
    assert len(nonce) == suite.nonce_size
    assert outer + nonce + seal(nonce, payload, bound) == blob
    taken = Envelope.parse(blob)
    assert taken == Envelope(suite.number, kind, key_id_of(key), nonce, blob[19 + len(nonce) :])
    assert taken.serialize() == blob
    assert_same(decode(kind, open_(taken.nonce, taken.sealed, bound)), value_of(vector["value"]))


@pytest.mark.parametrize("vector", vectors("ciphertexts"))
def test_the_text_form_is_that_of_the_vector(vector: Vector) -> None:
    """Bytes to text and back, both exactly."""
    blob = bytes.fromhex(vector["ciphertext"])
    assert to_text(blob) == vector["text_form"]
    assert from_text(vector["text_form"]) == blob


class Keys:
    """A vault whose key store holds the keys of the vectors, put there as the page says."""

    def __init__(self, folder: Path) -> None:
        self.kms = LocalKMS.create(folder / "root.keys")
        self.store = MemoryKeyStore()
        self.vault = Vault(kms=self.kms, key_store=self.store)
        self.known: set[bytes] = set()

    def add(self, vector: Vector) -> None:
        """The key of a vector, in its tenant's or its subject's data slot."""
        key = bytes.fromhex(vector["data_key"])
        tenant, subject = vector["tenant"], vector["subject"]
        wrapper: LocalKMS | LocalWrapper = self.kms
        if subject is not None:
            wrap_key = bytes(32)
            self._insert(wrap_key, KeySlot(tenant, None, Purpose.WRAP), self.kms)
            wrapper = LocalWrapper(Secret(wrap_key), key_id_of(Secret(wrap_key)))
        self._insert(key, KeySlot(tenant, subject), wrapper)

    def _insert(self, key: bytes, slot: KeySlot, wrapper: LocalKMS | LocalWrapper) -> None:
        key_id = key_id_of(Secret(key))
        if key_id in self.known:
            return
        self.known.add(key_id)
        record = KeyRecord(
            key_id=key_id,
            tenant=slot.tenant,
            subject=slot.subject,
            purpose=slot.purpose,
            version=1,
            state=KeyState.ACTIVE,
            created_at=datetime.now(UTC),
            uses=0,
            wrapped=wrapper.wrap(key, context=key_context(slot, key_id)),
            parent=wrapper.key_id if isinstance(wrapper, LocalWrapper) else None,
        )
        assert self.store.add_active([Addition(record, None)]) == {key_id}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """One vault for all vectors."""
    made = Keys(tmp_path_factory.mktemp("vectors"))
    yield made
    made.vault.close()


@pytest.mark.parametrize(
    "vector", [param for param in vectors("ciphertexts") if param.values[0]["row"] is None]
)
def test_a_vault_opens_the_ciphertext_of_the_vector(vector: Vector, keys: Keys) -> None:
    """Given the key's record, the front door gives the value, exactly."""
    keys.add(vector)
    opened = keys.vault.decrypt(
        bytes.fromhex(vector["ciphertext"]),
        field=vector["field"],
        tenant=vector["tenant"],
        subject=vector["subject"],
    )
    assert_same(opened, value_of(vector["value"]))


@pytest.mark.parametrize("vector", vectors("refused_ciphertexts"))
def test_a_vault_refuses_what_the_page_refuses(vector: Vector, keys: Keys) -> None:
    """The error is of exactly the class that the vector names, with nothing chained to it."""
    keys.add(vector["key"])
    with pytest.raises(errors.FieldVaultError) as caught:
        keys.vault.decrypt(bytes.fromhex(vector["ciphertext"]), **vector["read_as"])
    assert type(caught.value).__name__ == vector["error"]
    assert caught.value.__context__ is None


@pytest.mark.parametrize("vector", vectors("refused_texts"))
def test_text_that_is_no_text_form_is_refused(vector: Vector) -> None:
    """Nothing but the canonical encoding is taken for a ciphertext."""
    with pytest.raises(errors.MalformedCiphertext) as caught:
        from_text(vector["text_form"])
    assert type(caught.value).__name__ == vector["error"]
    assert caught.value.__context__ is None


# -- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("subject_keys"))
def test_a_subjects_key_is_wrapped_as_the_page_says(vector: Vector) -> None:
    """Key ids, the encoded context and the wrapped key are those of the vector."""
    wrap_key, key = Secret(bytes.fromhex(vector["wrap_key"])), bytes.fromhex(vector["data_key"])
    context, wrapped = vector["context"], bytes.fromhex(vector["wrapped"])
    key_id = key_id_of(Secret(key))
    assert (key_id.hex(), key_id_of(wrap_key).hex()) == (vector["key_id"], vector["wrap_key_id"])
    assert encode_context(context).hex() == vector["encoded_context"]
    assert key_context(KeySlot(context["tenant"], context["subject"]), key_id) == context
    wrapper = LocalWrapper(wrap_key, key_id_of(wrap_key))
    assert wrapper.wrap(key, context=context) == wrapped
    assert wrapper.unwrap(wrapped, context=context) == key


def root_file(vector: Vector, folder: Path) -> Path:
    """The root-key file of a vector, on the disk."""
    path = folder / "root.keys"
    path.touch(mode=0o600)
    path.write_text(json.dumps(vector["file"]), encoding="utf-8")
    return path


@pytest.mark.parametrize("vector", vectors("root_key_files"))
def test_a_root_key_file_opens_and_unwraps_as_the_page_says(vector: Vector, tmp_path: Path) -> None:
    """Every version of the root key unwraps, and the newest wraps to the bytes of the vector."""
    kms = LocalKMS(root_file(vector, tmp_path), vector["passphrase"])
    newest = max(entry["version"] for entry in vector["file"]["keys"])
    again = 0
    for entry in vector["wrapped"]:
        key, wrapped = bytes.fromhex(entry["key"]), bytes.fromhex(entry["wrapped"])
        assert kms.unwrap(wrapped, context=entry["context"]) == key
        if int.from_bytes(wrapped[1:5], "big") == newest:
            assert kms.wrap(key, context=entry["context"]) == wrapped
            again += 1
    assert again == len({json.dumps(entry["context"]) for entry in vector["wrapped"]})


@pytest.mark.parametrize("vector", vectors("refused_wrapped_keys"))
def test_a_wrapped_key_that_was_changed_or_moved_is_refused(vector: Vector, tmp_path: Path) -> None:
    """Neither wrapping gives a key for another context, other bytes or another root key."""
    wrapped, context = bytes.fromhex(vector["wrapped"]), vector["context"]

    def unwrap() -> bytes:
        if vector["wrap_key"] is None:
            return LocalKMS(root_file(vector, tmp_path), vector["passphrase"]).unwrap(
                wrapped, context=context
            )
        wrap_key = Secret(bytes.fromhex(vector["wrap_key"]))
        return LocalWrapper(wrap_key, key_id_of(wrap_key)).unwrap(wrapped, context=context)

    with pytest.raises(errors.KMSError) as caught:
        unwrap()
    assert type(caught.value).__name__ == vector["error"]

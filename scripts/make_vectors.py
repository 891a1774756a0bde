"""Writes ``tests/vectors/*.json``: ``python -m scripts.make_vectors``.

What is expected comes from ``format1.py``, a second implementation of docs/format.md, and never from
fieldvault itself. Nothing in it is random: keys, nonces and salts are hashes of names. Run it after the page
has grown; the vectors of a released format never change. ``tests/test_vectors.py`` checks that the files are
what it makes, and runs each of them through fieldvault.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from scripts.format1 import (
    SUITES,
    TYPES,
    Description,
    associated_data,
    body_of,
    encoded_context,
    hkdf,
    key_context,
    key_id_of,
    padded,
    sealed_part,
    siv,
    text_form,
    u32,
)
from scripts.vector_values import MALFORMED_BODIES, UNSUPPORTED_BODIES, VALUES

FOLDER = Path(__file__).parents[1] / "tests" / "vectors"
ORIGIN = "scripts/make_vectors.py after docs/format.md, section "

Vector = dict[str, Any]
Owner = tuple[str, str | None, bytes]


def fixed(name: str, size: int) -> bytes:
    """``size`` bytes, at most 32, that stand for random ones."""
    return hashlib.sha256(f"fieldvault vectors: {name}".encode()).digest()[:size]


TENANT_KEY = ("acme", None, fixed("data key of acme", 32))
SUBJECT_KEY = ("acme", "顾客-42", fixed("data key of acme, subject", 32))
OTHER_KEY = ("globex GmbH & Söhne", None, fixed("data key of globex", 32))


def seal(
    name: str,
    kind: int,
    payload: bytes,
    *,
    suite: str = "AES-256-GCM",
    owner: Owner = TENANT_KEY,
    field: str = "customers.email",
    row: list[str] | None = None,
) -> Vector:
    """A ciphertext and all that went into it; ``name`` chooses the nonce."""
    tenant, subject, data_key = owner
    number, _, nonce_size = SUITES[suite]
    nonce = fixed(f"nonce of {name}", nonce_size)
    header = bytes([1, number, kind]) + key_id_of(data_key)
    associated = associated_data(header, tenant, field, subject, row)
    blob = header + nonce + sealed_part(suite, data_key, nonce, payload, associated)
    return {
        "name": name,
        "origin": ORIGIN + "4",
        "suite": suite,
        "data_key": data_key.hex(),
        "key_id": key_id_of(data_key).hex(),
        "tenant": tenant,
        "subject": subject,
        "field": field,
        "row": row,
        "type": kind,
        "payload": payload.hex(),
        "nonce": nonce.hex(),
        "associated_data": associated.hex(),
        "ciphertext": blob.hex(),
        "text_form": text_form(blob),
    }


def seal_value(name: str, value: Description, *, padding: int | None = None, **context: Any) -> Vector:
    """The same of a described value."""
    kind, body = body_of(value)
    if padding is not None:
        kind, body = kind | 0x80, padded(body, padding)
    return {"value": value, "padding": padding, **seal(name, kind, body, **context)}


# -- the files ---------------------------------------------------------------------------------------------


def values() -> Iterator[Vector]:
    """Every type with its edges, as bodies."""
    for name, value in VALUES.items():
        kind, body = body_of(value)
        yield {"name": name, "origin": ORIGIN + "6", "value": value, "type": kind, "body": body.hex()}


def ciphertexts() -> Iterator[Vector]:
    """Every suite with every type, padded and not, and with every kind of context."""
    email = {"text": "li.na@example.cn"}
    first = {kind: next(value for value in VALUES.values() if kind in value) for kind in TYPES}
    for suite in SUITES:
        for kind, value in first.items():
            yield seal_value(f"{suite}, {kind}", value, suite=suite)
            yield seal_value(f"{suite}, {kind}, padded to 32", value, suite=suite, padding=32)
        for block in (2, 16, 17, 300):
            yield seal_value(f"{suite}, padded to {block}", email, suite=suite, padding=block)
        contexts: dict[str, dict[str, Any]] = {
            "a subject": {"owner": SUBJECT_KEY},
            "another tenant": {"owner": OTHER_KEY},
            "a field beyond ASCII": {"field": "клиенты.имя"},
            "a field of 255 bytes": {"field": "f" * 255},
            "a row": {"row": ["10042"]},
            "a row of two columns and a subject": {"row": ["de", "0042"], "owner": SUBJECT_KEY},
            "a row of empty text": {"row": [""]},
        }
        for name, context in contexts.items():
            yield seal_value(f"{suite}, {name}", email, suite=suite, **context)


def refused() -> Iterator[Vector]:
    """Ciphertexts that no reader opens, with the class of the error."""
    for suite, (_, _, nonce_size) in SUITES.items():
        whole = seal_value(f"refused, {suite}", {"text": "x"}, suite=suite)
        blob = bytes.fromhex(whole["ciphertext"])
        least = 19 + nonce_size + 16
        yield _refusal(
            whole, f"{suite}, a byte less than the least", blob[: least - 1], "MalformedCiphertext"
        )
        yield _refusal(whole, f"{suite}, the least length", blob[:least], "DecryptionError")
        yield _refusal(whole, f"{suite}, a byte missing at the end", blob[:-1], _shorter(blob, least))
        yield _refusal(whole, f"{suite}, a byte added", blob + b"\x00", "DecryptionError")
        yield _refusal(
            whole, f"{suite}, a bit of the tag changed", _flipped(blob, len(blob) - 1), "DecryptionError"
        )
        yield _refusal(
            whole, f"{suite}, first bit after the header changed", _flipped(blob, 19), "DecryptionError"
        )
        yield _refusal(whole, f"{suite}, type bytes for text", _with(blob, 2, 2), "DecryptionError")
        yield _refusal(whole, f"{suite}, marked as padded", _with(blob, 2, 0x81), "DecryptionError")
        yield _refusal(whole, f"{suite}, a bit of the key id changed", _flipped(blob, 18), "KeyNotFound")
        yield _refusal(
            whole, f"{suite}, moved to another field", blob, "DecryptionError", field="customers.name"
        )
        yield _refusal(whole, f"{suite}, read by another tenant", blob, "TenantMismatch", tenant=OTHER_KEY[0])
        yield _refusal(whole, f"{suite}, read for a subject", blob, "DecryptionError", subject="顾客-42")
        own = seal_value(f"refused, {suite}, subject", {"text": "x"}, suite=suite, owner=SUBJECT_KEY)
        blob = bytes.fromhex(own["ciphertext"])
        yield _refusal(own, f"{suite}, read for another subject", blob, "DecryptionError", subject="顾客-43")
        bound = seal_value(f"refused, {suite}, row", {"text": "x"}, suite=suite, row=["1"])
        blob = bytes.fromhex(bound["ciphertext"])
        yield _refusal(bound, f"{suite}, bound to a row, read without", blob, "DecryptionError")
    long = seal_value("refused, relabelled", {"json": '["long enough for the longest nonce"]'})
    blob = bytes.fromhex(long["ciphertext"])
    yield _refusal(long, "relabelled as XChaCha20-Poly1305", _with(blob, 1, 3), "DecryptionError")
    yield _refusal(long, "relabelled as AES-256-SIV", _with(blob, 1, 2), "DecryptionError")
    for offset, what, numbers in (
        (0, "version", (0, 2, 0x24, 0xFF)),
        (1, "suite", (0, 5, 0x81, 0xFF)),
        (2, "type", (0, 14, 0x7F, 0x80, 0x8E, 0xFF)),
    ):
        for number in numbers:
            yield _refusal(long, f"{what} {number}", _with(blob, offset, number), "MalformedCiphertext")
    for name, changed in {
        "nothing": b"",
        "one byte": blob[:1],
        "a header without its last byte": blob[:18],
        "a header alone": blob[:19],
        "key id before the first three bytes": blob[3:19] + blob[:3] + blob[19:],
        "version after suite and type": blob[1:3] + blob[:1] + blob[3:],
        "suite and type exchanged": blob[:1] + blob[2:3] + blob[1:2] + blob[3:],
        "a byte in front": b"\x00" + blob,
        "text form as bytes": text_form(blob).encode(),
    }.items():
        yield _refusal(long, name, changed, "MalformedCiphertext")
    for error, bodies in (
        ("MalformedCiphertext", MALFORMED_BODIES),
        ("UnsupportedValue", UNSUPPORTED_BODIES),
    ):
        for name, (kind, payload) in bodies.items():
            made = seal(f"refused, {name}", kind, payload)
            yield _refusal(made, name, bytes.fromhex(made["ciphertext"]), error, section="6")


def refused_texts() -> Iterator[Vector]:
    """Text that is no ciphertext's text form."""
    form = text_form(bytes.fromhex(seal_value("text form", {"text": "x"})["ciphertext"]))
    changes = {
        "no prefix": form[5:],
        "a prefix of another version": "$fv2$" + form[5:],
        "a prefix in upper case": "$FV1$" + form[5:],
        "a plaintext": "li.na@example.cn",
        "nothing": "",
        "white space in front": " " + form,
        "a line feed at the end": form + "\n",
        "a line feed inside": form[:20] + "\n" + form[20:],
        "base64 padding": form + "=",
        "a length that base64 does not have": form + "A" * (1 + -len(form[5:]) % 4),
        "unused bits set": text_form(bytes(48) + b"\x10")[:-1] + "B",
        "the alphabet of standard base64": "$fv1$" + base64.b64encode(b"\xfb\xff\xfe" * 16).decode(),
        "a character that is none of base64": form[:20] + "!" + form[21:],
        "a character beyond ASCII": form[:20] + "é" + form[21:],
        "a wide digit": form[:20] + "\uff11" + form[21:],
        "the prefix alone twice": "$fv1$$fv1$",
    }
    for name, text in changes.items():
        yield {"name": name, "origin": ORIGIN + "4", "text_form": text, "error": "MalformedCiphertext"}


def _refusal(
    made: Vector, name: str, blob: bytes, error: str, *, section: str = "4", **reader: Any
) -> Vector:
    owner = {part: made[part] for part in ("data_key", "tenant", "subject")}
    reads = {"tenant": made["tenant"], "subject": made["subject"], "field": made["field"], **reader}
    origin = {"name": name, "origin": ORIGIN + section}
    return {**origin, "key": owner, "read_as": reads, "ciphertext": blob.hex(), "error": error}


def _shorter(blob: bytes, least: int) -> str:
    return "MalformedCiphertext" if len(blob) - 1 < least else "DecryptionError"


def _with(blob: bytes, offset: int, number: int) -> bytes:
    return blob[:offset] + bytes([number]) + blob[offset + 1 :]


def _flipped(blob: bytes, offset: int) -> bytes:
    return _with(blob, offset, blob[offset] ^ 1)


# -- sections 2, 7 and 8: keys -----------------------------------------------------------------------------


def keys() -> Iterator[Vector]:
    """Key ids, and subjects' keys as their tenant's wrap key wraps them."""
    for tenant, subject, data_key in (
        SUBJECT_KEY,
        ("tenant\u2028ß", "s" * 255, fixed("another subject", 32)),
    ):
        wrap_key = fixed(f"wrap key of {tenant}", 32)
        context = key_context(data_key, tenant, subject=subject)
        sealed = siv(hkdf(wrap_key, b"fieldvault/1 wrap AES-256-SIV", 64), encoded_context(context), data_key)
        yield {
            "name": f"a subject's key of {tenant}",
            "origin": ORIGIN + "7",
            "wrap_key": wrap_key.hex(),
            "wrap_key_id": key_id_of(wrap_key).hex(),
            "data_key": data_key.hex(),
            "key_id": key_id_of(data_key).hex(),
            "context": context,
            "encoded_context": encoded_context(context).hex(),
            "wrapped": (b"\x01" + sealed).hex(),
        }


def root_files() -> Iterator[Vector]:
    """Root-key files, plain and with a passphrase, and keys wrapped under them."""
    for passphrase in (None, "correct horse 电池"):
        roots = {version: fixed(f"root key {version}", 32) for version in (1, 2, 7)}
        parameters, stored = _stored(roots, passphrase)
        yield {
            "name": "no passphrase" if passphrase is None else "a passphrase",
            "origin": ORIGIN + "8",
            "passphrase": passphrase,
            "file": {
                "format": "fieldvault root keys 1",
                "passphrase": parameters,
                "keys": [
                    {
                        "version": version,
                        "created_at": f"202{version}-01-31T00:00:00+00:00",
                        "key": base64.b64encode(key).decode(),
                    }
                    for version, key in stored.items()
                ],
            },
            "wrapped": [
                {
                    "context": context,
                    "key": TENANT_KEY[2].hex(),
                    "wrapped": _wrapped(root, version, context).hex(),
                }
                for version, root in roots.items()
                for context in (
                    key_context(TENANT_KEY[2], "acme"),
                    key_context(TENANT_KEY[2], "acme", "index"),
                    key_context(TENANT_KEY[2], "acme", "wrap"),
                    {},
                )
            ],
        }


def refused_keys() -> Iterator[Vector]:
    """Wrapped keys that do not unwrap, with the class of the error."""
    subject, (plain, locked) = next(keys()), root_files()
    moved = {name: {**subject["context"], name: "x"} for name in subject["context"]}
    cut = {name: value for name, value in subject["context"].items() if name != "subject"}
    moved |= {"subject left out": cut, "an entry more": {**subject["context"], "x": ""}}
    for made, source in (("a subject's key", subject), ("a key of the local KMS", plain)):
        entry = source if source is subject else {"wrap_key": None, **plain, **plain["wrapped"][0]}
        wrapped = bytes.fromhex(entry["wrapped"])
        changes = {
            "nothing": b"",
            "another version": _with(wrapped, 0, 2),
            "a byte missing": wrapped[:-1],
            "a byte added": wrapped + b"\x00",
            "a bit of the synthetic IV changed": _flipped(wrapped, len(wrapped) - 48),
            "the last bit changed": _flipped(wrapped, len(wrapped) - 1),
        }
        for name, changed in changes.items():
            yield _unwrap(f"{made}: {name}", entry, changed, entry["context"])
        for name, context in moved.items():
            if name in entry["context"] or source is subject:
                yield _unwrap(f"{made}: another context, {name}", entry, wrapped, context)
    entry = {"wrap_key": None, **plain, **plain["wrapped"][0]}
    wrapped = bytes.fromhex(entry["wrapped"])
    yield _unwrap("another root key", entry, _with(wrapped, 4, 2), entry["context"])
    yield _unwrap("no such root key", entry, _with(wrapped, 4, 3), entry["context"], "KMSKeyDisabled")
    entry = {"wrap_key": None, **locked, **locked["wrapped"][0], "passphrase": "another passphrase"}
    yield _unwrap("another passphrase", entry, wrapped, entry["context"], "KMSDenied")


def _unwrap(
    name: str, entry: Vector, wrapped: bytes, context: Mapping[str, str], error: str = "KMSError"
) -> Vector:
    kms = {part: entry.get(part) for part in ("origin", "wrap_key", "file", "passphrase")}
    return {"name": name, **kms, "wrapped": wrapped.hex(), "context": context, "error": error}


def _wrapped(root: bytes, version: int, context: Mapping[str, str]) -> bytes:
    prefix = b"\x01" + u32(version)
    key = hkdf(root, b"fieldvault/1 local AES-256-SIV", 64)
    return prefix + siv(key, prefix + encoded_context(context), TENANT_KEY[2])


def _stored(roots: dict[int, bytes], passphrase: str | None) -> tuple[Vector | None, dict[int, bytes]]:
    if passphrase is None:
        return None, roots
    salt = fixed("salt", 16)
    # The least that PyNaCl takes: what is checked is the encoding, not the cost.
    argon = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8)
    key = argon.derive(passphrase.encode())
    parameters = {
        "kdf": "argon2id",
        "salt": base64.b64encode(salt).decode(),
        "operations": 1,
        "memory": 8 * 1024,
    }
    stored = {}
    for version, root in roots.items():
        nonce = fixed(f"nonce of root key {version}", 24)
        bound = b"fieldvault/1 root key" + u32(version)
        stored[version] = nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(root, bound, nonce, key)
    return parameters, stored


def files() -> dict[str, str]:
    """Each vector file's name and content."""
    made = {
        "values": values(),
        "ciphertexts": ciphertexts(),
        "refused_ciphertexts": refused(),
        "refused_texts": refused_texts(),
        "subject_keys": keys(),
        "root_key_files": root_files(),
        "refused_wrapped_keys": refused_keys(),
    }
    return {f"{name}.json": json.dumps(list(vectors), indent=1) + "\n" for name, vectors in made.items()}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in files().items():
        FOLDER.joinpath(name).write_text(content, encoding="ascii")


if __name__ == "__main__":
    main()

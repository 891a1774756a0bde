"""The vault's surface."""

import asyncio
import copy
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from fieldvault import CachePolicy, Vault
from fieldvault.errors import (
    ConfigurationError,
    DecryptionError,
    KeyNotFound,
    KeyShredded,
    KeyStoreError,
    MalformedCiphertext,
    NotYet,
    ScopeRequired,
    TenantMismatch,
    UnsupportedValue,
)
from fieldvault.keys.policy import RotationPolicy
from fieldvault.keys.records import KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS

EMAIL, PHONE = "customers.email", "customers.phone"

BAD_NAMES: list[Any] = [
    "",
    "a\x00b",
    "tab\t",
    "line\n",
    "\x7f",
    "\x85",
    "lone \ud800",
    "x" * 256,
    "é" * 128,
    True,
    7.5,
    b"acme",
]


@pytest.fixture
def kms(tmp_path: Path) -> LocalKMS:
    """Return a KMS with a root key of its own."""
    return LocalKMS.create(tmp_path / "root.keys")


@pytest.fixture
def vault(kms: LocalKMS) -> Iterator[Vault]:
    """Yield a vault of its own."""
    with Vault(kms=kms, key_store=MemoryKeyStore()) as opened:
        yield opened


# -- values -------------------------------------------------------------------------------------------------


def test_what_was_encrypted_comes_back(vault: Vault) -> None:
    """As bytes that do not hold it, 47 longer."""
    blob = vault.encrypt("anna@example.com", field=EMAIL, tenant="acme")
    assert type(blob) is bytes
    assert b"anna" not in blob
    assert len(blob) == 16 + 47
    assert vault.decrypt(blob, field=EMAIL, tenant="acme") == "anna@example.com"


def test_no_two_ciphertexts_are_alike(vault: Vault) -> None:
    """Equal values do not show."""
    assert len({vault.encrypt("same", field=EMAIL, tenant="acme") for _ in range(100)}) == 100


@pytest.mark.parametrize("suite", ["AES-256-GCM", "AES-256-SIV", "XChaCha20-Poly1305", "SM4-GCM"])
def test_every_vault_opens_every_suite(kms: LocalKMS, suite: str) -> None:
    """The suite is for what is sealed from now on."""
    store = MemoryKeyStore()
    blob = Vault(kms=kms, key_store=store, suite=suite).encrypt("x", field=EMAIL, tenant="acme")
    assert Vault(kms=kms, key_store=store).decrypt(blob, field=EMAIL, tenant="acme") == "x"


def test_none_stays_none_and_needs_no_scope(vault: Vault) -> None:
    """There is nothing to protect; empty values are values."""
    assert vault.encrypt(None, field=EMAIL) is None
    assert vault.decrypt(None, field=EMAIL) is None
    assert list(vault.tenants()) == []
    for value in ("", 0, b"", False, 0.0):
        blob = vault.encrypt(value, field=EMAIL, tenant="acme")
        assert blob is not None
        assert vault.decrypt(blob, field=EMAIL, tenant="acme") == value


def test_many_are_done_in_order(vault: Vault) -> None:
    """With gaps, of any iterable."""
    values = ["a", None, "c", 4]
    blobs = vault.encrypt_many(iter(values), field=EMAIL, tenant="acme")
    assert blobs[1] is None
    assert vault.decrypt_many(iter(blobs), field=EMAIL, tenant="acme") == values
    assert vault.encrypt_many([], field=EMAIL, tenant="acme") == []
    assert vault.decrypt_many([], field=EMAIL, tenant="acme") == []


def test_many_take_the_scope_too(vault: Vault) -> None:
    """And ask for one."""
    with vault.scope(tenant="acme", subject="alice"):
        blobs = vault.encrypt_many(["a", "b"], field=EMAIL)
        assert vault.decrypt_many(blobs, field=EMAIL) == ["a", "b"]
    with pytest.raises(ScopeRequired):
        vault.encrypt_many(["a"], field=EMAIL)
    with pytest.raises(ScopeRequired):
        vault.decrypt_many(blobs, field=EMAIL)


def test_one_bad_ciphertext_among_many_is_an_error(vault: Vault) -> None:
    """Nothing is passed over."""
    blobs = vault.encrypt_many(["a", "b"], field=EMAIL, tenant="acme")
    assert blobs[1] is not None
    for bad in (b"", b"no ciphertext at all, however long it may be", "text"):
        with pytest.raises(MalformedCiphertext):
            vault.decrypt_many([blobs[0], bad, blobs[1]], field=EMAIL, tenant="acme")  # type: ignore[list-item]
    with pytest.raises(DecryptionError):
        vault.decrypt_many([blobs[0], blobs[1][:-1] + b"\x00"], field=PHONE, tenant="acme")


@pytest.mark.parametrize("form", [bytearray, memoryview, lambda blob: memoryview(bytearray(blob))])
def test_drivers_may_give_bytes_in_other_forms(vault: Vault, form: Any) -> None:
    """One by one and many at once, warm and cold."""
    blob = vault.encrypt("x", field=EMAIL, tenant="acme")
    for _ in range(2):
        assert vault.decrypt(form(blob), field=EMAIL, tenant="acme") == "x"
        assert vault.decrypt_many([form(blob)], field=EMAIL, tenant="acme") == ["x"]
        vault.ring.cache.drop(None)
        assert vault.decrypt_many([form(blob), blob], field=EMAIL, tenant="acme") == ["x", "x"]
        vault.ring.cache.drop(None)


@pytest.mark.parametrize("blob", ["", "$fv1$AQEB", 7, 1.5, [], b"", b"\x01", b"\x02" + bytes(60)], ids=repr)
def test_what_is_no_ciphertext_is_malformed(vault: Vault, blob: Any) -> None:
    """Never taken for a plaintext."""
    with pytest.raises(MalformedCiphertext):
        vault.decrypt(blob, field=EMAIL, tenant="acme")


def test_a_value_that_cannot_be_encoded_is_refused_without_being_shown(vault: Vault) -> None:
    """By its class."""

    class Odd:
        def __repr__(self) -> str:
            return "the plaintext"

    for value in (Odd(), "lone \ud800 surrogate", {1, 2}):
        with pytest.raises(UnsupportedValue) as caught:
            vault.encrypt(value, field=EMAIL, tenant="acme")
        assert "plaintext" not in str(caught.value)
        assert "surrogate " not in str(caught.value).replace("lone surrogate", "")
        assert caught.value.__context__ is None


def test_a_ciphertext_moved_anywhere_is_refused(vault: Vault) -> None:
    """To another field, tenant or subject."""
    blob = vault.encrypt("x", field=EMAIL, tenant="acme", subject="alice")
    with pytest.raises(DecryptionError):
        vault.decrypt(blob, field=PHONE, tenant="acme", subject="alice")
    with pytest.raises(DecryptionError):
        vault.decrypt(blob, field=EMAIL, tenant="acme", subject="bob")
    with pytest.raises(TenantMismatch):
        vault.decrypt(blob, field=EMAIL, tenant="globex", subject="alice")
    assert vault.decrypt(blob, field=EMAIL, tenant="acme") == "x", "the key knows whose it is"


def test_every_flipped_bit_is_refused(vault: Vault) -> None:
    """Wherever it is."""
    blob = vault.encrypt("x", field=EMAIL, tenant="acme")
    for index in range(len(blob)):
        for bit in range(8):
            flipped = bytes((*blob[:index], blob[index] ^ 1 << bit, *blob[index + 1 :]))
            with pytest.raises((DecryptionError, MalformedCiphertext)):
                vault.decrypt(flipped, field=EMAIL, tenant="acme")
    for cut in range(len(blob)):
        with pytest.raises((DecryptionError, MalformedCiphertext)):
            vault.decrypt(blob[:cut], field=EMAIL, tenant="acme")
    with pytest.raises(DecryptionError):
        vault.decrypt(blob + b"\x00", field=EMAIL, tenant="acme")


# -- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_cannot_be_a_name_is_refused_before_anything_is_made(vault: Vault, name: Any) -> None:
    """As tenant, as subject, as field, in a scope, as default."""
    with pytest.raises(ConfigurationError, match="tenant"):
        vault.encrypt("x", field=EMAIL, tenant=name)
    with pytest.raises(ConfigurationError, match="subject"):
        vault.encrypt("x", field=EMAIL, tenant="acme", subject=name)
    with pytest.raises(ConfigurationError, match="tenant"):
        vault.encrypt_many(["x"], field=EMAIL, tenant=name)
    with pytest.raises(ConfigurationError, match="tenant"):
        vault.scope(tenant=name)
    with pytest.raises(ConfigurationError, match="subject"):
        vault.scope(tenant="acme", subject=name)
    with pytest.raises(ConfigurationError, match="tenant"):
        Vault(kms=vault.kms, key_store=vault.key_store, default_tenant=name)
    assert list(vault.tenants()) == []
    blob = vault.encrypt("x", field=EMAIL, tenant="acme")
    with pytest.raises(ConfigurationError, match="field"):
        vault.encrypt("x", field=name, tenant="acme")
    with pytest.raises(ConfigurationError, match="field"):
        vault.decrypt(blob, field=name, tenant="acme")


def test_the_longest_names_serve_in_every_script(vault: Vault) -> None:
    """255 bytes of UTF-8."""
    names = {"field": "字" * 85, "tenant": "é" * 127 + "x", "subject": "😀" * 63 + "xyz"}
    blob = vault.encrypt("x", **names)
    assert vault.decrypt(blob, **names) == "x"


def test_names_are_compared_byte_for_byte(vault: Vault) -> None:
    """No case folding, no normalisation, no trimming."""
    tenants = ["acme", "ACME", "acme ", "e\u0301", "\u00e9"]
    blobs = [vault.encrypt("x", field=EMAIL, tenant=tenant) for tenant in tenants]
    assert sorted(vault.tenants()) == sorted(tenants)
    for blob, owner in zip(blobs, tenants, strict=True):
        for tenant in tenants:
            if tenant != owner:
                with pytest.raises(TenantMismatch):
                    vault.decrypt(blob, field=EMAIL, tenant=tenant)


def test_a_tenant_and_subject_are_not_their_concatenation(vault: Vault) -> None:
    """No two scopes share an encoding."""
    one = vault.encrypt("x", field=EMAIL, tenant="ab", subject="c")
    with pytest.raises(TenantMismatch):
        vault.decrypt(one, field=EMAIL, tenant="a", subject="bc")


# -- scope --------------------------------------------------------------------------------------------------


def test_without_a_tenant_nothing_is_written_or_read(vault: Vault) -> None:
    """The error says the ways out."""
    blob = vault.encrypt("x", field=EMAIL, tenant="acme")
    for work in (lambda: vault.encrypt("x", field=EMAIL), lambda: vault.decrypt(blob, field=EMAIL)):
        with pytest.raises(ScopeRequired, match="default_tenant"):
            work()
    with pytest.raises(ScopeRequired), vault.scope(subject="alice"):
        vault.encrypt("x", field=EMAIL)


def test_the_scope_decides_the_tenant_and_the_subject(vault: Vault) -> None:
    """Inner scopes inherit what they do not name; another tenant drops the subject."""
    with vault.scope(tenant="acme", actor="anna", purpose="support") as outer:
        assert (outer.actor, outer.purpose) == ("anna", "support")
        own = vault.encrypt("own", field=EMAIL)
        with vault.scope(subject="alice") as inner:
            assert (inner.tenant, inner.subject, inner.actor) == ("acme", "alice", "anna")
            hers = vault.encrypt("hers", field=EMAIL)
            with vault.scope(tenant="globex") as other:
                assert other.subject is None
                with pytest.raises(TenantMismatch):
                    vault.decrypt(hers, field=EMAIL)
            with pytest.raises(DecryptionError):
                vault.decrypt(own, field=EMAIL)
        with vault.scope(subject="bob"), pytest.raises(DecryptionError):
            vault.decrypt(hers, field=EMAIL)
        assert vault.decrypt(hers, field=EMAIL) == "hers"
        assert vault.decrypt(hers, field=EMAIL, subject="alice") == "hers"
    assert vault.decrypt(hers, field=EMAIL, tenant="acme", subject="alice") == "hers"


def test_an_argument_goes_before_the_scope(vault: Vault) -> None:
    """A tenant that is named stands alone; a subject that is named is the scope's tenant's."""
    with vault.scope(tenant="acme", subject="alice"):
        globex = vault.encrypt("x", field=EMAIL, tenant="globex")
        bob = vault.encrypt("x", field=EMAIL, subject="bob")
    subjects = {key.key_id: (key.tenant, key.subject) for key in (*vault.keys("acme"), *vault.keys("globex"))}
    assert subjects[globex[3:19]] == ("globex", None)
    assert subjects[bob[3:19]] == ("acme", "bob")


def test_a_default_tenant_stands_in_for_the_scope(kms: LocalKMS) -> None:
    """Until a scope or an argument names another."""
    vault = Vault(kms=kms, key_store=MemoryKeyStore(), default_tenant="house")
    blob = vault.encrypt("x", field=EMAIL)
    assert vault.decrypt(blob, field=EMAIL, tenant="house") == "x"
    with vault.scope(subject="alice"):
        assert (
            vault.decrypt(vault.encrypt("y", field=EMAIL), field=EMAIL, tenant="house", subject="alice")
            == "y"
        )
    with vault.scope(tenant="acme"), pytest.raises(TenantMismatch):
        vault.decrypt(blob, field=EMAIL)


def test_threads_and_tasks_have_scopes_of_their_own(vault: Vault) -> None:
    """A new thread begins without one, a new task with that of its maker."""
    seen: dict[str, object] = {}

    def in_a_thread() -> None:
        try:
            vault.encrypt("x", field=EMAIL)
        except ScopeRequired as error:
            seen["thread"] = error

    async def seal(tenant: str | None) -> bytes:
        async with vault.scope(tenant=tenant):
            await asyncio.sleep(0.001)
            blob = vault.encrypt("x", field=EMAIL)
            await asyncio.sleep(0.001)
            return blob

    async def in_tasks() -> tuple[bytes, ...]:
        return await asyncio.gather(seal("globex"), seal(None), seal("initech"))

    with vault.scope(tenant="acme"):
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        blobs = asyncio.run(in_tasks())
    assert isinstance(seen["thread"], ScopeRequired)
    for blob, tenant in zip(blobs, ("globex", "acme", "initech"), strict=True):
        assert vault.decrypt(blob, field=EMAIL, tenant=tenant) == "x"


def test_two_vaults_of_a_process_share_no_scope(kms: LocalKMS) -> None:
    """What one is told is none of the other's business."""
    one, other = (Vault(kms=kms, key_store=MemoryKeyStore()) for _ in range(2))
    with one.scope(tenant="acme"):
        one.encrypt("x", field=EMAIL)
        with pytest.raises(ScopeRequired):
            other.encrypt("x", field=EMAIL)
        with other.scope(tenant="globex"):
            assert one.decrypt(one.encrypt("x", field=EMAIL), field=EMAIL, tenant="acme") == "x"


# -- keys ---------------------------------------------------------------------------------------------------


def test_keys_and_tenants_are_listed_without_material(vault: Vault) -> None:
    """A tenant's own and its subjects', or one subject's; of every tenant that ever was."""
    vault.encrypt("x", field=EMAIL, tenant="acme")
    vault.encrypt("x", field=EMAIL, tenant="acme", subject="alice")
    vault.encrypt("x", field=EMAIL, tenant="globex")
    rotated = vault.rotate("acme")
    vault.shred("globex", actor="operator", reason="left")
    assert sorted(vault.tenants()) == ["acme", "globex"]
    keys = vault.keys("acme")
    assert sorted(
        (key.subject, key.purpose, key.version, key.state) for key in keys if key.subject is None
    ) == [
        (None, Purpose.DATA, 1, KeyState.RETIRED),
        (None, Purpose.DATA, 2, KeyState.ACTIVE),
        (None, Purpose.WRAP, 1, KeyState.ACTIVE),
    ]
    assert rotated in keys
    (alice,) = vault.keys("acme", "alice")
    assert (alice.tenant, alice.subject, alice.version) == ("acme", "alice", 1)
    assert alice.created_at.tzinfo is not None
    assert alice in keys
    assert [key.state for key in vault.keys("globex")] == [KeyState.DESTROYED]
    assert vault.keys("nobody") == []
    assert not any(hasattr(key, "wrapped") for key in keys)


def test_a_rotated_subject_is_reported(vault: Vault) -> None:
    """With its new key's version."""
    vault.encrypt("x", field=EMAIL, tenant="acme", subject="alice")
    info = vault.rotate("acme", "alice")
    assert (info.subject, info.version, info.state) == ("alice", 2, KeyState.ACTIVE)
    with pytest.raises(KeyNotFound):
        vault.rotate("acme", "bob")


# -- the object ---------------------------------------------------------------------------------------------


def test_a_vault_shows_what_it_is_made_of_and_no_secret(vault: Vault) -> None:
    """In logs."""
    assert repr(vault) == "<Vault LocalKMS, MemoryKeyStore>"


@pytest.mark.parametrize("take_away", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_vault_is_not_taken_away(vault: Vault, take_away: Any) -> None:
    """Neither pickled nor copied: the message says what to do."""
    with pytest.raises(TypeError, match="open one in each process"):
        take_away(vault)


def test_closing_forgets_the_keys_and_closes_the_backends(kms: LocalKMS, sqlite_url: str) -> None:
    """Twice is fine."""
    closed: list[str] = []

    class Closing(FaultyKMS):
        def close(self) -> None:
            closed.append("kms")

    vault = Vault(kms=Closing(kms), key_store=SQLKeyStore(sqlite_url))
    vault.encrypt("x", field=EMAIL, tenant="acme")
    assert len(vault.ring.cache) == 1
    vault.close()
    vault.close()
    assert len(vault.ring.cache) == 0
    assert closed == ["kms", "kms"]


def test_a_vault_closes_at_the_end_of_its_block_even_with_an_error(kms: LocalKMS) -> None:
    """It is a context manager."""
    vault = Vault(kms=kms, key_store=MemoryKeyStore())
    vault.encrypt("x", field=EMAIL, tenant="acme")
    with pytest.raises(ZeroDivisionError), vault as entered:
        _ = 1 / (entered is not vault)
    assert len(vault.ring.cache) == 0


def test_an_unknown_suite_is_refused_at_once(kms: LocalKMS) -> None:
    """With the names there are."""
    with pytest.raises(ConfigurationError, match="AES-256-GCM"):
        Vault(kms=kms, key_store=MemoryKeyStore(), suite="AES-128-ECB")


def test_a_vault_declares_how_long_it_may_go_on_before_it_reads_anything(kms: LocalKMS) -> None:
    """The longest lease and grace of all vaults is what a receipt promises."""
    store = MemoryKeyStore()
    Vault(kms=kms, key_store=store, cache=CachePolicy(lease=100, grace=11))
    Vault(kms=kms, key_store=store, cache=CachePolicy(lease=1, grace=1))
    assert store.declare_lease(0) == 111


def test_without_its_key_store_there_is_no_vault(kms: LocalKMS) -> None:
    """A process whose lease is not declared would not be covered by a receipt."""

    class Down(MemoryKeyStore):
        def declare_lease(self, seconds: float) -> float:
            raise KeyStoreError(f"out, and {seconds} s not declared")

    with pytest.raises(KeyStoreError):
        Vault(kms=kms, key_store=Down())


@pytest.mark.usefixtures("kms")
def test_a_vault_opens_from_a_mapping(tmp_path: Path) -> None:
    """Of the shape of the configuration file."""
    configuration = {
        "vault": {"default_tenant": "house", "suite": "XChaCha20-Poly1305"},
        "kms": {"type": "local", "path": str(tmp_path / "root.keys")},
        "key_store": {"type": "sql", "url": f"sqlite:///{tmp_path / 'keys.db'}"},
        "cache": {"max_keys": 7},
        "rotation": {"block": 10, "max_uses": 100},
    }
    with Vault.open(configuration) as vault:
        blob = vault.encrypt("x", field=EMAIL)
        assert blob[1] == 3
        assert vault.decrypt(blob, field=EMAIL) == "x"
        assert [key.uses for key in vault.keys("house")] == [10]


def test_rotation_is_configured_on_the_vault(kms: LocalKMS) -> None:
    """And bounds what a key seals."""
    vault = Vault(kms=kms, key_store=MemoryKeyStore(), rotation=RotationPolicy(max_uses=2, block=1))
    for _ in range(5):
        vault.encrypt("x", field=EMAIL, tenant="acme")
    assert [key.version for key in vault.keys("acme")] == [1, 2, 3]


# -- names --------------------------------------------------------------------------------------------------


class Shop(StrEnum):
    ACME = "acme"


IDENTITY = uuid.UUID("0190F2B4-6C2E-7D3A-8F51-6E1B2A9C4D7E")
NAMED: list[tuple[Any, str]] = [
    (IDENTITY, "0190f2b4-6c2e-7d3a-8f51-6e1b2a9c4d7e"),
    (42, "42"),
    (-(2**70), str(-(2**70))),
    (Shop.ACME, "acme"),
    ("acme", "acme"),
]


@pytest.mark.parametrize(
    ("given", "name"), NAMED, ids=[type(given).__name__ + name[:3] for given, name in NAMED]
)
def test_a_row_s_own_key_names_a_tenant_and_a_subject(vault: Vault, given: Any, name: str) -> None:
    """On every call; cold and warm, it is the same key as the text's."""
    blob = b""
    for _ in range(2):
        blob = vault.encrypt("x", field=EMAIL, tenant=given, subject=given)
        assert vault.decrypt(blob, field=EMAIL, tenant=name, subject=name) == "x"
        assert vault.decrypt(blob, field=EMAIL, tenant=given, subject=given) == "x"
        (many,) = vault.encrypt_many(["y"], field=EMAIL, tenant=given, subject=given)
        assert vault.decrypt_many([many, blob], field=EMAIL, tenant=given, subject=given) == ["y", "x"]
        with vault.scope(tenant=given, subject=given) as scope:
            assert (scope.tenant, scope.subject, type(scope.tenant)) == (name, name, str)
            scoped = vault.encrypt("z", field=EMAIL)
        assert vault.decrypt(scoped, field=EMAIL, tenant=name, subject=name) == "z"
    assert {(key.tenant, key.subject) for key in vault.keys(given, given)} == {(name, name)}
    assert list(vault.tenants()) == [name]
    assert vault.prefetch([given, name]) == {}
    assert vault.rotate(given, given).version == 2
    assert vault.rotate(given).tenant == name
    vault.ring.index_keys(name)
    assert vault.index_rotation(given) == vault.index_rotation(name)
    assert vault.rotate_index(given).active.version == 2
    with pytest.raises(NotYet):
        vault.drop_index(given)
    with pytest.raises(DecryptionError):
        vault.decrypt(blob, field=EMAIL, tenant=given, subject="somebody else")
    with pytest.raises(DecryptionError):
        vault.decrypt(blob, field=EMAIL, tenant=given, subject=7)
    with pytest.raises(TenantMismatch):
        vault.decrypt(blob, field=EMAIL, tenant=7)
    receipt = vault.shred(given, given, actor="a", reason="r")
    assert (receipt.tenant, receipt.subject, len(receipt.key_ids)) == (name, name, 2)
    with pytest.raises(KeyShredded):
        vault.encrypt("x", field=EMAIL, tenant=given, subject=given)


@pytest.mark.parametrize(
    ("given", "name"), NAMED, ids=[type(given).__name__ + name[:3] for given, name in NAMED]
)
def test_a_row_s_own_key_names_them_in_coroutines_and_as_default(
    kms: LocalKMS, given: Any, name: str
) -> None:
    """As everywhere."""

    async def work(vault: Vault) -> Any:
        blob = None
        for _ in range(2):
            blob = await vault.aencrypt("x", field=EMAIL, tenant=given, subject=given)
            assert await vault.adecrypt(blob, field=EMAIL, tenant=given, subject=given) == "x"
        assert await vault.aprefetch([given]) == {}
        return blob

    with Vault(kms=kms, key_store=MemoryKeyStore(), default_tenant=given) as vault:
        assert vault.default_tenant == name
        assert vault.decrypt(asyncio.run(work(vault)), field=EMAIL, subject=name) == "x"
        assert vault.keys(name, name)


@pytest.mark.parametrize("value", [True, 7.5, b"acme", object(), None])
def test_what_names_nobody_is_refused_with_what_to_pass(vault: Vault, value: Any) -> None:
    """In calls that change keys as well, before anything is done."""
    blob = vault.encrypt("x", field=EMAIL, tenant="acme", subject="ann")
    refused = f"is text, an integer or a UUID, not {type(value).__name__}: pass what its column holds"
    calls: list[Callable[[], object]] = [
        lambda: vault.keys(value),
        lambda: vault.rotate(value),
        lambda: vault.prefetch([value]),
        lambda: vault.index_rotation(value),
        lambda: vault.shred(value, actor="a", reason="r"),
    ]
    if value is not None:
        calls += [
            lambda: vault.decrypt(blob, field=EMAIL, tenant=value),
            lambda: vault.decrypt(blob, field=EMAIL, tenant="acme", subject=value),
            lambda: vault.shred("acme", value, actor="a", reason="r"),
            lambda: vault.keys("acme", value),
        ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=refused):
            call()
    assert vault.decrypt(blob, field=EMAIL, tenant="acme", subject="ann") == "x"


def test_names_that_are_no_text_count_as_hits_and_misses_as_others_do(vault: Vault) -> None:
    """Each look-up once."""
    for tenant in ("42", 42):
        before = vault.stats()
        blob = vault.encrypt("x", field=EMAIL, tenant=tenant)
        vault.encrypt("x", field=EMAIL, tenant=tenant)
        vault.decrypt(blob, field=EMAIL, tenant=tenant)
        after = vault.stats()
        found = after.hits - before.hits, after.misses - before.misses
        assert found == ((2, 1) if tenant == "42" else (3, 0))

"""``PKCS11KMS``: root keys that stay in the token, versions, PINs, sessions."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType

from fieldvault import Vault
from fieldvault.errors import ConfigurationError, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import PKCS11KMS
from fieldvault.kms.pkcs11.modules import MODULES
from fieldvault.kms.pkcs11.rootkeys import version_of
from fieldvault.settings import Section, Source
from tests.kms.pkcs11.conftest import Asked, Opening
from tests.servers.softhsm import PIN, TOKEN, SoftHSM

KEY = bytes(range(32))
CONTEXT = {"tenant": "acme"}
AsAdministrator = Callable[[Callable[[Any], object]], None]


@pytest.fixture
def kms(opening: Opening, root_key: str) -> Any:
    """The test's root key, open."""
    with closing(opening(key_label=root_key)) as kms:
        yield kms


# -- the root key ----------------------------------------------------------------------------------------


def test_the_root_key_cannot_be_read_out_of_the_token(
    root_key: str, as_administrator: AsAdministrator
) -> None:
    """Nor used for anything but to encrypt and decrypt; and whoever may write cannot loosen it."""
    assert root_key
    keys: list[Any] = []
    as_administrator(keys.append)
    assert len(keys) == 1

    def look(key: Any) -> None:
        for name in ("SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "PRIVATE"):
            assert key[Attribute[name]] is True, name
        for name in ("EXTRACTABLE", "WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE"):
            assert key[Attribute[name]] is False, name
        with pytest.raises(pkcs11.AttributeSensitive):
            _ = key[Attribute.VALUE]
        for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
            with pytest.raises(pkcs11.PKCS11Error):
                key[attribute] = value

    as_administrator(look)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({Attribute.EXTRACTABLE: True}, "can be read out of the token"),
        ({Attribute.SENSITIVE: False}, "can be read out of the token"),
        ({Attribute.ID: b"\x01"}, "no version of a root key"),
    ],
)
def test_a_key_that_is_no_root_key_is_refused(
    softhsm: SoftHSM, opening: Opening, key_label: str, attributes: dict[Attribute, object], told: str
) -> None:
    """Made by somebody else's tools, and not guarded by the token."""
    module, until = MODULES.at(str(softhsm.module)), time.monotonic() + 30
    library = module.ready(until)
    with module.entered(until, alone=True):
        session = library.get_token(token_label=TOKEN).open(rw=True, user_pin=PIN)
        session.generate_key(
            KeyType.AES,
            256,
            label=key_label,
            id=b"\x00\x00\x00\x01abcd",
            store=True,
            template={Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True, **attributes},
        )
        session.close()
    with closing(opening()) as kms, pytest.raises(ConfigurationError, match=told):
        kms.wrap(KEY, context=CONTEXT)


def test_a_root_key_that_is_there_is_never_replaced(opening: Opening, root_key: str) -> None:
    """``create`` is for the first only."""
    assert root_key
    pin = Asked(PIN)
    with pytest.raises(ConfigurationError, match="none is replaced"):
        opening(make=PKCS11KMS.create, pin=pin)
    # And leaves nobody logged in.
    with closing(opening(pin=pin)) as kms:
        kms.check()
    assert pin.times == 2


# -- versions --------------------------------------------------------------------------------------------


def test_a_wrapped_key_names_the_version_that_wrapped_it(kms: PKCS11KMS) -> None:
    """69 bytes: a format version, the version's id, a nonce, the key and its tag."""
    first = kms.wrap(KEY, context=CONTEXT)
    assert len(first) == 69
    assert kms.rotate_root_key() == 2
    second = kms.wrap(KEY, context=CONTEXT)
    assert [version_of(each[1:9]) for each in (first, second)] == [1, 2]
    names = [kms.root_key_of(each, context=CONTEXT) for each in (first, second, first)]
    assert (names[0] == names[2], names[0] == names[1]) == (True, False)
    assert kms.check().endswith("versions 1, 2")


def test_a_version_that_may_only_decrypt_wraps_no_more(
    kms: PKCS11KMS, as_administrator: AsAdministrator
) -> None:
    """What it wrapped is still read; the next older one that may encrypt wraps."""
    kms.rotate_root_key()
    wrapped = kms.wrap(KEY, context=CONTEXT)

    def retire(key: Any) -> None:
        if version_of(key[Attribute.ID]) == 2:
            key[Attribute.ENCRYPT] = False

    as_administrator(retire)
    kms.close()
    assert version_of(kms.wrap(KEY, context=CONTEXT)[1:9]) == 1
    assert kms.unwrap(wrapped, context=CONTEXT) == KEY
    with pytest.raises(KMSError, match="was changed"):
        kms.unwrap(wrapped, context={})


def test_a_destroyed_version_is_missed_by_what_it_wrapped(
    kms: PKCS11KMS, as_administrator: AsAdministrator
) -> None:
    """And by nothing else."""
    old = kms.wrap(KEY, context=CONTEXT)
    kms.rotate_root_key()
    new = kms.wrap(KEY, context=CONTEXT)

    def destroy(key: Any) -> None:
        if version_of(key[Attribute.ID]) == 1:
            key.destroy()

    as_administrator(destroy)
    with pytest.raises(KMSKeyDisabled, match="no version 1 of the root key"):
        kms.unwrap(old, context=CONTEXT)
    assert kms.unwrap(new, context=CONTEXT) == KEY
    answers = kms.unwrap_many([WrappedKey(old, CONTEXT), WrappedKey(new, CONTEXT)])
    assert isinstance(answers[0], KMSKeyDisabled)
    assert answers[1] == KEY


def test_only_what_the_newest_version_wrapped_is_current(kms: PKCS11KMS, softhsm: SoftHSM) -> None:
    """A rewrap brings the rest under it; in an outage nothing is said."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    assert kms.is_current(wrapped, context=CONTEXT)
    assert not kms.is_current(wrapped, context={})
    kms.rotate_root_key()
    assert not kms.is_current(wrapped, context=CONTEXT)
    again = kms.rewrap(wrapped, context=CONTEXT)
    assert kms.is_current(again, context=CONTEXT)
    assert kms.unwrap(again, context=CONTEXT) == KEY
    with softhsm.without_tokens(), pytest.raises(KMSUnavailable):
        kms.is_current(again, context=CONTEXT)


def test_only_keys_of_32_bytes_are_wrapped(kms: PKCS11KMS) -> None:
    """A KMS is for keys."""
    with pytest.raises(ConfigurationError, match="not of 16"):
        kms.wrap(KEY[:16], context=CONTEXT)


# -- configuration ---------------------------------------------------------------------------------------


def configured(**members: object) -> PKCS11KMS:
    """What a section of a configuration opens."""
    return PKCS11KMS.from_config(Section(members, ("kms",), Source("the configuration", Path(), None)))


def test_a_vault_is_opened_by_configuration(
    softhsm: SoftHSM, root_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The PIN from the environment, or from a file."""
    monkeypatch.setenv("TOKEN_PIN", PIN)
    (tmp_path / "pin").write_text(PIN + "\n")
    blob = b""
    for where in ('pin_env = "TOKEN_PIN"', 'pin_file = "pin"'):
        (tmp_path / "fieldvault.toml").write_text(
            f'[kms]\ntype = "pkcs11"\nmodule = "{softhsm.module}"\ntoken_label = "{TOKEN}"\n'
            f'key_label = "{root_key}"\n{where}\n[key_store]\ntype = "sql"\nurl = "sqlite:///keys.db"\n'
        )
        with Vault.open(tmp_path / "fieldvault.toml") as vault:
            blob = blob or vault.encrypt("x", field="a.b", tenant="acme")
            assert vault.decrypt(blob, field="a.b", tenant="acme") == "x"


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({}, "kms.pin_env or pin_file is missing"),
        ({"pin": PIN}, "kms.pin is not known"),
        ({"pin_env": "NO_SUCH_VARIABLE_IS_SET"}, "which is not set"),
    ],
)
def test_a_pin_never_stands_in_the_configuration(members: dict[str, object], told: str) -> None:
    """It says where the PIN is."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        configured(module="module.so", token_label="t", key_label="k", **members)
    assert PIN not in str(caught.value)


@pytest.mark.parametrize("members", [{"pool_size": 0}, {"pool_timeout": 0.0}, {"pool_timeout": -1}])
def test_a_pool_that_nobody_could_use_is_refused(
    monkeypatch: pytest.MonkeyPatch, members: dict[str, object]
) -> None:
    """When it is configured, and not when somebody waits."""
    monkeypatch.setenv("TOKEN_PIN", PIN)
    others = {"module": "module.so", "token_label": "t", "key_label": "k", "pin_env": "TOKEN_PIN"}
    with pytest.raises(ConfigurationError, match=f"kms.{next(iter(members))} cannot be used"):
        configured(**others, **members)


def test_the_pool_is_configured(softhsm: SoftHSM, root_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many sessions, and how long they are waited for."""
    monkeypatch.setenv("TOKEN_PIN", PIN)
    names = {"module": str(softhsm.module), "token_label": TOKEN, "key_label": root_key}
    with (
        closing(configured(**names, pin_env="TOKEN_PIN", pool_size=1, pool_timeout=0.05)) as kms,
        kms._connection._pool.place(time.monotonic(), lambda: 1),
        pytest.raises(KMSUnavailable, match="all 1 sessions"),
    ):
        kms.check()


@pytest.mark.parametrize("name", ["module", "token_label", "key_label", "pin"])
def test_an_empty_argument_is_refused_at_once(opening: Opening, name: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigurationError, match=f"the {name} of a PKCS#11 token"):
        opening(**{name: ""})


def test_a_module_that_cannot_be_loaded_is_a_mistake_of_the_configuration(opening: Opening) -> None:
    """Waiting does not help."""
    with closing(opening(module="/no/such/module.so")) as kms, pytest.raises(ConfigurationError):
        kms.check()


def test_a_token_that_is_not_there_is_an_outage(opening: Opening) -> None:
    """Somebody pulled it out; nothing is said about the key."""
    with (
        closing(opening(token_label="pulled out")) as kms,
        pytest.raises(KMSUnavailable, match="token 'pulled out' answered NoSuchToken: no slot has"),
    ):
        kms.wrap(KEY, context=CONTEXT)


def test_what_is_shown_holds_no_pin(opening: Opening) -> None:
    """Nor do the parts of it."""
    kms = opening()
    shown = [repr(kms), repr(kms._connection), repr(vars(kms)), repr(vars(kms._connection))]
    assert all(PIN not in text for text in shown)

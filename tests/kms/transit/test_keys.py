"""Transit keys: versions, rewrapping, floors, trimming, deletion; and unfit ones."""

from collections.abc import Callable

import pytest
from hvac.exceptions import InvalidRequest

from fieldvault.errors import ConfigurationError, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import TransitKMS
from tests.kms.transit.conftest import Tenancy

CONTEXT = {"tenant": "acme", "purpose": "data"}
OTHER = {"tenant": "globex", "purpose": "data"}
KEY = bytes(range(32))
Open = Callable[..., TransitKMS]


@pytest.fixture
def kms(tenancy: Tenancy, open_kms: Open) -> TransitKMS:
    """In the operator's hands."""
    return open_kms(token=tenancy.token("The application", "The operator"))


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_only_32_bytes_are_a_key(kms: TransitKMS, size: int) -> None:
    """A key of another size is a mistake of the caller's."""
    with pytest.raises(ConfigurationError, match=f"32 bytes, not of {size}"):
        kms.wrap(bytes(size), context=CONTEXT)


def test_a_wrapped_key_has_65_bytes_and_names_its_version(kms: TransitKMS) -> None:
    """Which is what tells whether an old version is still needed."""
    old = kms.wrap(KEY, context=CONTEXT)
    assert kms.rotate_root_key() == 2
    new = kms.wrap(KEY, context=CONTEXT)
    assert (len(old), kms.version_of(old), kms.version_of(new)) == (65, 1, 2)
    with pytest.raises(KMSError):
        kms.version_of(b"never wrapped")


def test_a_key_is_rewrapped_without_leaving_the_server(tenancy: Tenancy, open_kms: Open) -> None:
    """By whoever may rewrap and not decrypt; each item has its own answer."""
    application, operator = open_kms(), open_kms(token=tenancy.token("The operator"))
    old = [WrappedKey(application.wrap(KEY, context=CONTEXT), CONTEXT) for _ in range(3)]
    operator.rotate_root_key()
    answers = operator.rewrap_many([old[0], old[1]._replace(context=OTHER), WrappedKey(b"", {}), old[2]])
    assert [type(answer) for answer in answers[1:3]] == [KMSError, KMSError]
    for answer in (answers[0], answers[3]):
        assert isinstance(answer, bytes)
        assert application.version_of(answer) == 2
        assert application.unwrap(answer, context=CONTEXT) == KEY
    with pytest.raises(KMSError):
        operator.unwrap(old[0].wrapped, context=CONTEXT)


@pytest.mark.parametrize("titles", [("The application", "The operator"), ("The application",)])
def test_a_key_is_brought_up_to_date(tenancy: Tenancy, open_kms: Open, titles: tuple[str, ...]) -> None:
    """Inside the server by whoever may rewrap; by unwrapping and wrapping else, current or not."""
    kms = open_kms(token=tenancy.token(*titles))
    may_rewrap = len(titles) == 2
    old = kms.wrap(KEY, context=CONTEXT)
    assert kms.is_current(old, context=CONTEXT) == may_rewrap
    tenancy.server.admin.secrets.transit.rotate_key(tenancy.key)
    assert not kms.is_current(old, context=CONTEXT)
    before = tenancy.server.audit_mark()
    new = kms.rewrap(old, context=CONTEXT)
    paths = {entry["request"]["path"] for entry in tenancy.server.audited(before)}
    assert (paths == {f"transit/rewrap/{tenancy.key}"}) == may_rewrap
    assert kms.version_of(new) == 2
    assert kms.is_current(new, context=CONTEXT) == may_rewrap
    assert kms.unwrap(new, context=CONTEXT) == KEY
    assert not kms.is_current(new, context=OTHER)
    with pytest.raises(KMSError):
        kms.rewrap(new, context=OTHER)


def test_in_an_outage_nothing_is_known_and_that_is_told(tenancy: Tenancy, kms: TransitKMS) -> None:
    """It is not taken for a key that is out of date."""
    wrapped = kms.wrap(KEY, context=CONTEXT)
    with tenancy.server.sealed():
        for call in (kms.is_current, kms.rewrap):
            with pytest.raises(KMSUnavailable):
                call(wrapped, context=CONTEXT)


def test_a_version_below_the_floor_is_disabled_until_the_floor_is_lowered(
    tenancy: Tenancy, kms: TransitKMS
) -> None:
    """And newer ones go on."""
    old = kms.wrap(KEY, context=CONTEXT)
    kms.rotate_root_key()
    new = kms.wrap(KEY, context=CONTEXT)
    configure = tenancy.server.admin.secrets.transit.update_key_configuration
    configure(tenancy.key, min_decryption_version=2)
    answers = kms.unwrap_many([WrappedKey(old, CONTEXT), WrappedKey(new, CONTEXT)])
    assert isinstance(answers[0], KMSKeyDisabled)
    assert "min_decryption_version" in str(answers[0])
    assert answers[1] == KEY
    assert kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY
    configure(tenancy.key, min_decryption_version=1)
    assert kms.unwrap(old, context=CONTEXT) == KEY


def test_a_version_that_was_trimmed_is_gone(tenancy: Tenancy, kms: TransitKMS) -> None:
    """The floor cannot be lowered below it again."""
    old = kms.wrap(KEY, context=CONTEXT)
    kms.rotate_root_key()
    transit = tenancy.server.admin.secrets.transit
    tenancy.server.admin.adapter.post(
        f"/v1/transit/keys/{tenancy.key}/config",
        json={"min_decryption_version": 2, "min_encryption_version": 2},
    )
    transit.trim_key(tenancy.key, min_version=2)
    with pytest.raises(InvalidRequest, match="min available version"):
        transit.update_key_configuration(tenancy.key, min_decryption_version=1)
    with pytest.raises(KMSKeyDisabled):
        kms.unwrap(old, context=CONTEXT)
    kms.check()


def test_a_key_made_anew_under_the_same_name_is_not_the_old_one(tenancy: Tenancy, kms: TransitKMS) -> None:
    """What the old one wrapped is lost, version by version, and new keys are wrapped again."""
    first = kms.wrap(KEY, context=CONTEXT)
    kms.rotate_root_key()
    second = kms.wrap(KEY, context=CONTEXT)
    transit = tenancy.server.admin.secrets.transit
    transit.update_key_configuration(tenancy.key, deletion_allowed=True)
    transit.delete_key(tenancy.key)
    with pytest.raises(KMSKeyDisabled, match="encryption key not found"):
        kms.wrap(KEY, context=CONTEXT)
    tenancy.create()
    with pytest.raises(KMSError) as caught:
        kms.unwrap(first, context=CONTEXT)
    assert type(caught.value) is KMSError
    with pytest.raises(KMSKeyDisabled, match="made anew, or restored from a backup"):
        kms.unwrap(second, context=CONTEXT)
    assert kms.unwrap(kms.wrap(KEY, context=CONTEXT), context=CONTEXT) == KEY


def test_a_deleted_key_is_not_made_anew_by_whoever_could(tenancy: Tenancy, open_kms: Open) -> None:
    """A server that is asked to encrypt makes a missing key; so it is asked something else first."""
    kms = open_kms(token=tenancy.server.root_token)
    kms.wrap(KEY, context=CONTEXT)
    transit = tenancy.server.admin.secrets.transit
    transit.update_key_configuration(tenancy.key, deletion_allowed=True)
    transit.delete_key(tenancy.key)
    for call in (lambda: kms.wrap(KEY, context=CONTEXT), kms.check):
        with pytest.raises(KMSKeyDisabled):
            call()
    assert tenancy.key not in transit.list_keys()["data"]["keys"]


@pytest.mark.parametrize("kind", ["aes256-gcm96", "rsa-2048"])
def test_a_transit_key_that_ignores_the_context_is_refused(
    tenancy: Tenancy, open_kms: Open, kind: str
) -> None:
    """Nothing is wrapped with it: tenants' keys could be exchanged."""
    name = f"{tenancy.key}-plain"
    tenancy.server.admin.secrets.transit.create_key(name, key_type=kind, derived=False)
    kms = open_kms(key=name, token=tenancy.server.root_token)
    for call in (lambda: kms.wrap(KEY, context=CONTEXT), kms.check):
        with pytest.raises(ConfigurationError, match=f"{name} ignores the context"):
            call()


def test_a_transit_key_that_does_not_encrypt_is_told(tenancy: Tenancy, open_kms: Open) -> None:
    """With what the server says about it."""
    name = f"{tenancy.key}-signs"
    tenancy.server.admin.secrets.transit.create_key(name, key_type="ed25519", derived=True)
    with pytest.raises(KMSError, match=f"{name} does not encrypt: message encryption not supported"):
        open_kms(key=name, token=tenancy.server.root_token).check()


def test_a_kms_that_does_not_unwrap_what_it_wraps_fails_its_check(
    kms: TransitKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that cannot fail would be none."""
    monkeypatch.setattr(kms, "unwrap", lambda _wrapped, *, context: bytes(32) if context else b"")
    with pytest.raises(KMSError, match="does not unwrap what it wraps"):
        kms.check()

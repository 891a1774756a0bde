"""What the errors of the vendor's libraries mean, and that none brings along what it holds."""

from typing import Any

import pytest
from hvac import exceptions as vendor
from requests import exceptions as http

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.kms.transit.mapping import MEANING, TransitKeyMissing, of_encryption, of_item, translated
from fieldvault.testing.samples import told_by
from fieldvault.testing.vendors import exceptions_of

KNOWN = exceptions_of(vendor, http)
SECRETS = ("s.aaaaaaaaaaaaaaaaaaaaaaaa", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")


def test_no_error_is_mapped_in_vain() -> None:
    """One that the libraries no longer have goes."""
    assert set(MEANING) - {OSError} <= KNOWN


STATUSES = {
    400: KMSError,
    401: KMSDenied,
    403: KMSDenied,
    404: KMSKeyDisabled,
    405: KMSUnavailable,
    412: KMSUnavailable,
    429: KMSUnavailable,
    472: KMSUnavailable,
    473: KMSUnavailable,
    500: KMSUnavailable,
    501: KMSUnavailable,
    502: KMSUnavailable,
    503: KMSUnavailable,
    504: KMSUnavailable,
}


@pytest.mark.parametrize("status", STATUSES)
def test_each_status_has_its_meaning(status: int) -> None:
    """As the library sorts them."""
    error = vendor.VaultError.from_status(status, errors=["no luck"])
    assert type(translated(error, "https://there")) is STATUSES[status]
    assert str(translated(error, "https://there")) == "https://there answered: no luck"


SAID = {
    "encryption key not found": TransitKeyMissing,
    "no existing key named x could be found": TransitKeyMissing,
    "key not found": TransitKeyMissing,
    "ciphertext or signature version is disallowed by policy (too old)": KMSKeyDisabled,
    "invalid ciphertext: version is too new": KMSKeyDisabled,
    "refusing to use soft-deleted key": KMSKeyDisabled,
    "cipher: message authentication failed": KMSError,
    "refused JSON input due to high complexity: exceeded maximum number of strings": KMSError,
}


@pytest.mark.parametrize("said", SAID)
def test_what_a_refused_request_says_decides(said: str) -> None:
    """The status is the same for a key that is gone and a wrapped key that was changed."""
    assert type(translated(vendor.InvalidRequest(errors=[said]), "https://there")) is SAID[said]
    assert type(of_item(said, "fieldvault")) is SAID[said]
    assert type(of_encryption(said, "fieldvault")) is SAID[said]


@pytest.mark.parametrize("known", sorted(KNOWN, key=repr), ids=repr)
def test_no_error_brings_along_what_it_holds(known: type[Exception]) -> None:
    """Neither a token that the server repeats, nor a key in its answer."""
    said = " ".join(SECRETS)
    make: Any = known
    if issubclass(known, vendor.VaultError):
        error = make(errors=[said, "and\n\tmore"], text=said, json={"data": said}, url=said)
    elif known is http.JSONDecodeError:
        error = make(said, said, 0)
    else:
        error = make(said)
    mapped = translated(error, "https://there")
    assert isinstance(mapped, KMSError)
    assert mapped.__cause__ is None
    assert mapped.__context__ is None
    for text in told_by(mapped):
        assert not any(secret in text for secret in SECRETS)
        assert "and\n" not in text


def test_what_the_server_repeats_is_not_shown_in_an_items_error() -> None:
    """Whatever it says of an item."""
    for secret in SECRETS:
        assert secret not in str(of_item(f"failed at {secret}", "fieldvault"))
        assert secret not in str(of_encryption(f"failed at {secret}", "fieldvault"))

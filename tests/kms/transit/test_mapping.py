"""What the errors of the vendor's libraries mean, and that none brings along what it holds."""

from collections.abc import Callable
from typing import Any

import pytest
from hvac import exceptions as vendor
from requests import exceptions as http
from urllib3 import exceptions as transport

from fieldvault import CachePolicy, Vault
from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.policy import RetryPolicy
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit import AppRole
from fieldvault.kms.transit.mapping import (
    MEANING,
    TransitKeyMissing,
    is_timeout,
    of_encryption,
    of_item,
    translated,
)
from fieldvault.testing.fakes import ManualClock
from fieldvault.testing.samples import told_by
from fieldvault.testing.vendors import exceptions_of
from tests.kms.transit.conftest import Tenancy
from tests.servers.proxy import Answer, Proxy, ResetAfter

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


BETWEEN = {
    "an ingress without a backend": (404, b"404 page not found\n", "text/plain; charset=utf-8"),
    "a firewall": (403, b"<html>Forbidden</html>", "text/html"),
    "a sign-in": (401, b"<html>Sign in</html>", "text/html"),
    "a TLS port": (400, b"Client sent an HTTP request to an HTTPS server.\n", "text/plain"),
    "a gateway that speaks JSON": (404, b'{"message":"no Route matched"}', "application/json"),
    "JSON that is no object": (403, b"[1]", "application/json"),
    "errors that are no text": (403, b'{"errors":[1]}', "application/json"),
    "errors that are no list": (403, b'{"errors":"no"}', "application/json; charset=utf-8"),
    "lists without end": (403, b"[" * 100_000, "text/plain"),
    "nothing": (403, b"", "text/plain"),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_what_stands_between_does_not_speak_for_the_server(
    tenancy: Tenancy, open_kms: Callable[..., TransitKMS], what: str
) -> None:
    """Its page says nothing about the key: cached keys serve on, and the error says where to look."""
    status, body, content_type = BETWEEN[what]
    proxy, clock = Proxy(tenancy.server.port), ManualClock()
    cache = CachePolicy(ttl=300, lease=30, grace=60, refresh_ahead=0)
    kms = open_kms(url=proxy.url)
    with Vault(
        kms=kms, key_store=MemoryKeyStore(), cache=cache, retries=RetryPolicy(deadline=0), clock=clock
    ) as vault:
        sealed = vault.encrypt("x", field="f", tenant="acme")
        with proxy.meeting(Answer(status, body, {"Content-Type": content_type})):
            clock.advance(31)
            assert vault.decrypt(sealed, field="f", tenant="acme") == "x"
            with pytest.raises(KMSUnavailable, match="see what stands between"):
                kms.check()
    proxy.close()


def test_what_the_server_says_counts_whatever_the_content_type_is_called(
    tenancy: Tenancy, open_kms: Callable[..., TransitKMS]
) -> None:
    """A proxy that adds a character set does not make an outage of a denial."""
    proxy = Proxy(tenancy.server.port)
    kms = open_kms(url=proxy.url)
    wrapped = kms.wrap(bytes(32), context={})
    said = Answer(
        403, b'{"errors":["permission denied"]}', {"Content-Type": "application/json; charset=utf-8"}
    )
    with proxy.meeting(said), pytest.raises(KMSDenied, match="permission denied"):
        kms.unwrap(wrapped, context={})
    proxy.close()


def test_a_refusal_names_the_path_that_was_asked(
    tenancy: Tenancy, open_kms: Callable[..., TransitKMS]
) -> None:
    """The same two words are all that the server has for a wrong mount, key, policy and token."""
    key = tenancy.key
    with pytest.raises(KMSDenied) as caught:
        open_kms(key=f"{key}-typo").check()
    assert str(caught.value).endswith(
        f"permission denied (transit/decrypt/{key}-typo); see the policy of the token, and mount, key and "
        "namespace"
    )
    with pytest.raises(KMSDenied, match=rf"\(elsewhere/decrypt/{key}\); see the policy"):
        open_kms(mount="elsewhere").check()
    with pytest.raises(KMSKeyDisabled, match=rf"\(elsewhere/decrypt/{key}\)$"):
        open_kms(mount="elsewhere", token=tenancy.server.root_token).check()
    login = AppRole("role", "secret", f"approle-{key}")
    with pytest.raises(
        KMSDenied, match=rf"\(auth/approle-{key}/login\); see auth_mount, and what the login was given"
    ):
        open_kms(auth=login).check()


def test_half_an_answer_in_the_time_is_no_answer_in_time(
    tenancy: Tenancy, open_kms: Callable[..., TransitKMS]
) -> None:
    """It keeps a connection for as long as none at all, and so ends the waiting of others as well."""
    met = http.ConnectionError(transport.ReadTimeoutError(None, "", ""))  # type: ignore[arg-type]
    assert is_timeout(met)
    assert "no answer in time" in str(translated(met, "https://there"))
    assert not is_timeout(http.ConnectionError("refused"))
    proxy = Proxy(tenancy.server.port)
    kms = open_kms(url=proxy.url)
    kms.check()
    with proxy.meeting(ResetAfter(60)), pytest.raises(KMSUnavailable, match="cannot be reached") as caught:
        kms.check()
    assert "in time" not in str(caught.value)
    proxy.close()

"""What errors of python-pkcs11 mean."""

import pkcs11.exceptions
import pytest
from pkcs11.exceptions import PKCS11Error

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.kms.pkcs11.meaning import meaning


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SessionClosed", KMSUnavailable),
        ("DeviceError", KMSUnavailable),
        ("SessionCount", KMSUnavailable),
        ("UserNotLoggedIn", KMSDenied),
        ("NoSuchKey", KMSKeyDisabled),
        ("KeyHandleInvalid", KMSKeyDisabled),
        ("MechanismInvalid", KMSError),
        ("PKCS11Error", KMSError),
    ],
)
def test_an_error_means_what_an_operator_would_do(name: str, meant: type[KMSError]) -> None:
    """Wait, see to a permission, see to the key, or look closer."""
    told = meaning(getattr(pkcs11.exceptions, name)("as it said"), "vault")
    assert type(told) is meant
    assert str(told) == f"the PKCS#11 token 'vault' answered {name}: as it said"


@pytest.mark.parametrize(
    ("name", "meant", "said"),
    [
        ("NoSuchToken", KMSUnavailable, "no slot has a token of that label; see token_label"),
        ("TokenNotPresent", KMSUnavailable, "the token was removed"),
        ("GeneralError", KMSUnavailable, "see that SOFTHSM2_CONF is set"),
        ("PinIncorrect", KMSDenied, "the PIN is wrong; see pin_env or pin_file"),
        ("PinLocked", KMSDenied, "the security officer sets a new one"),
    ],
)
def test_what_an_operator_can_mend_is_told_with_what_to_do(
    name: str, meant: type[KMSError], said: str
) -> None:
    """With the token's label, and without what only a programmer reads."""
    by_itself = "{'token_label': 'vault'}" if name == "NoSuchToken" else ""
    told = meaning(getattr(pkcs11.exceptions, name)(by_itself), "vault")
    assert type(told) is meant
    assert str(told).startswith(f"the PKCS#11 token 'vault' answered {name}: ")
    assert said in str(told)
    assert "{" not in str(told)


def test_an_error_that_is_not_known_yet_is_still_one_of_the_kms() -> None:
    """Until the table has it."""

    class Newer(PKCS11Error):
        pass

    assert str(meaning(Newer(), "vault")) == "the PKCS#11 token 'vault' answered Newer"

"""What errors of python-pkcs11 mean."""

import pkcs11.exceptions
import pytest
from pkcs11.exceptions import PKCS11Error

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.kms.pkcs11.meaning import meaning


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DeviceRemoved", KMSUnavailable),
        ("TokenNotPresent", KMSUnavailable),
        ("NoSuchToken", KMSUnavailable),
        ("GeneralError", KMSUnavailable),
        ("SessionCount", KMSUnavailable),
        ("PinIncorrect", KMSDenied),
        ("PinLocked", KMSDenied),
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


def test_an_error_that_is_not_known_yet_is_still_one_of_the_kms() -> None:
    """Until the table has it."""

    class Newer(PKCS11Error):
        pass

    assert str(meaning(Newer(), "vault")) == "the PKCS#11 token 'vault' answered Newer"

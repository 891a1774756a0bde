"""Without the vendor's library everything else works, and the error says what to install."""

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(["boto3", "botocore"]))
import fieldvault.kms, fieldvault.keystores
fieldvault.kms.LocalKMS, fieldvault.keystores.SQLKeyStore
try:
    {name}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "extra"),
    [("fieldvault.kms.AWSKMS", "aws"), ("fieldvault.keystores.DynamoDBKeyStore", "dynamodb")],
)
def test_the_extra_is_named_where_it_is_missing(name: str, extra: str) -> None:
    """Importing the package takes none of it."""
    program = _PROGRAM.format(name=name)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"install fieldvault[{extra}]" in done.stdout


def test_an_unknown_name_is_no_backend() -> None:
    """It is an attribute that is not there."""
    import fieldvault.keystores

    with pytest.raises(AttributeError, match="NoSuchStore"):
        _ = fieldvault.keystores.NoSuchStore

"""What the library logs while a command runs is told once, and as what it is."""

import logging

import pytest

from fieldvault.errors import KMSUnavailable
from fieldvault.kms import LocalKMS
from tests.cli.calling import call


@pytest.mark.usefixtures("vault_folder")
def test_a_warning_of_the_library_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr; stdout has the answer alone, and what is no warning is not told."""

    def check(_: LocalKMS) -> str:
        for _twice in range(2):
            logging.getLogger("fieldvault.kms").warning("%s is away\x1b", "there")
        logging.getLogger("fieldvault").info("nothing")
        raise KMSUnavailable("no route")

    monkeypatch.setattr(LocalKMS, "check", check)
    answer = call("doctor", "--json")
    assert answer.document["healthy"] is False
    assert answer.err == "Warning: there is away\\u001b\n"
    assert logging.getLogger("fieldvault").handlers == []

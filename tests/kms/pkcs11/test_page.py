"""The commands of docs/kms/pkcs11.md work as shown, against a SoftHSM of their own."""

from pathlib import Path

import pytest

from tests.docs.page import run_page
from tests.docs.pages import ROOT
from tests.servers.parts import SOFTHSM
from tests.servers.record import PartsRecord
from tests.servers.softhsm import configure

MARK = "<!-- not run: tests/kms/pkcs11/test_page.py runs it against SoftHSM -->\n"


def test_the_page_works(real_parts: PartsRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In programs of their own, since a process reads the configuration of SoftHSM once."""
    real_parts.require(SOFTHSM)
    (tmp_path / "softhsm").mkdir()
    monkeypatch.setenv("SOFTHSM2_CONF", str(configure(tmp_path / "softhsm")))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "kms" / "pkcs11.md").read_text(encoding="utf-8")
    assert text.count(MARK) == 3
    assert run_page(text.replace(MARK, ""), "docs/kms/pkcs11.md", tmp_path) == []

"""docs/outages.md says what the tests hold."""

import re
from collections.abc import Sequence

import pytest

from fieldvault import CachePolicy, RetryPolicy
from fieldvault.aws import clients
from fieldvault.keys import proving
from fieldvault.keystores.dynamodb import table as dynamodb
from fieldvault.keystores.sql import stalls
from tests.docs.pages import ROOT
from tests.outages.matrix import AGAIN, KEY_STORE, KMS, Row, table

PAGE = ROOT / "docs" / "outages.md"


@pytest.mark.parametrize(("mark", "rows"), [("kms", KMS), ("key store", KEY_STORE)])
def test_the_tables_are_those_that_are_played(mark: str, rows: Sequence[Row]) -> None:
    """Row by row and word by word."""
    found = re.search(rf"<!-- {mark} -->\n(.*?)\n<!-- end -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    assert found[1] == table(rows)


def test_the_figures_are_the_defaults() -> None:
    """Those in the text, too."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    cache, retries = CachePolicy(), RetryPolicy()
    assert f"for {cache.lease:.0f} s after the KMS and the key store last answered" in text
    assert f"| after {cache.ttl:.0f} s |" in text
    assert f"| after {cache.ttl + cache.grace:.0f} s |" in text
    assert f"after its last answer, {cache.lease + cache.grace:.0f} s," in text
    assert f"`[retries]`, {retries.deadline:.0f} s;" in text
    assert f"and for {retries.pause:.0f} s calls fail at once" in text
    assert retries.failures == 3
    assert "After three calls in a row" in text
    assert f"asked about it every {proving._PAUSE:.0f} s" in text
    assert f"are {stalls._CONNECT_SECONDS} s to connect" in text
    assert f"{clients._CONNECT_TIMEOUT:.0f} s and {clients._READ_TIMEOUT:.0f} s. Those of `SQL" in text
    assert f"is asked for again for {dynamodb._OUTAGE_SECONDS:.0f} s." in text
    assert AGAIN.startswith(f"{dynamodb._OUTAGE_SECONDS:.0f} s + ")
    assert f"and {stalls.STALL_SECONDS:.0f} s for each answer" in text

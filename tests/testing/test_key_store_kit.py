"""The kit of key stores sees what is broken; what is right passes it elsewhere."""

from typing import Any

import pytest

from fieldvault.keystores import MemoryKeyStore
from tests.testing.broken_accounts import BROKEN_ACCOUNTS
from tests.testing.broken_races import BROKEN_RACES
from tests.testing.broken_stores import BROKEN_STORES
from tests.testing.kit_runs import Outcomes, only, outcomes
from tests.testing.sample_store import SampleStoreConformance

BROKEN = [*BROKEN_STORES, *BROKEN_RACES, *BROKEN_ACCOUNTS]
OF_PROCESSES = {"test_of_many_processes_that_make_a_first_key_at_once_one_wins"}
"""What a store in memory cannot pass."""

TESTS = [
    only(SampleStoreConformance, sorted({name for each in BROKEN for name in each.caught_by} - OF_PROCESSES)),
    *(
        only(
            type(each.__name__, (SampleStoreConformance,), {"store_class": each})
            if issubclass(each, MemoryKeyStore)
            else each,
            each.caught_by,
        )
        for each in BROKEN
    ),
]


@pytest.fixture(scope="module")
def went(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """How the tests of the kit went with each of them."""
    return outcomes(tmp_path_factory.mktemp("kit"), __name__)


def test_a_store_that_is_right_passes_these_tests(went: Outcomes) -> None:
    """It is not the tests that fail."""
    assert {name for name, how in went["TestSampleStoreConformance"].items() if how != {"passed"}} == set()
    assert len(went["TestSampleStoreConformance"]) > 30


@pytest.mark.parametrize("broken", BROKEN, ids=[each.__name__ for each in BROKEN])
def test_what_is_broken_is_seen(went: Outcomes, broken: Any) -> None:
    """By each test that it is named to be seen by."""
    seen = went[f"Test{broken.__name__}"]
    assert {name for name in broken.caught_by if "failed" in seen[name]} == set(broken.caught_by)

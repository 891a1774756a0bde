"""The kit of KMSs passes one that is right, and sees what is broken."""

from typing import Any

import pytest

from fieldvault.testing import KMSConformance
from tests.testing.broken_bindings import BROKEN_BINDINGS
from tests.testing.broken_kms import BROKEN_KMS
from tests.testing.kit_runs import Outcomes, only, outcomes
from tests.testing.sample_kms import SampleConformance, SampleKMS

BROKEN = [*BROKEN_KMS, *BROKEN_BINDINGS]

TESTS = [
    only(SampleConformance, [name for name in dir(KMSConformance) if name.startswith("test_")]),
    *(
        only(
            type(each.__name__, (SampleConformance,), {"kms_class": each})
            if issubclass(each, SampleKMS)
            else each,
            each.caught_by,
        )
        for each in BROKEN
    ),
]


@pytest.fixture(scope="module")
def went(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """How each test of the kit went with each of them."""
    return outcomes(tmp_path_factory.mktemp("kit"), __name__)


def test_a_kms_that_is_right_passes_all_of_it(went: Outcomes) -> None:
    """Nothing is skipped: there is a way to bring everything about."""
    assert {name for name, how in went["TestSampleConformance"].items() if how != {"passed"}} == set()
    assert len(went["TestSampleConformance"]) > 30


@pytest.mark.parametrize("broken", BROKEN, ids=[each.__name__ for each in BROKEN])
def test_what_is_broken_is_seen(went: Outcomes, broken: Any) -> None:
    """By each test that it is named to be seen by."""
    seen = went[f"Test{broken.__name__}"]
    assert {name for name in broken.caught_by if "failed" in seen[name]} == set(broken.caught_by)


def test_every_promise_has_a_kms_that_breaks_it() -> None:
    """A test that no broken KMS fails would say nothing."""
    promises = {name for name in dir(KMSConformance) if name.startswith("test_")}
    assert promises == {name for each in BROKEN for name in each.caught_by}

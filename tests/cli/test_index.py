"""``fieldvault index plan`` advises on lengths."""

import json
from pathlib import Path

import pytest

from tests.cli.calling import call


@pytest.mark.usefixtures("folder")
def test_it_advises_without_a_vault() -> None:
    """A table of lengths, and what to do."""
    answer = call("index", "plan", "--rows", "50000")
    assert (answer.code, answer.err) == (0, "")
    lines = [line.split() for line in answer.out.splitlines()]
    assert lines[0] == ["BITS", "ROWS", "A", "TOKEN", "VERDICT"]
    assert ["7", "391", "finds", "too", "much"] in lines
    assert ["14", "3.1", "fits"] in lines
    assert ["15", "1.5", "proves", "that", "rows", "agree"] in lines
    assert answer.out.splitlines()[-1].startswith("Take 8 to 14 bits.")


@pytest.mark.usefixtures("folder")
def test_existing_indexes_and_few_values_count() -> None:
    """Each index that is there shortens the new one; few values get a column of their own."""
    options = ("index", "plan", "--rows", "1000000", "--index", "4", "--index", "3")
    assert call(*options).out.splitlines()[-1].startswith("Take 3 to 11 bits.")
    answer = call(*options, "--values", "1000")
    assert "VALUES THAT STAND ALONE" in answer.out
    assert "Take 3 to 2" not in answer.out
    assert "No length suits beside the indexes" in answer.out


@pytest.mark.usefixtures("folder")
def test_for_machines_it_is_one_document() -> None:
    """Also where no length suits, which is no error."""
    document = call("index", "plan", "--rows", "10000", "--values", "12", "--json").document
    assert (document["least_bits"], document["most_bits"], document["values"]) == (None, None, 12)
    assert document["lengths"][2]["bits"] == 4
    assert document["lengths"][2]["verdict"] == "names the value"
    assert document["lengths"][2]["coincidences"] == pytest.approx(10_000 / 12)
    assert document["advice"].startswith("No length suits")
    document = call("--json", "index", "plan", "--rows", "50000", "--index", "4").document
    assert (document["least_bits"], document["most_bits"], document["existing_bits"]) == (4, 10, [4])
    assert document["lengths"][0] == {
        "bits": 3,
        "coincidences": 390.625,
        "values_alone": None,
        "verdict": "finds too much",
    }
    assert json.loads(call("index", "plan", "--rows", "4", "--json").out)["least_bits"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--rows"),
        (("--rows", "0"), "'--rows'"),
        (("--rows", "many"), "'--rows'"),
        (("--rows", "10", "--index", "257"), "'--index'"),
        (("--rows", "10", "--values", "0"), "'--values'"),
    ],
)
def test_figures_that_cannot_be_are_not_understood(
    folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    """The error names the option; what it takes is in the help."""
    answer = call("index", "plan", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert list(folder.iterdir()) == []
    assert "at most" in call("index", "plan", "--help").out

"""The benchmarks run, and say of each line what they found; how fast anything is, is no test's business."""

import json
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import lookups
from benchmarks.measure import Sample, interleaved, quiet
from benchmarks.peers import PEERS, Missing, library
from benchmarks.report import Row, as_document

INDEXED = "fieldvault, BlindIndex"

COUNTED = ("bytes", "KMS calls", "key-store statements", "requests")


def test_every_line_has_a_figure_or_says_why_not(rows: list[dict[str, Any]]) -> None:
    """Nothing is left out in silence."""
    assert len({row["section"] for row in rows}) == 16
    assert [row for row in rows if row["figure"] is None and not row["note"]] == []


@pytest.mark.parametrize("peer", PEERS)
def test_each_peer_reads_what_it_wrote_and_is_timed(rows: list[dict[str, Any]], peer: str) -> None:
    """A peer that is there is sealed and opened with; the run itself compares what comes back."""
    own = [row for row in rows if row["what"] == peer and row["unit"] == "× floor"]
    assert len(own) == 2
    if own[0]["figure"] is None:
        pytest.skip(own[0]["note"])
    assert all(row["figure"] > 0 for row in own)


@pytest.mark.parametrize(
    ("section", "variants"),
    [
        ("Page of 10 ORM rows", {"plaintext", "fieldvault, warm keys", "fieldvault, cold keys"}),
        ("Lookup by e-mail among 50 rows", {f"{name}, median" for name in ("plaintext", INDEXED)}),
        ("Lookup by e-mail among 50 rows", {f"{name}, 95th percentile" for name in ("plaintext", INDEXED)}),
        ("Lookup by e-mail among 50 rows", {f"{name}, filling the table" for name in ("plaintext", INDEXED)}),
    ],
    ids=["page", "median", "tail", "filling"],
)
def test_pages_and_lookups_stand_beside_plaintext(
    rows: list[dict[str, Any]], section: str, variants: set[str]
) -> None:
    """Each is timed, and compared what it read with what was written; only what is missing has no figure."""
    timed = {
        row["what"]: row
        for row in rows
        if row["section"].startswith(section) and row["unit"] == "× plaintext" and row["figure"] is not None
    }
    assert variants <= timed.keys()
    assert all(timed[name]["figure"] > 0 and timed[name]["measured"] for name in variants)


@pytest.mark.parametrize("broken", ["DROP INDEX by_email", "UPDATE customers SET id = id + 100"])
def test_a_lookup_that_proves_nothing_is_no_figure(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table read from end to end, or another row than the one that was asked for, ends the run."""
    for arguments in (["fill", str(tmp_path), "50"], ["ask", str(tmp_path), "50", "5"]):
        monkeypatch.setattr(sys, "argv", ["lookups", INDEXED, *arguments])
        lookups.main()
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["took"]) == 5
    with sqlite3.connect(tmp_path / "1.db") as connection:
        connection.execute(broken)
    connection.close()
    with pytest.raises(AssertionError, match=r"the whole table|another row"):
        lookups.main()


def test_what_is_counted_is_within_its_budget(rows: list[dict[str, Any]]) -> None:
    """Counts depend on no machine: calls, statements and overhead hold in a quick run too."""
    counted = [
        row
        for row in rows
        if row["unit"] in COUNTED and row["budget"] is not None and not row["section"].startswith("Memory")
    ]
    assert len(counted) >= 9
    assert [(row["what"], row["figure"]) for row in counted if not row["met"]] == []


def test_candidates_take_turns_and_are_all_called_alike() -> None:
    """Each is warmed up once, then timed for so many rounds of so many calls, and none of them in a block."""
    called: list[str] = []
    samples = interleaved({name: partial(called.append, name) for name in "ab"}, rounds=20, calls=3)
    assert {name: len(sample.rounds) for name, sample in samples.items()} == {"a": 5, "b": 5}
    assert called.count("a") == called.count("b") == 21 * 3
    halves = called[6:66], called[66:]
    assert all({"a", "b"} == set(half) for half in halves)


def test_a_ratio_is_the_median_over_rounds_each_against_its_own_base() -> None:
    """A slow spell of the machine that slows both down together leaves the ratio as it is."""
    floor, candidate = Sample((10.0, 30.0, 10.0)), Sample((20.0, 60.0, 15.0))
    assert candidate.ratio(floor) == 2.0
    assert candidate.quartiles(floor) == (1.75, 2.0)
    assert candidate.best == 15.0


def test_the_quiet_rounds_are_those_in_which_all_candidates_together_took_least() -> None:
    """A round counts by its noise over all candidates, slow and quick alike, and is kept as a whole."""
    slow = [1000.0, 1500.0, 1000.0, 1010.0, *[3000.0] * 8]
    quick = [4.0, 1.0, 1.0, 1.01, *[1.0] * 8]
    kept = quiet({"slow": slow, "quick": quick})
    assert kept == {"slow": Sample((1000.0, 1010.0, 1500.0)), "quick": Sample((1.0, 1.01, 1.0))}


@pytest.mark.parametrize(
    ("figure", "budget", "met"),
    [(1.5, 1.5, True), (1.504, 1.5, True), (1.51, 1.5, False), (None, 1.5, None), (1.5, None, None)],
)
def test_a_budget_is_met_as_exactly_as_it_is_printed(
    figure: float | None, budget: float | None, met: bool | None
) -> None:
    """The verdict never contradicts the two decimals beside it, and there is none without a figure."""
    row = Row("section", "what", figure, "× floor", budget)
    assert row.met is met
    assert json.loads(as_document([row], {}))["rows"][0]["met"] is met


def test_a_peer_that_is_not_installed_is_named() -> None:
    """The report can then say which package to install."""
    with pytest.raises(Missing, match="no_such_peer"):
        library("no_such_peer.inside")

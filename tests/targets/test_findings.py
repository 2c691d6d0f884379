"""The page of findings says what was measured."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_counts_the_judgements_of_correct_code():
    measured = json.loads((ROOT / "benchmarks/results/acceptance.json").read_text())
    said = [sum(row["verdicts"].values()) for row in measured["correct"]]
    page = (ROOT / "docs/findings.md").read_text()
    assert all(set(row["verdicts"]) <= {"pass", "inconclusive"} and row["seeds"] == 200 for row in measured["correct"])
    assert f"0 fails in {sum(said):,} judgements" in page
    assert len(said) == 7
    caught = [row["caught"] == row["seeds"] == 10 for row in measured["known mistakes"]]
    assert all(caught)
    assert f"{len(caught)} known mistakes: each caught in 10 of 10 seeds" in page

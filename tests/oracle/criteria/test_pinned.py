"""A change of a criterion is seen by whoever makes it: see `pinned`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from efcp_ref.contract import NAMES
from tests.oracle.criteria import pinned

KEPT = json.loads(pinned.PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("operation", NAMES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_criterion_says_what_it_said(operation: str) -> None:
    """Verdict, paper line, ratio and bound of every kept result, the numbers to 1e-4."""
    now = dict(pinned.judgements(operation))
    apart = {name: (was, now[name]) for name, was in KEPT[operation].items() if not pinned.alike(now[name], was)}
    assert not apart, "meant? then write the file anew: python tests/oracle/criteria/pinned.py"


def test_most_of_the_corpus_is_kept_and_all_verdicts_are_in_it() -> None:
    """At least half of what is judged does not depend on a library's rounding."""
    for operation in NAMES:
        lines = list(KEPT[operation].values())
        assert len(lines) >= 40
        for verdict in ("pass", "fail"):
            assert sum(f" {verdict} " in line for line in lines) >= 10


def test_numbers_are_compared_as_numbers_and_words_as_words() -> None:
    """A share of 1e-4 more is the same, 1 % more is not; nor is another verdict, line or reason."""
    line = "S T2 W:5 pass 0.41 1e-7 ; u T2 W:4 inconclusive 0 0 vacuous"
    assert pinned.alike(line, line.replace("0.41", "0.41001"))
    assert not pinned.alike(line, line.replace("0.41", "0.4141"))
    assert not pinned.alike(line, line.replace("1e-7", "2e-7"))
    assert not pinned.alike(line, line.replace("W:4", "W:3"))
    assert not pinned.alike(line, line.replace("pass", "fail"))
    assert not pinned.alike(line, line.replace(" vacuous", ""))
    assert pinned.alike("u T2 W:4 fail inf 1", "u T2 W:4 fail inf 1")
    assert not pinned.alike("u T2 W:4 fail inf 1", "u T2 W:4 fail 3 1")


def test_what_is_moved_is_moved_by_its_share() -> None:
    """Between half of it and all; words, whole numbers and earlier states stay."""
    rng, x = np.random.default_rng(0), np.arange(1.0, 9.0)
    moved = pinned._moved({"u": x, "states": [{"xi": x, "t": 1}, {"xi": x, "t": 2}]}, 1e-3, rng)
    for part in (moved["u"], moved["states"][1]["xi"]):
        assert ((np.abs(part / x - 1) > 4.99e-4) & (np.abs(part / x - 1) < 1.001e-3)).all()
    assert moved["states"][0]["xi"] is x
    assert [state["t"] for state in moved["states"]] == [1, 2]

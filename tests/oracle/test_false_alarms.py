"""Correct code is never called wrong: the campaign at a reduced size, its record, and what it draws."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efcp_ref.contract import NAMES, OPERATIONS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _module(name: str) -> Any:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


ways = _module("ways")
false_alarms = _module("false_alarms")


def test_the_record_counts_every_criterion_and_tells_every_false_alarm() -> None:
    """Every criterion was judged 100,000 times; nothing failed; the limit is that of the number reached."""
    told = json.loads((BENCHMARKS / "results" / "false_alarms.json").read_text())
    assert set(told["criteria"]) == set(NAMES)
    assert told["false alarms"] == 0
    assert told["judgements"] == sum(row["decided"] for row in told["criteria"].values())
    for row in told["criteria"].values():
        assert row["decided"] >= 100_000
        assert not row["alarms"]
        assert row["upper limit, 95 %"] == pytest.approx(3 / row["decided"], rel=0.01)  # the rule of three
        assert row["inconclusive"] == sum(row["reasons"].values())
        assert row["largest ratio"] <= 1


@pytest.mark.parametrize("operation", NAMES)
def test_fresh_correct_results_raise_no_alarm(operation: str) -> None:
    """A few cases of every criterion that the campaign has not seen."""
    row = false_alarms.empty()
    first = 10_000_000 if operation in OPERATIONS else 1_000_000
    for n in range(first, first + (8 if operation in OPERATIONS else 2)):
        false_alarms.judge(operation, n, row)
    assert row["alarms"] == []
    assert row["decided"] > row["inconclusive"]


@pytest.mark.parametrize(
    "alarm", json.loads((BENCHMARKS / "results" / "false_alarms.json").read_text())["repaired"], ids=lambda a: a["case"]
)
def test_what_was_once_a_false_alarm_stays_repaired(alarm: dict[str, Any]) -> None:
    """The case of the record, judged with the same draws again."""
    operation, seed, index, _ = alarm["case"].split(":")
    walked, row = false_alarms.indices(operation), false_alarms.empty()
    false_alarms.judge(operation, (int(seed) - false_alarms.FIRST_SEED) * len(walked) + walked.index(int(index)), row)
    assert row["decided"] > 0
    assert row["alarms"] == []
    assert row["inconclusive"] or set(alarm["ways"]) <= set(row["ways"])


def test_a_wrong_implementation_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is really judged: a sum one term short is counted, and can be found again."""
    monkeypatch.setattr(ways.Implementation, "sp", lambda self, i, v, g, b, r: self.add(v[:, 1:], g[i][:, 1:]))
    row = false_alarms.empty()
    for n in range(4):
        false_alarms.judge("sp", n, row)
    assert len(row["alarms"]) > 6
    assert row["alarms"][0]["case"].startswith("sp:1000000:")


def test_the_campaign_goes_on_where_its_file_stops(tmp_path: Path) -> None:
    """Two runs give the counts of one."""
    end, names = time.monotonic() + 60, ("top_k", "lcg")
    twice: dict[str, Any] = {}
    false_alarms.campaign(100, end, twice, names=names)
    false_alarms.written(tmp_path / "a.json", twice, {})
    again = json.loads((tmp_path / "a.json").read_text())["criteria"]
    false_alarms.campaign(300, end, again, names=names)
    once: dict[str, Any] = {}
    false_alarms.campaign(300, end, once, names=names)
    for name in names:
        for key in ("cases", "decided", "inconclusive", "ways", "largest ratio"):
            assert again[name][key] == once[name][key]
    assert not list(tmp_path.glob("*.part"))


def test_the_limit_is_that_of_clopper_and_pearson() -> None:
    """With none wrong it solves (1 - p)^N = 0.05; with all wrong it is 1."""
    assert (1 - false_alarms.limit(0, 1000)) ** 1000 == pytest.approx(0.05)
    p = false_alarms.limit(1, 200)
    assert (1 - p) ** 200 + 200 * p * (1 - p) ** 199 == pytest.approx(0.05)
    assert false_alarms.limit(5, 5) == 1


# ------------------------------------------------------------------ the implementations are what they are called


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*ways.SUMS, "permuted"])
def test_every_order_adds_the_same_numbers(name: str, dtype: type) -> None:
    """To rounding, of every length, broadcast as matrix products need it."""
    add, rng = ways.SUMS.get(name) or ways.permuted(3), np.random.default_rng(0)
    for n in (0, 1, 2, 7, 8, 33, 70):
        a, b = rng.standard_normal((4, 1, n)).astype(dtype), rng.standard_normal((1, 3, n)).astype(dtype)
        got, exact = add(a, b), (a.astype(np.float64) * b).sum(-1)
        assert got.shape == (4, 3)
        assert got.dtype == dtype
        assert np.allclose(got, exact, rtol=0, atol=200 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fused_multiply_add_rounds_once(dtype: type) -> None:
    """Against fractions, rounded once; on numbers whose product and sum lie close to a tie."""
    rng = np.random.default_rng(1)
    bits = 24 if dtype is np.float32 else 53
    a, b, c = (rng.standard_normal(400).astype(dtype) for _ in range(3))
    c[::2] = -(a * b)[::2]  # what is left is the rounding error of the product
    c[1::4] = np.ldexp(c[1::4], bits)
    got = ways.fused(np.stack([c, a], -1), np.stack([np.ones_like(c), b], -1))
    triples = np.stack([a, b, c], -1).astype(np.float64).tolist()
    want = [_rounded(Fraction(x) * Fraction(y) + Fraction(z), bits) for x, y, z in triples]
    assert [float(x) for x in got] == want


def _rounded(value: Fraction, bits: int) -> float:
    """Round to ``bits`` binary digits, ties to even."""
    if not value:
        return 0.0
    shift = Fraction(2) ** (bits - 1 - (abs(value).numerator.bit_length() - value.denominator.bit_length()))
    while abs(value) * shift >= 2**bits:
        shift /= 2
    while abs(value) * shift < 2 ** (bits - 1):
        shift *= 2
    return float(Fraction(round(value * shift)) / shift)


@pytest.mark.parametrize("name", list(ways.BASES))
def test_every_basis_is_orthonormal_and_spans(name: str) -> None:
    """Also where columns are zero, equal or tiny, MGS apart where they are equal."""
    rng = np.random.default_rng(2)
    A = rng.standard_normal((9, 4))
    for B in (A, A * [1, 0, 1, 0], A * 1e-300, np.zeros((5, 2)), *([A[:, [0, 0, 1, 1]]] if name != "mgs" else [])):
        Q = ways.BASES[name](B)
        assert np.allclose(Q.T @ Q, np.eye(B.shape[1]), atol=1e-12)
        assert np.allclose(Q @ (Q.T @ B), B, rtol=0, atol=1e-12 * np.abs(B).max(initial=1e-300))


def test_all_ways_are_drawn() -> None:
    """Every order, solver, driver, basis and storage comes up, declared and undeclared."""
    rng = np.random.default_rng(4)
    names = ("sparse_mfac", "low_rank_mfac", "sparse_ggt")
    drawn = [ways.draw(rng, name, "float32") for _ in range(60) for name in names]
    labels = {label for way in drawn for label in way.labels}
    assert {f"sum: {n}" for n in (*ways.SUMS, "permuted")} | {f"eigh: {n}" for n in ways.DRIVERS} <= labels
    assert {f"solver: {n}" for n in ways.SOLVERS} | {f"basis: {n}" for n in ways.BASES} <= labels
    assert {"float32", "float32, bfloat16 rows"} <= labels
    assert {way.declared.solver for way in drawn} == {None, "factorisation"}

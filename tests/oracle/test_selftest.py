"""The oracle, tested on itself: known mistakes are caught and named; the recorded figures are held to their floors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from efcp_ref.cli import main
from efcp_ref.oracle import selftest
from efcp_ref.oracle.diagnose import EQUIVALENT, explain, reach, same
from efcp_ref.oracle.mutants import MUTANTS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "selftest.json"
CHEAP = [m for m in MUTANTS if not hasattr(m.function, "step")]  # no optimizer


def recorded() -> dict:
    """The full run: all mistakes, standard cases, twenty seeds."""
    return json.loads(RESULTS.read_text())


def test_the_recorded_run_is_whole_and_above_its_floors() -> None:
    """97 % killed, every survivor with a reason, every mistake named in 80 % of its runs over twenty seeds."""
    told = recorded()
    assert {(k["operation"], k["mistake"]) for k in told["matrix"]} == {(m.operation, m.name) for m in MUTANTS}
    assert told["mistakes"] == len(MUTANTS)
    assert told["killed"] >= selftest.KILLED * told["mistakes"]
    assert all(told["survivors"].values())
    assert (told["cases"], told["seeds"]) == (40, 20)
    assert told["named"] == told["asked"] == told["killed"]
    for row in told["matrix"]:
        assert row["named"] >= selftest.NAMED * row["runs"]
        assert row["runs"] >= 20, row["mistake"]
        assert row["caught"] > 0 or (row["operation"], row["mistake"]) in selftest.SURVIVORS


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("part", range(4))
def test_a_seed_of_its_own_confirms_the_record(part: int) -> None:
    """The same at a reduced size: a quarter of the mistakes in operations, eight cases, another seed."""
    known = CHEAP[part::4]
    found = list(selftest.rows(known, cases=8, seed=77, seeds=1))
    told = selftest.summary(found)
    survivors = {k.mistake for k in found if not k.killed}
    assert told["killed"] >= 0.9 * len(known), survivors
    assert told["runs named"] >= selftest.NAMED * told["runs"]


def test_the_figures_add_up() -> None:
    """A survivor without a reason, or one that is not named, fails the self-test."""
    good = selftest.kill(CHEAP[0], cases=2)
    asked = replace(good, runs=10, named=8, first=8)
    assert selftest.passed([asked])
    assert not selftest.passed([replace(asked, named=7)])
    assert not selftest.passed([*[asked] * 99, replace(asked, caught=0)])
    told = selftest.summary([asked, replace(asked, named=7, missed=("a case",))])
    assert (told["killed"], told["asked"], told["named"], told["runs named"], told["runs"]) == (2, 2, 1, 15, 20)
    assert list(told["missed"].values()) == [["a case"]]
    assert told["killed by tier"]["T1"] == 2


def test_the_command_prints_a_table_and_json() -> None:
    """Exit code 0 where everything is caught and named."""
    shown = CliRunner().invoke(main, ["selftest", "-o", "top_k", "--cases", "4"])
    assert shown.exit_code == 0, shown.output
    assert "5 of 5 known mistakes caught; 5 of 5 named" in shown.output
    told = json.loads(CliRunner().invoke(main, ["selftest", "-o", "top_k", "--cases", "4", "--json"]).output)
    assert (told["mistakes"], told["killed"], told["named"], told["cases"], told["seed"]) == (5, 5, 5, 4, 0)
    assert all(row["cases"] == 8 for row in told["matrix"])


def test_too_few_cases_are_said_to_be_too_few() -> None:
    """A mistake that no case has shown survives, without a reason: exit code 1."""
    shown = CliRunner().invoke(main, ["selftest", "-o", "lcg", "--cases", "1"])
    assert shown.exit_code == 1
    assert "survives: no reason is stated" in shown.output


def test_an_unknown_operation_is_wrong_usage() -> None:
    """With the name that was meant."""
    shown = CliRunner().invoke(main, ["selftest", "-o", "spp"])
    assert shown.exit_code == 2
    assert "sp" in shown.output


# ------------------------------------------------------------------ equivalents, order


def test_equivalent_mistakes_give_the_same_numbers() -> None:
    """On every case, in every output that both show: that is what being equivalent means."""
    from efcp_ref.oracle.cases import generate
    from efcp_ref.oracle.diagnose import NOISE, _comparable, _result, _same

    for group in EQUIVALENT:
        first, *others = [m for m in MUTANTS if m.name in group]
        assert len(others) == len(group) - 1
        for other, index in ((other, index) for other in others for index in range(12)):
            case = generate(first.operation, 5, index)
            a, b = _result(first.function, case), _result(other.function, case)
            assert a is not None
            assert b is not None
            left, right, _ = _comparable(case, a, b, b)
            assert _same(left, right, NOISE[1])
    assert not same("lam_for_m_lam", "c_not_divided")


def test_the_mistake_that_shows_what_the_target_shows_comes_first() -> None:
    """Two that agree: only the direction is returned, so the one that returns only the direction is meant."""
    from efcp_ref.oracle.cases import generate

    known = {m.name: m for m in MUTANTS if m.operation == "mfac_direction"}
    case = generate("mfac_direction", 0, 2)
    bare = selftest.Local({"mfac_direction": known["bare_lam_for_m_lam"].function}).run(case).results
    full = selftest.Local({"mfac_direction": known["lam_for_m_lam"].function}).run(case).results
    assert explain(case, bare)[0].name == "bare_lam_for_m_lam"
    assert explain(case, full)[0].name == "lam_for_m_lam"


def test_a_mistake_that_shows_everywhere_reaches_further() -> None:
    """Adding for subtracting shows on every window; a forgotten last slice on fewer cases."""
    known = {m.name: m for m in MUTANTS if m.operation == "lcg"}
    assert 0 < reach(known["last_slice_forgotten"]) <= reach(known["first_slice_only"]) <= 12


def test_a_departure_of_float64_is_seen_below_the_rounding_of_float32() -> None:
    """eps inside the root changes 1e-6 of a large G; in float64 that is a departure like any other."""
    known = {m.name: m for m in MUTANTS if m.operation == "adagrad_step"}
    found = selftest.first_caught(known["eps_inside_root"], 0, "float64")
    assert found is not None
    assert [m.name for m in explain(found[0], found[1].results)][:1] == ["eps_inside_root"]

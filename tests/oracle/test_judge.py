"""Verdicts of operations, exit codes, and the text of a failure."""

import json

import numpy as np
import pytest

from efcp_ref.oracle import assert_conforms, judge, terminal
from efcp_ref.oracle.core import Case, CaseVerdict, Check, Declared
from efcp_ref.oracle.judge import OperationReport, Report, check_target
from efcp_ref.oracle.targets import Local, Outcome, UsageError


def sp(indices, values, g):
    return (values * g[indices]).sum(1)


def report(*verdicts, **more):
    return Report("t", tuple(OperationReport(f"o{i}", v) for i, v in enumerate(verdicts)), **more)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (("pass", "skip"), 0), (("pass", "inconclusive"), 0), (("inconclusive",), 3), (("skip",), 3), ((), 3),
        (("pass", "error"), 3), (("error", "fail"), 1), (("pass", "fail", "inconclusive"), 1),
    ],
)  # fmt: skip
def test_exit_codes(verdicts, code):
    assert report(*verdicts).exit_code == code


def test_interrupted_and_broken_have_their_codes():
    assert report("fail", interrupted=True).exit_code == 130
    assert report(broken="no").exit_code == 3


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (["pass", "fail", "error"], "fail"), (["pass", "error", "inconclusive"], "error"),
        (["inconclusive", "pass"], "pass"), (["inconclusive"], "inconclusive"), ([], "skip"),
    ],
)  # fmt: skip
def test_an_operation_is_as_bad_as_its_worst_case(said, verdict):
    tally = judge._Tally("sp")
    for index, v in enumerate(said):
        check = Check("omega", "T2", "2:11", "rule", verdict=v if v != "error" else "pass", reason="why")
        tally.add(
            CaseVerdict(Case("sp", "generic", "", 0, index, {}), v, (check,), "why"),
            Outcome(error="raised" if v == "error" else ""),
        )
    assert tally.report(()).verdict == verdict


def test_every_case_is_judged_in_both_precisions_unless_restricted():
    one = Local({"sp": sp}, Declared(dtypes=("float32",)))
    assert judge.judge(Local({"sp": sp}), cases=5)["sp"].judged == 10
    assert judge.judge(one, cases=5)["sp"].judged == 5
    assert judge.judge(one, cases=5, dtype="float64")["sp"].verdict == "skip"
    assert judge.judge(one, cases=5, only=3)["sp"].judged == 1


def test_float32_sums_stored_as_float64_are_judged_as_float32():
    def stored(indices, values, g):
        return np.array([np.add.reduce(v * g[i]) for i, v in zip(indices, values, strict=True)], np.float64)

    assert judge.judge(Local({"sp": stored}), cases=20)["sp"].verdict == "pass"


def test_only_declared_policies_see_nan():
    cases = [Case("top_k", "adversarial", "", 0, 0, {"a": np.array([np.nan])}, frozenset({"nan"}))]
    assert not list(judge.both(cases, Declared()))
    assert len(list(judge.both(cases, Declared(nan="largest")))) == 2


def test_an_interrupt_leaves_a_partial_report():
    calls = []

    def stops(indices, values, g):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sp(indices, values, g)

    partial = judge.judge(Local({"sp": stops, "lcg": sp}), cases=5)
    assert partial.exit_code == 130
    assert partial["sp"].passed == 2


def test_a_broken_factorisation_is_no_crash_where_rounding_excuses_it():
    def breaks(G, lam, x):
        raise np.linalg.LinAlgError("not positive definite")

    G = np.array([[1.0, 1.0], [1.0, 1.0]])
    for lam, verdict in ((1e-9, "inconclusive"), (1.0, "error")):
        case = Case("mfac_direction", "generic", "", 0, 0, {"G": G, "lam": lam, "x": np.ones(2)}).with_dtype("float32")
        got, _ = judge.judge_case(Local({"mfac_direction": breaks}), case)
        assert got.verdict == verdict


def test_assert_conforms_is_silent_or_says_everything():
    assert_conforms(sp, "sp", cases=5)
    with pytest.raises(AssertionError) as failure:
        assert_conforms(lambda indices, values, g: sp(indices, values, g) * 2, "sp", cases=3)
    for words in (
        "sp: fails at omega",
        "Algorithm 2, line 11",
        "ratio",
        "expected",
        "0x1.",
        "smallest case",
        "reproduce",
    ):
        assert words in str(failure.value)
    with pytest.raises(UsageError, match="did you mean sp"):
        assert_conforms(sp, "spp")


def test_a_printed_case_can_be_pasted():
    case = Case("lcg", "generic", "", 0, 0, {
        "indices": np.array([[0, 3]], np.int32), "values": np.float32([[0.1, -2.0]]), "c": np.float32([1 / 3]),
        "d": 500,
        "g": np.eye(1, 500, 7)[0], "block_size": 500, "density": 0.004,
    })  # fmt: skip
    found: dict = {"np": np, "lcg": lambda *a: a}
    exec("\n".join(terminal.literals(case)), found)
    for name, value in case.arguments.items():
        assert np.array_equal(found[name], value)
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype


def test_json_is_json_even_with_infinities():
    bad = judge.judge(Local({"sp": lambda *a: np.full(len(a[0]), np.nan)}), cases=2, shrink_seconds=0)
    value = json.loads(json.dumps(terminal.as_json(bad), allow_nan=False))
    assert value["exit_code"] == 1
    (entry,) = [o for o in value["operations"] if o["operation"] == "sp"]
    assert entry["failures"][0]["check"]["ratio"] == "inf"
    assert "--operation sp" in entry["failures"][0]["command"]


def test_the_reference_conforms():
    assert check_target("efcp_ref", ["sp", "lcg", "top_k", "error_feedback"], cases=6).exit_code == 0

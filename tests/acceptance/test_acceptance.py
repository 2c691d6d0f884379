"""The oracle on code that it has never seen: correct implementations pass, known mistakes are caught and named."""

from __future__ import annotations

import ast
import itertools
import sys
from pathlib import Path

import pytest

from efcp_ref.contract import NAMES
from efcp_ref.oracle.cases import FIXED, generate
from efcp_ref.oracle.core import FAIL, Declared
from efcp_ref.oracle.judge import Report, both, check_target, judge_case
from efcp_ref.oracle.mutants import FAMILIES, MUTANTS, Mutant
from efcp_ref.oracle.targets import Local

HERE = Path(__file__).parent
CORRECT = (
    "one_by_one", "in_reverse", "by_tree", "by_lanes", "shuffled", "with_ldl", "with_recursion", "directions_only",
    "without_state", "float32_only", "bfloat16_rows",
)  # fmt: skip
SEEDS = 10


def told(report: Report) -> str:
    """Say what failed, for the assertion."""
    failures = [f for o in report.operations for f in o.failures]
    verdicts = [f.verdict for f in failures]
    return "\n".join(f"{v.case.id} {v.case.label}: {v.reason} {v.first}" for v in verdicts)


@pytest.mark.parametrize("file", ["correct.py", "numpy_only.py", "misbehaving.py"])
def test_the_files_import_nothing_of_the_project(file: str) -> None:
    """They stand for a user's code."""
    tree = ast.parse((HERE / file).read_text())
    roots = {n.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    roots |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots <= {"numpy", "scipy", "ml_dtypes", *sys.stdlib_module_names}


# ------------------------------------------------------------------ correct


@pytest.mark.parametrize(("seed", "variant"), list(enumerate(CORRECT)))
def test_correct_implementations_never_fail(seed: int, variant: str) -> None:
    """No fail and no error; every operation is offered and decided."""
    report = check_target(f"{HERE}/correct.py:{variant}", cases=5, seed=seed, shrink_seconds=0)
    assert {o.verdict for o in report.operations} == {"pass"}, told(report)
    assert [o.operation for o in report.operations] == list(NAMES)


def test_numpy_only_undeclared_code_never_fails() -> None:
    """A short file with no declaration passes, and what it does not offer is skipped."""
    report = check_target(f"{HERE}/numpy_only.py", cases=12, seed=5, shrink_seconds=0)
    assert {o.verdict for o in report.operations} == {"pass", "skip"}, told(report)
    assert report.exit_code == 0
    assert report["sparse_mfac"].verdict == "skip"


# ------------------------------------------------------------------ wrong


def first_failure(mutant: Mutant, seed: int) -> tuple[int, str]:
    """Judge a mistake until a case fails; return the case's index and the stage that is blamed."""
    target = Local({mutant.operation: mutant.function})
    for index in range(len(FIXED[mutant.operation])):
        for case in both([generate(mutant.operation, seed, index)], Declared()):
            verdict, _ = judge_case(target, case)
            if verdict.verdict == FAIL and verdict.first:
                return index, verdict.first.stage
    return -1, "not caught"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.operation}-{m.name}")
def test_known_mistakes_are_caught_in_every_seed_at_the_right_stage(mutant: Mutant) -> None:
    """Ten of ten seeds, within the default 40 cases."""
    found = [first_failure(mutant, seed) for seed in range(SEEDS)]
    assert {stage for _, stage in found} <= set(mutant.stages)
    assert max(index for index, _ in found) < 40


def test_known_mistakes_are_targets_by_name() -> None:
    """Every mistake is found under ``module:name``, offers its operation and nothing else."""
    for family in FAMILIES:
        for mutant in family.MUTANTS:
            assert getattr(family, mutant.name) is mutant
            assert [name for name in NAMES if hasattr(mutant, name)] == [mutant.operation]
    assert len({(m.operation, m.name) for m in MUTANTS}) == len(MUTANTS)
    assert {m.operation for m in MUTANTS} == set(NAMES)


def test_a_known_mistake_is_judged_through_the_front_door() -> None:
    """`efcp_ref.oracle.mutants.FILE:NAME` is a target like any other."""
    report = check_target("efcp_ref.oracle.mutants.mfac:lam_for_m_lam", cases=3, shrink_seconds=0)
    assert report["mfac_direction"].verdict == "fail"
    first = report["mfac_direction"].failures[0].verdict.first
    assert first is not None
    assert (first.stage, first.line) == ("c", "W:3")
    assert report.exit_code == 1


VERDICTS = {
    "hangs": ("error", "timeout"), "spins": ("error", "timeout"), "aborts": ("error", "died"),
    "exits": ("error", "exit"), "leaves": ("error", "died"), "raises": ("error", "raised"),
    "eats": ("error", "memory"), "prints": ("pass", ""), "writes_c": ("fail", "inputs"),
    "wrong_shape": ("fail", "omega"), "too_short": ("fail", "omega"), "as_text": ("error", "result shape"),
    "as_none": ("error", "result shape"), "as_objects": ("error", "result shape"), "as_complex": ("fail", "omega"),
    "as_integers": ("fail", "omega"), "zeros": ("fail", "omega"), "stale_buffer": ("fail", "omega"),
    "nans": ("fail", "omega"), "half": ("fail", "omega"),
}  # fmt: skip


@pytest.mark.parametrize("name", VERDICTS)
def test_misbehaving_targets_get_the_right_verdict_and_the_others_are_still_judged(name: str) -> None:
    """The bad operation is named with what it did; the good one beside it passes."""
    target = f"{HERE}/misbehaving.py:lcg_{name}"
    report = check_target(target, ["sp", "lcg"], cases=8, timeout=1.0, memory=4.0, shrink_seconds=0)
    verdict, what = VERDICTS[name]
    assert report["sp"].verdict == "pass", told(report)
    assert report["lcg"].verdict == verdict, told(report)
    if verdict == "error":
        assert set(report["lcg"].errors) == {what}
    if verdict == "fail":
        assert {f.verdict.first.stage for f in report["lcg"].failures if f.verdict.first} == {what}


def test_rows_sorted_in_the_callers_memory_are_found() -> None:
    """SciPy's CSR shares memory with its arguments: sorting the matrix reorders the caller's values."""
    report = check_target(f"{HERE}/misbehaving.py:sp_sorts", ["sp"], cases=20, seed=1, shrink_seconds=0)
    firsts = [f.verdict.first for f in report["sp"].failures]
    assert [(c.stage, c.reason) for c in firsts if c] == [("inputs", "indices was modified in place")] or [
        (c.stage, c.reason) for c in firsts if c
    ] == [("inputs", "values was modified in place")]


def test_seeds_differ() -> None:
    """The seeds of the campaign are no ten copies of one case."""
    cases = [generate("sp", seed, index) for seed, index in itertools.product(range(3), (2, 8))]
    assert len({case.arguments["values"].tobytes() for case in cases}) == len(cases)

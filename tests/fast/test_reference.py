"""The twin and the reference give the same answers, to the oracle's criteria, at 1,000 random sizes and more."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

import efcp_ref
from efcp_ref import fast
from efcp_ref.contract import NAMES
from efcp_ref.oracle.cases import FIXED, generate
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Case, Declared
from efcp_ref.oracle.judge import judge_case
from efcp_ref.oracle.targets import Local

SIZES = dict.fromkeys(NAMES, 46) | {"low_rank_mfac": 16}  # 1,028 random cases; low rank is slow to judge
SEED = 6


HOUSEHOLDER = Declared(orthogonalisation="householder")


def random_cases(operation):
    """The cases after the fixed ones, whose sizes are drawn anew for each; every other one in float32.

    Every fifth trajectory is whole; the others end when the window is full and two of its rows have been replaced.
    """
    after = (generate(operation, SEED, index) for index in count(len(FIXED[operation])))
    finite = (case for case in after if "nan" not in case.flags)  # no policy of NaN is declared: they are refused
    for n, case in zip(range(SIZES[operation]), finite, strict=False):
        case = case if n % 5 == 0 else shortened(case)
        yield case.with_dtype("float32") if n % 2 else case


def shortened(case):
    """The case with the first m + 2 of its steps; 4 where there is no window."""
    if "gradients" not in case.arguments:
        return case
    steps = case.arguments.get("m", 2) + 2
    return replace(case, arguments={**case.arguments, "gradients": case.arguments["gradients"][:steps]})


def test_there_are_a_thousand():
    assert sum(SIZES.values()) >= 1000


def verdict_on(module, case):
    return judge_case(Local({case.operation: getattr(module, case.operation)}, HOUSEHOLDER), case)[0]


@pytest.mark.parametrize("operation", NAMES)
def test_the_same_verdicts_at_random_sizes(operation, request):
    """|fast - exact| and |reference - exact| are inside the bound of the oracle; half of the cases in tiny slices."""
    verdicts = []
    for n, case in enumerate(random_cases(operation)):
        if n == SIZES[operation] // 2:
            request.getfixturevalue("tiny")
        ours, theirs = verdict_on(fast, case), verdict_on(efcp_ref, case)
        assert ours.verdict in (PASS, INCONCLUSIVE), (case.id, ours.first, ours.reason)
        assert theirs.verdict in (PASS, INCONCLUSIVE), (case.id, theirs.first, theirs.reason)
        verdicts.append(ours.verdict)
    assert verdicts.count(PASS) >= 0.8 * SIZES[operation]


@pytest.mark.parametrize("operation", ["sp", "lcg", "block_top_k"])
def test_the_comparison_can_fail(operation):
    """The same judge refuses the twin's own answer with its last entry changed."""

    def spoilt(*arguments, **named):
        result = getattr(fast, operation)(*arguments, **named)
        wrong = result if operation != "block_top_k" else result.values
        wrong[-1] += 1 + abs(wrong[-1])
        return result

    verdict, _ = judge_case(Local({operation: spoilt}), generate(operation, SEED, 0))
    assert verdict.verdict == FAIL


def large_rows(rng, m, d, block_size, density):
    kept = [fast.block_top_k(rng.standard_normal(d).astype(np.float32), block_size, density) for _ in range(m)]
    return np.stack([k.indices for k in kept]), np.stack([k.values for k in kept])


@pytest.mark.parametrize(
    ("d", "block_size", "density"), [(200_000, 41_728, 0.01), (150_000, 1_000, 0.02), (140_000, 70_000, 0.01)]
)
def test_real_slices(d, block_size, density):
    """At sizes with several real slices (one block, many blocks, int32) the oracle passes SP, LCG and the direction."""
    rng = np.random.default_rng(d)
    indices, values = large_rows(rng, 6, d, block_size, density)
    x, c = rng.standard_normal(d).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    rest = {"block_size": block_size, "density": density}
    for operation, arguments in {
        "sp": {"indices": indices, "values": values, "g": x, **rest},
        "lcg": {"indices": indices, "values": values, "c": c, "d": d, **rest},
        "sparse_mfac_direction": {"indices": indices, "values": values, "d": d, "lam": 0.5, "x": x, **rest},
        "error_feedback": {"xi": x, "g": rng.standard_normal(d).astype(np.float32), **rest},
    }.items():
        case = Case(operation, "generic", "real slices", 0, 0, arguments, dtype="float32")
        verdict = verdict_on(fast, case)
        assert verdict.verdict == PASS, (operation, verdict.first, verdict.reason)


REAL = ("lam", "eps", "cutoff", "eta", "gamma", "ridge", "density")


@pytest.mark.parametrize("floor", [efcp_ref, fast], ids=["paper", "fast"])
@pytest.mark.parametrize("wrong", [10**400, np.ma.masked], ids=["huge", "masked"])
def test_a_real_parameter_that_is_no_float64_is_named(floor, wrong):
    tried = set()
    for operation in NAMES:
        arguments = {n: v for n, v in generate(operation, 0, 0).arguments.items() if n != "gradients"}
        for name in [n for n in arguments if n in REAL]:
            with pytest.raises(ValueError, match=f"^{name} = .* must be "):
                getattr(floor, operation)(**arguments | {name: wrong})
            tried.add(name)
    assert {"lam", "eps", "cutoff", "eta", "gamma", "density"} <= tried

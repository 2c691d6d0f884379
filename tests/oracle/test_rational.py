"""The second oracle: exact where it says so, and in agreement with the reference by two measures."""

from fractions import Fraction

import numpy as np
import pytest

import efcp_ref
from efcp_ref.contract import NAMES, OPERATIONS
from efcp_ref.oracle import rational, vector_cases, vectors
from efcp_ref.oracle.core import Case
from efcp_ref.oracle.judge import judge_case
from efcp_ref.oracle.targets import Local


def drawn(operation, seed, number):
    recipe = vector_cases.recipes(operation)[number]
    return Case(operation, recipe.family, recipe.label, seed, number, vector_cases.make(operation, seed, number))


def small(operation):
    """Numbers of the recipes that are not made of recorded gradients."""
    return [n for n, r in enumerate(vector_cases.recipes(operation)) if r.family != "real"]


@pytest.mark.parametrize("operation", NAMES)
def test_both_oracles_pass_the_criteria_on_the_same_random_cases(operation):
    """The full number, 10^4 cases, is run by benchmarks/doors.py."""
    for module in (rational, efcp_ref):
        target = Local({operation: getattr(module, operation)})
        for number in small(operation):
            verdict, _ = judge_case(target, drawn(operation, 1, number))
            assert verdict.verdict in ("pass", "inconclusive"), (module, number, verdict.first or verdict.reason)


@pytest.mark.parametrize("operation", [n for n in OPERATIONS if n not in ("power_compress",)])
def test_the_reference_is_the_rational_result_to_the_last_digits(operation):
    for number in small(operation):
        case = drawn(operation, 2, number)
        want = vectors.expected(operation, case.arguments)
        out = getattr(efcp_ref, operation)(*case.arguments.values())
        got = out._asdict() if hasattr(out, "_asdict") else {OPERATIONS[operation].outputs[0]: out}
        for name, exact in want.items():
            size = max(1e-300, float(np.max(np.abs(exact), initial=0)))
            gap = float(np.max(np.abs(np.asarray(got[name], float) - exact), initial=0))
            assert gap <= 1e-9 * size, (number, name)


def test_solve_is_exact():
    n = 6
    hilbert = np.empty((n, n), object)
    hilbert.reshape(-1)[:] = [Fraction(1, i + j + 1) for i in range(n) for j in range(n)]
    x = rational.solve(hilbert, hilbert @ rational.exact(np.arange(n)))
    assert x.tolist() == list(range(n))


def test_results_are_rounded_once_to_nearest_even():
    assert rational.nearest(1 + Fraction(1, 2**53)) == 1.0
    assert rational.nearest(1 + Fraction(3, 2**53)) == 1 + 2.0**-51
    assert rational.nearest(Fraction(1, 2**1075)) == 0.0
    assert rational.nearest(Fraction(-(10**400))) == -np.inf
    assert rational.nearest(rational.sqrt(2)) == np.sqrt(2)
    assert rational.nearest(-rational.sqrt(3)) == -np.sqrt(3)


def test_nobody_elses_precision_changes():
    import mpmath

    before = mpmath.mp.prec
    rational.sqrt(2)
    assert mpmath.mp.prec == before


def test_dependent_columns_are_completed():
    P = rational.orthonormal(rational.exact([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]))
    Z = rational.orthonormal(rational.exact(np.zeros((3, 2))))
    for A in (P, Z):
        gram = rational.rounded(A.T @ A)
        assert np.allclose(gram, np.eye(2), atol=1e-60)


def test_it_shares_no_code_with_the_paper():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(rational.__file__).read_text())
    names = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not any(name.startswith("efcp_ref") for name in names)

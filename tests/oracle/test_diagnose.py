"""A failure names the known mistake that explains it, and only that."""

from __future__ import annotations

import numpy as np
import pytest

import efcp_ref
from efcp_ref.contract import NAMES
from efcp_ref.oracle.cases import generate
from efcp_ref.oracle.diagnose import explain
from efcp_ref.oracle.mutants import MUTANTS, Mutant
from efcp_ref.oracle.targets import Local

INDICES = (0, 2, 8, 14)
ORDINARY = [m for m in MUTANTS if "int16" not in m.name]  # the others show on large cases alone


def rounded(value: object) -> object:
    """Return float64 results as float32 code would have left them."""
    if isinstance(value, list):
        return [{k: rounded(v) for k, v in state.items()} for state in value]
    if not isinstance(value, np.ndarray) or value.dtype != np.float64:
        return value
    with np.errstate(over="ignore"):
        narrow = value.astype(np.float32)
    return narrow if np.array_equal(np.isfinite(narrow), np.isfinite(value)) else value


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mutant", ORDINARY, ids=lambda m: f"{m.operation}-{m.name}")
def test_every_mistake_is_recognised_in_float32(mutant: Mutant) -> None:
    """On at least one of the first cases, whatever the rounding."""
    target = Local({mutant.operation: mutant.function})
    for index in (*INDICES, *range(1, 40)):
        case = generate(mutant.operation, 3, index)
        result = {name: rounded(value) for name, value in target.run(case).results.items()}
        if result and mutant.name in [m.name for m in explain(case, result)]:
            return
    pytest.fail("not recognised")


@pytest.mark.parametrize("operation", NAMES)
def test_a_correct_result_is_explained_by_no_mistake(operation: str) -> None:
    """Neither in float64 nor in float32."""
    for index in INDICES:
        case = generate(operation, 3, index)
        result = Local({operation: getattr(efcp_ref, operation)}).run(case).results
        for got in (result, {name: rounded(value) for name, value in result.items()}):
            assert explain(case, got) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("operation", NAMES)
def test_complex_numbers_are_explained_by_no_mistake(operation: str) -> None:
    """Their real parts would be; and no warning of NumPy's comes up."""
    case = generate(operation, 3, 2)
    mistake = next(m for m in ORDINARY if m.operation == operation)
    result = Local({operation: mistake.function}).run(case).results
    names = [name for name, value in result.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    for name in names:
        assert explain(case, {**result, name: result[name] + 0j}) == []
    if states := result.get("states"):
        key = next(k for k, a in states[-1].items() if a.dtype.kind == "f")
        last = {**states[-1], key: states[-1][key] + 0j}
        assert explain(case, {**result, "states": [*states[:-1], last]}) == []
    assert names

"""What the strategies draw obeys the contract, for every operation, and can be judged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import efcp_ref
from efcp_ref.contract import NAMES, OPERATIONS, OPTIMIZERS
from efcp_ref.oracle import judge_case
from efcp_ref.oracle.strategies import arguments, cases
from efcp_ref.oracle.targets import Local, UsageError
from efcp_ref.oracle.vectors import legal


@pytest.mark.parametrize("operation", NAMES)
def test_every_operation_has_a_strategy_of_legal_arguments_that_the_reference_takes(operation):
    target = Local({operation: getattr(efcp_ref, operation)})

    op, it = OPERATIONS.get(operation), OPTIMIZERS.get(operation)
    names = [a.name for a in op.arguments] if op else [*(a.name for a in it.parameters), "gradients"]

    @settings(max_examples=6, deadline=None, database=None)
    @given(cases(operation))
    def holds(case):
        assert list(case.arguments) == names
        legal(operation, {n: [list(s) for s in v] if n == "shapes" else v for n, v in case.arguments.items()})
        for value in case.arguments.values():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                assert np.array_equal(value, value.astype(np.float32).astype(np.float64))
        verdict, outcome = judge_case(target, case)
        assert verdict.verdict in ("pass", "inconclusive"), (verdict.reason, verdict.first, outcome.traceback)

    holds()


def test_a_wrong_function_is_found_by_a_property():
    @settings(max_examples=200, deadline=None, database=None)
    @given(cases("sp"))
    def holds(case):
        wrong = Local({"sp": lambda indices, values, g: (values * g[indices])[:, :-1].sum(1)})
        assert judge_case(wrong, case)[0].verdict != "fail"

    with pytest.raises(AssertionError):
        holds()


def test_sizes_and_entries_are_the_callers():
    @settings(max_examples=30, deadline=None, database=None)
    @given(arguments("mfac_direction", d=3, m=2, elements=st.just(1.0)))
    def holds(found):
        assert found["G"].shape[0] <= 2
        assert found["G"].shape[1] <= 3
        assert (found["G"] == 1).all()

    holds()
    with pytest.raises(UsageError, match="did you mean sp"):
        arguments("spp")

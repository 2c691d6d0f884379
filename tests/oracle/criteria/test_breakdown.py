"""A solver error within a run is excused where rounding explains it, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from efcp_ref.oracle import judge
from efcp_ref.oracle.core import Case, Declared
from efcp_ref.oracle.targets import Local


@pytest.mark.parametrize("operation", ["dense_mfac", "sparse_mfac", "low_rank_mfac"])
def test_a_factorisation_that_breaks_within_a_run_is_no_crash_where_rounding_excuses_it(operation: str):
    """The second gradient repeats the first; storage of eight bits makes one row of two that differ by less."""
    own: dict[str, Any] = {
        "dense_mfac": {"d": 4, "m": 2},
        "sparse_mfac": {"d": 4, "m": 2, "block_size": 4, "density": 1.0},
        "low_rank_mfac": {"shapes": [(2, 2)], "m": 2, "rank": 2, "Q0": [np.eye(2)]},
    }

    class Breaks:
        def __init__(self, **parameters: Any) -> None:
            self.steps = 0

        def step(self, g: Any) -> Any:
            self.steps += 1
            if self.steps > 1:
                raise np.linalg.LinAlgError("not positive definite")
            return g

    def verdict(lam: float, second: float, declared: Declared) -> str:
        gradients = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, second]])
        arguments = {**own[operation], "lam": float(np.float32(lam)), "gradients": gradients}
        run = Case(operation, "generic", "", 0, 0, arguments)
        return judge.judge_case(Local({operation: Breaks}, declared), run)[0].verdict

    stored = Declared(arithmetic={"storage": "bfloat16"})
    assert verdict(1e-15, 1.0, Declared()) == "inconclusive"
    assert verdict(1.0, 1.0, Declared()) == "error"
    assert verdict(1e-15, 1.001, Declared()) == "error"
    if operation != "low_rank_mfac":  # its factors, not the entries, are what is rounded
        assert verdict(1e-15, 1.001, stored) == "inconclusive"


def test_a_run_that_breaks_the_reference_too_is_excused(monkeypatch: pytest.MonkeyPatch):
    """Where even the reference cannot solve a step, a solver error of the target is no crash."""

    def breaks(self: Any, g: Any) -> Any:
        raise np.linalg.LinAlgError("not positive definite")

    target = type("Target", (), {"__init__": lambda self, **parameters: None, "step": breaks})
    arguments = {"d": 2, "m": 2, "lam": 1.0, "gradients": np.array([[1.0, 2.0], [3.0, -1.0]])}
    case = Case("dense_mfac", "generic", "", 0, 0, arguments)
    assert judge.judge_case(Local({"dense_mfac": target}), case)[0].verdict == "error"
    monkeypatch.setattr("efcp_ref.paper.optimizers.dense_mfac.step", breaks)
    assert judge.judge_case(Local({"dense_mfac": target}), case)[0].verdict == "inconclusive"

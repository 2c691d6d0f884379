"""True verdicts of SciPy alone: every operation passes, in float64 and through LAPACK's float32 routines."""

from __future__ import annotations

import numpy as np
import pytest

from efcp_ref.contract import NAMES
from efcp_ref.oracle.judge import check_target
from efcp_ref.targets import _scipy


@pytest.mark.parametrize("target", ["efcp_ref.targets.scipy64", "efcp_ref.targets.scipy32"])
def test_every_operation_passes(target: str) -> None:
    """Nothing fails, nothing is an error, nothing is left out."""
    report = check_target(target, cases=8, seed=2, shrink_seconds=0)
    assert {o.operation: o.verdict for o in report.operations} == dict.fromkeys(NAMES, "pass")


def test_float32_stays_float32() -> None:
    """Where `numpy.linalg` would compute in float64, the target stays in the precision of the data."""
    G, x = np.eye(2, 3, dtype=np.float32), np.ones(3, np.float32)
    u, S, h, c = _scipy.mfac_direction(G, 0.5, x)
    assert {a.dtype for a in (u, S, h, c)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(u, [1, 1, 2], rtol=1e-6)  # 2 (1 - 1/(1 + 1)) on the window, 2 off it


def test_the_callers_rows_keep_their_order() -> None:
    """SciPy sorts a CSR matrix in the memory that it was given; the target hands it a copy."""
    indices, values = np.array([[2, 0]], np.int32), np.array([[1.0, 5.0]])
    _scipy.sparse_mfac_direction(indices, values, 3, 1.0, np.ones(3))
    assert indices.tolist() == [[2, 0]]
    assert values.tolist() == [[1.0, 5.0]]

"""Mistakes in the damped Fisher inverse: section 2.2, eq. (2), dense, sparse and as the WSM recursion."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, coefficients, dense, mistake

_known: list[Mutant] = []
_mfac = partial(mistake, "mfac_direction", known=_known)
_wsm = partial(mistake, "wsm", known=_known, stages="y")


def _sparse(known: Mutant) -> Mutant:
    """Return the same mistake on a sparse window."""

    def function(indices: Any, values: Any, d: int, lam: float, x: Any) -> Any:
        return known.function(dense(indices, values, d), lam, x)

    _known.append(replace(known, name=f"sparse_{known.name}", operation="sparse_mfac_direction", function=function))
    return _known[-1]


@_mfac("W:3", text="damping lam used for m lam (section 2.2, eq. 2)", stages="c u")
def lam_for_m_lam(G: Any, lam: float, x: Any) -> Any:
    """Solve lam I + S."""
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(lam * np.eye(len(S)) + S, h) / lam
    return x / lam - c @ G, S, h, c


@_mfac("W:3", text="c is not divided by lam (eq. 2, R5)", stages="c u")
def c_not_divided(G: Any, lam: float, x: Any) -> Any:
    """Take w for c."""
    S, h = G @ G.T, G @ x
    c = coefficients(S, h, lam) * lam
    return x / lam - c @ G, S, h, c


@_mfac("W:4", text="the combination is added, not subtracted (eq. 2)", stages="u")
def plus_for_minus(G: Any, lam: float, x: Any) -> Any:
    """Return x/lam + c G."""
    S, h = G @ G.T, G @ x
    c = coefficients(S, h, lam)
    return x / lam + c @ G, S, h, c


@_mfac("W:4", text="sign of w: -c returned for c (eq. 2, R28)", stages="c u")
def sign_of_w(G: Any, lam: float, x: Any) -> Any:
    """Return the right direction with Algorithm 6's w in place of c."""
    S, h = G @ G.T, G @ x
    c = coefficients(S, h, lam)
    return x / lam - c @ G, S, h, -c


@_mfac("W:4", text="x is not divided by lam (eq. 2)", stages="u")
def x_not_divided(G: Any, lam: float, x: Any) -> Any:
    """Return x - c G."""
    S, h = G @ G.T, G @ x
    c = coefficients(S, h, lam)
    return x - c @ G, S, h, c


@_mfac("W:5", text="the last row and column of S are stale: zero (section 2.2, R7)", stages="S")
def stale_row_of_S(G: Any, lam: float, x: Any) -> Any:
    """Forget the row that came last."""
    S, h = G @ G.T, G @ x
    S[-1] = S[:, -1] = 0
    c = coefficients(S, h, lam)
    return x / lam - c @ G, S, h, c


@_mfac("W:5", text="the damping is left in S (contract: S is undamped)", stages="S c")
def damped_S(G: Any, lam: float, x: Any) -> Any:
    """Return M for S."""
    S, h = G @ G.T, G @ x
    c = coefficients(S, h, lam)
    return x / lam - c @ G, S + lam * len(S) * np.eye(len(S)), h, c


@_mfac("W:5", text="S is divided by m, and h is not (eq. 2, R5)", stages="S")
def S_over_m(G: Any, lam: float, x: Any) -> Any:
    """Mix the two normalisations."""
    S, h = G @ G.T / len(G), G @ x
    c = coefficients(S, h, lam)
    return x / lam - c @ G, S, h, c


@_mfac("W:3", text="h holds the products with the last row, not with x (R5: reused for another x)", stages="h")
def h_of_another_x(G: Any, lam: float, x: Any) -> Any:
    """Reuse the last row of S for h."""
    S = G @ G.T
    h = S[-1].copy()
    c = coefficients(S, h, lam)
    return x / lam - c @ G, S, h, c


@_mfac("W:4", text="the last row of the window is left out: a ring one short (eq. 2)", stages="S h u")
def last_row_left_out(G: Any, lam: float, x: Any) -> Any:
    """Use m - 1 rows."""
    short = np.array(G, np.float64)
    short[-1] = 0
    S, h = short @ short.T, short @ x
    c = coefficients(S, h, lam)
    return x / lam - c @ short, S, h, c


@_mfac("W:4", text="only the direction, with lam for m lam (section 2.2, eq. 2)", stages="u")
def bare_lam_for_m_lam(G: Any, lam: float, x: Any) -> Any:
    """Return u alone, wrong."""
    return lam_for_m_lam.function(G, lam, x)[0]


sparse_lam_for_m_lam = _sparse(lam_for_m_lam)
sparse_c_not_divided = _sparse(c_not_divided)
sparse_plus_for_minus = _sparse(plus_for_minus)
sparse_sign_of_w = _sparse(sign_of_w)
sparse_stale_row_of_S = _sparse(stale_row_of_S)
sparse_damped_S = _sparse(damped_S)
sparse_h_of_another_x = _sparse(h_of_another_x)
sparse_last_row_left_out = _sparse(last_row_left_out)


@mistake(
    "sparse_mfac_direction", "3:20", "relative for absolute indices: the block's offset is lost (R13)", "S h u", _known
)
def sparse_relative(indices: Any, values: Any, d: int, lam: float, x: Any, block_size: Any, density: Any) -> Any:
    """Densify with positions inside the block."""
    G = np.zeros((len(indices), d))
    np.add.at(G, (np.arange(len(indices))[:, None], np.asarray(indices) % block_size), np.asarray(values, np.float64))
    S, h = G @ G.T, G @ x
    c = coefficients(S, h, lam)
    return x / lam - c @ G, S, h, c


@_wsm("W:2", text="damping lam used for m lam (section 2.2, eq. 2)")
def wsm_lam_for_m_lam(G: Any, lam: float, x: Any) -> Any:
    """Solve lam I + S."""
    return lam_for_m_lam.function(G, lam, x)[0]


@_wsm("W:2", text="the k-th term uses F_k, which holds g_k, in place of F_{k-1} (section 2.2 as printed, R2)")
def printed_sum(G: Any, lam: float, x: Any) -> Any:
    """Run the printed sum with F_k."""
    m, y = len(G), np.array(x, np.float64) / lam
    for k, g in enumerate(G):
        rows = G[: k + 1]
        z = g / lam - np.linalg.solve(m * lam * np.eye(k + 1) + rows @ rows.T, rows @ g) / lam @ rows  # F_k^-1 g_k
        y = y - z * (z @ x) / (m + g @ z)
    return y


@_wsm("W:2", text="1 in place of m in the denominator (section 2.2)")
def one_for_m(G: Any, lam: float, x: Any) -> Any:
    """Forget the missing 1/m: F = lam I + G^T G."""
    return x / lam - np.linalg.solve(lam * np.eye(len(G)) + G @ G.T, G @ x) / lam @ G


@_wsm("W:2", text="terms are added, not subtracted (section 2.2)")
def wsm_plus(G: Any, lam: float, x: Any) -> Any:
    """Return x/lam + c G."""
    return x / lam + coefficients(G @ G.T, G @ x, lam) @ G


@_wsm("W:2", text="the recursion stops one row early (section 2.2)")
def wsm_one_short(G: Any, lam: float, x: Any) -> Any:
    """Use m - 1 rows."""
    return last_row_left_out.function(G, lam, x)[0]


@_wsm("W:1", text="F_0^-1 x = x: lam is forgotten (section 2.2)")
def wsm_x_not_divided(G: Any, lam: float, x: Any) -> Any:
    """Start from x."""
    return x - coefficients(G @ G.T, G @ x, lam) @ G


MUTANTS = tuple(_known)

"""Mistakes in power iteration and in the low-rank inner product: Algorithm 5 and appendix I."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, mistake

_known: list[Mutant] = []
_power = partial(mistake, "power_compress", known=_known)
_product = partial(mistake, "low_rank_inner_product", "6:8", known=_known, stages="product")


def _orthonormal(A: Any) -> Any:
    return np.linalg.qr(A)[0]


@_power("5:4", text="no orthogonalisation (Algorithm 5, line 4)", stages="P")
def not_orthogonalised(g: Any, Q: Any) -> Any:
    """Return P = M Q."""
    M = g.reshape(len(g), -1)
    P = M @ Q
    return P, M.T @ P


@_power("5:4", text="columns are normalised, not orthogonalised (Algorithm 5, line 4)", stages="P")
def normalised_only(g: Any, Q: Any) -> Any:
    """Scale every column to length 1."""
    M = g.reshape(len(g), -1)
    P = M @ Q
    P = P / np.maximum(np.linalg.norm(P, axis=0), 1e-300)
    return P, M.T @ P


@_power("5:5", text="Q is not updated (Algorithm 5, line 5)", stages="Q")
def q_not_updated(g: Any, Q: Any) -> Any:
    """Return the Q that came in."""
    return _orthonormal(g.reshape(len(g), -1) @ Q), Q.copy()


@_power("5:5", text="Q is computed from P before it was orthogonalised (Algorithm 5, line 5)", stages="Q")
def q_of_raw_p(g: Any, Q: Any) -> Any:
    """Return Q = M^T M Q."""
    M = g.reshape(len(g), -1)
    return _orthonormal(M @ Q), M.T @ (M @ Q)


@_power("5:2", text="the tensor is unfolded in Fortran order (Algorithm 5, line 2)", stages="P Q")
def fortran_order(g: Any, Q: Any) -> Any:
    """Unfold with the second index running first."""
    M = g.reshape((len(g), -1), order="F")
    P = _orthonormal(M @ Q)
    return P, M.T @ P


@_power("5:3", text="the given Q is ignored: not warm-started (Algorithm 5, line 3)", stages="P")
def not_warm_started(g: Any, Q: Any) -> Any:
    """Start from the first columns of the identity."""
    M = g.reshape(len(g), -1)
    P = _orthonormal(M @ np.eye(*Q.shape))
    return P, M.T @ P


@_power("5:5", text="Q is orthogonalised too (Algorithm 5, line 5)", stages="Q")
def q_orthogonalised(g: Any, Q: Any) -> Any:
    """Return an orthonormal Q."""
    M = g.reshape(len(g), -1)
    P = _orthonormal(M @ Q)
    return P, _orthonormal(M.T @ P)


@_product(text="the product of the left factors alone (appendix I)")
def left_factors_only(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Forget Q."""
    return float((P1.T @ P2).sum())


@_product(text="Tr(A B) for Tr(A^T B): one small product is not transposed (appendix I)")
def not_transposed(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Swap the ranks of the two factors of one product."""
    A, B = P1.T @ P2, Q1.T @ Q2
    r = min(A.shape)
    return float((A[:r, :r] * B[:r, :r].T).sum())


@_product(text="only the diagonals of the small products are summed (appendix I)")
def diagonal_only(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Sum over equal ranks alone."""
    A, B = P1.T @ P2, Q1.T @ Q2
    return float((np.diagonal(A) * np.diagonal(B)).sum())


@_product(text="sums are multiplied, in place of products summed (appendix I)")
def product_of_sums(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Sum each small product first."""
    return float((P1.T @ P2).sum() * (Q1.T @ Q2).sum())


MUTANTS = tuple(_known)

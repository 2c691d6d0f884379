"""Mistakes in the GGT direction: appendix H and Algorithm 4."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, dense, factor, mistake, spectrum

_known: list[Mutant] = []
_ggt = partial(mistake, "ggt_direction", known=_known)


def _sparse(known: Mutant) -> Mutant:
    """Return the same mistake on a sparse window."""

    def function(indices: Any, values: Any, d: int, x: Any, eps: float, cutoff: float) -> Any:
        return known.function(dense(indices, values, d), x, eps, cutoff)

    _known.append(replace(known, name=f"sparse_{known.name}", operation="sparse_ggt_direction", function=function))
    return _known[-1]


def _direction(G: Any, x: Any, eps: float, V: Any, F: Any) -> Any:
    return x / eps - G.T @ (V @ (F * (V.T @ (G @ x))))


@_ggt("4:10", text="square root of the pseudo-inverse, as printed (Algorithm 4, line 10, R22)", stages="u")
def root_of_pseudo_inverse(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Scale U by sigma^-1/2."""
    gram = G @ G.T
    values, V, keep = spectrum(gram, cutoff)
    return _direction(G, x, eps, V, factor(values, keep, eps) * np.sqrt(np.where(keep, values, 0))), gram, values, V


@_ggt("4:10", text="no cut-off: every eigenvalue is inverted (Algorithm 4, line 8, R24)", stages="u")
def no_cut_off(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Divide by what is zero but for rounding."""
    gram = G @ G.T
    values, V = np.linalg.eigh(gram)
    with np.errstate(all="ignore"):
        sigma = np.sqrt(values)
        return _direction(G, x, eps, V, 1 / (eps * sigma * (sigma + eps))), gram, values, V


@_ggt("4:11", text="eps inside the root: (Sigma^2 + eps)^-1/2 for (Sigma + eps)^-1 (Algorithm 4, line 11)", stages="u")
def eps_inside_root(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Damp the squares."""
    gram = G @ G.T
    values, V, keep = spectrum(gram, cutoff)
    positive = np.where(keep, values, 1)
    F = np.where(keep, (1 / eps - 1 / np.sqrt(positive + eps)) / positive, 0)
    return _direction(G, x, eps, V, F), gram, values, V


@_ggt("4:11", text="square root forgotten: eigenvalues sigma^2 used for sigma (Algorithm 4, line 8)", stages="u")
def root_forgotten(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Damp the eigenvalues themselves."""
    gram = G @ G.T
    values, V, keep = spectrum(gram, cutoff)
    positive = np.where(keep, values, 1)
    F = np.where(keep, (1 / eps - 1 / (positive + eps)) / positive, 0)
    return _direction(G, x, eps, V, F), gram, values, V


@_ggt("4:11", text="- I/eps is forgotten inside the bracket (Algorithm 4, line 11)", stages="u")
def bracket_not_closed(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Add U (Sigma + eps)^-1 U^T x to x/eps."""
    gram = G @ G.T
    values, V, keep = spectrum(gram, cutoff)
    sigma = np.sqrt(np.where(keep, values, 1))
    return _direction(G, x, eps, V, np.where(keep, -1 / (sigma**2 * (sigma + eps)), 0)), gram, values, V


@_ggt("4:11", text="x/eps is forgotten (Algorithm 4, line 11)", stages="u")
def off_span_forgotten(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Return the part in the span of the window alone."""
    gram = G @ G.T
    values, V, keep = spectrum(gram, cutoff)
    sigma = np.sqrt(np.where(keep, values, 1))
    F = np.where(keep, 1 / (sigma**2 * (sigma + eps)), 0)
    return G.T @ (V @ (F * (V.T @ (G @ x)))), gram, values, V


@_ggt("4:8", text="eigenvectors in rows where columns are meant (Algorithm 4, line 8)", stages="eigenvectors u")
def transposed_vectors(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Use V^T for V."""
    gram = G @ G.T
    values, V, keep = spectrum(gram, cutoff)
    return _direction(G, x, eps, V.T, factor(values, keep, eps)), gram, values, V.T


@_ggt("4:8", text="singular values returned for eigenvalues (Algorithm 4, line 8)", stages="eigenvectors eigenvalues")
def sigma_for_eigenvalues(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Return sigma where sigma^2 is asked."""
    gram = G @ G.T
    values, V, keep = spectrum(gram, cutoff)
    return _direction(G, x, eps, V, factor(values, keep, eps)), gram, np.sqrt(np.abs(values)), V


@_ggt("4:6", text="the last row and column of the Gram matrix are stale (Algorithm 4, lines 6 and 7)", stages="gram")
def stale_row_of_gram(G: Any, x: Any, eps: float, cutoff: float) -> Any:
    """Forget the row that came last."""
    gram = G @ G.T
    gram[-1] = gram[:, -1] = 0
    values, V, keep = spectrum(gram, cutoff)
    return _direction(G, x, eps, V, factor(values, keep, eps)), gram, values, V


sparse_root_of_pseudo_inverse = _sparse(root_of_pseudo_inverse)
sparse_no_cut_off = _sparse(no_cut_off)
sparse_eps_inside_root = _sparse(eps_inside_root)
sparse_root_forgotten = _sparse(root_forgotten)
sparse_bracket_not_closed = _sparse(bracket_not_closed)
sparse_off_span_forgotten = _sparse(off_span_forgotten)
sparse_stale_row_of_gram = _sparse(stale_row_of_gram)

MUTANTS = tuple(_known)

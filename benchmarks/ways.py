"""Correct implementations, drawn at random: one text, every order of summation, solver, driver and storage.

The text is that of ``tests/acceptance/correct.py``, which knows nothing of the project. Here its sums of products, its
solver, its eigensolver, its orthogonalisation, its ties and its storage are drawn anew for every case.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import linalg

from efcp_ref.oracle.core import Declared

Array = np.ndarray
Sum = Callable[[Array, Array], Array]  # of products over the last axis
PATH = Path(__file__).resolve().parents[1] / "tests" / "acceptance" / "correct.py"


def _load() -> Any:
    if "correct" not in sys.modules:
        spec = importlib.util.spec_from_file_location("correct", PATH)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["correct"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["correct"])
    return sys.modules["correct"]


correct: Any = _load()

# ------------------------------------------------------------------ sums of products


def of_terms(total: Callable[[Array], Array]) -> Sum:
    """Return a sum of products that rounds every product, then adds."""
    return lambda a, b: total(np.ascontiguousarray(a * b))


def blocked(terms: Array, size: int = 8) -> Array:
    """Add blocks of eight one after the other, then the blocks' sums."""
    pad = -terms.shape[-1] % size
    terms = np.concatenate([terms, np.zeros((*terms.shape[:-1], pad), terms.dtype)], axis=-1)
    return correct.sequential(correct.sequential(terms.reshape(*terms.shape[:-1], -1, size)))


def by_library(a: Array, b: Array) -> Array:
    """Leave the order to NumPy and BLAS."""
    return np.einsum("...i,...i->...", a, b)


def fused(a: Array, b: Array) -> Array:
    """Add one product after the other, each with one rounding: a fused multiply-add."""
    a, b = np.broadcast_arrays(a, b)
    total = np.zeros(a.shape[:-1], a.dtype)
    step = _fused32 if a.dtype == np.float32 else _fused64
    for j in range(a.shape[-1]):
        total = step(a[..., j], b[..., j], total)
    return total


def _fused32(a: Array, b: Array, c: Array) -> Array:
    """Return a b + c rounded once: the product is exact in float64, the sum is rounded to odd, then to float32."""
    p, c = a.astype(np.float64) * b, c.astype(np.float64)
    s = p + c
    back = s - p
    lost = (p - (s - back)) + (c - back)
    even = (np.asarray(s).view(np.int64) & 1) == 0
    odd = np.nextafter(s, np.copysign(np.inf, lost))
    return np.where(np.isfinite(lost) & (lost != 0) & even, odd, s).astype(np.float32)


def _product64(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a b and its rounding error (Dekker)."""
    high, low = zip(*((h := (t := x * 134217729.0) - (t - x), x - h) for x in (a, b)), strict=True)
    p = a * b
    return p, ((high[0] * high[1] - p) + high[0] * low[1] + low[0] * high[1]) + low[0] * low[1]


_EXACT = np.frompyfunc(lambda p, e, c: math.fsum((p, e, c)), 3, 1)


def _fused64(a: Array, b: Array, c: Array) -> Array:
    return np.asarray(_EXACT(*_product64(a, b), c), dtype=np.float64)


def permuted(seed: int) -> Sum:
    """Return a sequential sum in a random order."""

    def add(a: Array, b: Array) -> Array:
        terms = np.ascontiguousarray(a * b)
        return correct.sequential(terms[..., np.random.default_rng(seed).permutation(terms.shape[-1])])

    return add


SUMS: dict[str, Sum] = {
    "sequential": of_terms(correct.sequential), "backwards": of_terms(correct.backwards),
    "pairwise": of_terms(correct.tree), "lanes": of_terms(correct.lanes), "blocked": of_terms(blocked),
    "library": by_library, "fused": fused,
}  # fmt: skip

# ------------------------------------------------------------------ orthonormal columns, eigenpairs, solvers, ties


def mgs(A: Array, passes: int = 1, classical: bool = False) -> Array:
    """Return orthonormal columns by modified Gram-Schmidt; a column that is zero is completed by a unit vector."""
    Q = np.zeros_like(A)
    for j in range(A.shape[1]):
        v = _unit_scale(A[:, j])
        for _ in range(passes):
            v = v - Q[:, :j] @ (Q[:, :j].T @ v) if classical else _one_by_one(Q[:, :j], v)
        length = np.linalg.norm(v)
        Q[:, j] = v / length if length > 0 else _completion(Q[:, :j])
    return Q


def _unit_scale(v: Array) -> Array:
    """Return v times a power of two, its largest entry in 1/2..1: squares neither vanish nor overflow."""
    return np.ldexp(v, -int(np.frexp(np.abs(v).max(initial=0))[1]))


def _one_by_one(Q: Array, v: Array) -> Array:
    for q in Q.T:
        v = v - q * (q @ v)
    return v


def _completion(Q: Array) -> Array:
    """Return a unit vector orthogonal to the columns of Q: the axis farthest from them, orthogonalised twice."""
    axis = np.zeros(len(Q), Q.dtype)
    axis[np.argmin((Q**2).sum(axis=1))] = 1
    for _ in range(2):
        axis = axis - Q @ (Q.T @ axis)
    return axis / np.linalg.norm(axis)


def cgs2(A: Array) -> Array:
    """Return orthonormal columns by classical Gram-Schmidt, twice; a third pass where a column all but vanishes."""
    return mgs(A, passes=3, classical=True)


def left_singular(A: Array) -> Array:
    """Return the left singular vectors of A."""
    return linalg.svd(A, full_matrices=False)[0]


def driver(name: str) -> Callable[[Array], tuple[Array, Array]]:
    """Return eigh by one LAPACK driver."""
    return lambda A: linalg.eigh(A, driver=name)


BASES = {"householder": correct.householder, "svd": left_singular, "cgs2": cgs2, "mgs": mgs}
DRIVERS = {name: driver(name) for name in ("ev", "evd", "evr", "evx")}
SOLVERS = {
    "LAPACK's Cholesky": correct.cholesky, "Cholesky": correct.cholesky_by_hand, "LDL^T": correct.ldl,
    "M-FAC recursion": correct.mfac_recursion,
}  # fmt: skip
TIES = (correct.lowest, correct.highest, correct.introselect)

# ------------------------------------------------------------------ one implementation

SUMMED = ("top_k", "block_top_k", "error_feedback", "adagrad_step", "topk_sgd", "adagrad_ef")  # these add no products
SOLVING = ("wsm", "mfac_direction", "sparse_mfac_direction", "dense_mfac", "sparse_mfac", "low_rank_mfac")
SPECTRAL = ("ggt_direction", "sparse_ggt_direction", "scaled_top_k", "dense_ggt", "sparse_ggt")
FACTORED = ("power_compress", "low_rank_mfac")
STORED = ("top_k", "block_top_k", "error_feedback", "topk_sgd", "sparse_mfac", "sparse_ggt")


class Implementation(correct.Implementation):
    """The text of ``correct.py`` with every sum of products in one order."""

    def __init__(self, add: Sum, **parts: Any) -> None:
        """Take the sum of products beside what the text takes."""
        super().__init__(total=lambda terms: add(terms, np.ones_like(terms)), **parts)
        self.add = add

    def dot(self, a: Array, b: Array) -> Array:
        """a . b."""
        return self.add(a, b)

    def rows_times(self, G: Array, x: Array) -> Array:
        """G x."""
        return self.add(G, x[None])

    def times_rows(self, c: Array, G: Array) -> Array:
        """c G."""
        return self.add(G.T, c[None])

    def gram(self, G: Array) -> Array:
        """G G^T."""
        S = self.add(G[:, None], G[None])
        return np.triu(S) + np.triu(S, 1).T

    def product(self, A: Array, B: Array) -> Array:
        """A B."""
        return self.add(A[:, None], B.T[None])

    def sp(self, indices: Array, values: Array, g: Array, block_size: int, density: float) -> Array:
        """Sparse rows times g."""
        return self.add(values.astype(g.dtype), g[indices])

    def low_rank_inner_product(self, P1: Array, Q1: Array, P2: Array, Q2: Array) -> Array:
        """The sum of the products of two small products."""
        return self.add(self.product(P1.T, P2).ravel(), self.product(Q1.T, Q2).ravel())


@dataclass(frozen=True)
class Way:
    """One implementation with what it declares, and what it is called: ``("sum: pairwise", "float32")``."""

    implementation: Implementation
    declared: Declared
    labels: tuple[str, ...]


def draw(rng: np.random.Generator, operation: str, dtype: str) -> Way:
    """Return a correct implementation; half of them declare their solver and their orthogonalisation."""

    def one(of: Any) -> Any:
        return list(of)[int(rng.integers(len(of)))]

    order, base, eigen, solver = one([*SUMS, "permuted"]), one(BASES), one(DRIVERS), one(SOLVERS)
    stored = bool(dtype == "float32" and operation in STORED and rng.random() < 0.5)
    says = bool(rng.random() < 0.5)
    arithmetic = {"storage": "bfloat16"} if stored else {}
    arithmetic |= {"eigensolver": "mrrr"} if says and eigen == "evr" else {}
    implementation = Implementation(
        SUMS.get(order) or permuted(int(rng.integers(2**31))), solve=SOLVERS[solver], orthonormal=BASES[base],
        eigen=DRIVERS[eigen], ties=one(TIES), ascending=bool(rng.random() < 0.5),
        storage="bfloat16" if stored else None,
    )  # fmt: skip
    declared = Declared(
        arithmetic=arithmetic, solver="factorisation" if says else None, orthogonalisation=base if says else None
    )
    labels = [f"{dtype}, bfloat16 rows" if stored else dtype]
    parts = ((SOLVING, "solver", solver), (SPECTRAL, "eigh", eigen), (FACTORED, "basis", base))
    labels += [f"{kind}: {name}" for names, kind, name in parts if operation in names]
    labels += [f"sum: {order}"] if operation not in SUMMED else []
    return Way(implementation, declared, tuple(labels))

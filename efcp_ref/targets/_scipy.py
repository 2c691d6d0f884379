"""The operations with SciPy alone: CSR products, LAPACK's potrf/potrs, syev and geqrf, in the precision of the data.

SciPy hands float32 input to LAPACK's float32 routines, where `numpy.linalg` computes in float64.
Nothing here imports the reference: these are the formulas of the paper as a SciPy user would type them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import linalg, sparse

Array = np.ndarray


def real(*arrays: Any) -> Any:
    """Return the arrays in their common precision, float32 or float64 (SciPy knows no bfloat16)."""
    held = [np.asarray(a) for a in arrays]
    start = np.float64 if any(a.dtype.kind != "f" and a.dtype.name != "bfloat16" for a in held) else np.float32
    wide = np.result_type(start, *[a.dtype for a in held if a.dtype.kind == "f"])
    cast = [np.ascontiguousarray(a, dtype=wide) for a in held]
    return cast[0] if len(cast) == 1 else cast


# ------------------------------------------------------------------ Top-k and error feedback


def top_k(a: Any, k: int) -> tuple[Array, Array]:
    """Keep the k largest magnitudes, by introselect."""
    a = real(a)
    chosen = np.sort(np.argpartition(-np.abs(a), k - 1)[:k]) if k else np.zeros(0, int)
    return chosen.astype(np.int32), a[chosen]


def block_counts(d: int, block_size: int | None, density: Any) -> list[tuple[int, int, int]]:
    """Return (start, end, kept) of every block; the density is read through its shortest decimal."""
    share = density if isinstance(density, Fraction) else Fraction(str(float(density)))
    block_size = block_size or d
    edges = [(b, min(b + block_size, d)) for b in range(0, d, block_size)]
    return [(b, e, -(-(e - b) * share.numerator // share.denominator)) for b, e in edges]


def block_top_k(a: Any, block_size: int | None = None, density: Any = 1) -> tuple[Array, Array]:
    """Keep the largest magnitudes of every block."""
    a = real(a)
    rows = [b + top_k(a[b:e], n)[0] for b, e, n in block_counts(len(a), block_size, density)]
    indices = np.concatenate(rows).astype(np.int32)
    return indices, a[indices]


def error_feedback(xi: Any, g: Any, block_size: int | None = None, density: Any = 1) -> tuple[Array, Array, Array]:
    """Add the error, compress, keep what is left."""
    xi, g = real(xi, g)
    a = xi + g
    indices, values = block_top_k(a, block_size, density)
    a[indices] = 0
    return indices, values, a


# ------------------------------------------------------------------ sparse products


def csr(indices: Any, values: Any, d: int) -> Any:
    """Return the rows (I, V) as a CSR matrix (m, d).

    The copy matters: SciPy sorts a row's entries in place when a product asks for it, and would reorder the caller's.
    """
    values, indices = real(values), np.asarray(indices)
    m, k = values.shape
    starts = np.arange(m + 1) * k
    return sparse.csr_array((values.ravel(), indices.ravel().astype(np.int32), starts), shape=(m, d), copy=True)


def sp(indices: Any, values: Any, g: Any) -> Array:
    """Scalar products of the sparse rows with g."""
    values, g = real(values, g)
    return csr(indices, values, len(g)) @ g


def lcg(indices: Any, values: Any, c: Any, d: int) -> Array:
    """Linear combination of the sparse rows."""
    values, c = real(values, c)
    return csr(indices, values, d).T @ c


# ------------------------------------------------------------------ M-FAC


def _mfac(G: Any, S: Array, lam: float, x: Array) -> tuple[Array, Array, Array, Array]:
    m = len(S)
    h = G @ x
    c = linalg.cho_solve(linalg.cho_factor(S + x.dtype.type(m * lam) * np.eye(m, dtype=x.dtype)), h) / x.dtype.type(lam)
    return x / x.dtype.type(lam) - G.T @ c, S, h, c


def mfac_direction(G: Any, lam: float, x: Any) -> tuple[Array, Array, Array, Array]:
    """Direction of eq. (2) by Cholesky, with S, h and c."""
    G, x = real(G, x)
    return _mfac(G, G @ G.T, lam, x)


def sparse_mfac_direction(indices: Any, values: Any, d: int, lam: float, x: Any) -> tuple[Array, Array, Array, Array]:
    """Direction of eq. (2) on a CSR window."""
    values, x = real(values, x)
    G = csr(indices, values, d)
    return _mfac(G, (G @ G.T).toarray(), lam, x)


def wsm(G: Any, lam: float, x: Any) -> Array:
    """F^-1 x by Cholesky."""
    return mfac_direction(G, lam, x)[0]


# ------------------------------------------------------------------ GGT


def _ggt(G: Any, gram: Array, x: Array, eps: float, cutoff: float) -> tuple[Array, Array, Array, Array]:
    values, V = linalg.eigh(gram, driver="ev")
    kept = values > cutoff * values.max() if values.max() > 0 else np.zeros(len(values), bool)
    eps = x.dtype.type(eps)
    sigma = np.sqrt(np.where(kept, values, 1))
    F = np.where(kept, 1 / (eps * sigma * (sigma + eps)), 0).astype(x.dtype)
    return x / eps - G.T @ (V @ (F * (V.T @ (G @ x)))), gram, values, V


def ggt_direction(G: Any, x: Any, eps: float, cutoff: float) -> tuple[Array, Array, Array, Array]:
    """GGT direction of a dense window by LAPACK's syev."""
    G, x = real(G, x)
    return _ggt(G, G @ G.T, x, eps, cutoff)


def sparse_ggt_direction(
    indices: Any, values: Any, d: int, x: Any, eps: float, cutoff: float
) -> tuple[Array, Array, Array, Array]:
    """GGT direction of a CSR window."""
    values, x = real(values, x)
    G = csr(indices, values, d)
    return _ggt(G, (G @ G.T).toarray(), x, eps, cutoff)


# ------------------------------------------------------------------ low rank


def power_compress(g: Any, Q: Any) -> tuple[Array, Array]:
    """One power iteration, orthogonalised by LAPACK's Householder QR."""
    g, Q = real(g, Q)
    M = g.reshape(len(g), -1)
    P = linalg.qr(M @ Q, mode="economic")[0]
    return P, M.T @ P


def low_rank_inner_product(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Tr((P1 Q1^T)^T P2 Q2^T) from the two small products."""
    P1, Q1, P2, Q2 = real(P1, Q1, P2, Q2)
    return np.sum((P1.T @ P2) * (Q1.T @ Q2))


# ------------------------------------------------------------------ elementwise steps


def adagrad_step(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> tuple[Array, Array, Array]:
    """Diagonal AdaGrad on the compressed gradient; a coordinate with G = 0 stays."""
    theta, xi, G, g = real(theta, xi, G, g)
    a = xi + g
    c, kept = np.zeros_like(a), top_k(a, k)[0]
    c[kept] = a[kept]
    G = G + c * c
    step = np.divide(c, np.sqrt(G), out=np.zeros_like(c), where=G > 0)
    return theta - theta.dtype.type(eta) * step, a - c, G


def sign_step(x: Any, e: Any, g: Any, gamma: float) -> tuple[Array, Array]:
    """EF-SignSGD: the mean magnitude times the sign."""
    x, e, g = real(x, e, g)
    p = x.dtype.type(gamma) * g + e
    delta = np.abs(p).sum() / x.dtype.type(len(p)) * np.sign(p)
    return x - delta, p - delta


def scaled_top_k(v: Any, H: Any, k: int) -> Array:
    """Top-k in the basis of H, by one eigendecomposition."""
    v, H = real(v, H)
    h, V = linalg.eigh(H, driver="ev")
    basis = V @ ((V.T @ v) / np.sqrt(h))
    kept = top_k(basis, k)[0]
    only = np.zeros_like(basis)
    only[kept] = basis[kept]
    return V @ (np.sqrt(h) * (V.T @ only))


# ------------------------------------------------------------------ optimizers


class topk_sgd:
    """Algorithm 1 with A the identity."""

    def __init__(self, d: int, k: int) -> None:
        """Start with no error."""
        self.d, self.k, self.t, self.xi = d, k, 0, np.zeros(d)

    def step(self, g: Any) -> Array:
        """Return the compressed gradient, dense."""
        a = self.xi.astype(g.dtype) + g
        u, kept = np.zeros_like(a), top_k(a, self.k)[0]
        u[kept] = a[kept]
        self.xi, self.t = a - u, self.t + 1
        return u

    def state(self) -> dict[str, Any]:
        """Return t and xi."""
        return {"t": self.t, "xi": self.xi}

    def load(self, state: dict[str, Any]) -> None:
        """Take t and xi."""
        self.t, self.xi = int(state["t"]), np.array(state["xi"])


class _Dense:
    """A ring of m dense gradients."""

    def __init__(self, d: int, m: int) -> None:
        self.m, self.t, self.row, self.G = m, 0, 0, np.zeros((m, d))

    def insert(self, g: Array) -> None:
        self.G = self.G.astype(g.dtype)
        self.G[self.row] = g
        self.t, self.row = self.t + 1, (self.row + 1) % self.m

    def state(self) -> dict[str, Any]:
        """Return t, the next row and the window."""
        return {"t": self.t, "row": self.row, "G": self.G.copy()}

    def load(self, state: dict[str, Any]) -> None:
        """Take t, the next row and the window."""
        self.t, self.row, self.G = int(state["t"]), int(state["row"]), np.array(state["G"])


class dense_mfac(_Dense):
    """M-FAC on a dense window; S is formed anew at every step."""

    def __init__(self, d: int, m: int, lam: float) -> None:
        """Start with an empty window."""
        super().__init__(d, m)
        self.lam, self.S = lam, np.zeros((m, m))

    def step(self, g: Any) -> Array:
        """Insert g, then precondition it."""
        self.insert(real(g))
        u, self.S, _, _ = mfac_direction(self.G, self.lam, g)
        return u

    def state(self) -> dict[str, Any]:
        """Return the window and S."""
        return {**super().state(), "S": self.S}


class dense_ggt(_Dense):
    """GGT on a dense window."""

    def __init__(self, d: int, m: int, eps: float, cutoff: float) -> None:
        """Start with an empty window."""
        super().__init__(d, m)
        self.eps, self.cutoff = eps, cutoff

    def step(self, g: Any) -> Array:
        """Insert g, then precondition it."""
        self.insert(real(g))
        return ggt_direction(self.G, g, self.eps, self.cutoff)[0]


class _Sparse:
    """A ring of m sparse rows behind error feedback."""

    def __init__(self, d: int, m: int, counts: Sequence[tuple[int, int, int]]) -> None:
        empty = np.concatenate([np.arange(b, b + n) for b, _, n in counts])
        self.d, self.m, self.counts, self.t, self.row, self.xi = d, m, counts, 0, 0, np.zeros(d)
        self.indices = np.tile(empty, (m, 1)).astype(np.int32)
        self.values = np.zeros(self.indices.shape)

    def insert(self, g: Array) -> Array:
        """Compress xi + g into the next row and return it dense."""
        a = self.xi.astype(g.dtype) + g
        kept = np.concatenate([b + top_k(a[b:e], n)[0] for b, e, n in self.counts])
        c = np.zeros_like(a)
        c[kept] = a[kept]
        self.values = self.values.astype(g.dtype)
        self.indices[self.row], self.values[self.row], self.xi = kept, a[kept], a - c
        self.t, self.row = self.t + 1, (self.row + 1) % self.m
        return c

    def state(self) -> dict[str, Any]:
        """Return t, the next row, the error and the window."""
        rows = {"indices": self.indices.copy(), "values": self.values.copy()}
        return {"t": self.t, "row": self.row, "xi": self.xi, **rows}

    def load(self, state: dict[str, Any]) -> None:
        """Take t, the next row, the error and the window."""
        self.t, self.row, self.xi = int(state["t"]), int(state["row"]), np.array(state["xi"])
        self.indices, self.values = np.array(state["indices"]), np.array(state["values"])


class sparse_mfac(_Sparse):
    """Sparse M-FAC on a CSR window."""

    def __init__(self, d: int, m: int, lam: float, block_size: int | None = None, density: Any = 1) -> None:
        """Start with an empty window."""
        super().__init__(d, m, block_counts(d, block_size, density))
        self.lam, self.S = lam, np.zeros((m, m))

    def step(self, g: Any) -> Array:
        """Compress and insert xi + g, then precondition the compressed gradient."""
        c = self.insert(real(g))
        u, self.S, _, _ = sparse_mfac_direction(self.indices, self.values, self.d, self.lam, c)
        return u

    def state(self) -> dict[str, Any]:
        """Return the window and S."""
        return {**super().state(), "S": self.S}


class sparse_ggt(_Sparse):
    """Sparse GGT on a CSR window."""

    def __init__(self, d: int, m: int, eps: float, cutoff: float, k: int) -> None:
        """Start with an empty window."""
        super().__init__(d, m, [(0, d, k)])
        self.eps, self.cutoff = eps, cutoff

    def step(self, g: Any) -> Array:
        """Compress and insert xi + g, then precondition the compressed gradient."""
        c = self.insert(real(g))
        return sparse_ggt_direction(self.indices, self.values, self.d, c, self.eps, self.cutoff)[0]


class adagrad_ef:
    """Algorithm 7 without the learning rate."""

    def __init__(self, d: int, k: int) -> None:
        """Start with no error and no squares."""
        self.k, self.t, self.xi, self.G = k, 0, np.zeros(d), np.zeros(d)

    def step(self, g: Any) -> Array:
        """Return G^-1/2 c."""
        xi, G = self.xi.astype(g.dtype), self.G.astype(g.dtype)
        u, self.xi, self.G = adagrad_step(np.zeros_like(g), xi, G, g, self.k, -1.0)
        self.t += 1
        return u

    def state(self) -> dict[str, Any]:
        """Return t, xi and G."""
        return {"t": self.t, "xi": self.xi, "G": self.G}

    def load(self, state: dict[str, Any]) -> None:
        """Take t, xi and G."""
        self.t, self.xi, self.G = int(state["t"]), np.array(state["xi"]), np.array(state["G"])


class ef_signsgd:
    """The slides' Algorithm 1."""

    def __init__(self, d: int, gamma: float) -> None:
        """Start with no error."""
        self.gamma, self.t, self.e = gamma, 0, np.zeros(d)

    def step(self, g: Any) -> Array:
        """Return Delta."""
        x, self.e = sign_step(np.zeros_like(g), self.e.astype(g.dtype), g, self.gamma)
        self.t += 1
        return -x

    def state(self) -> dict[str, Any]:
        """Return t and e."""
        return {"t": self.t, "e": self.e}

    def load(self, state: dict[str, Any]) -> None:
        """Take t and e."""
        self.t, self.e = int(state["t"]), np.array(state["e"])


class low_rank_mfac:
    """Algorithm 6 behind error feedback; a tensor of one dimension is kept whole, as P = g and Q = [[1]]."""

    def __init__(self, shapes: Any, m: int, lam: float, rank: int, Q0: Any) -> None:
        """Start with empty buffers."""
        self.shapes, self.m, self.lam, self.t, self.row = [tuple(s) for s in shapes], m, lam, 0, 0
        starts = iter(Q0)
        self.sizes = [int(np.prod(s)) for s in self.shapes]
        ranks = [min(rank, s[0], size // s[0]) for s, size in zip(self.shapes, self.sizes, strict=True)]
        layers = list(zip(self.shapes, ranks, strict=True))
        self.Q = [real(next(starts))[:, :rho] if len(s) > 1 else np.ones((1, 1)) for s, rho in layers]
        self.window = [
            (np.zeros((m, s[0], Q.shape[1])), np.zeros((m, *Q.shape))) for s, Q in zip(self.shapes, self.Q, strict=True)
        ]
        self.S, self.xi = np.zeros((m, m)), np.zeros(sum(self.sizes))

    def step(self, g: Any) -> Array:
        """Compress and insert xi + g layer by layer, then precondition what was kept."""
        g = real(g)
        a, row, m = self.xi.astype(g.dtype) + g, self.row, self.m
        delta, parts = np.zeros(m, g.dtype), []
        one, split = np.ones((1, 1), g.dtype), np.split(a, np.cumsum(self.sizes)[:-1])
        for layer, (part, shape) in enumerate(zip(split, self.shapes, strict=True)):
            start = self.Q[layer].astype(g.dtype)
            P, Q = power_compress(part.reshape(shape), start) if len(shape) > 1 else (part[:, None], one)
            Ps, Qs = (held.astype(g.dtype) for held in self.window[layer])
            Ps[row], Qs[row] = P, Q
            self.Q[layer], self.window[layer] = Q, (Ps, Qs)
            delta += np.array([low_rank_inner_product(Ps[tau], Qs[tau], P, Q) for tau in range(m)])
            parts.append((P @ Q.T).ravel())
        c = np.concatenate(parts)
        self.S = self.S.astype(g.dtype)
        self.S[row] = self.S[:, row] = delta
        M = self.S + g.dtype.type(m * self.lam) * np.eye(m, dtype=g.dtype)
        w = linalg.cho_solve(linalg.cho_factor(M), delta) / g.dtype.type(self.lam)
        past = [np.einsum("t,tij,tkj->ik", w, Ps, Qs).ravel() for Ps, Qs in self.window]
        self.xi, self.t, self.row = a - c, self.t + 1, (row + 1) % m
        return c / g.dtype.type(self.lam) - np.concatenate(past)

    def state(self) -> dict[str, Any]:
        """Return t, the next row, the error, the factors of every layer and S."""
        factors = {f"P{n}": Ps.copy() for n, (Ps, _) in enumerate(self.window)}
        factors |= {f"Q{n}": Qs.copy() for n, (_, Qs) in enumerate(self.window)}
        return {"t": self.t, "row": self.row, "xi": self.xi, **factors, "S": self.S.copy()}

    def load(self, state: dict[str, Any]) -> None:
        """Take what `state` gives; the next start is the Q of the row written last."""
        self.t, self.row = int(state["t"]), int(state["row"])
        self.xi, self.S = np.array(state["xi"]), np.array(state["S"])
        self.window = [(np.array(state[f"P{n}"]), np.array(state[f"Q{n}"])) for n in range(len(self.shapes))]
        if self.t:
            self.Q = [Qs[self.row - 1] for _, Qs in self.window]

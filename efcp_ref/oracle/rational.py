"""The second oracle, slow and exact: rationals throughout, 256 bits where there are roots, rounded once at the end.

Written from the text of the paper and the readings; it shares no code with
``efcp_ref.paper``. Every function carries a name of the contract, so the module is itself a target:
``efcp-ref check efcp_ref.oracle.rational``. Sums, products and quotients are `fractions.Fraction`; square roots,
eigenvalues and what follows from them are 256-bit numbers of mpmath. A result is float64, correctly rounded from that.
It is meant for small sizes: nothing here is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import gcd, lcm, prod
from typing import Any

import numpy as np

BITS = 256
NOISE = 2.0**-200  # relative: what 256 bits leave of a zero
Exact = Any  # an array of dtype object: Fractions or 256-bit numbers
ORTHOGONALISATION = "householder"  # the columns are orthonormal to the last bit


# --- numbers ------------------------------------------------------------------------------------------------------


def exact(a: Any) -> Exact:
    """Return an array of floats as an array of Fractions, without error.

    >>> exact([0.5, 3.0])
    array([Fraction(1, 2), Fraction(3, 1)], dtype=object)
    """
    a = np.asarray(a)
    out = np.empty(a.shape, object)
    out.reshape(-1)[:] = [Fraction(float(x)) for x in a.reshape(-1)]
    return out


def _context() -> Any:
    global _MP
    if _MP is None:
        import mpmath

        _MP = mpmath.MPContext()  # one of our own: nobody's precision changes
        _MP.prec = BITS
    return _MP


_MP: Any = None


def big(a: Any) -> Any:
    """Return a Fraction, or every entry of an array of them, as a 256-bit number."""
    mp = _context()
    if not isinstance(a, np.ndarray):
        return mp.mpf(a.numerator) / a.denominator if isinstance(a, Fraction) else mp.mpf(a)
    out = np.empty(a.shape, object)
    out.reshape(-1)[:] = [big(x) for x in a.reshape(-1)]
    return out


def nearest(x: Any) -> float:
    """Return the float64 nearest to a Fraction or a 256-bit number.

    >>> nearest(Fraction(1, 3)), nearest(big(Fraction(1, 3)))
    (0.3333333333333333, 0.3333333333333333)
    """
    if not isinstance(x, Fraction):
        from mpmath.libmp import to_rational

        x = Fraction(*to_rational(x._mpf_)) if hasattr(x, "_mpf_") else Fraction(x)
    try:
        return float(x)
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


def rounded(a: Any) -> np.ndarray:
    """Return an exact array as float64: the one rounding."""
    a = np.asarray(a, object)
    return np.array([nearest(x) for x in a.reshape(-1)], np.float64).reshape(a.shape)


def sqrt(x: Any) -> Any:
    """Return the 256-bit root."""
    return _context().sqrt(big(x))


# --- linear algebra -----------------------------------------------------------------------------------------------


def zeros(*shape: int) -> Exact:
    """Return an array of exact zeros."""
    out = np.empty(shape, object)
    out.reshape(-1)[:] = [Fraction(0)] * prod(shape)
    return out


def solve(M: Exact, b: Exact) -> Exact:
    """Return M^-1 b exactly, by elimination without fractions (Bareiss); M is positive definite.

    >>> solve(exact([[2.0, 1.0], [1.0, 3.0]]), exact([1.0, 0.0]))
    array([Fraction(3, 5), Fraction(-1, 5)], dtype=object)
    """
    n = len(M)
    rows = [_whole([*M[i], b[i]]) for i in range(n)]
    before = 1
    for k in range(n):
        pivot = rows[k][k]
        for i in range(k + 1, n):
            factor = rows[i][k]
            rows[i] = [(pivot * a - factor * c) // before for a, c in zip(rows[i], rows[k], strict=True)]
        before = pivot
    x = zeros(n)
    for k in reversed(range(n)):
        known = sum((rows[k][j] * x[j] for j in range(k + 1, n)), Fraction(0))
        x[k] = (rows[k][n] - known) / rows[k][k]
    return x


def _whole(row: Sequence[Fraction]) -> list[int]:
    """One row times the least number that makes it whole, then divided by what all its entries share."""
    scale = lcm(*(x.denominator for x in row))
    whole = [int(x * scale) for x in row]
    shared = gcd(*whole) or 1
    return [x // shared for x in whole]


def eigen(A: Exact) -> tuple[list[Any], Exact]:
    """Return the eigenvalues, ascending, and eigenvectors (one per column) of a symmetric matrix to 256 bits."""
    mp, n = _context(), len(A)
    if n == 0:
        return [], zeros(0, 0)
    values, vectors = mp.eigsy(mp.matrix([[big(x) for x in row] for row in A]))
    out = np.empty((n, n), object)
    for i in range(n):
        for j in range(n):
            out[i, j] = vectors[i, j]
    return list(values), out


def orthonormal(A: Exact) -> Exact:
    """Return orthonormal columns whose span holds that of A, to 256 bits (Gram-Schmidt, twice); R25.

    A column that depends on those before it is replaced by a unit vector that does not.
    """
    columns: list[Exact] = []
    for j in range(A.shape[1]):
        given = big(A[:, j])
        for candidate in (given, *(_unit(len(A), i) for i in range(len(A)))):
            size = sqrt(sum(x * x for x in candidate))
            left = candidate
            for _ in range(2):
                for q in columns:
                    left = left - (q @ left) * q
            length = sqrt(sum(x * x for x in left))
            if length > NOISE * size:
                columns.append(left / length)
                break
    return np.stack(columns, axis=1)


def _unit(n: int, i: int) -> Exact:
    return big(exact(np.eye(n)[i]))


# --- compression --------------------------------------------------------------------------------------------------


def largest(a: Sequence[Any], k: int) -> list[int]:
    """Return the positions of the k entries of largest magnitude, ties to the lowest (R12), ascending."""
    return sorted(sorted(range(len(a)), key=lambda i: (-abs(a[i]), i))[:k])


def blocks(d: int, block_size: int, density: Any) -> Iterator[tuple[range, int]]:
    """Yield every block's positions and how many are kept: ceil(density * size), counted exactly (R11)."""
    share = density if isinstance(density, Fraction) else Fraction(str(density))
    for start in range(0, d, int(block_size)):
        block = range(start, min(d, start + int(block_size)))
        yield block, -(-len(block) * share.numerator // share.denominator)


def largest_in_blocks(a: Sequence[Any], block_size: int, density: Any) -> list[int]:
    """Return the positions that blockwise Top-k keeps, block after block."""
    kept: list[int] = []
    for block, k in blocks(len(a), block_size, density):
        kept += [block[i] for i in largest([a[j] for j in block], k)]
    return kept


def only(a: Exact, indices: Sequence[int]) -> Exact:
    """Return ``a`` with everything but these positions set to zero."""
    out = zeros(len(a))
    out[list(indices)] = a[list(indices)]
    return out


def _i32(indices: Any) -> np.ndarray:
    return np.array(indices, np.int32)


def top_k(a: Any, k: int) -> tuple[Any, Any]:
    """Section 3.1: the k entries of largest magnitude."""
    kept = largest(exact(a), int(k))
    return _i32(kept), np.asarray(a)[kept]


def block_top_k(a: Any, block_size: int, density: Any) -> tuple[Any, Any]:
    """Sections 3.1 and G.2: Top-k in every block."""
    kept = largest_in_blocks(exact(a), block_size, density)
    return _i32(kept), np.asarray(a)[kept]


def _feedback(a: Exact, kept: Sequence[int]) -> tuple[Exact, Exact]:
    """What is sent, in float64, and what waits: xi = a - c with c as stored (R14)."""
    c = only(exact(rounded(a)), kept)
    return c, a - c


def error_feedback(xi: Any, g: Any, block_size: int, density: Any) -> tuple[Any, Any, Any]:
    """Algorithm 1, lines 5-7."""
    a = exact(xi) + exact(g)
    kept = largest_in_blocks(a, block_size, density)
    c, after = _feedback(a, kept)
    return _i32(kept), rounded(c[kept]), rounded(after)


def scaled_top_k(v: Any, H: Any, k: int) -> Any:
    """Lemma K.1: H^1/2 TopK(H^-1/2 v)."""
    h, V = eigen(exact(H))
    roots = [sqrt(x) for x in h]
    turned = V.T @ big(exact(v))
    basis = V @ np.array([t / r for t, r in zip(turned, roots, strict=True)], object)
    kept = big(only(basis, largest(basis, int(k))))
    return rounded(V @ np.array([r * t for r, t in zip(roots, V.T @ kept, strict=True)], object))


# --- the sparse window --------------------------------------------------------------------------------------------


def dense(indices: Any, values: Any, d: int) -> Exact:
    """Return sparse rows as an exact dense window (m, d)."""
    values, out = exact(values), zeros(len(indices), int(d))
    for r, row in enumerate(np.asarray(indices)):
        out[r, row] = values[r]
    return out


def sp(indices: Any, values: Any, g: Any) -> Any:
    """Algorithm 2 without threads: the scalar product of every row with g."""
    return rounded(dense(indices, values, len(g)) @ exact(g))


def lcg(indices: Any, values: Any, c: Any, d: int) -> Any:
    """Algorithm 3 without threads: sum_r c_r v_r."""
    return rounded(exact(c) @ dense(indices, values, d))


# --- M-FAC --------------------------------------------------------------------------------------------------------


def wsm(G: Any, lam: float, x: Any) -> Any:
    """Section 2.2: y with (lam I + G^T G / m) y = x (R3), solved as it stands."""
    G, d = exact(G), len(x)
    F = (G.T @ G) / len(G) if len(G) else zeros(d, d)
    for i in range(d):
        F[i, i] = F[i, i] + Fraction(lam)
    return rounded(solve(F, exact(x)))


def fisher(G: Exact, lam: Any, x: Exact) -> tuple[Exact, Exact, Exact, Exact]:
    """Equation (2): u = x / lam - c G with c = (lam m I + G G^T)^-1 G x / lam (R5); also S, h and c."""
    m, lam = len(G), Fraction(lam)
    S, h = G @ G.T, G @ x
    M = S.copy()
    for i in range(m):
        M[i, i] = M[i, i] + lam * m
    c = solve(M, h) / lam
    return x / lam - c @ G, S, h, c


def mfac_direction(G: Any, lam: float, x: Any) -> tuple[Any, ...]:
    """Equation (2) on a dense window."""
    return tuple(map(rounded, fisher(exact(G), lam, exact(x))))


def sparse_mfac_direction(indices: Any, values: Any, d: int, lam: float, x: Any) -> tuple[Any, ...]:
    """Equation (2) on a sparse window (section 3.1)."""
    return tuple(map(rounded, fisher(dense(indices, values, d), lam, exact(x))))


# --- GGT ----------------------------------------------------------------------------------------------------------


def ggt(G: Exact, x: Exact, eps: Any, cutoff: Any) -> tuple[Exact, Exact, Exact, Exact]:
    """Appendix H: u = x / eps + U ((Sigma + eps I)^-1 - I / eps) U^T x, U = G^T V Sigma^+ (R22-R24)."""
    gram, h = G @ G.T, big(G @ x)
    squares, V = eigen(gram)
    eps_, top = big(Fraction(eps)), max([*squares, big(0)])
    weights = big(zeros(len(G)))
    for i, square in enumerate(squares):
        if square > max(big(Fraction(cutoff)), NOISE) * top and square > 0:
            sigma = sqrt(square)
            weights[i] = (1 / (sigma + eps_) - 1 / eps_) / square * (V[:, i] @ h)
    u = big(x) / eps_ + (V @ weights) @ big(G)
    return u, gram, np.array(squares, object), V


def ggt_direction(G: Any, x: Any, eps: float, cutoff: float) -> tuple[Any, ...]:
    """Appendix H on a dense window."""
    return tuple(map(rounded, ggt(exact(G), exact(x), eps, cutoff)))


def sparse_ggt_direction(indices: Any, values: Any, d: int, x: Any, eps: float, cutoff: float) -> tuple[Any, ...]:
    """Algorithm 4 on a window given whole."""
    return tuple(map(rounded, ggt(dense(indices, values, d), exact(x), eps, cutoff)))


# --- low rank -----------------------------------------------------------------------------------------------------


def projected(M: Exact, Q: Exact) -> tuple[Exact, Exact]:
    """Algorithm 5: P = orth(M Q), Q' = M^T P, to 256 bits."""
    P = orthonormal(M @ Q)
    return P, big(M).T @ P


def power_compress(g: Any, Q: Any) -> tuple[Any, Any]:
    """Algorithm 5; P is one of the possible bases."""
    g = exact(g)
    P, after = projected(g.reshape(len(g), -1), exact(Q))
    return rounded(P), rounded(after)


def low_rank_inner_product(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Appendix I by its definition: the entries of both gradients, multiplied and added."""
    first, second = exact(P1) @ exact(Q1).T, exact(P2) @ exact(Q2).T
    return rounded((first * second).sum())[()]


# --- elementwise --------------------------------------------------------------------------------------------------


def _moved(c: Exact, G: Exact) -> Exact:
    """c / sqrt(G), 0 where G = 0 (R29)."""
    return np.array([big(x) / sqrt(s) if s else big(0) for x, s in zip(c, G, strict=True)], object)


def adagrad_step(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> tuple[Any, Any, Any]:
    """Algorithm 7, lines 5-9 (appendix K)."""
    a = exact(xi) + exact(g)
    c = only(a, largest(a, int(k)))
    after = exact(G) + c * c
    return rounded(big(exact(theta)) - big(Fraction(eta)) * _moved(c, after)), rounded(a - c), rounded(after)


def _scaled_sign(p: Exact) -> Exact:
    mean = sum(abs(p), Fraction(0)) / len(p)
    return np.array([mean * ((x > 0) - (x < 0)) for x in p], object)


def sign_step(x: Any, e: Any, g: Any, gamma: float) -> tuple[Any, Any]:
    """The slides' Algorithm 1, lines 4-7: x - Delta and p - Delta, Delta the scaled sign of p = gamma g + e."""
    p = Fraction(gamma) * exact(g) + exact(e)
    delta = _scaled_sign(p)
    return rounded(exact(x) - delta), rounded(p - delta)


# --- optimizers ---------------------------------------------------------------------------------------------------


class _Window:
    """A ring of rows (R1): exact, dense; empty rows are zero."""

    def __init__(self, m: int, d: int) -> None:
        self.G, self.row, self.t = zeros(m, d), 0, 0

    def insert(self, c: Exact) -> None:
        """Replace the oldest row."""
        self.G[self.row] = c
        self.row, self.t = (self.row + 1) % len(self.G), self.t + 1


class _Feedback:
    """Algorithm 1 around a compressor: what is kept, and the error."""

    def __init__(self, d: int, choose: Callable[[Exact], list[int]]) -> None:
        self.xi, self._choose, self.kept = zeros(d), choose, [0]

    def send(self, g: Any) -> Exact:
        """Return c of line 6; what is left waits."""
        a = self.xi + exact(g)
        self.kept = self._choose(a)
        c, self.xi = _feedback(a, self.kept)
        return c


class topk_sgd:
    """Algorithm 1 with A the identity."""

    def __init__(self, d: int, k: int) -> None:
        self._t, self._sent = 0, _Feedback(d, lambda a: largest(a, k))

    def step(self, g: Any) -> Any:
        """Return u = c."""
        self._t += 1
        return rounded(self._sent.send(g))

    def state(self) -> dict[str, Any]:
        """Return t and xi."""
        return {"t": self._t, "xi": rounded(self._sent.xi)}


class dense_mfac:
    """Section 2.2 as an optimizer."""

    def __init__(self, d: int, m: int, lam: float) -> None:
        self._window, self._lam = _Window(m, d), lam

    def step(self, g: Any) -> Any:
        """Insert g, then precondition it (R9)."""
        self._window.insert(exact(g))
        return rounded(fisher(self._window.G, self._lam, exact(g))[0])

    def state(self) -> dict[str, Any]:
        """Return t, row, G and S."""
        w = self._window
        return {"t": w.t, "row": w.row, "G": rounded(w.G), "S": rounded(w.G @ w.G.T)}


class _Sparse:
    """A window of compressed rows, told as indices and values."""

    def __init__(self, d: int, m: int, choose: Callable[[Exact], list[int]]) -> None:
        self._window, self._sent = _Window(m, d), _Feedback(d, choose)
        self._indices = np.tile(_i32(choose(zeros(d))), (m, 1))

    def _insert(self, g: Any) -> Exact:
        c = self._sent.send(g)
        self._indices[self._window.row] = self._sent.kept
        self._window.insert(c)
        return c

    def state(self) -> dict[str, Any]:
        """Return t, row, xi, indices and values."""
        w = self._window
        values = np.take_along_axis(rounded(w.G), self._indices.astype(np.int64), 1)
        return {"t": w.t, "row": w.row, "xi": rounded(self._sent.xi), "indices": self._indices.copy(), "values": values}


class sparse_mfac(_Sparse):
    """Algorithm 1 with blockwise Top-k and M-FAC (section 3.1)."""

    def __init__(self, d: int, m: int, lam: float, block_size: int, density: Any) -> None:
        super().__init__(d, m, lambda a: largest_in_blocks(a, block_size, density))
        self._lam = lam

    def step(self, g: Any) -> Any:
        """Compress, insert, precondition."""
        c = self._insert(g)
        return rounded(fisher(self._window.G, self._lam, c)[0])

    def state(self) -> dict[str, Any]:
        """Return also S."""
        return {**super().state(), "S": rounded(self._window.G @ self._window.G.T)}


class dense_ggt:
    """Appendix H, dense, as an optimizer."""

    def __init__(self, d: int, m: int, eps: float, cutoff: float) -> None:
        self._window, self._numbers = _Window(m, d), (eps, cutoff)

    def step(self, g: Any) -> Any:
        """Insert g, then precondition it."""
        self._window.insert(exact(g))
        return rounded(ggt(self._window.G, exact(g), *self._numbers)[0])

    def state(self) -> dict[str, Any]:
        """Return t, row and G."""
        return {"t": self._window.t, "row": self._window.row, "G": rounded(self._window.G)}


class sparse_ggt(_Sparse):
    """Algorithm 4."""

    def __init__(self, d: int, m: int, eps: float, cutoff: float, k: int) -> None:
        super().__init__(d, m, lambda a: largest(a, k))
        self._numbers = (eps, cutoff)

    def step(self, g: Any) -> Any:
        """Compress, insert, precondition."""
        c = self._insert(g)
        return rounded(ggt(self._window.G, c, *self._numbers)[0])


class adagrad_ef:
    """Algorithm 7: u is what the learning rate multiplies."""

    def __init__(self, d: int, k: int) -> None:
        self._t, self._sent, self._G = 0, _Feedback(d, lambda a: largest(a, k)), zeros(d)

    def step(self, g: Any) -> Any:
        """Return c / sqrt(G)."""
        c = self._sent.send(g)
        self._t, self._G = self._t + 1, self._G + c * c
        return rounded(_moved(c, self._G))

    def state(self) -> dict[str, Any]:
        """Return t, xi and G."""
        return {"t": self._t, "xi": rounded(self._sent.xi), "G": rounded(self._G)}


class ef_signsgd:
    """The slides' Algorithm 1: step returns Delta."""

    def __init__(self, d: int, gamma: float) -> None:
        self._t, self._e, self._gamma = 0, zeros(d), Fraction(gamma)

    def step(self, g: Any) -> Any:
        """Return Delta."""
        p = self._gamma * exact(g) + self._e
        delta = _scaled_sign(p)
        self._t, self._e = self._t + 1, p - delta
        return rounded(delta)

    def state(self) -> dict[str, Any]:
        """Return t and e."""
        return {"t": self._t, "e": rounded(self._e)}


class low_rank_mfac:
    """Algorithm 6: each layer compressed by Algorithm 5, all layers one vector; 256 bits throughout.

    It tells no state: factors rounded to float64 would not have the exact xi = a - P Q^T beside them.
    """

    def __init__(self, shapes: Any, m: int, lam: float, rank: int, Q0: Any) -> None:
        self._shapes, self._lam = [tuple(s) for s in shapes], big(Fraction(lam))
        starts = iter(Q0)
        ranks = [min(rank, s[0], prod(s[1:])) for s in self._shapes]  # R25
        layers = zip(self._shapes, ranks, strict=True)
        self._Q = [exact(next(starts))[:, :rho] if len(s) > 1 else None for s, rho in layers]
        self.xi = big(zeros(sum(prod(s) for s in self._shapes)))
        self._rows, self._row = big(zeros(m, len(self.xi))), 0

    def _compressed(self, a: Exact) -> Exact:
        """Every layer's P Q^T, one after another; Q is the next start."""
        parts, at = [], 0
        for l, shape in enumerate(self._shapes):
            M, Q = a[at : at + prod(shape)].reshape(shape[0], -1), self._Q[l]
            at += prod(shape)
            P, after = (M, big(exact([[1.0]]))) if Q is None else projected(M, big(Q))
            self._Q[l] = None if Q is None else after
            parts.append((P @ after.T).reshape(-1))
        return np.concatenate(parts)

    def step(self, g: Any) -> Any:
        """Compress, insert, precondition by eq. (2)."""
        a = self.xi + big(exact(g))
        c = self._compressed(a)
        self.xi = a - c
        self._rows[self._row] = c
        self._row = (self._row + 1) % len(self._rows)
        M, m = self._rows @ self._rows.T, len(self._rows)
        for i in range(m):
            M[i, i] = M[i, i] + self._lam * m
        mp = _context()
        coefficients = mp.cholesky_solve(mp.matrix(M.tolist()), mp.matrix((self._rows @ c).tolist()))
        return rounded(c / self._lam - (np.array(list(coefficients), object) / self._lam) @ self._rows)

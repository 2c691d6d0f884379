"""Correct implementations that the oracle has never seen: one text, eleven ways of rounding.

This file imports NumPy and SciPy alone and nothing of the project. Judge one with ``check correct.py:tree``.
Every variant computes in the precision that it is handed; they differ in the order of their sums, their solver,
their orthogonalisation, their ties, the order inside a row and their storage.
"""

import math
from fractions import Fraction

import numpy as np
from scipy import linalg

# ------------------------------------------------------------------ sums over the last axis, in a chosen order


def sequential(terms):
    return np.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1] if terms.shape[-1] else terms.sum(axis=-1)


def backwards(terms):
    return sequential(terms[..., ::-1])


def permuted(terms):
    return sequential(terms[..., np.random.default_rng(terms.shape[-1]).permutation(terms.shape[-1])])


def tree(terms):
    while terms.shape[-1] > 1:
        if terms.shape[-1] % 2:
            terms = np.concatenate([terms, np.zeros_like(terms[..., :1])], axis=-1)
        terms = terms[..., 0::2] + terms[..., 1::2]
    return terms[..., 0] if terms.shape[-1] else terms.sum(axis=-1)


def lanes(terms, T=32):
    """T strided partial sums, then a tree: what a kernel does."""
    pad = -terms.shape[-1] % T
    terms = np.concatenate([terms, np.zeros((*terms.shape[:-1], pad), terms.dtype)], axis=-1)
    return tree(sequential(np.moveaxis(terms.reshape(*terms.shape[:-1], -1, T), -2, -1)))


# ------------------------------------------------------------------ solvers of M w = h


def cholesky(M, h):
    return linalg.cho_solve(linalg.cho_factor(M, lower=True), h)


def cholesky_by_hand(M, h):
    m, L, y = len(M), np.zeros_like(M), h.copy()
    for j in range(m):
        L[j, j] = np.sqrt(M[j, j] - sequential(np.append(L[j, :j] ** 2, np.zeros(1, M.dtype))))
        for i in range(j + 1, m):
            L[i, j] = (M[i, j] - sequential(np.append(L[i, :j] * L[j, :j], np.zeros(1, M.dtype)))) / L[j, j]
    for i in range(m):
        y[i] = (y[i] - sequential(np.append(L[i, :i] * y[:i], np.zeros(1, M.dtype)))) / L[i, i]
    for i in reversed(range(m)):
        y[i] = (y[i] - sequential(np.append(L[i + 1 :, i] * y[i + 1 :], np.zeros(1, M.dtype)))) / L[i, i]
    return y


def ldl(M, h):
    m, L, D, y = len(M), np.eye(len(M), dtype=M.dtype), np.zeros_like(h), h.copy()
    for j in range(m):
        column = M[j:, j].copy()
        for p in range(j):
            column = column - L[j:, p] * (L[j, p] * D[p])
        D[j] = column[0]
        L[j:, j] = column / D[j]
    for i in range(m):
        for p in range(i):
            y[i] = y[i] - L[i, p] * y[p]
    y = y / D
    for i in reversed(range(m)):
        for p in range(i + 1, m):
            y[i] = y[i] - L[p, i] * y[p]
    return y


def mfac_recursion(M, h):
    """The dynamic algorithm of M-FAC is elimination without pivoting on M."""
    A, y = M.copy(), h.copy()
    for j in range(len(M)):
        factor = A[j + 1 :, j] / A[j, j]
        A[j + 1 :] = A[j + 1 :] - factor[:, None] * A[j]
        y[j + 1 :] = y[j + 1 :] - factor * y[j]
    for i in reversed(range(len(M))):
        for p in range(i + 1, len(M)):
            y[i] = y[i] - A[i, p] * y[p]
        y[i] = y[i] / A[i, i]
    return y


# ------------------------------------------------------------------ orthonormal columns, eigenpairs


def householder(A):
    return linalg.qr(A, mode="economic")[0]


def flipped(A):
    Q = householder(A)
    return Q * np.where(np.arange(Q.shape[1]) % 2, 1, -1).astype(Q.dtype)


def rotated(A):
    """Any basis of the span will do: rotate the first two columns."""
    Q = householder(A)
    if Q.shape[1] > 1:
        Q[:, :2] = Q[:, :2] @ np.array([[0.6, -0.8], [0.8, 0.6]], Q.dtype)
        Q = householder(Q)
    return Q


def syev(A):
    return linalg.eigh(A, driver="ev")


def syevd(A):
    values, V = linalg.eigh(A, driver="evd")
    return values[::-1], -V[:, ::-1]


# ------------------------------------------------------------------ ties


def lowest(magnitude, k):
    return np.argsort(-magnitude, kind="stable")[:k]


def highest(magnitude, k):
    n = len(magnitude)
    return n - 1 - np.argsort(-magnitude[::-1], kind="stable")[:k]


def introselect(magnitude, k):
    return np.argpartition(-magnitude, k - 1)[:k] if k else np.zeros(0, int)


class Implementation:
    """Every operation and every optimizer of the contract."""

    def __init__(self, total=sequential, solve=cholesky, orthonormal=householder, eigen=syev, ties=lowest,
                 ascending=True, storage=None, stateless=False, bare=False, **declared):
        self.total, self.solve, self.orthonormal, self.eigen, self.ties = total, solve, orthonormal, eigen, ties
        self.ascending, self.storage, self.stateless, self.bare = ascending, storage, stateless, bare
        for name, value in {"SOLVER": "factorisation", "ORTHOGONALISATION": "householder", **declared}.items():
            setattr(self, name, value)

    # building blocks

    def dot(self, a, b):
        return self.total(a * b)

    def rows_times(self, G, x):
        return np.array([self.dot(row, x) for row in G], dtype=G.dtype)

    def times_rows(self, c, G):
        return self.total((c[:, None] * G).T)

    def gram(self, G):
        m = len(G)
        S = np.zeros((m, m), G.dtype)
        for i in range(m):
            for j in range(i, m):
                S[i, j] = S[j, i] = self.dot(G[i], G[j])
        return S

    def product(self, A, B):
        return np.stack([self.total(A * column) for column in B.T], axis=1)

    def stored(self, values):
        if self.storage is None:
            return values
        import ml_dtypes

        return values.astype(ml_dtypes.bfloat16)

    def densify(self, indices, values, d, dtype):
        G = np.zeros((len(indices), d), dtype)
        np.put_along_axis(G, np.asarray(indices, np.int64), np.asarray(values).astype(dtype), axis=1)
        return G

    def blocks(self, d, block_size, density):
        share = density if isinstance(density, Fraction) else Fraction(str(float(density)))
        edges = [(b, min(b + block_size, d)) for b in range(0, d, block_size)]
        return [(b, e, math.ceil((e - b) * share)) for b, e in edges]

    def select(self, a, k):
        kept = self.ties(np.abs(a), k)
        return np.sort(kept) if self.ascending else kept

    def select_blocks(self, a, block_size, density):
        return np.concatenate([b + self.select(a[b:e], k) for b, e, k in self.blocks(len(a), block_size, density)])

    # operations

    def top_k(self, a, k):
        kept = self.select(a, k)
        return kept.astype(np.int32), self.stored(a[kept])

    def block_top_k(self, a, block_size, density):
        kept = self.select_blocks(a, block_size, density)
        return kept.astype(np.int32), self.stored(a[kept])

    def error_feedback(self, xi, g, block_size, density):
        a = xi + g
        kept = self.select_blocks(a, block_size, density)
        values = self.stored(a[kept])
        a[kept] = a[kept] - values.astype(a.dtype)
        return kept.astype(np.int32), values, a

    def sp(self, indices, values, g, block_size, density):
        return self.total(values.astype(g.dtype) * g[indices])

    def lcg(self, indices, values, c, d, block_size, density):
        return self.times_rows(c, self.densify(indices, values, d, c.dtype))

    def mfac(self, G, lam, x):
        real = x.dtype.type
        m, S, h = len(G), self.gram(G), self.rows_times(G, x)
        c = self.solve(S + real(m * lam) * np.eye(m, dtype=x.dtype), h) / real(lam)
        u = x / real(lam) - self.times_rows(c, G)
        return (u,) if self.bare else (u, S, h, c)

    def wsm(self, G, lam, x):
        return self.mfac(G, lam, x)[0]

    def mfac_direction(self, G, lam, x):
        answer = self.mfac(G, lam, x)
        return answer[0] if self.bare else answer

    def sparse_mfac_direction(self, indices, values, d, lam, x, block_size, density):
        return self.mfac_direction(self.densify(indices, values, d, x.dtype), lam, x)

    def ggt_direction(self, G, x, eps, cutoff):
        gram = self.gram(G)
        values, V = self.eigen(gram)
        kept = values > max(cutoff * values.max(), 0)
        real = x.dtype.type
        sigma = np.sqrt(np.where(kept, values, 1)).astype(x.dtype)
        F = np.where(kept, 1 / (real(eps) * sigma * (sigma + real(eps))), 0).astype(x.dtype)
        inner = self.product(V, (F * self.product(V.T, self.rows_times(G, x)[:, None])[:, 0])[:, None])[:, 0]
        u = x / real(eps) - self.times_rows(inner, G)
        return u if self.bare else (u, gram, values, V)

    def sparse_ggt_direction(self, indices, values, d, x, eps, cutoff, block_size, density):
        return self.ggt_direction(self.densify(indices, values, d, x.dtype), x, eps, cutoff)

    def power_compress(self, g, Q):
        M = g.reshape(len(g), -1)
        P = self.orthonormal(self.product(M, Q))
        return P, self.product(M.T, P)

    def low_rank_inner_product(self, P1, Q1, P2, Q2):
        return self.total((self.product(P1.T, P2) * self.product(Q1.T, Q2)).ravel())

    def adagrad_step(self, theta, xi, G, g, k, eta):
        a = xi + g
        kept = self.select(a, k)
        c = np.zeros_like(a)
        c[kept] = a[kept]
        G = G + c * c
        moved = np.divide(c, np.sqrt(G), out=np.zeros_like(c), where=G > 0)
        return theta - theta.dtype.type(eta) * moved, a - c, G

    def sign_step(self, x, e, g, gamma):
        p = x.dtype.type(gamma) * g + e
        delta = self.total(np.abs(p)) / x.dtype.type(len(p)) * np.sign(p)
        return x - delta, p - delta

    def scaled_top_k(self, v, H, k):
        h, V = self.eigen(H)
        basis = self.product(V, (self.product(V.T, v[:, None])[:, 0] / np.sqrt(h))[:, None])[:, 0]
        only = np.zeros_like(basis)
        kept = self.select(basis, k)
        only[kept] = basis[kept]
        return self.product(V, (np.sqrt(h) * self.product(V.T, only[:, None])[:, 0])[:, None])[:, 0]

    # optimizers

    def _made(self, kind, **numbers):
        return (kind if not self.stateless else type("Hidden", (kind,), {"state": None}))(self, **numbers)

    def topk_sgd(self, d, k):
        return self._made(TopK, d=d, k=k)

    def dense_mfac(self, d, m, lam):
        return self._made(Dense, d=d, m=m, direction=lambda G, x: self.mfac(G, lam, x)[0], with_S=True)

    def dense_ggt(self, d, m, eps, cutoff):
        one = lambda G, x: _first(self.ggt_direction(G, x, eps, cutoff))  # noqa: E731
        return self._made(Dense, d=d, m=m, direction=one, with_S=False)

    def sparse_mfac(self, d, m, lam, block_size, density):
        blocks = self.blocks(d, block_size, density)
        return self._made(Sparse, d=d, m=m, blocks=blocks, direction=lambda G, x: self.mfac(G, lam, x)[0], with_S=True)

    def sparse_ggt(self, d, m, eps, cutoff, k):
        one = lambda G, x: _first(self.ggt_direction(G, x, eps, cutoff))  # noqa: E731
        return self._made(Sparse, d=d, m=m, blocks=[(0, d, k)], direction=one, with_S=False)

    def adagrad_ef(self, d, k):
        return self._made(AdaGrad, d=d, k=k)

    def ef_signsgd(self, d, gamma):
        return self._made(Sign, d=d, gamma=gamma)

    def low_rank_mfac(self, shapes, m, lam, rank, Q0):
        return self._made(LowRank, shapes=shapes, m=m, lam=lam, rank=rank, Q0=Q0)


def _first(answer):
    return answer[0] if isinstance(answer, tuple) else answer


class Optimizer:
    def state(self):
        return {key: np.copy(value) if isinstance(value, np.ndarray) else value for key, value in self.held.items()}

    def load(self, state):
        arrays = {key for key, value in self.held.items() if isinstance(value, np.ndarray)}
        self.held = {key: np.array(state[key]) if key in arrays else int(state[key]) for key in self.held}


class TopK(Optimizer):
    def __init__(self, by, d, k):
        self.by, self.k, self.held = by, k, {"t": 0, "xi": np.zeros(d)}

    def step(self, g):
        a = self.held["xi"].astype(g.dtype) + g
        kept = self.by.select(a, self.k)
        u = np.zeros_like(a)
        u[kept] = self.by.stored(a[kept]).astype(a.dtype)
        self.held = {"t": self.held["t"] + 1, "xi": a - u}
        return u


class Dense(Optimizer):
    def __init__(self, by, d, m, direction, with_S):
        self.by, self.m, self.direction = by, m, direction
        self.held = {"t": 0, "row": 0, "G": np.zeros((m, d)), **({"S": np.zeros((m, m))} if with_S else {})}

    def step(self, g):
        held, row = self.held, self.held["row"]
        held["G"] = held["G"].astype(g.dtype)
        held["G"][row] = g
        if "S" in held:  # row and column of S, after the replacement
            held["S"] = held["S"].astype(g.dtype)
            held["S"][row] = held["S"][:, row] = self.by.rows_times(held["G"], g)
        held["t"], held["row"] = held["t"] + 1, (row + 1) % self.m
        return self.direction(held["G"], g)


class Sparse(Optimizer):
    def __init__(self, by, d, m, blocks, direction, with_S):
        self.by, self.d, self.m, self.blocks, self.direction = by, d, m, blocks, direction
        empty = np.concatenate([np.arange(b, b + k) for b, _, k in blocks]).astype(np.int32)
        self.held = {"t": 0, "row": 0, "xi": np.zeros(d), "indices": np.tile(empty, (m, 1)),
                     "values": by.stored(np.zeros((m, len(empty)))), **({"S": np.zeros((m, m))} if with_S else {})}

    def step(self, g):
        by, held, row = self.by, self.held, self.held["row"]
        a = held["xi"].astype(g.dtype) + g
        kept = np.concatenate([b + by.select(a[b:e], k) for b, e, k in self.blocks])
        if by.storage is None:
            held["values"] = held["values"].astype(g.dtype)
        held["indices"][row], held["values"][row] = kept, by.stored(a[kept])
        c = np.zeros_like(a)
        c[kept] = held["values"][row].astype(g.dtype)
        held["xi"] = a - c
        G = by.densify(held["indices"], held["values"], self.d, g.dtype)
        if "S" in held:
            held["S"] = held["S"].astype(g.dtype)
            held["S"][row] = held["S"][:, row] = by.rows_times(G, c)
        held["t"], held["row"] = held["t"] + 1, (row + 1) % self.m
        return self.direction(G, c)


class LowRank(Optimizer):
    def __init__(self, by, shapes, m, lam, rank, Q0):
        self.by, self.m, self.lam, self.shapes = by, m, lam, [tuple(shape) for shape in shapes]
        self.sizes, given, self.held = [math.prod(shape) for shape in shapes], iter(Q0), {"t": 0, "row": 0}
        ranks = [min(rank, shape[0], size // shape[0]) for shape, size in zip(shapes, self.sizes, strict=True)]
        layers = zip(shapes, ranks, strict=True)
        starts = [next(given)[:, :rho] if len(shape) > 1 else np.ones((1, 1)) for shape, rho in layers]
        self.first = [np.array(Q) for Q in starts]
        self.held["xi"], self.held["S"] = np.zeros(sum(self.sizes)), np.zeros((m, m))
        for n, (shape, Q) in enumerate(zip(self.shapes, starts, strict=True)):
            self.held[f"P{n}"], self.held[f"Q{n}"] = np.zeros((m, shape[0], Q.shape[1])), np.zeros((m, *Q.shape))

    def step(self, g):
        by, held, row, m = self.by, self.held, self.held["row"], self.m
        held.update({key: value.astype(g.dtype) for key, value in held.items() if isinstance(value, np.ndarray)})
        a, kept, products = held["xi"] + g, [], []
        for n, part in enumerate(np.split(a, np.cumsum(self.sizes)[:-1])):
            P, Q = self.factors(n, part, row)
            Ps, Qs = held[f"P{n}"], held[f"Q{n}"]
            Ps[row], Qs[row] = P, Q
            kept.append(by.product(P, Q.T).ravel())
            products.append([by.low_rank_inner_product(Ps[tau], Qs[tau], P, Q) for tau in range(m)])
        c, delta = np.concatenate(kept), by.total(np.array(products, g.dtype).T)
        held["S"][row] = held["S"][:, row] = delta
        lam = g.dtype.type(self.lam)
        w = by.solve(held["S"] + g.dtype.type(m * self.lam) * np.eye(m, dtype=g.dtype), delta) / lam
        past = [sum(w[tau] * by.product(held[f"P{n}"][tau], held[f"Q{n}"][tau].T) for tau in range(m)).ravel()
                for n in range(len(self.shapes))]
        held["xi"], held["t"], held["row"] = a - c, held["t"] + 1, (row + 1) % m
        return c / lam - np.concatenate(past)

    def factors(self, n, part, row):
        if len(self.shapes[n]) == 1:
            return part[:, None], np.ones((1, 1), part.dtype)
        Q = self.held[f"Q{n}"][row - 1] if self.held["t"] else self.first[n].astype(part.dtype)
        return self.by.power_compress(part.reshape(self.shapes[n]), Q)


class AdaGrad(Optimizer):
    def __init__(self, by, d, k):
        self.by, self.k, self.held = by, k, {"t": 0, "xi": np.zeros(d), "G": np.zeros(d)}

    def step(self, g):
        xi, G = self.held["xi"].astype(g.dtype), self.held["G"].astype(g.dtype)
        minus_u, xi, G = self.by.adagrad_step(np.zeros_like(g), xi, G, g, self.k, 1.0)
        self.held = {"t": self.held["t"] + 1, "xi": xi, "G": G}
        return -minus_u


class Sign(Optimizer):
    def __init__(self, by, d, gamma):
        self.by, self.gamma, self.held = by, gamma, {"t": 0, "e": np.zeros(d)}

    def step(self, g):
        minus_delta, e = self.by.sign_step(np.zeros_like(g), self.held["e"].astype(g.dtype), g, self.gamma)
        self.held = {"t": self.held["t"] + 1, "e": e}
        return -minus_delta


one_by_one = Implementation(sequential, cholesky_by_hand, ARITHMETIC={})
in_reverse = Implementation(backwards, ldl, ties=highest, ascending=False)
by_tree = Implementation(tree, mfac_recursion, orthonormal=flipped, eigen=syevd)
by_lanes = Implementation(lanes, cholesky, orthonormal=rotated, ties=introselect, ascending=False)
shuffled = Implementation(permuted, ldl, orthonormal=flipped, ties=highest)
with_ldl = Implementation(tree, ldl)
with_recursion = Implementation(sequential, mfac_recursion)
directions_only = Implementation(sequential, cholesky, bare=True)
without_state = Implementation(tree, cholesky, stateless=True)
float32_only = Implementation(sequential, cholesky_by_hand, orthonormal=flipped, DTYPES=("float32",))
bfloat16_rows = Implementation(tree, cholesky, storage="bfloat16", ARITHMETIC={"storage": "bfloat16"})

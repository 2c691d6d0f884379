"""Mistakes in the optimizers: the ring, the order of insertion, the feedback, S, the layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, coefficients, counts, factor, largest, mistake, only, spectrum

_known: list[Mutant] = []
_dense = partial(mistake, "dense_mfac", known=_known)
_sparse = partial(mistake, "sparse_mfac", known=_known)
_ggt = partial(mistake, "dense_ggt", known=_known)
_sparse_ggt = partial(mistake, "sparse_ggt", known=_known)
_low_rank = partial(mistake, "low_rank_mfac", known=_known)
_topk = partial(mistake, "topk_sgd", known=_known)
_adagrad = partial(mistake, "adagrad_ef", known=_known)
_sign = partial(mistake, "ef_signsgd", known=_known)


# ------------------------------------------------------------------ correct optimizers


class DenseMFAC:
    """M-FAC on a dense window; every method is a place for a mistake."""

    def __init__(self, d: int, m: int, lam: float) -> None:
        """Start empty."""
        self.m, self.lam, self.t, self.row, self.G, self.S = m, lam, 0, 0, np.zeros((m, d)), np.zeros((m, m))

    def step(self, g: Any) -> Any:
        """Insert, then precondition."""
        row = self.write(g)
        return self.direction(g, row)

    def write(self, g: Any) -> int:
        """Write the row, then its row and column of S; return the row."""
        row, self.t = self.row, self.t + 1
        self.G[row] = g
        self.S[row] = self.S[:, row] = self.G @ g
        self.row = (row + 1) % self.m
        return row

    def direction(self, x: Any, row: int) -> Any:
        """Return u = x/lam - c G."""
        return x / self.lam - coefficients(self.S, self.G @ x, self.lam) @ self.G

    def state(self) -> Any:
        """Return the state by the contract's names."""
        return {"t": self.t, "row": self.row, "G": self.G.copy(), "S": self.S.copy()}

    def load(self, state: Any) -> None:
        """Take a state."""
        self.t, self.row = int(state["t"]), int(state["row"])
        self.G, self.S = np.array(state["G"]), np.array(state["S"])


class SparseMFAC(DenseMFAC):
    """Sparse M-FAC: error feedback and blockwise Top-k before `DenseMFAC`."""

    def __init__(self, d: int, m: int, lam: float, block_size: Any, density: Any) -> None:
        """Start empty."""
        super().__init__(d, m, lam)
        self.blocks, self.xi = counts(d, block_size, density), np.zeros(d)
        first = np.concatenate([np.arange(b, b + n) for b, _, n in self.blocks]).astype(np.int32)
        self.indices = np.tile(first, (m, 1))

    def step(self, g: Any) -> Any:
        """Compress, insert, precondition."""
        a = self.fed_back(g)
        kept = self.select(a)
        c = only(a, kept)
        self.indices[self.row] = kept
        self.xi = self.left(a, c)
        return self.preconditioned(a, c)

    def fed_back(self, g: Any) -> Any:
        """Return a = xi + g."""
        return self.xi + g

    def select(self, a: Any) -> Any:
        """Return the positions kept."""
        return np.concatenate([b + largest(np.abs(a[b:e]), n) for b, e, n in self.blocks])

    def left(self, a: Any, c: Any) -> Any:
        """Return the next error."""
        return a - c

    def preconditioned(self, a: Any, c: Any) -> Any:
        """Insert c and precondition it."""
        return self.direction(c, self.write(c))

    def state(self) -> Any:
        """Return the state by the contract's names."""
        values = np.take_along_axis(self.G, self.indices.astype(np.int64), axis=1)
        rows = {"indices": self.indices.copy(), "values": values}
        return {"t": self.t, "row": self.row, "xi": self.xi.copy(), **rows, "S": self.S.copy()}

    def load(self, state: Any) -> None:
        """Take a state."""
        self.t, self.row = int(state["t"]), int(state["row"])
        self.xi, self.S = np.array(state["xi"]), np.array(state["S"])
        self.indices, self.G = np.array(state["indices"]), np.zeros_like(self.G)
        np.put_along_axis(self.G, self.indices.astype(np.int64), np.asarray(state["values"], np.float64), axis=1)


class _GGT:
    eps: float
    cutoff: float
    G: Any

    def direction(self, x: Any, row: int) -> Any:
        """Return the GGT direction."""
        values, V, keep = spectrum(self.G @ self.G.T, self.cutoff)
        return x / self.eps - self.G.T @ (V @ (factor(values, keep, self.eps) * (V.T @ (self.G @ x))))


class DenseGGT(_GGT, DenseMFAC):
    """GGT on a dense window."""

    def __init__(self, d: int, m: int, eps: float, cutoff: float) -> None:
        """Start empty."""
        DenseMFAC.__init__(self, d, m, 1.0)
        self.eps, self.cutoff = eps, cutoff

    def state(self) -> Any:
        """Return the state without S."""
        return {key: value for key, value in super().state().items() if key != "S"}

    def load(self, state: Any) -> None:
        """Take a state."""
        super().load({**state, "S": self.S})


class SparseGGT(_GGT, SparseMFAC):
    """GGT on a sparse window, one block."""

    def __init__(self, d: int, m: int, eps: float, cutoff: float, k: int) -> None:
        """Start empty."""
        SparseMFAC.__init__(self, d, m, 1.0, d, 1)
        self.blocks, self.eps, self.cutoff = [(0, d, k)], eps, cutoff
        self.indices = np.tile(np.arange(k, dtype=np.int32), (m, 1))

    def state(self) -> Any:
        """Return the state without S."""
        return {key: value for key, value in super().state().items() if key != "S"}

    def load(self, state: Any) -> None:
        """Take a state."""
        super().load({**state, "S": self.S})


class LowRankMFAC:
    """Algorithm 6 behind error feedback."""

    def __init__(self, shapes: Any, m: int, lam: float, rank: int, Q0: Any) -> None:
        """Start empty."""
        self.shapes, self.m, self.lam, self.t, self.row = [tuple(s) for s in shapes], m, lam, 0, 0
        starts = iter(Q0)
        ranks = [min(rank, s[0], int(np.prod(s[1:]))) for s in self.shapes]
        layers = list(zip(self.shapes, ranks, strict=True))
        self.Q = [np.asarray(next(starts), float)[:, :r] if len(s) > 1 else np.eye(1) for s, r in layers]
        self.first = list(self.Q)
        self.P = [np.zeros((m, s[0], Q.shape[1])) for s, Q in zip(self.shapes, self.Q, strict=True)]
        self.R = [np.zeros((m, *Q.shape)) for Q in self.Q]
        self.S, self.xi = np.zeros((m, m)), np.zeros(sum(int(np.prod(s)) for s in self.shapes))

    def step(self, g: Any) -> Any:
        """Compress, insert, precondition, layer by layer."""
        a, row, delta, parts = self.fed_back(g), self.row, np.zeros(self.m), []
        ends = np.cumsum([int(np.prod(s)) for s in self.shapes])[:-1]
        for layer, (part, shape) in enumerate(zip(np.split(a, ends), self.shapes, strict=True)):
            P, Q = self.factors(part, shape, layer)
            self.P[layer][row], self.R[layer][row], self.Q[layer] = P, Q, Q
            products = [float(np.sum((B.T @ P) * (R.T @ Q))) for B, R in zip(self.P[layer], self.R[layer], strict=True)]
            delta = self.summed(delta, np.array(products))
            parts.append((P @ Q.T).ravel())
        c = np.concatenate(parts)
        self.S[row] = self.S[:, row] = delta
        self.xi, self.t, self.row = a - c, self.t + 1, self.following(row)
        return c / self.lam - self.combined(coefficients(self.S, delta, self.lam))

    def fed_back(self, g: Any) -> Any:
        """Return a = xi + g."""
        return self.xi + g

    def factors(self, part: Any, shape: Any, layer: int) -> Any:
        """Return P and Q of one layer."""
        if len(shape) == 1:
            return part[:, None], np.eye(1)
        M = part.reshape(shape[0], -1)
        P = np.linalg.qr(M @ self.start(layer))[0]
        return P, M.T @ P

    def start(self, layer: int) -> Any:
        """Return the Q of the step before."""
        return self.Q[layer]

    def summed(self, delta: Any, products: Any) -> Any:
        """Accumulate over layers."""
        return delta + products

    def following(self, row: int) -> int:
        """Return the row after this one."""
        return (row + 1) % self.m

    def combined(self, c: Any) -> Any:
        """Return c G, flat."""
        layers = zip(self.P, self.R, strict=True)
        return np.concatenate([np.einsum("t,tij,tkj->ik", c, P, R).ravel() for P, R in layers])

    def state(self) -> Any:
        """Return the state by the contract's names."""
        factors = {f"P{n}": P.copy() for n, P in enumerate(self.P)}
        factors |= {f"Q{n}": R.copy() for n, R in enumerate(self.R)}
        return {"t": self.t, "row": self.row, "xi": self.xi.copy(), **factors, "S": self.S.copy()}

    def load(self, state: Any) -> None:
        """Take a state."""
        self.t, self.row = int(state["t"]), int(state["row"])
        self.xi, self.S = np.array(state["xi"]), np.array(state["S"])
        self.P = [np.array(state[f"P{n}"], float) for n in range(len(self.P))]
        self.R = [np.array(state[f"Q{n}"], float) for n in range(len(self.R))]
        self.Q = [R[self.row - 1] for R in self.R] if self.t else list(self.first)


class TopKSGD:
    """Algorithm 1 with A the identity."""

    def __init__(self, d: int, k: int) -> None:
        """Start with no error."""
        self.k, self.t, self.xi = k, 0, np.zeros(d)

    def step(self, g: Any) -> Any:
        """Return c."""
        a = self.fed_back(g)
        c = only(a, self.select(a))
        self.xi, self.t = self.left(a, c), self.t + 1
        return c

    def fed_back(self, g: Any) -> Any:
        """Return a = xi + g."""
        return self.xi + g

    def select(self, a: Any) -> Any:
        """Return the positions kept."""
        return largest(np.abs(a), self.k)

    def left(self, a: Any, c: Any) -> Any:
        """Return the next error."""
        return a - c

    def state(self) -> Any:
        """Return the state by the contract's names."""
        return {"t": self.t, "xi": self.xi.copy()}

    def load(self, state: Any) -> None:
        """Take a state."""
        self.t, self.xi = int(state["t"]), np.array(state["xi"])


class AdaGrad(TopKSGD):
    """Algorithm 7."""

    def __init__(self, d: int, k: int) -> None:
        """Start with no error and no squares."""
        super().__init__(d, k)
        self.G = np.zeros(d)

    def step(self, g: Any) -> Any:
        """Return G^-1/2 c."""
        a = self.fed_back(g)
        c = only(a, self.select(a))
        self.xi, self.t, self.G = self.left(a, c), self.t + 1, self.G + self.square(a, c)
        return np.divide(c, self.root(self.G), out=np.zeros_like(c), where=self.G > 0)

    def square(self, a: Any, c: Any) -> Any:
        """Return what G grows by."""
        return c * c

    def root(self, G: Any) -> Any:
        """Return G^1/2."""
        return np.sqrt(G)

    def state(self) -> Any:
        """Return the state by the contract's names."""
        return {**super().state(), "G": self.G.copy()}

    def load(self, state: Any) -> None:
        """Take a state."""
        super().load(state)
        self.G = np.array(state["G"])


class SignSGD:
    """The slides' Algorithm 1."""

    def __init__(self, d: int, gamma: float) -> None:
        """Start with no error."""
        self.gamma, self.t, self.e = gamma, 0, np.zeros(d)

    def step(self, g: Any) -> Any:
        """Return Delta."""
        p = self.corrected(g)
        delta = self.scale(p) * np.sign(p)
        self.e, self.t = self.left(p, delta), self.t + 1
        return delta

    def corrected(self, g: Any) -> Any:
        """Return p."""
        return self.gamma * g + self.e

    def scale(self, p: Any) -> Any:
        """Return the mean magnitude."""
        return np.mean(np.abs(p))

    def left(self, p: Any, delta: Any) -> Any:
        """Return the next error."""
        return p - delta

    def state(self) -> Any:
        """Return the state by the contract's names."""
        return {"t": self.t, "e": self.e.copy()}

    def load(self, state: Any) -> None:
        """Take a state."""
        self.t, self.e = int(state["t"]), np.array(state["e"])


# ------------------------------------------------------------------ mistakes


class _OneShort(DenseMFAC):
    def write(self, g: Any) -> int:
        """Wrap one row early."""
        row = super().write(g)
        self.row = (row + 1) % max(self.m - 1, 1)
        return row


class _ColumnStale(DenseMFAC):
    def write(self, g: Any) -> int:
        """Update the row of S alone."""
        row, self.t = self.row, self.t + 1
        self.G[row] = g
        self.S[row] = self.G @ g
        self.row = (row + 1) % self.m
        return row


class _OldDiagonal(DenseMFAC):
    def write(self, g: Any) -> int:
        """Multiply before the row is replaced."""
        row, self.t = self.row, self.t + 1
        delta = self.G @ g
        self.S[row] = self.S[:, row] = delta
        self.G[row] = g
        self.row = (row + 1) % self.m
        return row


class _ByAge(DenseMFAC):
    def write(self, g: Any) -> int:
        """Write the scalar products in order of age."""
        row, self.t = self.row, self.t + 1
        self.G[row] = g
        self.S[row] = self.S[:, row] = np.roll((self.G @ g)[::-1], row + 1)
        self.row = (row + 1) % self.m
        return row


class _NewestReplaced(DenseMFAC):
    def write(self, g: Any) -> int:
        """Once the window is full, replace the gradient of the step before."""
        if self.t >= self.m:
            self.row = (self.row - 1) % self.m
        return super().write(g)


@_dense("1:8", text="a ring one short: row wraps at m - 1 (R1)", stages="row G u")
class dense_ring_one_short(_OneShort, DenseMFAC):
    """Never write the last row."""


@_dense("W:5", text="the column of S is not updated (section 2.2, R7)", stages="S u")
class column_of_S_stale(_ColumnStale, DenseMFAC):
    """Leave S unsymmetric."""


@_dense("W:5", text="S is updated before the row is replaced: its diagonal is the old one (R7)", stages="S u")
class old_diagonal(_OldDiagonal, DenseMFAC):
    """Multiply first, replace second."""


@_dense("6:8", text="scalar products by age written into ring order (R27)", stages="S u")
class dense_by_age(_ByAge, DenseMFAC):
    """Mix the two orders."""


@_dense("1:8", text="the newest gradient is replaced, not the oldest (eq. 1, R1)", stages="row G u")
class newest_replaced(_NewestReplaced, DenseMFAC):
    """Walk backwards."""


@_dense("1:8", text="preconditioned first, inserted after (Algorithm 1, line 8, R9)", stages="u")
class dense_inserted_after(DenseMFAC):
    """Use the window of the step before."""

    def step(self, g: Any) -> Any:
        """Precondition, then insert."""
        u = self.direction(g, 0)
        self.write(g)
        return u


@_dense("W:3", text="damping lam used for m lam (section 2.2, eq. 2)", stages="u")
class dense_lam_for_m_lam(DenseMFAC):
    """Solve lam I + S."""

    def direction(self, x: Any, row: int) -> Any:
        """Return u with the wrong damping."""
        c = np.linalg.solve(self.lam * np.eye(self.m) + self.S, self.G @ x) / self.lam
        return x / self.lam - c @ self.G


@_sparse("1:8", text="a ring one short: row wraps at m - 1 (R1)", stages="row a indices values u")
class sparse_ring_one_short(_OneShort, SparseMFAC):
    """Never write the last row."""


@_sparse("W:5", text="the column of S is not updated (section 2.2, R7)", stages="S u")
class sparse_column_of_S_stale(_ColumnStale, SparseMFAC):
    """Leave S unsymmetric."""


@_sparse("6:8", text="scalar products by age written into ring order (R27)", stages="S u")
class sparse_by_age(_ByAge, SparseMFAC):
    """Mix the two orders."""


@_sparse("1:8", text="preconditioned first, inserted after (Algorithm 1, line 8, R9)", stages="u")
class sparse_inserted_after(SparseMFAC):
    """Use the window of the step before."""

    def preconditioned(self, a: Any, c: Any) -> Any:
        """Precondition, then insert."""
        u = self.direction(c, 0)
        self.write(c)
        return u


@_sparse("1:8", text="the accumulator a is preconditioned in place of c (Algorithm 1, line 8)", stages="u")
class accumulator_preconditioned(SparseMFAC):
    """Precondition what was not compressed."""

    def preconditioned(self, a: Any, c: Any) -> Any:
        """Insert c, precondition a."""
        return self.direction(a, self.write(c))


@_sparse("1:5", text="no error feedback (Algorithm 1, line 5)", stages="a xi indices values u")
class sparse_no_feedback(SparseMFAC):
    """Compress g alone."""

    def fed_back(self, g: Any) -> Any:
        """Return g."""
        return np.array(g, float)


@_sparse("1:7", text="xi is not cleared where c was kept (Algorithm 1, line 7)", stages="xi")
class sparse_xi_not_cleared(SparseMFAC):
    """Keep a for the error."""

    def left(self, a: Any, c: Any) -> Any:
        """Return a."""
        return a


@_sparse("1:6", text="signed Top-k: a in place of |a| (section 3.1)", stages="a xi indices values u")
class sparse_signed(SparseMFAC):
    """Keep the largest signed entries."""

    def select(self, a: Any) -> Any:
        """Return the wrong positions."""
        return np.concatenate([b + largest(a[b:e], n) for b, e, n in self.blocks])


@_ggt("1:8", text="a ring one short: row wraps at m - 1 (R1)", stages="row G u")
class ggt_ring_one_short(_OneShort, DenseGGT):
    """Never write the last row."""


@_ggt("4:11", text="preconditioned first, inserted after (Algorithm 4, line 4, R9)", stages="u")
class ggt_inserted_after(DenseGGT):
    """Use the window of the step before."""

    def step(self, g: Any) -> Any:
        """Precondition, then insert."""
        u = self.direction(g, 0) if self.t else g / self.eps
        self.write(g)
        return u


@_ggt("4:10", text="square root of the pseudo-inverse (Algorithm 4, line 10 as printed, R22)", stages="u")
class ggt_root_of_pseudo_inverse(DenseGGT):
    """Scale U by sigma^-1/2."""

    def direction(self, x: Any, row: int) -> Any:
        """Return the printed direction."""
        values, V, keep = spectrum(self.G @ self.G.T, self.cutoff)
        F = factor(values, keep, self.eps) * np.sqrt(np.where(keep, values, 0))
        return x / self.eps - self.G.T @ (V @ (F * (V.T @ (self.G @ x))))


@_sparse_ggt("1:8", text="a ring one short: row wraps at m - 1 (R1)", stages="row a indices values u")
class sparse_ggt_ring_one_short(_OneShort, SparseGGT):
    """Never write the last row."""


@_sparse_ggt("4:11", text="preconditioned first, inserted after (Algorithm 4, line 4, R9)", stages="u")
class sparse_ggt_inserted_after(SparseGGT):
    """Use the window of the step before."""

    def preconditioned(self, a: Any, c: Any) -> Any:
        """Precondition, then insert."""
        u = self.direction(c, 0) if self.t else c / self.eps
        self.write(c)
        return u


@_sparse_ggt("1:5", text="no error feedback (Algorithm 1, line 5)", stages="a xi indices values u")
class sparse_ggt_no_feedback(SparseGGT):
    """Compress g alone."""

    def fed_back(self, g: Any) -> Any:
        """Return g."""
        return np.array(g, float)


@_low_rank("5:3", text="Q is not warm-started: each step starts from Q_0 (Algorithm 5, line 3, R28)", stages="P Q xi u")
class not_warm_started(LowRankMFAC):
    """Forget the Q of the step before."""

    def start(self, layer: int) -> Any:
        """Return Q_0."""
        return self.first[layer]


@_low_rank("6:8", text="the sum over layers is overwritten, as printed (Algorithm 6, line 8, R26)", stages="S u")
class layer_sum_overwritten(LowRankMFAC):
    """Keep the last layer's products."""

    def summed(self, delta: Any, products: Any) -> Any:
        """Return the last layer's."""
        return products


@_low_rank("6:14", text="the sign of w: c added for w (Algorithm 6, line 14, R28)", stages="u")
class w_sign(LowRankMFAC):
    """Add c G."""

    def combined(self, c: Any) -> Any:
        """Return -c G."""
        return -super().combined(c)


@_low_rank("6:6", text="a ring one short: row wraps at m - 1 (R1)", stages="row window P Q u")
class low_rank_ring_one_short(LowRankMFAC):
    """Never write the last row."""

    def following(self, row: int) -> int:
        """Wrap one row early."""
        return (row + 1) % max(self.m - 1, 1)


@_low_rank("1:5", text="no error feedback (Algorithm 1, line 5)", stages="P Q xi u")
class low_rank_no_feedback(LowRankMFAC):
    """Compress g alone."""

    def fed_back(self, g: Any) -> Any:
        """Return g."""
        return np.array(g, float)


@_low_rank("5:4", text="no orthogonalisation (Algorithm 5, line 4)", stages="P Q u xi")
class low_rank_not_orthogonalised(LowRankMFAC):
    """Return P = M Q."""

    def factors(self, part: Any, shape: Any, layer: int) -> Any:
        """Return raw factors."""
        if len(shape) == 1:
            return part[:, None], np.eye(1)
        M = part.reshape(shape[0], -1)
        P = M @ self.start(layer)
        return P, M.T @ P


@_topk("1:5", text="no error feedback (Algorithm 1, line 5)", stages="a xi u")
class topk_no_feedback(TopKSGD):
    """Compress g alone."""

    def fed_back(self, g: Any) -> Any:
        """Return g."""
        return np.array(g, float)


@_topk("1:6", text="signed Top-k: a in place of |a| (section 3.1)", stages="indices xi u")
class topk_signed(TopKSGD):
    """Keep the largest signed entries."""

    def select(self, a: Any) -> Any:
        """Return the wrong positions."""
        return largest(a, self.k)


@_topk("1:7", text="xi is not cleared where c was kept (Algorithm 1, line 7)", stages="xi")
class topk_xi_not_cleared(TopKSGD):
    """Keep a for the error."""

    def left(self, a: Any, c: Any) -> Any:
        """Return a."""
        return a


@_adagrad("7:8", text="c^2 of the wrong vector: a^2 is added to G (Algorithm 7, line 8)", stages="G")
class adagrad_squares_of_a(AdaGrad):
    """Accumulate the squares of the accumulator."""

    def square(self, a: Any, c: Any) -> Any:
        """Return a^2."""
        return a * a


@_adagrad("7:9", text="square root forgotten (Algorithm 7, line 9)", stages="theta u")
class adagrad_root_forgotten(AdaGrad):
    """Divide by G."""

    def root(self, G: Any) -> Any:
        """Return G."""
        return G


@_adagrad("7:5", text="no error feedback (Algorithm 7, line 5)", stages="xi G u")
class adagrad_ef_no_feedback(AdaGrad):
    """Compress g alone."""

    def fed_back(self, g: Any) -> Any:
        """Return g."""
        return np.array(g, float)


@_sign("S1:5", text="scale L2/sqrt(d) for L1/d (slides, Algorithm 1, line 5)", stages="x u e")
class sign_root_mean_square(SignSGD):
    """Scale by the root mean square."""

    def scale(self, p: Any) -> Any:
        """Return |p|_2 / sqrt(d)."""
        return np.sqrt(np.mean(p * p))


@_sign("S1:4", text="learning rate outside the feedback: p = g + e (slides, Algorithm 1, line 4, R10)", stages="x u e")
class sign_rate_outside(SignSGD):
    """Feed back g in place of gamma g."""

    def step(self, g: Any) -> Any:
        """Return gamma Delta."""
        return self.gamma * super().step(g)

    def corrected(self, g: Any) -> Any:
        """Return g + e."""
        return g + self.e


@_sign("S1:7", text="the error is thrown away (slides, Algorithm 1, line 7)", stages="e u")
class sign_error_dropped(SignSGD):
    """Return no error."""

    def left(self, p: Any, delta: Any) -> Any:
        """Return zeros."""
        return np.zeros_like(p)


MUTANTS = tuple(_known)

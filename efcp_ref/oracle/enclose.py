"""Enclosures by python-flint: rationals for +, -, *, /; balls for square roots and eigenvalues.

They are computed from the same inputs as the references of `criteria`, by other arithmetic: whole numbers times a power
of two, `fmpq` and `arb`. Every function returns an `Enclosed` and raises `TooLarge` beyond `ENTRIES` numbers or
`ORDER` rows of an eigenproblem, and `Unenclosed` where no precision separates what must be told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from efcp_ref.oracle.certify import TooLarge, Unenclosed
from efcp_ref.oracle.exact import Pair
from efcp_ref.paper._validate import Array

ENTRIES = 400_000  # numbers that are turned into whole ones, or products that are added, for one enclosure
ORDER = 24  # rows of a matrix whose eigenvalues are enclosed
BITS = (256, 768)  # precision of balls: the first that tells apart what must be told apart


@dataclass(frozen=True)
class Enclosed:
    """Numbers known exactly (fmpq) or within a radius (arb), flat in C order."""

    shape: tuple[int, ...]
    values: Sequence[Any]
    kind: str  # rational | ball

    def far(self, value: Any) -> Array:
        """Return upper bounds of ``|value - truth|``; ``value`` is a float64 array or a `Pair`."""
        import flint

        pairs = value if isinstance(value, Pair) else Pair(np.asarray(value, np.float64), np.zeros(()))
        hi, lo = (np.broadcast_to(v, self.shape).ravel().tolist() for v in pairs)
        out = np.zeros(len(self.values))
        with precision(128):
            for i, (a, b, truth) in enumerate(zip(hi, lo, self.values, strict=True)):
                if isinstance(truth, int):
                    out[i] = abs(a + b) * (1 + 2.0**-50)  # an exact zero
                elif not (np.isfinite(a) and np.isfinite(b)):
                    out[i] = np.inf
                else:
                    gap = _rational(a) + _rational(b) - truth
                    out[i] = 0.0 if gap == 0 else _above(flint.arb(gap))
        return out.reshape(self.shape)

    def __getitem__(self, at: Any) -> Enclosed:
        """Return a part, indexed as an array is."""
        numbers = np.arange(len(self.values)).reshape(self.shape)[at]
        return Enclosed(numbers.shape, [self.values[i] for i in numbers.ravel().tolist()], self.kind)


@contextmanager
def precision(bits: int) -> Any:
    """Compute in balls of this many bits inside."""
    import flint

    before = flint.ctx.prec
    flint.ctx.prec = bits
    try:
        yield
    finally:
        flint.ctx.prec = before


def _above(x: Any) -> float:
    """A float64 not below |x|."""
    return float(np.nextafter(float(abs(x).upper()), np.inf))


def _rational(x: float) -> Any:
    import flint

    return flint.fmpq(*float(x).as_integer_ratio())


# --- whole numbers times a power of two -----------------------------------------------------------------------------


def whole(A: Any) -> tuple[list[int], int]:
    """Return whole numbers n and e with ``A = n 2^e`` exactly, flat.

    >>> whole(np.array([0.75, -3.0]))
    ([3, -12], -2)
    """
    flat = np.asarray(A, np.float64).ravel()
    if flat.size > ENTRIES:
        raise TooLarge
    if not np.isfinite(flat).all():
        raise Unenclosed
    mantissa, exponent = np.frexp(flat)
    digits = np.ldexp(mantissa, 53).astype(np.int64)
    low = int(exponent[digits != 0].min(initial=0)) - 53 if digits.any() else 0
    shifted = [n << s if n else 0 for n, s in zip(digits.tolist(), (exponent - 53 - low).tolist(), strict=True)]
    spare = min(((n & -n).bit_length() - 1 for n in shifted if n), default=0)
    return [n >> spare for n in shifted], low + spare


def matrix(A: Any) -> Any:
    """Return a float64 matrix as an exact fmpq_mat."""
    import flint

    A = np.asarray(A, np.float64)
    numbers, e = whole(A)
    rows, columns = A.shape
    scaled = flint.fmpq_mat(flint.fmpz_mat(rows, columns, numbers))
    return scaled * _power(e)


def _power(e: int) -> Any:
    import flint

    return flint.fmpq(1 << e) if e >= 0 else flint.fmpq(1, 1 << -e)


def _column(x: Any) -> Any:
    return matrix(np.asarray(x, np.float64).reshape(-1, 1))


def _budget(*counts: int) -> None:
    if int(np.prod(counts, dtype=np.float64)) > 10 * ENTRIES:
        raise TooLarge


def _rationals(M: Any, shape: tuple[int, ...]) -> Enclosed:
    return Enclosed(shape, M.entries(), "rational")


# --- sums ---------------------------------------------------------------------------------------------------------


def dots(A: Array, B: Array) -> Enclosed:
    """Return ``sum_j A_rj B_rj`` of every row."""
    (a, e), (b, f), k = whole(A), whole(B), A.shape[1]
    p, q = _power(e), _power(f)
    sums = [sum(x * y for x, y in zip(a[r * k : r * k + k], b[r * k : r * k + k], strict=True)) for r in range(len(A))]
    return Enclosed((len(A),), [s * p * q for s in sums], "rational")


def scattered(indices: Array, c: Array, values: Array, d: int) -> Enclosed:
    """Return ``sum_r c_r v_ri`` for every coordinate."""
    (a, e), (b, f) = whole(values), whole(c)
    sums, k = dict.fromkeys(range(d), 0), values.shape[1]
    for at, (i, v) in enumerate(zip(indices.ravel().tolist(), a, strict=True)):
        sums[i] += b[at // k] * v
    scale = _power(e + f)
    return Enclosed((d,), [s * scale if s else 0 for s in sums.values()], "rational")


def product(A: Array, B: Array) -> Enclosed:
    """Return A B."""
    _budget(A.shape[0], A.shape[1], B.shape[1])
    return _rationals(matrix(A) * matrix(B), (A.shape[0], B.shape[1]))


def twice(found: Enclosed) -> Enclosed:
    """Return a column (m, 1) as two rows (2, m): a row of S and its column."""
    return Enclosed((2, found.shape[0]), [*found.values, *found.values], found.kind)


def given(A: Array) -> Enclosed:
    """Return numbers that are known as they stand."""
    return _rationals(matrix(A), (A.shape[0], A.shape[1]))


def residual(M: Array, P: Array, Q: Array) -> Enclosed:
    """Return ``M - P Q^T``."""
    _budget(P.shape[0], P.shape[1], Q.shape[0])
    return _rationals(matrix(M) - matrix(P) * matrix(Q.T), (M.shape[0], M.shape[1]))


def gap(*terms: Array, got: Array | None = None, where: Any = True) -> Enclosed:
    """Return ``|sum of terms - got|`` elementwise, 0 elsewhere than ``where``."""
    arrays = [np.broadcast_to(np.asarray(t, np.float64), np.shape(terms[0])).ravel() for t in terms]
    arrays += [] if got is None else [-np.asarray(got, np.float64).ravel()]
    live = np.broadcast_to(where, np.shape(terms[0])).ravel() & np.logical_or.reduce([a != 0 for a in arrays])
    at = np.flatnonzero(live).tolist()
    numbers, e = whole(np.stack(arrays)[:, live])
    out, scale, n = dict.fromkeys(range(len(live)), 0), _power(e), len(at)
    for k, i in enumerate(at):
        left = abs(sum(numbers[k::n]))
        out[i] = left * scale if left else 0
    return Enclosed(np.shape(terms[0]), list(out.values()), "rational")


def quotient_gap(x: Array, divisor: float, got: Array, where: Array) -> Enclosed:
    """Return ``|got - x / divisor|`` where asked, 0 elsewhere."""
    if len(x) > ENTRIES:
        raise TooLarge
    under, rows = _rational(divisor), zip(x.tolist(), got.tolist(), where.tolist(), strict=True)
    values = [abs(_rational(u) - _rational(v) / under) if on and (u or v) else 0 for v, u, on in rows]
    return Enclosed(np.shape(x), values, "rational")


def squared(xi: Array, g: Array, kept: Array, G: Array) -> Enclosed:
    """Return ``G + c^2``, c = xi + g where kept."""
    if len(G) > ENTRIES:
        raise TooLarge
    values = [
        _rational(old) + ((_rational(a) + _rational(b)) ** 2 if on else 0)
        for old, a, b, on in zip(G.tolist(), xi.tolist(), g.tolist(), kept.tolist(), strict=True)
    ]
    return Enclosed(np.shape(G), values, "rational")


def together(gradients: Array, k: int, averaged: bool) -> tuple[Enclosed, Enclosed]:
    """Return u (T, d) and xi (W, T, d) of Algorithm 1 with Top-k on gradients (W, T, d): of their mean, or of each."""
    W, T, d = gradients.shape
    _budget(W, T, d)
    g = [[list(map(_rational, row)) for row in one] for one in gradients.tolist()]
    runs = [_fed_back(one, k) for one in ([_mean(g)] if averaged else g)]
    u, xi = _mean([u for u, _ in runs]), [xi for _, xi in runs] * (W if averaged else 1)
    flat = [x for row in u for x in row], [x for one in xi for row in one for x in row]
    return Enclosed((T, d), flat[0], "rational"), Enclosed((W, T, d), flat[1], "rational")


def _mean(runs: Sequence[Sequence[Sequence[Any]]]) -> list[list[Any]]:
    return [[sum(column[1:], column[0]) / len(runs) for column in zip(*rows, strict=True)]
            for rows in zip(*runs, strict=True)]  # fmt: skip


def _fed_back(gradients: Sequence[Sequence[Any]], k: int) -> tuple[list[list[Any]], list[list[Any]]]:
    """What is sent and what is kept at every step."""
    xi, sent, left = [_rational(0.0)] * len(gradients[0]), [], []
    for g in gradients:
        a = [x + y for x, y in zip(xi, g, strict=True)]
        kept = set(sorted(range(len(a)), key=lambda i: (-abs(a[i]), i))[:k])
        sent.append([x if i in kept else 0 * x for i, x in enumerate(a)])
        xi = [x - c for x, c in zip(a, sent[-1], strict=True)]
        left.append(xi)
    return sent, left


def traces(layers: Iterable[tuple[Array, Array, Array, Array]]) -> Enclosed:
    """Return ``sum over layers of Tr((P_r Q_r^T)^T P Q^T)`` for stacks P (m, p1, rho), Q (m, p2, rho)."""
    found: list[Any] = []
    for Ps, Qs, P, Q in layers:
        _budget(Ps.size, P.shape[1], 1)
        here, there = matrix(P), matrix(Q)
        each = [_traced(matrix(a.T) * here, matrix(b.T) * there) for a, b in zip(Ps, Qs, strict=True)]
        found = each if not found else [x + y for x, y in zip(found, each, strict=True)]
    return Enclosed((len(found),), found, "rational")


def _traced(A: Any, B: Any) -> Any:
    return sum((a * b for a, b in zip(A.entries(), B.entries(), strict=True)), _rational(0.0))


# --- solves -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class System:
    """M w = h with M = shift I + S: S and h as given, else G G^T and G x."""

    G: Array
    x: Array
    lam: float
    count: int  # m, or the number of stored gradients (R4)
    S: Array | None = None
    h: Array | None = None
    symmetric: bool = False  # whether (S + S^T) / 2 is meant

    def parts(self) -> tuple[Any, Any, Any]:
        """Return G on its support, M and h, exact."""
        inside = self.G[:, self.support]
        _budget(len(inside), len(inside), max(inside.shape[1], 1))
        G = matrix(inside)
        S = G * G.transpose() if self.S is None else matrix(self.S)
        S = (S + S.transpose()) / 2 if self.symmetric and self.S is not None else S
        shift = _rational(self.lam) * self.count
        M = S + matrix(np.eye(len(inside))) * shift
        return G, M, G * _column(self.x[self.support]) if self.h is None else _column(self.h)

    @property
    def support(self) -> Array:
        """Coordinates that some row holds."""
        return np.flatnonzero(self.G.any(axis=0))

    def residual(self, c: Array) -> Enclosed:
        """Return ``|h - M w|``, w = lam c."""
        _, M, h = self.parts()
        r = h - M * (_column(c) * _rational(self.lam))
        return Enclosed((len(c),), [abs(x) for x in r.entries()], "rational")

    def coefficients(self) -> Enclosed:
        """Return c = M^-1 h / lam."""
        _, M, h = self.parts()
        return _rationals(M.solve(h) / _rational(self.lam), (len(self.G),))

    def direction(self, c: Array | None = None) -> Enclosed:
        """Return ``x / lam - c G``; without c the exact solution ``(x - w G) / lam``."""
        lam = _rational(self.lam)
        if c is not None:
            inside = self.G[:, self.support]
            _budget(len(inside), max(inside.shape[1], 1), 4)
            taken = (matrix(np.asarray(c).reshape(1, -1)) * matrix(inside)).entries()
        else:
            G, M, h = self.parts()
            try:
                taken = [t / lam for t in (M.solve(h).transpose() * G).entries()]
            except ZeroDivisionError:
                raise Unenclosed from None
        if len(self.x) > ENTRIES:
            raise TooLarge
        values = [_rational(x) / lam if x else 0 for x in np.asarray(self.x, np.float64).tolist()]
        for i, t in zip(self.support.tolist(), taken, strict=True):
            values[i] = values[i] - t
        return Enclosed((len(values),), values, "rational")


# --- norms --------------------------------------------------------------------------------------------------------


def frobenius(*factors: Any, less: Any = None) -> Enclosed:
    """Return ``||A B ... - less||_F``, a number."""
    import flint

    found = _multiplied(factors)
    found = found if less is None else found - (less if not isinstance(less, np.ndarray) else matrix(less))
    with precision(128):
        return Enclosed((), [flint.arb(sum((x * x for x in found.entries()), _rational(0.0))).sqrt()], "ball")


def _multiplied(factors: Sequence[Any]) -> Any:
    mats = [matrix(f) if isinstance(f, np.ndarray) else f for f in factors]
    found = mats[0]
    for m in mats[1:]:
        _budget(found.nrows(), found.ncols(), m.ncols())
        found = found * m
    return found


def outside(P: Array, M: Array, Q: Array) -> Enclosed:
    """Return ``||(I - P P^T) M Q||_F``."""
    MQ = _multiplied([M, Q])
    inside = _multiplied([P.T, MQ])
    return frobenius(P, inside, less=MQ)


def largest_column(E: Any) -> Enclosed:
    """Return ``||E||_1`` of an exact matrix, the largest sum of a column of absolute values."""
    rows, columns = E.nrows(), E.ncols()
    entries = [abs(x) for x in E.entries()]
    sums = [sum((entries[i * columns + j] for i in range(rows)), _rational(0.0)) for j in range(columns)]
    return Enclosed((), [max(sums, default=_rational(0.0))], "rational")


def defect(V: Array) -> Enclosed:
    """Return ``||V^T V - I||_1``."""
    return largest_column(matrix(V.T) * matrix(V) - matrix(np.eye(V.shape[1])))


def pairs_defect(A: Any, V: Array, L: Array) -> Enclosed:
    """Return ``||A V - V L||_1``, A exact."""
    return largest_column(A * matrix(V) - matrix(V) * matrix(np.diag(L)))


def gram(G: Array, own: Array | None, ridge: float) -> Any:
    """Return what is decomposed: G G^T or the target's own, symmetrised, and the ridge, exact."""
    inside = G[:, G.any(axis=0)]
    _budget(len(G), len(G), max(inside.shape[1], 1))
    A = matrix(inside) * matrix(inside.T) if own is None else matrix(own)
    A = (A + A.transpose()) / 2
    return A + matrix(np.eye(len(G))) * _rational(ridge)


# --- eigenvalues --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decomposed:
    """A = W D W^T + E with W orthogonal, ``||E||_F <= r`` and ``||V - W||_F <= delta``; D ascending, V in balls.

    V and D come from arithmetic of these bits that promises nothing; r and delta are computed in balls afterwards:
    ``delta = ||V^T V - I||_F`` bounds the distance to the polar factor W, and
    ``r = ||A V - V D||_F + delta (||A||_F + ||D||_F)``. By Weyl every eigenvalue of A is within r of its D.
    """

    D: list[Any]  # arb, exact midpoints
    V: Any  # arb_mat
    r: Any  # arb
    delta: Any  # arb
    zeros: int  # eigenvalues that are exactly zero, by the rank of A

    @classmethod
    def of(cls, A: Any, bits: int) -> Decomposed:
        """Enclose the eigenvalues of an exact symmetric matrix."""
        import flint

        n = A.nrows()
        if n > ORDER:
            raise TooLarge
        ball = flint.arb_mat(A)
        D, V = _approximate(ball, n, bits)
        defect = (V.transpose() * V - _unit(n)).entries()
        delta = _norm(defect)
        diagonal = flint.arb_mat(n, n, [D[i] if i == j else 0 for i in range(n) for j in range(n)])
        r = _norm((ball * V - V * diagonal).entries()) + delta * (_norm(ball.entries()) + _norm(D))
        if not (delta < 0.25 and r.is_finite()):
            raise Unenclosed
        return cls(D, V, r, delta, n - A.rank())

    def apply(self, values: list[Any], steepest: Any, z: Any) -> list[Any]:
        """Return f(A) z in balls, f given on D; ``steepest`` bounds its divided differences over both spectra.

        ``||f(A) - V f(D) V^T||_F <= steepest r + (2 delta + delta^2) max |f|``.
        """
        import flint

        n = len(values)
        turned = (self.V.transpose() * z).entries()
        scaled = flint.arb_mat(n, 1, [f * t for f, t in zip(values, turned, strict=True)])
        most = max((abs(f).upper() for f in values), default=flint.arb(0))
        radius = (steepest * self.r + (2 * self.delta + self.delta**2) * most) * _norm(z.entries())
        return [y + flint.arb(0, radius.upper()) for y in (self.V * scaled).entries()]


def _approximate(A: Any, n: int, bits: int) -> tuple[list[Any], Any]:
    """Eigenvalues, ascending, and eigenvectors of the midpoints, good to about ``bits``; nothing is promised."""
    import flint
    import mpmath

    mp = mpmath.MPContext()
    mp.prec = bits
    made = mp.matrix(n, n)
    for k, x in enumerate(A.entries()):
        made[k // n, k % n] = mp.mpf(_mantissa(x))
    values, vectors = mp.eigsy(made)
    back = [flint.arb(_exactly(v)) for v in values]
    return back, flint.arb_mat(n, n, [flint.arb(_exactly(vectors[i, j])) for i in range(n) for j in range(n)])


def _mantissa(x: Any) -> tuple[int, int]:
    man, exp = x.mid().man_exp()
    return int(man), int(exp)


def _exactly(v: Any) -> Any:
    import flint

    sign, man, exp, _ = v._mpf_
    return flint.fmpq(-int(man) if sign else int(man)) * _power(exp)


def _unit(n: int) -> Any:
    import flint

    return flint.arb_mat(n, n, [int(i == j) for i in range(n) for j in range(n)])


def _norm(entries: Iterable[Any]) -> Any:
    import flint

    return flint.arb(sum((x * x for x in entries), flint.arb(0))).nonnegative_part().sqrt()


def _column_balls(x: Any) -> Any:
    import flint

    return flint.arb_mat(_column(x))


def at_any_precision(enclose: Callable[[int], Enclosed]) -> Enclosed:
    """Return the enclosure at the first precision that works.

    Raises:
        Unenclosed: none of `BITS` does.
    """
    for bits in BITS:
        try:
            with precision(bits):
                return enclose(bits)
        except Unenclosed:
            if bits == BITS[-1]:
                raise
    raise Unenclosed


def eigenvalue_gap(A: Any, L: Array) -> Enclosed:
    """Return ``max |L_i - lambda_i(A)|``, both sorted, A exact."""
    import flint

    def enclose(bits: int) -> Enclosed:
        found, ours = Decomposed.of(A, bits), sorted(np.asarray(L, np.float64).tolist())
        apart = [abs(flint.arb(_rational(x)) - t) for x, t in zip(ours, sorted(found.D, key=_middle), strict=True)]
        top = apart[0]
        for gap in apart[1:]:
            top = top.max(gap)
        return Enclosed((), [top + flint.arb(0, found.r.upper())], "ball")

    return at_any_precision(enclose)


def _middle(x: Any) -> Any:
    return _exactly_arb(x)


def _exactly_arb(x: Any) -> Any:
    import flint

    man, exp = _mantissa(x)
    return flint.fmpq(man) * _power(exp)


def ggt_given(G: Array, x: Array, eps: float, L: Array, V: Array) -> Enclosed:
    """Return ``x/eps - G^T V F V^T G x``, F = 1 / (eps sigma (sigma + eps)), from kept pairs (L, V)."""
    import flint

    _budget(G.size, 4)
    with precision(BITS[0]):
        e, small = flint.arb(_rational(eps)), G[:, (at := np.flatnonzero(G.any(axis=0)))]
        ball, h = flint.arb_mat(matrix(small)), flint.arb_mat(matrix(V).transpose() * (matrix(small) * _column(x[at])))
        roots = [flint.arb(_rational(v)).sqrt() for v in L.tolist()]
        scaled = [y / (e * s * (s + e)) for y, s in zip(h.entries(), roots, strict=True)]
        taken = ball.transpose() * (flint.arb_mat(matrix(V)) * flint.arb_mat(len(scaled), 1, scaled))
        return _less(x, e, at, taken.entries())


def _less(x: Array, eps: Any, at: Array, taken: Sequence[Any]) -> Enclosed:
    values = [_ball(v) / eps if v else 0 for v in np.asarray(x, np.float64).tolist()]
    for i, t in zip(at.tolist(), taken, strict=True):
        values[i] = values[i] - t
    return Enclosed((len(values),), values, "ball")


def _ball(x: float) -> Any:
    import flint

    return flint.arb(_rational(x))


def ggt(G: Array, x: Array, eps: float, cutoff: float, ridge: float = 0.0) -> Enclosed:
    """Return ``x/eps - G^T phi(A) G x``, A = G G^T + ridge, phi = F above the cut-off and 0 below.

    Neither eigenvectors nor separated eigenvalues are needed: phi(A) moves by at most the largest divided difference
    of phi times ``||E||_F``. Only an eigenvalue within r of the cut-off cannot be enclosed.
    """
    at = np.flatnonzero(G.any(axis=0))
    A, small = gram(G, None, ridge), G[:, at]
    if len(at) == 0:
        with precision(BITS[0]):
            return _less(x, _ball(eps), at, [])

    def enclose(bits: int) -> Enclosed:
        import flint

        found, e = Decomposed.of(A, bits), _ball(eps)
        values, steepest = _phi(found, e, _ball(cutoff))
        turned = flint.arb_mat(matrix(small) * _column(x[at]))
        inner = flint.arb_mat(len(G), 1, found.apply(values, steepest, turned))
        return _less(x, e, at, (flint.arb_mat(matrix(small.T)) * inner).entries())

    return at_any_precision(enclose)


def _phi(found: Decomposed, eps: Any, cutoff: Any) -> tuple[list[Any], Any]:
    """phi on D, and a bound on its divided differences: ``(2s + eps) / (2 s eps q^2)`` at the smallest kept s^2.

    Between a kept and a dropped eigenvalue: ``phi / gap``.
    """
    import flint

    r, top = found.r, found.D[-1]
    first = _first_kept(found, cutoff)
    lowest = found.D[first] - r
    s = lowest.sqrt()
    q = s * (s + eps)
    steepest = (2 * s + eps) / (2 * s * eps * q * q)
    if first:
        below = found.D[first - 1] + r if first > found.zeros else flint.arb(0)
        room = lowest - below
        if not room > 0:
            raise Unenclosed
        steepest = steepest + 1 / (eps * q * room)
    roots = [d.sqrt() for d in found.D[first:]]
    return [flint.arb(0)] * first + [1 / (eps * s * (s + eps)) for s in roots], steepest + 0 * top


def _first_kept(found: Decomposed, cutoff: Any) -> int:
    """The place of the smallest eigenvalue above the cut-off; those that are exactly zero are below it."""
    r, top = found.r, found.D[-1]
    if found.zeros == len(found.D) or not top - r > 0:
        raise Unenclosed
    for i in range(found.zeros, len(found.D)):
        if found.D[i] - r > cutoff * (top + r):
            return i
        if not found.D[i] + r <= cutoff * (top - r):
            raise Unenclosed
    raise Unenclosed


def scaled_top_k(H: Array, v: Array, kept: Array) -> Enclosed:
    """Return ``H^1/2 c``, c the kept entries of ``H^-1/2 v``."""
    import flint

    A = matrix((H + H.T) / 2) if np.array_equal(H, H.T) else (matrix(H) + matrix(H.T)) / 2
    on = np.isin(np.arange(len(v)), kept)

    def enclose(bits: int) -> Enclosed:
        found = Decomposed.of(A, bits)
        low = found.D[0] - found.r
        if not low > 0:
            raise Unenclosed
        roots = [d.sqrt() for d in found.D]
        b = found.apply([1 / s for s in roots], 1 / (2 * low * low.sqrt()), _column_balls(v))
        c = flint.arb_mat(len(v), 1, [y if k else 0 for y, k in zip(b, on.tolist(), strict=True)])
        return Enclosed((len(v),), found.apply(roots, 1 / (2 * low.sqrt()), c), "ball")

    return at_any_precision(enclose)


# --- elementwise --------------------------------------------------------------------------------------------------


def moved(theta: Array, c: Array, G: Array, eta: float, eps: float) -> Enclosed:
    """Return ``theta - eta c / (sqrt(G) + eps)``; theta where G and eps are 0 (R29)."""
    rows = zip(theta.tolist(), c.tolist(), G.tolist(), strict=True)
    if len(theta) > ENTRIES:
        raise TooLarge
    with precision(BITS[0]):
        return Enclosed(
            theta.shape,
            [_ball(t) - _ball(eta) * _ball(x) / (_ball(s).sqrt() + _ball(eps)) if x and (s > 0 or eps) else _rational(t)
             for t, x, s in rows], "ball",
        )  # fmt: skip


def signed(
    start: Sequence[Array], got: Array, p: Sequence[Array], gamma: float, sizes: Sequence[int], free: Array
) -> Enclosed:
    """Return ``|got - (start - s sign p)|``, p = gamma g + e, s = |p|_1 / d per tensor; the best sign where ``free``.

    Args:
        start: (x,), or (g, e) where it is p itself.
        got: what is judged.
        p: (g, e).
        gamma: learning rate.
        sizes: of the tensors (R34).
        free: entries whose sign is open, 0 and both signs.
    """
    if 6 * len(got) > ENTRIES:
        raise TooLarge
    rate = _rational(gamma)
    sums = [rate * _rational(a) + _rational(b) for a, b in zip(p[0].tolist(), p[1].tolist(), strict=True)]
    begin = sums if len(start) == 2 else [_rational(x) for x in start[0].tolist()]
    out, at = [], 0
    for n in sizes:
        mean = sum((abs(x) for x in sums[at : at + n]), _rational(0.0)) / n
        for i in range(at, at + n):
            away = _rational(float(got[i])) - begin[i]
            sign = (sums[i] > 0) - (sums[i] < 0)
            signs = (sign, 0, 1, -1) if free[i] else (sign,)
            out.append(min(abs(away + s * mean) for s in signs))
        at += n
    return Enclosed(got.shape, out, "rational")


def conserved(x: Array, e: Array, g: Array, gamma: float, new_x: Array, new_e: Array) -> Enclosed:
    """Return ``|x' - e' - (x - p)|``, p = gamma g + e."""
    if 6 * len(x) > ENTRIES:
        raise TooLarge
    rate, columns = _rational(gamma), (v.tolist() for v in (new_x, new_e, x, g, e))
    rows = ([_rational(v) for v in row] for row in zip(*columns, strict=True))
    return Enclosed(x.shape, [abs(nx - ne - x0 + rate * g0 + e0) for nx, ne, x0, g0, e0 in rows], "rational")

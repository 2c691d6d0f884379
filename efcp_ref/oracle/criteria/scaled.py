"""Judges scaled Top-k, T_H(v) = H^1/2 TopK(H^-1/2 v) of Lemma K.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, Case, Check, Declared, Unit, unit_of
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.eigen import DRIVER, finite, spectrum
from efcp_ref.oracle.exact import Pair
from efcp_ref.paper._validate import Array

MRRR = 500  # in place of DRIVER: eigenvectors orthogonal to d u / 10^-3, the gap by which LAPACK splits clusters
RULE = "|T - H^1/2 TopK(H^-1/2 v)| <= error of the roots, the selection being free within that of H^-1/2 v"


@dataclass(frozen=True)
class Basis:
    """v seen in the basis of H, and what rounding may do to the two roots."""

    root: Array  # H^1/2 (d, d)
    inverse: Array  # H^-1/2 (d, d)
    b: Array  # H^-1/2 v, (d,)
    room: Array  # what rounding may do to b, (d,)
    drift: float  # what it may do to H^1/2, in norm
    unit: Unit

    @classmethod
    def of(cls, H: Array, v: Array, unit: Unit, driver: float = DRIVER) -> Basis | None:
        """Return the basis, or None where rounding may make H singular.

        With delta = ``driver`` d 2u ||H|| (30) the error of an eigensolver and l the smallest eigenvalue less delta,
        ``||dH^-1/2|| <= delta / (2 l^3/2)`` and ``||dH^1/2|| <= delta / (2 l^1/2)`` (divided differences, Loewner).
        """
        kind = np.float64 if unit.u > 2.0**-40 else np.longdouble
        L, V = (a.astype(kind) for a in np.linalg.eigh(H))
        own = spectrum(H.astype(kind))[1]
        delta = driver * len(H) * 2 * unit.u * float(L[-1]) + own
        lowest = float(L[0]) - delta
        if lowest <= delta:
            return None
        root, inverse = (V * np.sqrt(L)) @ V.T, (V / np.sqrt(L)) @ V.T
        sums = (2 * len(H) + 4) * unit.u * np.abs(inverse) @ np.abs(v)
        room = delta / (2 * lowest**1.5) * float(np.linalg.norm(v)) + sums
        return cls(root, inverse, inverse @ v, room.astype(np.float64), delta / (2 * np.sqrt(lowest)), unit)

    def selection(self, T: Array, k: int) -> Array:
        """Return the k entries that T keeps: certain ones, then the open ones largest in H^-1/2 T."""
        size = np.abs(self.b).astype(np.float64)
        order = np.argsort(-size, kind="stable")
        if k in (0, len(size)):
            return order[:k]
        low, high = size - self.room, size + self.room
        certain = low > np.sort(high)[::-1][k]  # larger than the (k + 1)-th largest can be
        possible = high >= np.sort(low)[::-1][k - 1]
        open_ = np.flatnonzero(possible & ~certain)
        back = np.abs(self.inverse @ T)
        chosen = open_[np.argsort(-back[open_], kind="stable")][: k - int(certain.sum())]
        return np.concatenate([np.flatnonzero(certain), chosen])

    def image(self, kept: Array) -> tuple[Array, Array]:
        """Return ``H^1/2 c`` and its bound ``||dH^1/2|| ||c|| + |H^1/2| room + (2d + 4) u |H^1/2||c|``, (d,) each."""
        c = np.zeros_like(self.b)
        c[kept] = self.b[kept]
        room = np.where(c != 0, self.room, 0.0)
        sums = (2 * len(c) + 4) * self.unit.u * np.abs(self.root) @ np.abs(c)
        bound = self.drift * np.linalg.norm(np.abs(c) + room) + np.abs(self.root) @ room + sums
        return self.root @ c, np.where(len(kept) > 0, bound, 0.0).astype(np.float64)


def scaled_top_k(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """``|T - H^1/2 c| <= ||dH^1/2|| ||c|| + |H^1/2| |db| + (2d + 4) u |H^1/2||c|``, c any valid Top-k of b = H^-1/2 v.

    Selections within the error of b are skipped; see `Basis` for the errors of the roots (tolerances: scaled_top_k).
    """
    v, H = t0.wide(case.arguments["v"]), t0.wide(case.arguments["H"])
    checks = t0.outputs(case, result, {"T": v.shape})
    if t0.broken(checks) or t0.broken(checks := [*checks, *finite(result, ("T",), "K:6")]):
        return tuple(checks)
    T, k = np.asarray(result["T"]), int(case.arguments["k"])
    basis = Basis.of(H, v, unit_of(T, declared))
    if basis is None:
        return (*checks, t0.undecided("T", "T2", "K:4", RULE, "H is singular within rounding"))
    return (*checks, _judge(basis, v, T, k, H))


def _judge(basis: Basis, v: Array, T: Array, k: int, H: Array) -> Check:
    """The inequality; beyond it, what eigenvectors that are only as orthogonal as MRRR's explain is undecided."""
    kept, check = _compared(basis, v, T, k, H)
    if check.verdict != FAIL:
        return check
    if bool(np.any(basis.room[kept] * 4 > np.abs(basis.b[kept]))) and 0 < k < len(v):
        return replace(check, verdict=INCONCLUSIVE, reason="selection within rounding")
    loose = Basis.of(H, v, basis.unit, MRRR)
    if loose is not None and _compared(loose, v, T, k, H)[1].verdict != FAIL:
        return replace(check, verdict=INCONCLUSIVE, reason="eigenvectors no more orthogonal than MRRR's")
    return replace(check, line=_blame(basis, v, t0.wide(T), k))


def _compared(basis: Basis, v: Array, T: Array, k: int, H: Array) -> tuple[Array, Check]:
    """The entries that T keeps, and ``|T - H^1/2 c|`` against the bound of this basis."""
    kept = basis.selection(t0.wide(T), k)
    expected, bound = basis.image(kept)
    high = expected.astype(np.float64)
    size = np.abs(basis.root) @ np.where(np.isin(np.arange(len(v)), kept), np.abs(basis.b), 0.0)
    error = 8 * len(v) * float(np.finfo(expected.dtype).eps) * size
    reference = Pair(high, (expected - high).astype(np.float64))
    check = t0.forward(
        "T", "K:6", RULE, T, reference, bound, magnitude=size.astype(np.float64), error=error.astype(np.float64),
        truth=lambda: enclose.scaled_top_k(H, v, kept),
    )  # fmt: skip
    return kept, check


def _blame(basis: Basis, v: Array, T: Array, k: int) -> str:
    """K:4 where T keeps entries of v itself, K:5 where the basis is right and other entries are kept, else K:6."""
    zeros = T == 0
    if (zeros | (np.abs(T - v) <= 1e-5 * np.abs(v))).all() and zeros.sum() >= len(v) - k:
        return "K:4"
    back = (basis.inverse @ T).astype(np.float64)
    room = basis.room + 1e-4 * np.abs(basis.b).max(initial=0.0)
    return "K:5" if bool(np.all((np.abs(back) <= room) | (np.abs(back - basis.b) <= room))) else "K:6"

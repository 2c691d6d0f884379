"""Tier T0, and the shared constructors of `Check`: shape, dtype, finiteness, then one inequality each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from efcp_ref.contract import OPERATIONS
from efcp_ref.oracle.certify import Truth, audit
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, UNITS, Case, Check, Declared, Unit, unit_of
from efcp_ref.oracle.exact import Pair, apart, pair
from efcp_ref.paper._validate import Array

_INDEX = "index"
_LARGEST = {"float64": 2.0**1023, "float32": 2.0**127, "float16": 2.0**15, "bfloat16": 2.0**127}


@dataclass(frozen=True)
class Seen:
    """The arrays behind one check: a report shows those of the check that is blamed."""

    stage: str
    got: Array
    expected: Array
    ratio: Array


_WATCH: ContextVar[list[Seen] | None] = ContextVar("watch", default=None)


@contextmanager
def watched() -> Iterator[list[Seen]]:
    """Collect the arrays of every inequality that is evaluated inside."""
    seen: list[Seen] = []
    token = _WATCH.set(seen)
    try:
        yield seen
    finally:
        _WATCH.reset(token)


@dataclass(frozen=True)
class Precision:
    """How a sum is rounded: the accumulator's unit, the coarser storage of its result if any, the reduction."""

    unit: Unit
    store: Unit | None  # the result's own unit where it is coarser than the declared accumulator
    depth: int | None  # declared depth h of the reduction
    ftz: bool  # flush to zero
    daz: bool  # denormals are zero

    @property
    def precise(self) -> bool:
        """Whether binary64 is too coarse to judge by."""
        return self.unit.u < 2.0**-30

    @property
    def largest(self) -> float:
        """About the largest finite number; beyond a quarter of it an infinity may be correct."""
        return min(_LARGEST[u.name] for u in (self.unit, self.store) if u is not None)

    def roundings(self, n: Any) -> Any:
        """Factor of u in the dot criterion: n terms, or the declared depth h + 1."""
        return n if self.depth is None else np.minimum(n, self.depth + 1)

    def tiny(self, n: Any, operands: Any = 0.0) -> Any:
        """Underflow of n products; ``operands`` is the sum of |v_j| + |x_j| that a flushing unit loses."""
        lost = 2 * n * self.unit.normal if self.ftz else n * self.unit.tiny
        return lost + self.unit.normal * operands if self.daz else lost

    def stored(self, bound: Any, reference: Any) -> Any:
        """Add the rounding of the result to a coarser storage: ``bound + u_s (|s| + bound) + tiny_s / 2``."""
        if self.store is None:
            return bound
        return bound + self.store.u * (np.abs(pair(reference).hi) + bound) + self.store.tiny / 2


def precision(declared: Declared, *results: Array) -> Precision:
    """Return how these results (the coarsest counts) were computed: `unit_of`, or a finer declared accumulator."""
    own = max((UNITS.get(str(r.dtype), UNITS["float64"]) for r in results), key=lambda unit: unit.u)
    said = declared.arithmetic
    accumulator = UNITS.get(str(said.get("accumulator")))
    finer = accumulator is not None and accumulator.u < own.u
    unit = (
        accumulator
        if accumulator is not None and finer
        else max((unit_of(r, declared) for r in results), key=lambda v: v.u)
    )
    depth = said.get("depth")
    return Precision(
        unit,
        own if finer else None,
        None if depth is None else int(depth),
        bool(said.get("flush_to_zero")),
        bool(said.get("denormals_are_zero")),
    )


def passed(stage: str, tier: str, line: str, rule: str, reason: str = "") -> Check:
    """A check that holds with nothing to measure."""
    return Check(stage, tier, line, rule, 0.0, PASS, reason)


def failed(
    stage: str, tier: str, line: str, rule: str, reason: str, at: tuple[int, ...] = (), **numbers: Any
) -> Check:
    """A check that is broken, in words; ``numbers``: got, expected, bound."""
    return Check(stage, tier, line, rule, float("inf"), FAIL, reason, at, **numbers)


def undecided(stage: str, tier: str, line: str, rule: str, reason: str) -> Check:
    """A check that cannot be decided, and why."""
    return Check(stage, tier, line, rule, 0.0, INCONCLUSIVE, reason)


def outputs(
    case: Case, result: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], line: str = ""
) -> list[Check]:
    """Every result present, of its shape, real floating (indices: integer); a stage may be missing or None. T0.

    Returns the failing checks, or the single passing one.
    """
    operation = OPERATIONS[case.operation]
    line, rule = line or operation.line, "results present, of the contract's shape and kind"
    required = {r.name for r in operation.results}
    kinds = {r.name: r.kind for r in operation.results + operation.stages}
    broken = []
    for name, shape in shapes.items():
        value = result.get(name)
        if value is None and name not in required:
            continue
        wrong = _wrong(value, shape, kinds.get(name, "float"))
        if wrong:
            broken.append(failed(name, "T0", line, rule, f"{name} {wrong}"))
    return broken or [passed("result", "T0", line, rule)]


def structural(case: Case, result: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], line: str) -> Check:
    """The first check of `outputs`, to be blamed on ``line``."""
    return outputs(case, result, shapes, line)[0]


def _wrong(value: Any, shape: tuple[int, ...], kind: str) -> str:
    if value is None:
        return "is missing"
    if not isinstance(value, np.ndarray | np.generic):
        return f"is a {type(value).__name__}, must be an array"
    if value.shape != shape:
        return f"has shape {value.shape}, must have shape {shape}"
    if kind == _INDEX:
        return "" if value.dtype.kind in "iu" else f"has dtype {value.dtype}, must hold integers"
    return "" if str(value.dtype) in UNITS else f"has dtype {value.dtype}, must hold real floating-point numbers"


def wide(value: Any) -> Array:
    """Return a float result as float64, exactly."""
    return np.asarray(value).astype(np.float64)


def forward(
    stage: str,
    line: str,
    rule: str,
    got: Any,
    reference: Any,
    bound: Any,
    *,
    tier: str = "T2",
    magnitude: Any = None,
    error: Any = 0.0,
    largest: float = np.inf,
    truth: Truth | None = None,
) -> Check:
    """``|got - reference| <= bound`` elementwise, the oracle's certified ``error`` added to the bound.

    Args:
        stage, line, rule, tier: as in `Check`.
        got: result, any float dtype.
        reference: float64 array or `Pair`.
        bound: broadcastable to got.
        magnitude: A_i, the sum of absolute terms; an element with ``bound_i >= A_i > 0`` is vacuous.
        error: certified error of the reference; more than a tenth of the bound leaves an element undecided.
        largest: elements whose magnitude exceeds a quarter of it may overflow and are not judged when infinite.
        truth: encloses the reference (`efcp_ref.oracle.certify`).
    """
    got, reference = np.atleast_1d(wide(got)), Pair(*(np.atleast_1d(v) for v in pair(reference)))
    scale = np.asarray(np.inf if magnitude is None else magnitude, dtype=np.float64)
    overflow = ~np.isfinite(got) & (scale >= largest / 4) & (magnitude is not None)
    gap = np.where(overflow, 0.0, apart(got, reference))
    return bounded(
        stage, tier, line, rule, got, reference, bound, size=scale, error=gap, certified=error, overflow=overflow,
        reference=reference, truth=truth,
    )  # fmt: skip


def bounded(
    stage: str,
    tier: str,
    line: str,
    rule: str,
    got: Any,
    expected: Any,
    bound: Any,
    *,
    size: Any,
    error: Any,
    certified: Any = 0.0,
    overflow: Any = False,
    reference: Pair | None = None,
    truth: Truth | None = None,
) -> Check:
    """``error <= bound`` elementwise, ``error`` the exact ``|got - expected|``, ``size`` the sum of absolute terms A_i.

    Args:
        certified: what the oracle may itself be wrong by; added to the bound.
        overflow: elements not to be judged.
        reference: what ``truth`` encloses; without it ``error``.
        truth: see `forward`.
    """
    got, expected = np.atleast_1d(wide(got)), np.atleast_1d(pair(expected).hi)
    bound, scale, gap, certified, overflow = (
        np.broadcast_to(v, got.shape) for v in (bound, size, error, certified, overflow)
    )
    lost = ~np.isfinite(got) & ~overflow
    if lost.any():
        return _not_finite(stage, line, got, expected, lost)
    allowed = bound + certified
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a ratio beyond 1e308 is infinite, and fails
        ratio = np.where(gap == 0, 0.0, gap / allowed)
    blind = {"oracle": certified > bound / 10, "vacuous": (bound >= scale) & (scale > 0), "overflow": overflow}
    watch = _WATCH.get()
    if watch is not None:
        watch.append(Seen(stage, got, expected, ratio))
    decided = (ratio > 1) | ~np.logical_or.reduce(list(blind.values()))
    if got.size and not decided.any():
        why = next(
            (name for name, where in blind.items() if where.all()), "vacuous" if blind["vacuous"].any() else "oracle"
        )
        return undecided(stage, tier, line, rule, why)
    check = _worst(stage, tier, line, rule, np.where(decided, ratio, -1.0), got, expected, allowed)
    return audit(check, gap if reference is None else reference, bound, truth, decided, gap=reference is None)


def _not_finite(stage: str, line: str, got: Array, expected: Array, lost: Array) -> Check:
    at = tuple(int(i) for i in np.argwhere(lost)[0])
    return failed(
        stage,
        "T0",
        line,
        "finite results",
        f"{stage}{list(at)} is {got[at]}, must be finite",
        at,
        got=float(got[at]),
        expected=float(expected[at]),
    )


def _worst(
    stage: str, tier: str, line: str, rule: str, ratio: Array, got: Array, expected: Array, bound: Array
) -> Check:
    if not ratio.size:
        return passed(stage, tier, line, rule)
    at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    largest = max(float(ratio[at]), 0.0)
    return Check(
        stage,
        tier,
        line,
        rule,
        largest,
        FAIL if largest > 1 else PASS,
        "",
        tuple(int(i) for i in at),
        float(got[at]),
        float(expected[at]),
        float(bound[at]),
    )


def equal(
    stage: str, line: str, rule: str, got: Any, reference: Any, tier: str = "T1", truth: Truth | None = None
) -> Check:
    """``got == reference`` elementwise, as numbers (-0 equals +0)."""
    return forward(stage, line, rule, got, reference, 0.0, tier=tier, truth=truth)


def probable(judged: Callable[[str, float], Check], n: float) -> list[Check]:
    """Judge a bound of n roundings (T2), and where it holds and n > 36 by ``6 sqrt n`` of them as well (T3).

    ``judged(tier, part)`` evaluates the inequality with that part of the bound. T3 only warns (Higham & Mary 2019).
    """
    checks = [judged("T2", 1.0)]
    if n > 36 and checks[0].verdict == PASS:
        checks.append(judged("T3", 6 / math.sqrt(n)))
    return checks


def broken(checks: Any) -> bool:
    """Whether a check (other than of tier T3) fails."""
    return any(c.verdict == FAIL and c.tier != "T3" for c in checks)


def storages(case: Case, declared: Declared, *names: str) -> list[Case]:
    """Return the case, and where a narrower storage is declared the case with ``names`` rounded to it as well.

    A target that declares ``storage = bfloat16`` may round its window before it computes.
    """
    kind = str(declared.arithmetic.get("storage"))
    cases = [case]
    if kind in ("bfloat16", "float16", "float32"):
        rounded = {n: wide(rounding(wide(case.arguments[n]), kind)) for n in names}
        if any(not np.array_equal(wide(case.arguments[n]), a) for n, a in rounded.items()):
            cases.append(
                Case(
                    case.operation,
                    case.family,
                    case.label,
                    case.seed,
                    case.index,
                    {**case.arguments, **rounded},
                    case.flags,
                    case.dtype,
                    case.why,
                )
            )
    return cases


def rounding(a: Array, dtype: str) -> Array:
    """Return float64 values rounded to nearest in a storage dtype by name."""
    if dtype == "bfloat16":
        import ml_dtypes

        return a.astype(ml_dtypes.bfloat16)
    with np.errstate(over="ignore"):
        return a.astype(dtype)

"""Criteria of Top-k, blockwise Top-k and error feedback: no tolerance but the rounding of one sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.certify import compared
from efcp_ref.oracle.core import UNITS, Case, Check, Declared
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.exact import Pair, two_sum
from efcp_ref.paper._validate import Array, share
from efcp_ref.paper.top_k import kept, layout

Blocks = list[tuple[int, int]]
_DISTINCT = "k distinct positions in range, block after block"
_LARGEST = "smallest kept |a_i| >= largest dropped |a_i|, in every block"
_VALUES = "values = storage rounding of a[indices]"
_SUM = "|dense(values) + xi' - (xi + g)| <= u |a|"
_REST = "|xi' - (a - c)| <= u |a|, c the values as stored"


def top_k(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """``min |a_kept| >= max |a_dropped|``, ``values = a[indices]`` (section 3.1, TopK); NaN by the declared policy."""
    a, k = t0.wide(case.arguments["a"]), int(case.arguments["k"])
    checks = _row(case, result, [(0, len(a))], [k], {}, ("K:1", "K:1"))
    return (*checks, *([] if _stop(checks) else _kept(a, [(0, len(a))], result, declared, "K:1")))


def block_top_k(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """``min |a_kept| >= max |a_dropped|`` in every block, ceil(density * size) entries each (3.1, G.2; R11, R13)."""
    a = t0.wide(case.arguments["a"])
    blocks, counts = _layout(case, len(a))
    checks = _row(case, result, blocks, counts, {}, ("K:2", "K:3"))
    return (*checks, *([] if _stop(checks) else _kept(a, blocks, result, declared, "K:3")))


def error_feedback(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """``|a^ - (xi + g)| <= u |a^|``, a^ = dense(values) + xi'; then Top-k of a^; then xi' = a - c (1:5 to 1:7, R14)."""
    d = len(case.arguments["g"])
    blocks, counts = _layout(case, d)
    checks = _row(case, result, blocks, counts, {"xi": (d,)}, ("1:6", "1:6"))
    if _stop(checks):
        return tuple(checks)
    for stage, line in (("values", "1:6"), ("xi", "1:7")):
        if not np.isfinite(t0.wide(result[stage])).all():
            return (*checks, t0.failed(stage, "T0", line, "finite results", f"{stage} holds NaN or infinity"))
    return (*checks, *_feedback(case, result, declared, blocks))


def _stop(checks: list[Check]) -> bool:
    return t0.broken(checks) or checks[-1].reason == "density"


def _layout(case: Case, d: int) -> tuple[Blocks, list[int]]:
    """Blocks of consecutive coordinates and the entries that each keeps, counted exactly."""
    arguments = case.arguments
    _, density, blocks = layout(d, arguments.get("block_size"), arguments.get("density", 1))
    return blocks, [kept(end - start, density) for start, end in blocks]


# --- positions


def _row(
    case: Case,
    result: Mapping[str, Any],
    blocks: Blocks,
    counts: list[int],
    shapes: dict[str, tuple[int, ...]],
    lines: tuple[str, str],
) -> list[Check]:
    """T0: kinds, then the count per block (blamed on ``lines[0]``), distinct positions in range and in block order."""
    indices = result.get("indices")
    count = indices.shape[0] if isinstance(indices, np.ndarray) and indices.ndim == 1 else sum(counts)
    checks = t0.outputs(case, result, {"indices": (count,), "values": (count,), **shapes}, lines[1])
    if t0.broken(checks) or not isinstance(indices, np.ndarray):
        return checks
    if count != sum(counts):
        wrong = f"{count} entries are kept, must be {sum(counts)}"
    else:
        wrong = _positions(indices, blocks, counts)
    if not wrong:
        return [*checks, t0.passed("indices", "T0", lines[1], _DISTINCT)]
    if "density" in case.flags and _other_count(case, indices, blocks, counts):
        return [*checks, t0.undecided("indices", "T0", lines[0], _DISTINCT, "density")]
    line = lines[0] if " kept" in wrong else lines[1]
    return [*checks, t0.failed("indices", "T0", line, _DISTINCT, wrong)]


def _positions(indices: Array, blocks: Blocks, counts: list[int]) -> str:
    """What is wrong with the positions, in words; empty if nothing is."""
    d = blocks[-1][1]
    outside = (indices < 0) | (indices >= d)
    if outside.any():
        j = int(np.argmax(outside))
        return f"indices[{j}] is {indices[j]}, must be in 0..{d - 1}"
    absolute = indices.astype(np.int64)
    seen = np.bincount(absolute, minlength=d)
    if seen.max(initial=0) > 1:
        return f"position {int(np.argmax(seen > 1))} is chosen {int(seen.max())} times"
    block = absolute // (blocks[0][1] - blocks[0][0])
    held = np.bincount(block, minlength=len(blocks))
    if (held != counts).any():
        b = int(np.argmax(held != counts))
        return f"block {b} ({blocks[b][0]}..{blocks[b][1] - 1}): {held[b]} kept, must be {counts[b]}"
    if (np.diff(block) < 0).any():
        j = int(np.argmax(np.diff(block) < 0))
        return f"indices[{j + 1}] = {indices[j + 1]} stands after an entry of a later block"
    return ""


def _other_count(case: Case, indices: Array, blocks: Blocks, counts: list[int]) -> bool:
    """Whether every block keeps ceil(density * size) as a floating-point product has it (``.07 * 100 > 7``)."""
    d = blocks[-1][1]
    density = float(share("density", case.arguments.get("density", 1)))
    if ((indices < 0) | (indices >= d)).any() or len(np.unique(indices)) != len(indices):
        return False
    held = np.bincount(indices.astype(np.int64) // (blocks[0][1] - blocks[0][0]), minlength=len(blocks))
    single = np.float32(density)
    return all(
        n
        in {
            count,
            math.ceil(density * (e - s)),
            math.ceil(Fraction(density) * (e - s)),
            math.ceil(float(single * np.float32(e - s))),
        }
        for n, count, (s, e) in zip(held.tolist(), counts, blocks, strict=True)
    )


# --- selection and values


def _kept(a: Array, blocks: Blocks, result: Mapping[str, Any], declared: Declared, line: str) -> list[Check]:
    indices, values = np.asarray(result["indices"]).astype(np.int64), np.asarray(result["values"])
    selected = _selection(a, indices, blocks, line, declared.nan)
    return [compared(selected), compared(_rounded(a, indices, values, declared, line))]


def _selection(a: Array, indices: Array, blocks: Blocks, line: str, nan: str | None = None) -> Check:
    """``min |a_kept| >= max |a_dropped|`` per block; NaN counts as the largest, the smallest or not at all. T1."""
    size = np.abs(a)
    on = np.zeros(len(a), dtype=bool)
    on[indices] = True
    unknown = np.isnan(size)
    low = np.where(on, np.where(unknown, {"largest": np.inf, "smallest": -1.0}.get(nan or "", np.inf), size), np.inf)
    high = np.where(on, -np.inf, np.where(unknown, {"largest": np.inf, "smallest": -1.0}.get(nan or "", -np.inf), size))
    starts = [start for start, _ in blocks]
    smallest, largest = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    wrong = smallest < largest
    if nan == "largest" and not wrong.any():  # an infinity does not replace a NaN
        wrong = np.logical_or.reduceat(~on & unknown, starts) & np.logical_or.reduceat(on & ~unknown, starts)
    if not wrong.any():
        return t0.passed("indices", "T1", line, _LARGEST)
    start, end = blocks[int(np.argmax(wrong))]
    keep, drop = start + int(np.argmin(low[start:end])), start + int(np.argmax(high[start:end]))
    return t0.failed(
        "indices",
        "T1",
        line,
        _LARGEST,
        f"|a[{drop}]| = {size[drop]:g} is dropped, |a[{keep}]| = {size[keep]:g} is kept",
        (keep,),
        got=float(size[keep]),
        expected=float(size[drop]),
        bound=0.0,
    )


def _rounded(a: Array, indices: Array, values: Array, declared: Declared, line: str) -> Check:
    """``values = storage rounding of a[indices]``, NaN and infinities as they are. T1."""
    want, got = a[indices], t0.wide(values)
    ways = [t0.wide(t0.rounding(v, kind)) for kind in _stores(values, declared) for v in _sources(want, kind)]
    right = np.logical_or.reduce([(got == way) | (np.isnan(got) & np.isnan(way)) for way in ways], axis=0)
    if right.all():
        return t0.passed("values", "T1", line, _VALUES)
    j = int(np.argmin(right))
    return t0.failed(
        "values",
        "T1",
        line,
        _VALUES,
        f"values[{j}] is {got[j]:.9g}, a[{indices[j]}] is {want[j]:.9g}",
        (j,),
        got=float(got[j]),
        expected=float(ways[0][j]),
        bound=0.0,
    )


def _sources(want: Array, kind: str) -> list[Array]:
    """What is rounded to a storage format: for 16 bits also the value by way of float32, as common conversions go."""
    return [want, t0.wide(t0.rounding(want, "float32"))] if UNITS.get(kind, UNITS["float64"]).u > 2.0**-24 else [want]


def _stores(values: Array, declared: Declared) -> list[str]:
    """Storage formats that values may be rounded to: their own dtype, and the declared one."""
    said = str(declared.arithmetic.get("storage"))
    return [str(values.dtype), *([said] if said in UNITS else [])]


# --- error feedback


@dataclass(frozen=True)
class _Step:
    """One error-feedback step as returned: dense c, its support, xi', and a = xi + g."""

    xi: Array
    g: Array
    sum: Pair  # xi + g
    c: Array
    left: Array
    on: Array
    store: float  # unit roundoff of the stored values
    p: t0.Precision
    integers: bool  # whether sums are exact where the storage holds them

    @classmethod
    def of(cls, case: Case, result: Mapping[str, Any], declared: Declared) -> _Step:
        """Read the case and what was returned."""
        xi, g = t0.wide(case.arguments["xi"]), t0.wide(case.arguments["g"])
        indices, values = np.asarray(result["indices"]).astype(np.int64), np.asarray(result["values"])
        c, on = np.zeros(len(g)), np.zeros(len(g), dtype=bool)
        c[indices], on[indices] = t0.wide(values), True
        store = max(UNITS[kind].u for kind in _stores(values, declared) if kind in UNITS)
        p = t0.precision(declared, np.asarray(result["xi"]))
        return cls(xi, g, two_sum(xi, g), c, t0.wide(result["xi"]), on, store, p, "exact" in case.flags)

    @property
    def a(self) -> Array:
        """xi + g, rounded once."""
        return self.sum.hi

    @cached_property
    def exact(self) -> bool:
        """Whether a is a number of the result's own precision, so that nothing is rounded."""
        return self.integers and not self.sum.lo.any() and np.array_equal(self.as_stored, self.a)

    @cached_property
    def as_stored(self) -> Array:
        """a in the precision of the result."""
        return t0.wide(t0.rounding(self.a, self.p.unit.name))

    @cached_property
    def back(self) -> Pair:
        """dense(values) + xi', exactly."""
        return two_sum(self.c, self.left)

    def checked(self, name: str, line: str, rule: str, got: Array, expected: Array, blamed: str) -> Check:
        """``|a^ - a| <= bound`` on every coordinate; those that are wrong count at the blamed line alone."""
        gap, bound, bad = self.measured
        tier = "T1" if self.exact else "T2"
        live = ~bad | (line == blamed)
        return t0.bounded(
            name, tier, line, rule, got, expected, bound, size=np.inf, error=np.where(bad & (line != blamed), 0.0, gap),
            truth=lambda: enclose.gap(self.xi, self.g, -self.c, got=self.left, where=live),
        )  # fmt: skip

    @cached_property
    def measured(self) -> tuple[Array, Array, Array]:
        """``|a^ - a|``, its bound ``u |a^|`` (0 where exact; flushing adds its own), and where it is exceeded."""
        back = self.back
        gap = np.abs((back.hi - self.sum.hi) + (back.lo - self.sum.lo))
        bound = np.zeros(len(gap)) if self.exact else self.p.unit.u * np.abs(back.hi)
        bound = bound + (2 * self.p.daz + self.p.ftz) * self.p.unit.normal
        return gap, bound, gap > bound


def _feedback(case: Case, result: Mapping[str, Any], declared: Declared, blocks: Blocks) -> list[Check]:
    """The sum, the selection, the values, the residual: coordinates that do not add up are blamed on one line."""
    step = _Step.of(case, result, declared)
    indices, values = np.asarray(result["indices"]).astype(np.int64), np.asarray(result["values"])
    bad = step.measured[2]
    line = _blame(step, bad) if bad.any() else ""
    used = step.as_stored if line else step.back.hi
    if line == "1:6":
        valued = step.checked("values", "1:6", _VALUES, step.c, step.a, line)
    elif line:
        valued = compared(t0.passed("values", "T1", "1:6", _VALUES))
    else:
        valued = compared(_rounded(used, indices, values, declared, "1:6"))
    return [
        step.checked("a", "1:5", _SUM, step.back.hi, step.a, line),
        compared(_selection(used, indices, blocks, "1:6")),
        valued,
        step.checked("xi", "1:7", _REST, step.left, step.a - step.c, line),
    ]


def _blame(step: _Step, bad: Array) -> str:
    """Which line is wrong where values + xi' is not xi + g.

    Values that are those of a speak for the sum: the residual is wrong. But a residual that is g's own, or the old one
    untouched, means that nothing was fed back. Values wrong while everything off their support is right: the values.
    """
    on, off = step.on, bad & ~step.on
    if not on.any():
        return "1:5"
    near = np.abs(step.c - step.a)[on] <= 2 * (step.store + step.p.unit.u) * np.abs(step.a)[on]
    own = (np.abs(step.c - step.g)[on] <= step.store * np.abs(step.g)[on]).all() and np.array_equal(
        step.left[~on], step.g[~on]
    )
    if off.any() and (own or np.array_equal(step.left, step.xi)):
        return "1:5"
    if near.all():
        return "1:7"
    return "1:5" if off.any() else "1:6"

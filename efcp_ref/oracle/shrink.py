"""Makes a failing case small enough to read: fewer rows, fewer coordinates, values towards 0 and 1.

Hypothesis chooses what to keep and shrinks the choice. Two rounds of choices, over and over while they help: ranges
of rows and coordinates with one simplification for all values, then single rows, coordinates and values. A candidate
counts if the target fails the same operation at the same stage on it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from efcp_ref.contract import OPERATIONS
from efcp_ref.oracle.core import FAIL, Case, CaseVerdict
from efcp_ref.oracle.targets import BrokenTarget, Judged

SINGLE = 90  # numbers in a case up to which single rows, coordinates and values are chosen
EXAMPLES = 400  # of one round
FIXED = ("H", "indices")  # arrays whose values must stay as they are
UNUSUAL = frozenset({"readonly", "strided"})
LEVELS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "ones": lambda a, unit: np.where(a == 0, 0, unit),
    "signs": lambda a, unit: np.sign(a) * unit,
    "integers": lambda a, unit: np.where((abs(a) >= 1) & (abs(a) < 1000), np.rint(a / unit) * unit, a),
    "as they are": lambda a, unit: a,
}


@dataclass(frozen=True)
class Cut:
    """What is kept of a case: positions by letter (m, d, k, ...), and how the rest is simplified."""

    keep: Mapping[str, np.ndarray]
    one_block: bool = False
    numbers: Mapping[str, Any] = ()  # type: ignore[assignment]
    level: str = "as they are"
    plain: bool = False  # neither read-only nor strided


# --- the letters of a case ----------------------------------------------------------------------------------------


def letters(case: Case) -> dict[str, tuple[str, ...]]:
    """Return the letter of every axis of every array: ``{"G": ("m", "d"), "x": ("d",)}``."""
    if case.operation not in OPERATIONS:
        return {"gradients": ("T",) if "shapes" in case.arguments else ("T", "d")}
    if case.operation == "power_compress":
        return {"g": ("p1", "p2"), "Q": ("p2", "rho")}
    shapes = {a.name: a.shape.strip("()").replace(" ", "").split(",") for a in OPERATIONS[case.operation].arguments}
    return {n: tuple(x for x in shape if x) for n, shape in shapes.items() if any(shape)}


def lengths(case: Case) -> dict[str, int]:
    """Return the length behind every letter."""
    return {
        letter: np.shape(_flat(case, name))[axis]
        for name, axes in letters(case).items() for axis, letter in enumerate(axes)
    } | ({"d": int(case.arguments["d"])} if "d" in case.arguments else {})  # fmt: skip


def _flat(case: Case, name: str) -> np.ndarray:
    a = np.asarray(case.arguments[name])
    return a.reshape(len(a), -1) if case.operation == "power_compress" else a


def cut(case: Case, what: Cut) -> Case | None:
    """Return the smaller case, or None where it would break the contract."""
    d = lengths(case).get("d", 0)
    keep = dict(what.keep)
    arguments = dict(case.arguments) | dict(what.numbers)
    if "block_size" in arguments and not what.one_block and "indices" in arguments:
        keep["d"], keep["k"] = _whole_blocks(keep["d"], d, arguments["block_size"]), np.arange(lengths(case)["k"])
    for name, axes in letters(case).items():
        a = _flat(case, name)
        for axis, letter in enumerate(axes):
            a = a if name in ("indices", "values") and letter == "k" else np.take(a, keep[letter], axis)
        arguments[name] = _simple(a, case, what.level) if name not in FIXED else a
    arguments |= {"d": len(keep["d"])} if "d" in arguments and "d" in keep else {}
    arguments |= {"block_size": len(keep["d"])} if "block_size" in arguments and what.one_block else {}
    if "indices" in arguments:
        arguments |= _sparse(arguments, keep, d, what.one_block)
    smaller = replace(case, arguments=arguments, flags=case.flags - UNUSUAL if what.plain else case.flags)
    return smaller if valid(smaller) else None


def _whole_blocks(kept: np.ndarray, d: int, block_size: int) -> np.ndarray:
    return np.flatnonzero(np.isin(np.arange(d) // block_size, np.unique(kept // block_size)))


def _simple(a: np.ndarray, case: Case, level: str) -> np.ndarray:
    wide = a.astype(np.float64)
    exact = "exact" in case.flags
    unit = float(np.min(np.abs(wide[wide != 0]), initial=np.inf)) if exact else 1.0
    return LEVELS[level](wide, unit).astype(a.dtype) if np.isfinite(unit) and np.isfinite(wide).all() else a


def _sparse(arguments: Mapping[str, Any], keep: Mapping[str, np.ndarray], d: int, one_block: bool) -> dict[str, Any]:
    """Rows of the kept coordinates, renumbered; unused coordinates with the value 0 fill short rows."""
    place = np.full(d, -1)
    place[keep["d"]] = np.arange(len(keep["d"]))
    rows = []
    for indices, values in zip(arguments["indices"], arguments["values"], strict=True):
        chosen = [e for e in keep["k"] if e < len(indices) and place[indices[e]] >= 0]
        rows.append((place[indices[chosen]], values[chosen]))
    k = max(1, *(len(r[0]) for r in rows))
    full = [_filled(i, v, k, len(keep["d"])) for i, v in rows] if one_block else rows
    new = {
        "indices": np.array([r[0] for r in full], arguments["indices"].dtype),
        "values": np.array([r[1] for r in full]),
    }
    return new | ({"density": _density(k, len(keep["d"]))} if one_block else {})


def _filled(indices: np.ndarray, values: np.ndarray, k: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    unused = np.setdiff1d(np.arange(d), indices)[: k - len(indices)]
    return np.concatenate([indices, unused]), np.concatenate([values, np.zeros(len(unused), values.dtype)])


def _density(k: int, d: int) -> float:
    """Return a density with ceil(density * d) = k: the shortest decimal, so rounded down."""
    digits = next((n for n in range(1, 12) if np.floor(k / d * 10**n) / 10**n > (k - 1) / d), 12)
    return float(np.floor(k / d * 10**digits) / 10**digits)


def valid(case: Case) -> bool:
    """Whether the sizes fit each other."""
    from efcp_ref.oracle.cases.build import agrees

    a, n = case.arguments, lengths(case)
    if case.operation == "power_compress" and n["rho"] > min(n["p1"], n["p2"]):
        return False
    if isinstance(a.get("k"), int) and a["k"] > n.get("d", a["k"]):
        return False
    return (
        "block_size" not in a or ("density" in case.flags) or agrees(n["d"], int(a["block_size"]), float(a["density"]))
    )


# --- what Hypothesis chooses --------------------------------------------------------------------------------------


def _sizes(n: int) -> list[int]:
    """Lengths to try, the whole as often as all others together."""
    small = [s for s in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 1024, 8192) if s < n]
    return small + [n] * max(1, len(small))


def _ranges(draw: Callable[..., Any], st: Any, case: Case) -> Cut:
    """Ranges of every letter, other numbers, one simplification for all values."""
    keep = {}
    for letter, n in lengths(case).items():
        length = draw(st.sampled_from(_sizes(n)))
        start = draw(st.sampled_from(sorted({0, (n - length) // 2, n - length})))
        keep[letter] = np.arange(start, start + length)
    one_block = "block_size" in case.arguments and not draw(st.sampled_from([False, True]))
    numbers = {n: draw(st.sampled_from(tried)) for n, tried in _numbers(case, len(keep.get("d", ())))}
    levels = [level for level in LEVELS if level != "integers" or "exact" not in case.flags]
    level = draw(st.sampled_from(levels + ["as they are"] * 2))
    plain = not draw(st.booleans())
    return Cut(keep, one_block, numbers, level, plain)


def _numbers(case: Case, d: int) -> Iterator[tuple[str, list[Any]]]:
    """Values to try for the numbers among the arguments."""
    for name, value in case.arguments.items():
        if name in ("k", "m", "rank") and isinstance(value, int):
            most = min(value, d) if name == "k" and d else value
            yield name, [s for s in _sizes(max(most, 1)) if s <= most] or [value]
        elif isinstance(value, float) and name in ("lam", "eps", "eta", "gamma"):
            yield name, [1.0, value, value]


def _singles(draw: Callable[..., Any], st: Any, case: Case) -> Cut:
    """Single rows and coordinates, of letters that are short enough."""
    keep = {}
    for letter, n in lengths(case).items():
        flags = [draw(st.sampled_from((0, 1, 1, 1, 1))) for _ in range(n if n <= SINGLE else 0)]
        keep[letter] = np.flatnonzero(flags) if any(flags) else np.arange(1 if flags else n)
    return Cut(keep, "block_size" in case.arguments and case.arguments["block_size"] >= lengths(case).get("d", 0))


def _values(draw: Callable[..., Any], st: Any, case: Case) -> Case:
    """Single values: 0, 1 (or the smallest value of an exact case), or as it is."""
    arguments = dict(case.arguments)
    for name in letters(case):
        if name not in FIXED:
            a = np.array(arguments[name])
            ones = _simple(a, case, "ones").reshape(-1)
            choice = [
                draw(st.sampled_from((0, 1, 2, 2, 2, 2, 2, 2))) if v else 0 for v in a.reshape(-1).astype(np.float64)
            ]
            arguments[name] = (
                np.choose(choice, [np.zeros_like(ones), ones, a.reshape(-1)]).astype(a.dtype).reshape(a.shape)
            )
    return replace(case, arguments=arguments)


# --- the search ---------------------------------------------------------------------------------------------------


def size_of(case: Case) -> int:
    """How many numbers the arrays of a case hold."""
    return sum(np.size(case.arguments[name]) for name in letters(case))


def measure(case: Case) -> tuple[int, int]:
    """How much there is to read: numbers that are not 0, then digits."""
    arrays = [np.asarray(case.arguments[n]) for n in letters(case) if n != "indices"]
    flat = np.concatenate([a.reshape(-1).astype(np.float64) for a in arrays]) if arrays else np.zeros(0)
    digits = sum(len(repr(float(v))) for v in flat[:200] if v) + sum(
        v != 1.0 for v in case.arguments.values() if isinstance(v, float)
    )
    return sum(a.size for a in arrays) + len(case.flags & UNUSUAL), digits


class _Late(BaseException):
    """The budget is spent; no `Exception`, which Hypothesis would take for a failure to shrink."""


class _Search:
    """The smallest failing case so far, and the time that is left."""

    def __init__(self, target: Judged, failing: CaseVerdict, seconds: float) -> None:
        assert failing.first is not None
        self.target, self.best, self.stage = target, failing, failing.first.stage
        self.deadline = time.monotonic() + seconds

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def fails(self, case: Case | None) -> bool:
        """Whether the target fails this case at the same stage; remembers it if it is the smallest."""
        from efcp_ref.oracle.judge import judge_case

        if case is None:
            return False
        verdict, _ = judge_case(self.target, case)
        if verdict.verdict != FAIL or verdict.first is None or verdict.first.stage != self.stage:
            return False
        if measure(case) < measure(self.best.case):
            self.best = verdict
        return True

    def round(self, choose: Callable[..., Any], seed: int) -> None:
        """Let Hypothesis find and shrink one choice, starting from the smallest case so far."""
        from hypothesis import HealthCheck, Phase, Verbosity, find, settings, strategies
        from hypothesis.errors import HypothesisException

        start = self.best.case

        @strategies.composite
        def smaller(draw: Callable[..., Any]) -> Case | None:
            if self.late():
                raise _Late
            chosen = choose(draw, strategies, start)
            return cut(start, chosen) if isinstance(chosen, Cut) else chosen

        quiet = settings(
            max_examples=EXAMPLES, deadline=None, database=None, verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        try:
            find(smaller(), self.fails, settings=quiet, random=Random(seed))
        except HypothesisException:  # nothing smaller fails, or the time is up
            return


def minimise(target: Judged, failing: CaseVerdict, seconds: float = 5.0) -> CaseVerdict | None:
    """Return a smaller case on which the target fails at the same stage, or None if none was found in time.

    Args:
        target: an open target.
        failing: a verdict ``fail``.
        seconds: budget; one case more may be running when it ends.
    """
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "efcp_ref_hypothesis"))
    search = _Search(target, failing, seconds)
    for seed in range(3):
        before = measure(search.best.case)
        try:
            search.round(_ranges, seed)
            if measure(search.best.case)[0] <= SINGLE:
                search.round(_singles, seed)
                search.round(_values, seed)
        except (BrokenTarget, _Late):
            break
        if search.late() or measure(search.best.case) >= before:
            break
    return None if search.best is failing else search.best

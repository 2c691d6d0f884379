"""The oracle's vocabulary: a case is handed to a target, its results are checked, the checks give a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

PASS, FAIL, INCONCLUSIVE, SKIP, ERROR = "pass", "fail", "inconclusive", "skip", "error"
SEVERITY = (FAIL, ERROR, INCONCLUSIVE, PASS, SKIP)  # of an operation: the first of these that occurs


@dataclass(frozen=True)
class Case:
    """One input: rebuilt from ``(operation, seed, index)`` alone, so that a failure is one command away.

    Floating arguments are float64 holding values that float32 (or, flagged ``bf16``, bfloat16) represents.
    An optimizer's case holds its constructor's parameters and ``gradients`` (T, d).
    """

    operation: str
    family: str  # exact | generic | adversarial | real
    label: str  # "ties at the cut"
    seed: int
    index: int
    arguments: Mapping[str, Any]
    flags: frozenset[str] = frozenset()  # exact, density, nan, subnormal, bf16, readonly, strided, large
    dtype: str = "float64"  # float64 | float32: how floating arguments travel
    why: str = ""  # bug type and effect that the case is there to show

    @property
    def id(self) -> str:
        """Stable name of the case."""
        return f"{self.operation}:{self.seed}:{self.index}:{self.dtype}"

    def with_dtype(self, dtype: str) -> Case:
        """The same case, its floating arrays travelling as ``dtype`` (exact, by construction)."""

        def cast(a: Any) -> Any:
            if isinstance(a, list):
                return [cast(b) for b in a]
            return a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a

        arguments = {name: cast(a) for name, a in self.arguments.items()}
        return replace(self, arguments=dressed(arguments, self.flags), dtype=dtype)


def dressed(arguments: Mapping[str, Any], flags: frozenset[str]) -> dict[str, Any]:
    """Return the arguments laid out as the flags say: every array strided, read-only; copying and pickling undo both.

    >>> dressed({"g": np.arange(3.0)}, frozenset({"strided"}))["g"].strides
    (16,)
    """

    def lay(a: Any) -> Any:
        if isinstance(a, list):
            return [lay(b) for b in a]
        if not isinstance(a, np.ndarray):
            return a
        if "strided" in flags and a.ndim:
            room = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
            room[..., ::2] = a
            a = room[..., ::2]
        if "readonly" in flags:
            a = a.view()
            a.setflags(write=False)
        return a

    return {name: lay(a) for name, a in arguments.items()}


def hyper(case: Case, name: str) -> float:
    """A hyper-parameter of a case, rounded to float32 as everybody does; flagged ``given``: as it was handed over.

    A float64 training run of its own holds 1e-4 as float64 has it: there rounding would be our mistake.

    >>> case = Case("sign_step", "generic", "", 0, 0, {"gamma": 0.1})
    >>> hyper(case, "gamma"), hyper(replace(case, flags=frozenset({"given"})), "gamma")
    (0.10000000149011612, 0.1)
    """
    value = float(case.arguments[name])
    return value if "given" in case.flags else float(np.float32(value))


@dataclass(frozen=True)
class Declared:
    """What a target says of itself; every field may be left out."""

    # accumulator, storage, depth, flush_to_zero, denormals_are_zero, rsqrt
    arithmetic: Mapping[str, Any] = field(default_factory=dict)
    solver: str | None = None  # factorisation | lu | inverse | eigh | dense
    orthogonalisation: str | None = None  # householder | svd | cgs2 | mgs | cgs
    nan: str | None = None  # largest | smallest | undefined
    readings: Mapping[str, str] = field(default_factory=dict)  # {"R4": "stored"}
    dtypes: tuple[str, ...] = ("float64", "float32")
    arrays: str = "numpy"  # numpy | torch | jax | cupy


@dataclass(frozen=True)
class Check:
    """One inequality, evaluated: ``ratio = max |got - expected| / bound``."""

    stage: str  # the result or stage judged: "omega", "S"
    tier: str  # T0 structure | T1 exact | T2 rigorous | T3 probabilistic
    line: str  # paper line: "2:11"
    rule: str  # the inequality, as text
    ratio: float = 0.0
    verdict: str = PASS  # pass | fail | inconclusive
    reason: str = ""  # why inconclusive, or what is wrong in words
    at: tuple[int, ...] = ()  # where the ratio is largest
    got: float | None = None
    expected: float | None = None
    bound: float | None = None
    oracle: str = ""  # with --certify: rational | ball | comparison, or why the oracle's own value is not certified
    oracle_error: float | None = None  # |value - enclosure| / bound


@dataclass(frozen=True)
class CaseVerdict:
    """What became of one case: its checks, and the first that failed."""

    case: Case
    verdict: str
    checks: tuple[Check, ...] = ()
    reason: str = ""  # of an error: "timeout after 10 s", "raised ValueError: ..."
    certificate: Any = None  # with --certify, an `efcp_ref.oracle.certify.Certificate`
    quality: float | None = None  # the largest ratio to a probabilistic bound: `quality_of`

    @property
    def first(self) -> Check | None:
        """The first failing check, else the first inconclusive one: later stages are not blamed."""
        for wanted in (FAIL, INCONCLUSIVE):
            for check in self.checks:
                if check.verdict == wanted and check.tier != "T3":
                    return check
        return None

    @property
    def worst(self) -> Check | None:
        """The check of tiers T1 and T2 with the largest ratio."""
        judged = [c for c in self.checks if c.tier in ("T1", "T2") and c.verdict != INCONCLUSIVE]
        return max(judged, key=lambda c: c.ratio, default=None)


@dataclass(frozen=True)
class Unit:
    """Precision of a result: unit roundoff, smallest subnormal, smallest normal number."""

    name: str
    u: float
    tiny: float
    normal: float


UNITS = {
    "float64": Unit("float64", 2.0**-53, 2.0**-1074, 2.0**-1022),
    "float32": Unit("float32", 2.0**-24, 2.0**-149, 2.0**-126),
    "float16": Unit("float16", 2.0**-11, 2.0**-24, 2.0**-14),
    "bfloat16": Unit("bfloat16", 2.0**-8, 2.0**-133, 2.0**-126),
}


def unit_of(result: np.ndarray, declared: Declared | None = None) -> Unit:
    """The precision that a result is judged by: the declared accumulator's where it is coarser, else its own."""
    own = UNITS.get(str(result.dtype), UNITS["float64"])
    accumulator = (declared.arithmetic if declared else {}).get("accumulator")
    return max(own, UNITS[accumulator], key=lambda unit: unit.u) if accumulator in UNITS else own


def quality_of(checks: tuple[Check, ...]) -> float | None:
    """Return the largest ratio to a probabilistic bound (T3), or to the rigorous one where both are the same (T2).

    Below 37 terms ``min(n, 6 sqrt n) = n``, so there is no T3 check of its own. None where nothing was decided.

    >>> S, u = Check("S", "T2", "W:5", "", 0.1), Check("u", "T2", "W:4", "", 0.2)
    >>> quality_of((S, replace(S, tier="T3", ratio=0.4), u))
    0.4
    """
    found: dict[tuple[str, str], float] = {}
    for tier in ("T2", "T3"):
        found |= {(c.stage, c.line): c.ratio for c in checks if c.tier == tier and c.verdict != INCONCLUSIVE}
    return max(found.values(), default=None)


def verdict_of(checks: tuple[Check, ...]) -> str:
    """Verdict of one case: fail before inconclusive before pass (T3 only warns)."""
    said = {c.verdict for c in checks if c.tier != "T3"}
    return FAIL if FAIL in said else INCONCLUSIVE if INCONCLUSIVE in said else PASS

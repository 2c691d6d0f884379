"""Judges units that declare that they flush subnormal numbers, on numbers so small that it shows.

The criteria of sums say what flushing loses, product by product. Elsewhere a flushed number is a number that was not
there: ``sign(1e-40)`` is 0, and Top-k takes 1e-40 for nothing. So a result that fails is judged once more, as if every
subnormal number of the input and of the result were zero. If it fails then, too, it is undecided: a unit that flushes
results only, or some instructions only, may give anything in between. Without such a declaration, or on numbers whose
sums cannot be subnormal, nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, UNITS, Case, Check, Declared, Unit

REASON = "subnormal numbers, which the target flushes"
Criterion = Callable[[Case, Mapping[str, Any], Declared], tuple[Check, ...]]


def judged(criterion: Criterion, case: Case, results: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Return what a criterion says of a case; of a unit that flushes, with subnormal numbers taken for zero as well."""

    def judge(arguments: Any, results: Any) -> tuple[Check, ...]:
        return criterion(replace(case, arguments=arguments), results, declared)

    return twice(judge, case.arguments, results, declared, UNITS.get(case.dtype, UNITS["float64"]))


def twice(
    judge: Callable[[Any, Any], tuple[Check, ...]], given: Any, returned: Any, declared: Declared, unit: Unit
) -> tuple[Check, ...]:
    """Return ``judge(given, returned)``, or where that fails and a declaration explains it, what the second look says.

    Args:
        judge: of what the target was given and what it returned.
        given, returned: arrays, or mappings and lists of them.
        declared: ``flush_to_zero`` or ``denormals_are_zero``; the accumulator, if it is another than ``unit``.
        unit: the precision of the numbers.
    """
    checks = judge(given, returned)
    unit = UNITS.get(str(declared.arithmetic.get("accumulator")), unit)
    if not _fails(checks) or not _flushes(declared) or not _small(given, unit):
        return checks
    again = judge(_flushed(given, unit.normal), _flushed(returned, unit.normal))
    return again if not _fails(again) else tuple(map(_undecided, checks))


def _flushes(declared: Declared) -> bool:
    return any(declared.arithmetic.get(word) for word in ("flush_to_zero", "denormals_are_zero"))


def _fails(checks: tuple[Check, ...]) -> bool:
    """Whether a number is wrong; a wrong shape or type stays wrong."""
    return any(c.verdict == FAIL for c in checks if c.tier in ("T1", "T2"))


def _small(given: Any, unit: Unit) -> bool:
    """Whether some ``0 < |v| < normal / u``: larger numbers are multiples of ``2 normal``, and so are their sums."""
    parts = (np.abs(np.asarray(a, np.float64)) for a in _arrays(given))
    return any(bool(((part > 0) & (part < unit.normal / unit.u)).any()) for part in parts)


def _arrays(value: Any) -> list[np.ndarray]:
    """All floating arrays inside."""
    if isinstance(value, np.ndarray):
        return [value] if value.dtype.kind in "fV" else []
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [array for part in inside for array in _arrays(part)]


def _flushed(value: Any, normal: float) -> Any:
    """The same with zeros for subnormal numbers; nothing of the user's is changed."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fV":
        return np.where(np.abs(value.astype(np.float64)) < normal, np.zeros((), value.dtype), value)
    if isinstance(value, Mapping):
        return {name: _flushed(part, normal) for name, part in value.items()}
    return [_flushed(part, normal) for part in value] if isinstance(value, list | tuple) else value


def _undecided(check: Check) -> Check:
    if check.verdict != FAIL or check.tier == "T0":
        return check
    return replace(check, verdict=INCONCLUSIVE, reason=REASON)


__all__ = ["judged", "twice"]

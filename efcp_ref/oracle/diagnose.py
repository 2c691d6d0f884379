"""Which known mistake explains a failure: the mistakes of one operation are run on the failing case and compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.oracle.cases import generate
from efcp_ref.oracle.core import Case, Declared
from efcp_ref.oracle.mutants import MUTANTS, Mutant
from efcp_ref.oracle.results import run

EXPLAINED = 1e-2  # share of the departure that a mistake may leave unexplained
NOISE = (1e-13, 1e-5)  # relative difference that rounding may leave where nothing departs: float64, then float32
REACH = 12  # cases on which it is counted how often a mistake shows
Named = dict[str, np.ndarray]
EQUIVALENT: tuple[frozenset[str], ...] = (
    frozenset({"wsm_lam_for_m_lam", "one_for_m"}),  # lam I + G^T G, written twice
    frozenset({"lam_for_m_lam", "bare_lam_for_m_lam"}),  # the second shows no stages
)


def explain(
    case: Case, result: Mapping[str, Any], declared: Declared | None = None, seconds: float = 2.0
) -> list[Mutant]:
    """Return the known mistakes that a wrong result agrees with, the most specific first.

    A mistake explains a result where, for every output, it leaves at most 1 % of the departure from the reference
    unexplained: ``|got - mistake| <= 0.01 |got - reference|``; and where nothing departs, ``|got - mistake|`` is
    rounding. The measure needs no bound; a result that came as float64 is first taken to be as exact as that, then,
    as every other, as float32. More specific is a mistake that shows the same outputs as the target; then the one that
    shows on fewer of the first 12 cases; then the one that leaves less.

    Args:
        case: the failing case.
        result: what the target returned, by the contract's names.
        declared: what the target declares; unused by the mistakes so far.
        seconds: no further mistake is tried after this time.

    >>> from efcp_ref.oracle.cases import generate
    >>> case = generate("mfac_direction", 0, 0)
    >>> G, lam, x = case.arguments.values()
    >>> u = x / lam - np.linalg.solve(lam * np.eye(len(G)) + G @ G.T, G @ x) / lam @ G
    >>> [mistake.text for mistake in explain(case, {"u": u})][:1]
    ['only the direction, with lam for m lam (section 2.2, eq. 2)']
    """
    end = time.monotonic() + seconds
    truth = _result(_reference(case.operation), case)
    if truth is None or _complex(result):  # no known mistake gives complex numbers
        return []
    found: list[tuple[bool, float, Mutant]] = []
    for mistake in _known(case.operation):
        wrong = None if time.monotonic() > end else _result(mistake.function, case)
        if wrong is None:
            continue
        got, right, other = _comparable(case, result, truth, wrong)
        if any(_agree(got, right, other, noise) for noise in _levels(result)):
            found.append((_shown(result) != _shown(wrong), _left(got, other), mistake))
    if len(found) < 2:
        return [mistake for *_, mistake in found]
    ranked = sorted(found, key=lambda f: (f[0], reach(f[2]) if time.monotonic() < end else REACH, f[1]))
    return [mistake for *_, mistake in ranked]


def same(a: str, b: str) -> bool:
    """Whether two mistakes of one operation are one: the same numbers on every case, where both show them.

    >>> same("wsm_lam_for_m_lam", "one_for_m"), same("wsm_plus", "one_for_m")
    (True, False)
    """
    return a == b or any({a, b} <= group for group in EQUIVALENT)


@cache
def reach(mistake: Mutant) -> int:
    """Return on how many of the first 12 cases a mistake shows."""
    return sum(_shows(mistake, generate(mistake.operation, 0, index)) for index in range(REACH))


def _shows(mistake: Mutant, case: Case) -> bool:
    truth, wrong = _result(_reference(case.operation), case), _result(mistake.function, case)
    if truth is None or wrong is None:
        return True
    right, got, _ = _comparable(case, truth, wrong, wrong)
    return not _same(right, got, NOISE[0])


def _levels(result: Mapping[str, Any]) -> tuple[float, ...]:
    """The noises to try: float64's only where every result came as float64."""
    kinds = {str(a.dtype) for a in map(np.asarray, result.values()) if a.dtype.kind in "fV"}
    return NOISE if kinds == {"float64"} else NOISE[1:]


def _complex(result: Mapping[str, Any]) -> bool:
    states = result.get("states") or ()
    return any(np.iscomplexobj(a) for one in (result, *states) for name, a in one.items() if name != "states")


def _shown(result: Mapping[str, Any]) -> set[str]:
    return {name for name, value in result.items() if value is not None}


def _left(got: Named, wrong: Named) -> float:
    return max((_distance(got[name], wrong[name]) for name in got.keys() & wrong.keys()), default=0.0)


def _known(operation: str) -> Iterable[Mutant]:
    return (mistake for mistake in MUTANTS if mistake.operation == operation)


def _reference(operation: str) -> Callable[..., Any]:
    import efcp_ref

    return getattr(efcp_ref, operation)


def _result(function: Callable[..., Any], case: Case) -> dict[str, Any] | None:
    """Run a function on the case in float64; None where it raises."""
    arguments = {name: _wide(value) for name, value in case.arguments.items()}
    hand = {"arrays": "numpy", "device": None, "flags": ()}
    try:
        with np.errstate(all="ignore"):
            return run(function, case.operation, arguments, "float64", hand)["results"]
    except Exception:
        return None


def _wide(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


# ------------------------------------------------------------------ what of a result can be compared


def _comparable(case: Case, *results: Mapping[str, Any]) -> tuple[Named, ...]:
    if case.operation in OPTIMIZERS:
        return _trajectories(*results)
    return tuple(_canonical(case, result) for result in results)


def _canonical(case: Case, result: Mapping[str, Any]) -> Named:
    """Return a result freed of what the contract leaves open: order inside a row, signs, rotations."""
    named = {name: np.asarray(value) for name, value in result.items() if value is not None}
    if "indices" in named:
        order = np.argsort(named["indices"], kind="stable")
        named["indices"] = named["indices"][order]
        if len(named["values"]) == len(order):
            named["values"] = named["values"][order]
    if case.operation == "power_compress" and named["P"].ndim == named["Q"].ndim == 2:
        P, Q = named["P"].astype(np.float64), named["Q"].astype(np.float64)
        named = {"P": P @ P.T} | ({"Q": P @ Q.T} if P.shape[1] == Q.shape[1] else {"Q": Q})
    if "eigenvalues" in named:
        named["eigenvalues"] = np.sort(named["eigenvalues"])
    return {name: value.astype(np.float64) for name, value in named.items() if name != "eigenvectors"}


def _trajectories(got: Mapping[str, Any], truth: Mapping[str, Any], wrong: Mapping[str, Any]) -> tuple[Named, ...]:
    """Return every result up to the first step at which the target departs from the reference."""
    steps = range(len(got["u"]))
    parts = [[_at(result, step) for step in steps] for result in (got, truth, wrong)]
    first = next((t for t in steps if not _same(parts[0][t], parts[1][t])), steps[-1])
    last = (max(first - 1, 0), first)
    return tuple({f"{name} {t}": value for t in last for name, value in one[t].items()} for one in parts)


def _at(result: Mapping[str, Any], step: int) -> Named:
    states = result.get("states")
    state = states[step] if states else {}
    return {"u": np.asarray(result["u"])[step].astype(np.float64)} | {
        name: np.asarray(value).astype(np.float64) for name, value in state.items()
    }


# ------------------------------------------------------------------ does it agree


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return |a - b|_max relative to the larger of both; infinite where shapes or NaN differ."""
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    size = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return float(np.abs(a - b).max(initial=0) / size) if size else 0.0


def _same(a: Named, b: Named, noise: float = NOISE[1]) -> bool:
    return all(_distance(a[name], b[name]) <= noise for name in a.keys() & b.keys())


def _agree(got: Named, truth: Named, wrong: Named, noise: float) -> bool:
    shared = got.keys() & truth.keys() & wrong.keys()
    departs = {name: _distance(got[name], truth[name]) for name in shared}
    left = {name: _distance(got[name], wrong[name]) for name in shared}
    telling = any(departs[n] > 0 and _distance(wrong[n], truth[n]) > noise for n in shared)
    return telling and all(left[n] <= max(noise, EXPLAINED * departs[n]) and left[n] < np.inf for n in shared)

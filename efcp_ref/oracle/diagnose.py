"""Which known mistake explains a failure: the mistakes of one operation are run on the failing case and compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.oracle.core import Case, Declared
from efcp_ref.oracle.mutants import MUTANTS, Mutant
from efcp_ref.oracle.results import run

EXPLAINED = 1e-2  # share of the departure that a mistake may leave unexplained
NOISE = 1e-5  # relative difference that rounding may leave where nothing departs
Named = dict[str, np.ndarray]


def explain(
    case: Case, result: Mapping[str, Any], declared: Declared | None = None, seconds: float = 2.0
) -> list[Mutant]:
    """Return the known mistakes that a wrong result agrees with.

    A mistake explains a result where, for every output, it leaves at most 1 % of the departure from the reference
    unexplained: ``|got - mistake| <= 0.01 |got - reference|``; and where nothing departs, ``|got - mistake|`` is
    rounding. The measure needs no bound, so it is the same in every precision.

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
    ['damping lam used for m lam (section 2.2, eq. 2)']
    """
    end = time.monotonic() + seconds
    truth = _result(_reference(case.operation), case)
    if truth is None:
        return []
    found = []
    for mistake in _known(case.operation):
        wrong = None if time.monotonic() > end else _result(mistake.function, case)
        if wrong is not None and _agree(*_comparable(case, result, truth, wrong)):
            found.append(mistake)
    return found


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


def _same(a: Named, b: Named) -> bool:
    return all(_distance(a[name], b[name]) <= NOISE for name in a.keys() & b.keys())


def _agree(got: Named, truth: Named, wrong: Named) -> bool:
    shared = got.keys() & truth.keys() & wrong.keys()
    departs = {name: _distance(got[name], truth[name]) for name in shared}
    left = {name: _distance(got[name], wrong[name]) for name in shared}
    telling = any(departs[n] > 0 and _distance(wrong[n], truth[n]) > NOISE for n in shared)
    return telling and all(left[n] <= max(NOISE, EXPLAINED * departs[n]) and left[n] < np.inf for n in shared)

"""Judges the optimizers: every step from the state that the target itself dumped, by the criteria of its operations.

A free run never gives a verdict: after the first flip of Top-k two correct runs part. With states each step stands
alone (`steps`, `factored`). Without states the trajectory is followed with a radius for every entry: what rounding may
have done to it; where a Top-k decision that cannot be seen lies within these radii, the run stops undecided (`hidden`).
Either way u is judged by `directions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.oracle import certify
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, Case, Check, Declared, unit_of
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.replay import factored, hidden, steps
from efcp_ref.oracle.criteria.replay.hidden import STOP
from efcp_ref.oracle.criteria.replay.run import Checks, Run, State, layers
from efcp_ref.paper._validate import Array

STATE_RULE = "state has the keys and shapes of the contract"
U_RULE = "u has shape (T, d)"

REPLAYS: dict[str, tuple[Callable[..., Checks], Callable[[Run], Iterator[list[Check]]]]] = {
    "topk_sgd": (steps.topk_sgd, hidden.topk_sgd),
    "dense_mfac": (steps.dense_mfac, hidden.dense),
    "sparse_mfac": (steps.sparse_mfac, hidden.sparse_mfac),
    "low_rank_mfac": (factored.low_rank_mfac, hidden.low_rank_mfac),
    "dense_ggt": (steps.dense_ggt, hidden.dense),
    "sparse_ggt": (steps.sparse_ggt, hidden.sparse_ggt),
    "adagrad_ef": (steps.adagrad, hidden.adagrad),
    "ef_signsgd": (steps.signed, hidden.signed),
}


def judge(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge an optimizer: the shape of u, then step after step until one is broken (trajectories)."""
    gradients, line = t0.wide(case.arguments["gradients"]), OPTIMIZERS[case.operation].line
    u = np.asarray(result.get("u"))
    if u.shape != gradients.shape or u.dtype.kind not in "fV":
        wrong = f"u has shape {u.shape} and dtype {u.dtype}, must be {gradients.shape}"
        return (t0.failed("u", "T0", line, U_RULE, wrong),)
    run = Run(case, declared, u, unit_of(u, declared), {n: v for n, v in case.arguments.items() if n != "gradients"})
    _, without = REPLAYS[case.operation]
    states = result.get("states")
    if states is not None and len(states) == len(u) and all(complete(run, s) for s in states):
        judged = _replayed(run, states)
    else:
        judged = without(run)
    return (t0.passed("u", "T0", line, U_RULE), *_merged(_finite(run, judged)))


def _finite(run: Run, judged: Iterator[list[Check]]) -> Iterator[list[Check]]:
    """Before a step is judged its u must be finite, and so must those after a run that stopped undecided. T0."""
    line = OPTIMIZERS[run.case.operation].line
    for t in range(len(run.u)):
        bad = np.flatnonzero(~np.isfinite(t0.wide(run.u[t])))
        if len(bad):
            wrong = "u holds NaN or infinity"
            yield [t0.failed("u", "T0", line, "finite results", wrong, (int(bad[0]),), got=float(run.u[t][bad[0]]))]
            return
        yield next(judged, [])


def _merged(judged: Iterator[list[Check]]) -> list[Check]:
    """Run through the steps until one is broken; of those before keep, stage by stage, the largest ratio.

    A stage that some step decides is decided; its undecided steps are counted in words.
    """
    best: dict[tuple[str, str, str], Check] = {}
    open_: dict[tuple[str, str, str], list[Check]] = {}
    for t, found in enumerate(judged, 1):
        checks = [replace(c, at=(t, *c.at)) for c in found]
        if t0.broken(checks):
            return [*best.values(), *(_at_step(t, c) for c in checks)]
        for c in checks:
            key = (c.stage, c.tier, c.line)
            if c.verdict == INCONCLUSIVE:
                open_.setdefault(key, []).append(c)
            elif key not in best or c.ratio > best[key].ratio:
                best[key] = certify.merged(c, best.get(key, c))
            else:
                best[key] = certify.merged(best[key], c)
    for key, undecided in open_.items():
        told = next((c for c in undecided if "declare" in c.reason), undecided[0])  # what can be done about it, if any
        if key not in best or key[0] == "trajectory":
            best[key] = told
        else:
            best[key] = replace(best[key], reason=f"{len(undecided)} steps undecided: {told.reason}")
    return list(best.values())


def _at_step(t: int, c: Check) -> Check:
    return replace(c, reason=f"step {t}: {c.reason}".rstrip(": ")) if c.verdict == FAIL else c


# ------------------------------------------------------------------ states


def _has(state: Any, keys: Sequence[str]) -> bool:
    return isinstance(state, Mapping) and all(state.get(key) is not None for key in keys)


def _keys(run: Run) -> list[str]:
    keys = [key for key in OPTIMIZERS[run.case.operation].state if not key.endswith("..")]
    if run.case.operation == "low_rank_mfac":
        keys += [f"{factor}{l}" for l in range(len(run.p["shapes"])) for factor in "PQ"]
    return keys


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    """Shape of every array of the state."""
    d, m, K = run.d, int(run.p.get("m", 1)), sum(run.layout()[1])
    shapes: dict[str, tuple[int, ...]] = {
        "xi": (d,), "e": (d,), "S": (m, m), "indices": (m, K), "values": (m, K), "t": (), "row": (),
        "G": (d,) if run.case.operation == "adagrad_ef" else (m, d),
    }  # fmt: skip
    for l, (p1, p2s, rho) in enumerate(layers(run)):
        shapes[f"P{l}"], shapes[f"Q{l}"] = (m, p1, rho), (m, p2s, rho)
    return shapes


def _wrong(state: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], run: Run) -> str:
    """What is wrong with a state, in words; empty if nothing is. An empty row may mark its places by -1."""
    for name, a in state.items():
        if a.shape != shapes[name]:
            return f"{name} has shape {a.shape}, must have {shapes[name]}"
    for name, a in state.items():
        if a.dtype.kind == "c":
            return f"{name} has dtype {a.dtype}, must hold real numbers"
        if a.dtype.kind != "O" and not np.isfinite(t0.wide(a)).all():
            return f"{name} holds NaN or infinity"
    whole = {name: t0.wide(state[name]) for name in ("t", "row", "indices") if name in state}
    for name, a in whole.items():
        if not np.array_equal(a, np.floor(a)):
            return f"{name} has dtype {state[name].dtype}, must hold integers"
    for name, low, high in (("row", 0, int(run.p.get("m", 1))), ("indices", -run.d, run.d)):
        if name in whole and whole[name].size and not low <= whole[name].min() <= whole[name].max() < high:
            return f"{name} holds {int(whole[name].min())}..{int(whole[name].max())}, must be in 0..{high - 1}"
    return ""


def _replayed(run: Run, states: Sequence[State]) -> Iterator[list[Check]]:
    """Judge step t from the state that the target left after step t - 1; before the first: zeros."""
    before: dict[str, Any] | None = None
    for t, state in enumerate(states):
        checks, before = one_step(run, t, before, state)
        yield checks
        if before is None:
            return


def one_step(run: Run, t: int, before: State | None, state: State) -> tuple[list[Check], dict[str, Any] | None]:
    """Judge step t from the state before it (None: nothing was stored yet); return also the state after it.

    The state after it is None where it has not the contract's shapes or is not finite: nothing can follow from it.
    """
    shapes, keys = _shapes(run), _keys(run)
    after = {key: np.asarray(state[key]) for key in keys}
    if wrong := _wrong(after, shapes, run):
        return [t0.failed("state", "T0", OPTIMIZERS[run.case.operation].line, STATE_RULE, wrong)], None
    if before is None:
        before = {key: np.zeros(shapes[key], a.dtype) for key, a in after.items()}
        if "row" in after:
            before["row"] = (after["row"] - 1) % int(run.p["m"])
    here = list(REPLAYS[run.case.operation][0](run, t, before, after))
    counted = int(after["t"]) == int(before["t"]) + 1
    counting = t0.passed if counted else t0.failed
    return [*here, counting("t", "T0", "1:3", "t counts the steps", "" if counted else f"t = {int(after['t'])}")], after


def complete(run: Run, state: Any) -> bool:
    """Whether a state holds every key of the contract."""
    return _has(state, _keys(run))


__all__ = ["REPLAYS", "STOP", "complete", "judge", "one_step"]

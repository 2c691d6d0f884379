"""Recorded runs for the player: the executable paper on small inputs, written as compact JSON.

A case is a function without arguments that runs the reference; `efcp_ref.tracing.trace` runs it and nothing here
computes. What the player needs is kept: per event the paper line, and for every function that is running its variables,
as numbers in a pool (a value that does not change is stored once).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from efcp_ref.paper import algorithm_1, algorithm_2, algorithm_3, algorithm_4, algorithm_6, algorithm_7, sign, woodbury
from efcp_ref.paper.algorithm_5 import power_compress
from efcp_ref.paper.optimizers import MFAC, mfac
from efcp_ref.paper.theory import kinked_subgradient
from efcp_ref.paper.top_k import block_top_k, scaled_top_k
from efcp_ref.paper.window import Dense, DenseWindow, SparseWindow, keep, keep_blocks
from efcp_ref.tracing import Event, trace

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """One recorded input."""

    title: str
    text: str  # what to look at
    run: Callable[[], Any]
    given: dict[str, Any] = field(default_factory=dict)  # what the first lines do not show of what the run is given


# ---- the inputs: multiples of powers of two wherever the algorithm has no root or quotient ---------------------------

SLOPES = np.array([4.0, 2.0, 2.0, 1.0, 0.5, 0.5])
START = np.array([1.0, -1.0, 2.0, -2.0, 4.0, -4.0])


def _quadratic(theta: Array) -> Array:
    return SLOPES * theta


def _descend(k: int, T: int, start: Array = START, gradient: Callable[[Array], Array] = _quadratic) -> Any:
    return algorithm_1.efcp(start, gradient, lambda a: keep(a, k), algorithm_1.identity, None, 0.25, T)


def _forgetful(k: int, T: int) -> Any:
    """Restart Algorithm 1 at every step: xi is put back to 0, so what is dropped is lost."""
    theta = START
    for _ in range(T):
        theta, state = algorithm_1.efcp(theta, _quadratic, lambda a: keep(a, k), algorithm_1.identity, None, 0.25, 1)
    return theta, state


def _sparse_mfac() -> Any:
    window = SparseWindow.empty(6, 2, block_size=3, density=0.5)
    A = MFAC(window, np.zeros((2, 2)))
    return algorithm_1.efcp(
        START, _quadratic, lambda a: keep_blocks(a, 3, 0.5), lambda A, c: mfac(A, c, lam=0.5), A, 0.125, 4
    )


I3 = np.array([[0, 2, 3, 5, 8, 9], [1, 2, 4, 6, 7, 9]])
V3 = np.array([[1.0, -2.0, 0.5, 3.0, -1.0, 2.0], [4.0, 1.0, -1.0, 2.0, 0.5, -3.0]])
G10 = np.array([1.0, 2.0, 3.0, 4.0, 5.0, -1.0, -2.0, -3.0, -4.0, 6.0])
I_BLOCKS = np.array([[0, 3, 4, 6, 8], [1, 3, 5, 6, 9]])  # B_d = 4, two entries in each block, one in the last
V_BLOCKS = np.array([[1.0, -2.0, 3.0, 0.5, 4.0], [2.0, 1.0, -1.0, 2.5, -0.5]])


def _ggt(rows: list[tuple[list[int], list[float]]], m: int) -> Any:
    state = algorithm_4.initial_state(d=5, m=m, k=2)
    for indices, values in rows:
        u, state = algorithm_4.sparse_ggt_step(state, np.array(indices), np.array(values), eps=0.5)
    return u, state


def _power(gradients: list[Array], Q: Array) -> Any:
    for g in gradients:
        P, Q = power_compress(g, Q)
    return P, Q


def _low_rank(gradients: list[Array]) -> Any:
    state = algorithm_6.initial_state([(2, 2), (2,)], m=2, rank=1, Q0=[np.array([[1.0], [0.0]])])
    for g in gradients:
        u, state = algorithm_6.low_rank_mfac_step(state, g, lam=0.5)
    return u, state


def _adagrad(T: int, k: int, feedback: bool = True) -> Any:
    theta, xi, G = np.array([2.0, 1.0, -1.0, 0.5, 0.0]), np.zeros(5), np.zeros(5)
    slopes = np.array([4.0, 2.0, 2.0, 1.0, 1.0])
    if feedback:
        return algorithm_7.adagrad_ef(theta, lambda x: slopes * x, k=k, eta=0.5, T=T)
    for _ in range(T):
        theta, _, G = algorithm_7.adagrad_step(theta, xi, G, slopes * theta, k, 0.5)
    return theta, xi, G


def _sign_forgetful(T: int) -> Any:
    x = np.array([1.0, 1.0])
    for _ in range(T):
        x = sign.ef_signsgd_run(lambda x, t: kinked_subgradient(x), x, 0.25, 1).x[-1]
    return x


FOUR = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 1.0], [-1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
X3 = np.array([1.0, 2.0, 3.0])


def _dense_mfac(gradients: Array) -> Any:
    A = MFAC(DenseWindow.empty(d=3, m=2), np.zeros((2, 2)))
    for g in gradients:
        u, A = mfac(A, Dense(g), lam=0.5)
    return u, A


def _recursion(G: Array, x: Array) -> Any:
    return woodbury.coefficients_recursive(G @ G.T, G @ x, 0.5)


TEN = np.array([1.0, -8.0, 3.0, 0.5, 2.0, 2.5, -4.0, 1.0, 0.25, -6.0])
TIED = np.array([1.0, -1.0, 1.0, -1.0, 2.0, 2.0])
TWO = np.array([[1.0, 0.0], [1.0, 1.0]])


_M = np.array([[4.0, 0.0, 2.0], [0.0, 3.0, 0.0], [2.0, 0.0, 1.0]])
_LAYERS = [
    np.array(g)
    for g in ([4.0, 0.0, 2.0, 0.0, 1.0, -1.0], [0.0, 2.0, 1.0, 0.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
]

CASES: dict[str, tuple[Case, ...]] = {
    "1": (
        Case(
            "Top-2 of 6, with error feedback",
            "Five steps of gradient descent on a quadratic. A coordinate that is "
            "not sent waits in xi and grows until it is.",
            lambda: _descend(2, 5),
        ),
        Case(
            "The same without error feedback",
            "xi is put back to 0 before every step: what is dropped is lost, and the flat coordinates wait for ever.",
            lambda: _forgetful(2, 5),
        ),
        Case(
            "Ties",
            "All magnitudes are equal. The reference keeps the lowest positions (R12); the others follow, "
            "because they waited.",
            lambda: _descend(2, 4, np.array([1.0, -1.0] * 3), lambda theta: 2 * theta),
        ),
        Case(
            "Sparse M-FAC, a window of 2 that wraps around",
            "Line 8 writes c into the ring, over the oldest row, and "
            "then preconditions. Step 3 overwrites step 1 (R1).",
            _sparse_mfac,
        ),
    ),
    "2": (
        Case(
            "6 entries, 4 lanes",
            "Two rows, so two thread blocks. In the second round only two lanes have an entry "
            "left; the others are masked.",
            lambda: algorithm_2.sp_kernel(I3, V3, G10, T=4),
        ),
        Case(
            "6 entries, 8 lanes",
            "One round, two idle lanes, and a tree of three levels.",
            lambda: algorithm_2.sp_kernel(I3[:1], V3[:1], G10, T=8),
        ),
        Case(
            "Terms that cancel",
            "The partial sums of the lanes are large, the sum of the tree is 0.",
            lambda: algorithm_2.sp_kernel(
                np.array([[0, 1, 2, 3]]), np.array([[8.0, -4.0, -3.0, -1.0]]), np.ones(4), T=4
            ),
        ),
    ),
    "3": (
        Case(
            "Three slices, one thread block each",
            "The last slice is partial: 2 coordinates, 1 entry a row. Both rows add into the same shared memory.",
            lambda: algorithm_3.lcg_kernel(I_BLOCKS, V_BLOCKS, np.array([1.0, 10.0]), 10, 4, 2, T=2),
        ),
        Case(
            "The same with one thread block",
            "workload is 3: the block walks over the slices and clears its memory after each (line 27).",
            lambda: algorithm_3.lcg_kernel(I_BLOCKS, V_BLOCKS, np.array([1.0, 10.0]), 10, 4, 2, T=2, B=1),
        ),
        Case(
            "Three rows that meet",
            "Every row holds coordinate 0: three sums into one cell, a barrier between the rows.",
            lambda: algorithm_3.lcg_kernel(
                np.array([[0, 1], [0, 2], [0, 3]]), np.ones((3, 2)), np.array([1.0, 2.0, 4.0]), 4, 4, 2, T=2
            ),
        ),
    ),
    "4": (
        Case(
            "Three gradients, a window of 2",
            "The third gradient replaces the first: alpha goes back to 0 and row "
            "and column 0 of the Gram matrix are new.",
            lambda: _ggt([([0, 2], [3.0, 4.0]), ([1, 2], [2.0, 1.0]), ([0, 4], [1.0, -2.0])], 2),
        ),
        Case(
            "The same gradient twice",
            "The Gram matrix has rank 1. The second eigenvalue is zero up to rounding, the cut-off drops it (R24).",
            lambda: _ggt([([0, 2], [3.0, 4.0]), ([0, 2], [3.0, 4.0])], 2),
        ),
    ),
    "5": (
        Case(
            "Rank 1 of a 3 x 3 gradient, twice",
            "The second call starts from the Q of the first and turns P closer to the leading direction.",
            lambda: _power([_M, _M], np.array([[1.0], [1.0], [0.0]])),
        ),
        Case(
            "A zero gradient",
            "P is still orthonormal, Q is 0, and the next gradient recovers (R25).",
            lambda: _power([np.zeros((3, 3)), _M], np.array([[1.0], [1.0], [0.0]])),
        ),
        Case(
            "Rank 2",
            "Two columns. The gradient has rank 3, so P Q^T is a projection of it.",
            lambda: _power([_M], np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])),
        ),
    ),
    "6": (
        Case(
            "Two layers, a window of 2 that wraps around",
            "A 2 x 2 layer at rank 1 and a bias kept whole. delta adds "
            "up over the layers (R26); the third step overwrites the first.",
            lambda: _low_rank(_LAYERS),
        ),
        Case(
            "The same gradient twice",
            "Both rows of the window are equal: the scalar products are one number four times.",
            lambda: _low_rank([_LAYERS[0], _LAYERS[0]]),
        ),
    ),
    "7": (
        Case(
            "Top-2 of 5, with error feedback",
            "The last coordinate never has a gradient: G stays 0 there and it is not moved (R29).",
            lambda: _adagrad(4, 2),
        ),
        Case(
            "The same without error feedback",
            "xi is put back to 0 before every step.",
            lambda: _adagrad(4, 2, feedback=False),
        ),
    ),
    "S1": (
        Case(
            "A quadratic",
            "Every coordinate moves by the same length; e keeps the difference.",
            lambda: sign.ef_signsgd_run(lambda x, t: x, np.array([4.0, 1.0]), 0.5, 5),
        ),
        Case(
            "Where SignSGD fails",
            "The counterexample of the slides from (1, 1), with error feedback.",
            lambda: sign.ef_signsgd_run(lambda x, t: kinked_subgradient(x), np.array([1.0, 1.0]), 0.25, 6),
        ),
        Case(
            "The same without error feedback",
            "e is put back to 0 before every step: x1 + x2 never changes.",
            lambda: _sign_forgetful(6),
        ),
    ),
    "K": (
        Case(
            "Blocks of 4, half of each",
            "The last block is partial and keeps ceil(2/2) = 1 entry (R11).",
            lambda: block_top_k(TEN, 4, 0.5),
            {"a": TEN, "block_size": 4, "density": 0.5},
        ),
        Case(
            "Ties",
            "Four equal magnitudes: the lowest positions are kept (R12).",
            lambda: block_top_k(TIED, 4, 0.5),
            {"a": TIED, "block_size": 4, "density": 0.5},
        ),
        Case(
            "Scaled by H",
            "In the basis of H the small entry of v is the large one (Lemma K.1).",
            lambda: scaled_top_k(np.array([3.0, 2.0, 1.0]), np.diag([16.0, 1.0, 4.0]), 1),
        ),
    ),
    "W": (
        Case(
            "The recursion",
            "One gradient after another updates F^-1 x (R2). The lines run for each row of G first, then for x.",
            lambda: woodbury.wsm(TWO, 1.0, np.array([1.0, 1.0])),
            {"G": TWO, "x": np.array([1.0, 1.0]), "lam": 1.0},
        ),
        Case(
            "Eq. (2), a dense window of 2 that wraps around",
            "Row and column of S are replaced first (R7), then the coefficients, then the direction.",
            lambda: _dense_mfac(FOUR),
            {"gradients": FOUR, "lam": 0.5},
        ),
        Case(
            "The coefficients by M-FAC's recursion",
            "The same c without a solver: rows of D and B, one gradient after another.",
            lambda: _recursion(FOUR[:3], X3),
            {"G": FOUR[:3], "x": X3, "lam": 0.5},
        ),
    ),
}


# ---- from events to what the player shows ------------------------------------------------------------------------


def recorded(key: str) -> dict[str, Any]:
    """Return the player's data of one algorithm."""
    return {"key": key, "cases": [_case(key, case) for case in CASES[key]]}


def _case(key: str, case: Case) -> dict[str, Any]:
    levels: list[list[Array]] = []
    run = _with_levels(case.run, levels)
    pool, stack, out = _Pool(), [], []
    given = [["", {name: pool(value) for name, value in case.given.items()}]] if case.given else []
    for number, event in enumerate(run.events):
        if event.line.split(":")[0] != key:
            continue
        stack = [frame for frame in stack if frame[0] < event.depth and _goes_on(run.events, number, *frame[:2])]
        stack.append((event.depth, event.function, _shown(event, pool)))
        base = {"l": int(event.line.split(":")[1]), "f": [*given, *([name, variables] for _, name, variables in stack)]}
        if event.returned and isinstance(event.result, (int, float, np.ndarray)):
            base["r"] = pool(event.result)
        base["c"] = sorted({path.split(".")[0] if path.split(".")[0] == "c" else path for path in event.changed})
        if event.line == "2:14":  # one step per level, with the memory as it is there
            tree = [pool(level) for level in levels.pop(0)]
            *outer, (name, variables) = base["f"]
            for n in range(1, len(tree)):
                out.append({**base, "f": [*outer, [name, {**variables, "mem": tree[n]}]], "tree": tree, "at": n})
            continue
        out.append({**base, **_drawing(event, pool)})
    return {"title": case.title, "text": case.text, "pool": pool.values, "events": out}


def _goes_on(events: Sequence[Event], number: int, depth: int, function: str) -> bool:
    """Whether the function at this depth still runs at an event: it does if the next line at its depth is its own."""
    later = next((event for event in events[number:] if event.depth <= depth), None)
    return later is not None and (later.depth, later.function) == (depth, function)


def _with_levels(run: Callable[[], Any], levels: list[list[Array]]) -> Any:
    """Trace a run; of every call of `parallel_reduce` keep ``mem`` at the start and after each level."""
    reduce = algorithm_2.parallel_reduce

    def watched(mem: Array, T: int) -> None:
        seen = [mem.copy()]

        def step(frame: Any, event: str, argument: Any) -> Any:
            if frame.f_code is reduce.__code__ and not np.array_equal(seen[-1], frame.f_locals["mem"]):
                seen.append(frame.f_locals["mem"].copy())
            return step

        before = sys.gettrace()
        sys.settrace(step)
        try:
            reduce(mem, T)
        finally:
            sys.settrace(before)
        levels.append(seen)

    algorithm_2.parallel_reduce = watched
    try:
        return trace(run)
    finally:
        algorithm_2.parallel_reduce = reduce


class _Pool:
    """Numbers for values: equal ones get the same."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.known: dict[str, int] = {}

    def __call__(self, value: Any) -> int:
        text = json.dumps(value.tolist() if isinstance(value, np.ndarray) else value)
        if text not in self.known:
            self.known[text] = len(self.values)
            self.values.append(json.loads(text))
        return self.known[text]


HIDDEN = {
    "compress",
    "precondition",
    "gradient",
    "rate",
    "block",
    "threads",
    "blocks",
    "terms",
    "shapes",
    "per_tensor",
    "normalise",
    "C",
    "cutoff",
    "ridge",
    "density",
    "block_size",
    "index",
    "offsets",
    "stored_indices",
    "layers",
    "before",
    "after",
    "xs",
    "es",
    "gs",
    "M",
    "parts",
    "vectors",
    "_",
    "Q0",
    "x0",
    "starts",
    "sizes",
    "lam",
    "eps",
    "ThreadId",
    "Tid",
}
STALE = {("efcp", "A"), ("low_rank_mfac", "state")}  # arguments that are not what the loop or the function works on


def _shown(event: Event, pool: _Pool) -> dict[str, int]:
    """Return the variables that are numbers, by dotted name; a compressed vector is shown with its zeros as null."""
    found: dict[str, int] = {}

    def add(name: str, value: Any) -> None:
        if name.split(".")[-1].split("[")[0] in HIDDEN:
            return
        if isinstance(value, dict):
            if {"indices", "values", "d"} <= value.keys() and "density" not in value:
                dense: list[float | None] = [None] * value["d"]
                for i, v in zip(value["indices"].tolist(), value["values"].tolist(), strict=True):
                    dense[i] = v
                found[name] = pool(dense)
                return
            for key, item in value.items():
                if not (name.endswith("window") and key == "d"):
                    add(f"{name}.{key}", item)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = pool(value)
        elif isinstance(value, np.ndarray) and value.size and value.ndim:
            found[name] = pool(value if value.ndim < 3 else value.reshape(len(value), -1))
        elif isinstance(value, list) and value and len(value) < 9:
            for number, item in enumerate(value):
                add(f"{name}[{number}]", item)

    for name, value in event.variables.items():
        if (event.function, name) not in STALE:
            add(name, value)
    if event.line == "3:6":  # memory that nothing has been written to: what stands in it is an accident
        found["mem"] = pool([None] * len(event.variables["mem"]))
    return found


def _drawing(event: Event, pool: _Pool) -> dict[str, Any]:
    """Return what is drawn beside the variables: the ring of the window, or lanes and memory of a kernel."""
    v = event.variables
    if event.line.startswith(("2:", "3:")):
        return {"lanes": _lanes(event)}
    ring = _ring({name: value for name, value in v.items() if (event.function, name) != ("efcp", "A")})
    return {"ring": pool(ring)} if ring else {}


def _lanes(event: Event) -> dict[str, Any]:
    """Return lanes that work, the addresses that this line touches, and where from."""
    v, n = event.variables, int(event.line.split(":")[1])
    kernel = event.line[0]
    T, lanes = v.get("T"), None
    touched: dict[str, Any] = {}
    if kernel == "2" and 8 <= n <= 11 and "lanes" in v:
        lanes = v["lanes"].tolist()
        if n == 11:
            touched["g"] = v["i"].tolist()
    elif kernel == "3" and 17 <= n <= 20 and "col" in v:
        lanes = (v["col"] - v["start_k"]) % T
        lanes = lanes.tolist()
        if n == 20:
            touched["mem"] = (v["index"] - v["start_d"]).tolist()
    elif kernel == "3" and n >= 25 and "j" in v:
        lanes, touched["mem"] = (v["j"] % T).tolist(), v["j"].tolist()
        if n == 26:
            touched["omega"] = (v["j"] + v["start_d"]).tolist()
    elif n == (16 if kernel == "2" else -1):
        lanes, touched["mem"], touched["omega"] = [0], [0], [int(v["r"])]
    elif kernel == "2" and n in (3, 5, 13):
        lanes = list(range(T))
    return {"T": T, "on": lanes, "at": touched}


def _ring(v: dict[str, Any]) -> dict[str, Any] | None:
    """Return the rows of a window, each a list of [position, value], and the row that is written next."""
    state = v.get("state")
    A = v.get("A") if isinstance(v.get("A"), dict) else state.get("A") if isinstance(state, dict) else None
    if isinstance(A, dict) and "window" in A:
        window = A["window"]
        if "values" in window:
            rows = [_pairs(i, x) for i, x in zip(window["stored_indices"], window["values"], strict=True)]
        else:
            rows = [_pairs(range(len(x)), x) for x in window["G"]]
        return {"rows": rows, "next": int(window["row"])}
    if "GtG" in v and "V" in v:  # Algorithm 4, inside a step
        k = v["k"]
        rows = [_pairs(v["R"][r * k : r * k + k], v["V"][r * k : r * k + k]) for r in range(v["m"])]
        return {"rows": rows, "next": int(v["i"])}
    if isinstance(v.get("G"), list) and isinstance(state, dict) and "row" in state:  # Algorithm 6: layers
        layers = [layer["P"].reshape(len(layer["P"]), -1) for layer in v["G"]]
        rows = [[["P" + str(l), float(x)] for l, P in enumerate(layers) for x in P[r]] for r in range(len(layers[0]))]
        return {"rows": rows, "next": int(state["row"])}
    return None


def _pairs(positions: Any, values: Any) -> list[list[Any]]:
    return [[int(i), float(x)] for i, x in zip(positions, values, strict=True)]

"""Replay: a real training run is dumped and judged; mistakes injected at one step are looked for.

Run ``python benchmarks/replay.py --steps 1000 --trials 100``. A ReLU network learns the digits in float32 with plain
PyTorch and the sparse M-FAC of ``efcp_ref/targets/torch_naive.py``; three lines in the loop dump the run. Then, again
and again, one known mistake takes the place of one step, the training goes on correctly from what it left, and that
stretch is dumped and judged. Whether a mistake changes state or output beyond the bound is computed here (`visible`),
by code of its own. Results go to ``benchmarks/results/replay.json``, the picture to ``docs/assets/replay.svg``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from efcp_ref.data import digits, split
from efcp_ref.oracle import replay
from efcp_ref.oracle.dump import Dump
from efcp_ref.oracle.mutants import MUTANTS, Mutant
from efcp_ref.oracle.mutants.optimizers import SparseMFAC
from efcp_ref.targets.torch_naive import dense, select_blocks, sparse_mfac

ROOT = Path(__file__).resolve().parents[1]
SIZE = {"m": 32, "lam": 0.001, "block_size": 512, "density": 0.02}
HIDDEN, BATCH, RATE = 32, 64, 0.005
U = 2.0**-24
BEFORE, AFTER = 12, 12  # steps of a stretch around the wrong one
DRAWS = 40
Array = np.ndarray


class SMFAC(sparse_mfac):
    """The plain PyTorch S-MFAC, S kept and updated by one row and column per step as section 2.2 has it."""

    def __init__(self, d: int, m: int, lam: float, block_size: int, density: float) -> None:
        """Start empty."""
        super().__init__(d, m, lam, block_size, density)
        self.S = torch.zeros(m, m)

    def step(self, g: Any) -> Array:
        """Compress and insert xi + g, update S, precondition."""
        i = self.row
        a = self.xi + torch.tensor(g)
        kept = select_blocks(a, self.block_size, self.density)
        self.indices[i], self.values[i] = kept, a[kept]
        c = torch.zeros(self.d).scatter_(0, kept, a[kept])
        self.xi, self.t, self.row = a - c, self.t + 1, (i + 1) % self.m
        G = dense(self.indices, self.values, self.d)
        self.S[i] = self.S[:, i] = h = G @ c
        w = torch.linalg.solve(self.S + self.m * self.lam * torch.eye(self.m), h)
        return ((c - w @ G) / self.lam).numpy()

    def state(self) -> dict[str, Any]:
        """Return the state, with S as it is kept."""
        return {"t": self.t, "row": self.row, "xi": self.xi.numpy().copy(), "indices": self.indices.int().numpy(),
                "values": self.values.numpy().copy(), "S": self.S.numpy().copy()}  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Take a state, with S as it is."""
        super().load(state)
        self.S = torch.tensor(np.asarray(state["S"], np.float32))


class Training:
    """A network, its optimizer, and the batch of every step: the same seed gives the same batches."""

    def __init__(self, seed: int = 0) -> None:
        """Start with random weights and an empty window."""
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self.seed, self.t = seed, 0
        self.model = torch.nn.Sequential(torch.nn.Linear(64, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10))
        X, y = digits()
        self.X, self.y = torch.tensor(X[split().train], dtype=torch.float32), torch.tensor(y[split().train])
        self.d = sum(p.numel() for p in self.model.parameters())
        self.optimizer = SMFAC(self.d, **SIZE)

    def theta(self) -> Array:
        """Return all parameters as one vector."""
        return torch.nn.utils.parameters_to_vector(self.model.parameters()).detach().numpy().copy()

    def gradient(self) -> Array:
        """Return the gradient of the next batch."""
        chosen = np.random.default_rng([self.seed, self.t]).choice(len(self.y), BATCH, replace=False)
        loss = torch.nn.functional.cross_entropy(self.model(self.X[chosen]), self.y[chosen])
        parts = torch.autograd.grad(loss, list(self.model.parameters()))
        return torch.cat([p.reshape(-1) for p in parts]).numpy()

    def move(self, u: Array) -> None:
        """Take one step along -u."""
        theta = torch.tensor(self.theta() - np.float32(RATE) * u)
        torch.nn.utils.vector_to_parameters(theta, self.model.parameters())
        self.t += 1

    def at(self, t: int, theta: Array, state: dict[str, Any]) -> None:
        """Go back to step t."""
        self.t = t
        torch.nn.utils.vector_to_parameters(torch.tensor(theta), self.model.parameters())
        self.optimizer.load(state)

    def accuracy(self) -> float:
        """Return the share of training images that are told right."""
        with torch.no_grad():
            return float((self.model(self.X).argmax(1) == self.y).float().mean())


@dataclass
class Taken:
    """What one step saw and left."""

    theta: Array  # before it
    g: Array
    u: Array
    state: dict[str, Any]  # after it


def train(path: Path, steps: int, seed: int = 0) -> tuple[Training, list[Taken]]:
    """Train, dump, and keep what every step saw."""
    run, kept = Training(seed), []
    with Dump(path, "sparse_mfac", d=run.d, **SIZE) as dump:
        for _ in range(steps):
            theta, g = run.theta(), run.gradient()
            u = run.optimizer.step(g)
            dump.step(g, u, run.optimizer.state())
            run.move(u)
            kept.append(Taken(theta, g, u, run.optimizer.state()))
    return run, kept


# --- one wrong step -----------------------------------------------------------------------------------------------


def wrong_step(mistake: type[Any], d: int, before: dict[str, Any] | None, g: Array) -> tuple[Array, dict[str, Any]]:
    """Return u and the state that an implementation leaves from a state, stored as the target stores it."""
    it = mistake(d=d, **SIZE)
    if before is not None:
        it.load(before)
    u, state = it.step(g.astype(np.float64)), it.state()
    kinds = {"xi": np.float32, "values": np.float32, "S": np.float32, "indices": np.int32}
    return u.astype(np.float32), {n: np.asarray(v).astype(kinds[n]) if n in kinds else v for n, v in state.items()}


def visible(d: int, before: dict[str, Any] | None, g: Array, u: Array, state: dict[str, Any]) -> bool:
    """Whether this step differs from a correct one, in state or output, by more than rounding may do.

    The correct step is taken in float64 from the same state; the bounds are written down here once more.
    """
    right_u, right = wrong_step(SparseMFAC, d, before, g)
    if int(right["row"]) != int(state["row"]) or int(right["t"]) != int(state["t"]):
        return True
    row = (int(right["row"]) - 1) % SIZE["m"]
    a = (0.0 if before is None else before["xi"].astype(np.float64)) + g
    if _apart(right["xi"], state["xi"], U * np.abs(a)) or _rows(right, state, d, row, a):
        return True
    G = np.zeros((SIZE["m"], d))
    np.put_along_axis(G, state["indices"].astype(np.int64), state["values"].astype(np.float64), axis=1)
    room = state["values"].shape[1] * U * (np.abs(G) @ np.abs(G[row]))
    if any(_apart(G @ G[row], s, room + 1e-300) for s in (state["S"][row], state["S"][:, row])):
        return True
    exact, bound = _direction(G, state["S"].astype(np.float64), row, state["values"].shape[1])
    return _apart(exact, u, bound)


def _apart(a: Array, b: Array, room: Array) -> bool:
    return bool((np.abs(a.astype(np.float64) - b.astype(np.float64)) > room).any())


def _rows(right: dict[str, Any], state: dict[str, Any], d: int, row: int, a: Array) -> bool:
    """Whether the window differs: other rows at all, the new row by more than the rounding of a."""
    for name in ("indices", "values"):
        if not np.array_equal(np.delete(right[name], row, 0), np.delete(state[name], row, 0)):
            return True
    ours, theirs = np.zeros(d), np.zeros(d)
    ours[right["indices"][row]], theirs[state["indices"][row]] = right["values"][row], state["values"][row]
    return _apart(ours, theirs, U * np.abs(a))


def _direction(G: Array, S: Array, row: int, k: int) -> tuple[Array, Array]:
    """Return u = (c - w G) / lam given S, and what float32 may do to it."""
    m, lam, c = len(G), float(np.float32(SIZE["lam"])), G[row]
    M = m * lam * np.eye(m) + (S + S.T) / 2
    w = np.linalg.solve(M, G @ c)
    L = np.abs(np.linalg.cholesky(M))
    spread = np.abs(np.linalg.solve(M, G)).T
    solve = (3 * m + 10) * L @ (L.T @ np.abs(w)) + k * np.abs(G) @ np.abs(c) + np.abs(S - S.T) @ np.abs(w) / U
    reach = np.abs(c) + np.abs(G).T @ np.abs(w)
    exact = (c - w @ G) / lam
    return exact, U * ((spread @ solve + (m + 4) * reach) / lam + 2 * np.abs(exact)) + 1e-300


# --- trials -------------------------------------------------------------------------------------------------------


@dataclass
class Trials:
    """What came of the injected mistakes."""

    visible: int = 0
    located: int = 0
    lines: int = 0  # the blamed line is the mistake's own
    named: int = 0  # the mistake is among those that agree
    unseen: int = 0  # within rounding at that step
    alarms: int = 0  # of those
    missed: list[str] = field(default_factory=list)
    by_mistake: Counter[str] = field(default_factory=Counter)

    def add(self, mistake: Mutant, t: int, seen: bool, found: replay.Replay) -> None:
        """Count one trial."""
        first = found.first.t if found.first else 0
        if not seen:
            self.unseen += 1
            self.alarms += first != 0
            return
        self.visible += 1
        self.by_mistake[mistake.name] += 1
        self.located += first == t
        blamed = found.first.blamed if found.first else None
        self.lines += bool(blamed and blamed.line == mistake.line)
        self.named += any(words.startswith(mistake.text) for words in found.explained)
        self.missed += [f"{mistake.name} at {t}: first failing step {first}"] * (first != t)


def stretch(run: Training, kept: list[Taken], mistake: Mutant, t: int, path: Path) -> int:
    """Dump the steps around t with the mistake at step t (from 2); return its place in the dump."""
    start, here = max(0, t - 1 - BEFORE), kept[t - 1]
    u, state = wrong_step(mistake.function, run.d, kept[t - 2].state, here.g)
    with Dump(path, "sparse_mfac", d=run.d, fresh=True, **SIZE) as dump:
        for taken in kept[start : t - 1]:
            dump.step(taken.g, taken.u, taken.state)
        dump.step(here.g, u, state)
        run.at(t - 1, here.theta, state)
        run.move(u)
        for _ in range(min(AFTER, len(kept) - t)):
            g = run.gradient()
            u = run.optimizer.step(g)
            dump.step(g, u, run.optimizer.state())
            run.move(u)
    return t - start


def trials(run: Training, kept: list[Taken], wanted: int, folder: Path, seed: int = 0) -> Trials:
    """Inject, mistake after mistake, until ``wanted`` were visible where they happened.

    Some mistakes are rarely visible: a step is drawn up to `DRAWS` times. Of the draws within rounding the first of
    each turn is dumped and judged as well: it must raise no alarm.
    """
    rng, found = np.random.default_rng(seed), Trials()
    mistakes = [m for m in MUTANTS if m.operation == "sparse_mfac"]
    for mistake in cycle(mistakes):
        for draw in range(DRAWS):
            t = int(rng.integers(2, len(kept) + 1))
            seen = _seen(run, kept, mistake, t)
            if not seen and draw:
                continue
            place = stretch(run, kept, mistake, t, folder / "stretch.efcp")
            found.add(mistake, place, seen, replay.replay(folder / "stretch.efcp"))
            if found.visible >= wanted:
                return found
            if seen:
                break
    raise AssertionError


def _seen(run: Training, kept: list[Taken], mistake: Mutant, t: int) -> bool:
    before, g = kept[t - 2].state, kept[t - 1].g
    return visible(run.d, before, g, *wrong_step(mistake.function, run.d, before, g))


# --- the whole ----------------------------------------------------------------------------------------------------


def judged(path: Path, run: Training, picture: Path | None = None) -> dict[str, Any]:
    """Judge the run, and draw how a free run parts from it."""
    began, found = time.process_time(), replay.replay(path)
    used, free = time.process_time() - began, replay.free_run(path)
    if picture:
        picture.unlink(missing_ok=True)
        replay.plot(found, free, picture)
    ratios = {f"{stage} {line}": s.largest for (stage, tier, line), s in found.stages.items() if tier in ("T1", "T2")}
    worst = {name: float(f"{ratio:.3g}") for name, ratio in ratios.items()}
    far = [free.u[t - 1] for t in (10, 100, 1000) if t <= len(free.u)]
    return {"steps": found.judged, "d": run.d, **SIZE, "accuracy": round(run.accuracy(), 4),
            "dump bytes": path.stat().st_size, "verdict": found.verdict, "passed": found.passed,
            "failed": found.failed, "undecided": dict(found.undecided), "processor seconds": round(used, 1),
            "worst ratios": worst, "free run apart at 10, 100, 1000": [float(f"{x:.2g}") for x in far],
            "alt": replay.alt(found, free)}  # fmt: skip


def measure(steps: int, wanted: int, folder: Path, picture: Path | None = None) -> dict[str, Any]:
    """Train, judge, inject."""
    run, kept = train(folder / "run.efcp", steps)
    whole = judged(folder / "run.efcp", run, picture)
    began = time.process_time()
    t = trials(run, kept, wanted, folder)
    return {"run": whole, "injected": {
        "visible": t.visible, "located at their step": t.located, "blamed on their own line": t.lines,
        "named": t.named, "within rounding at their step": t.unseen, "alarms for those": t.alarms,
        "missed": t.missed, "by mistake": dict(sorted(t.by_mistake.items())),
        "processor seconds": round(time.process_time() - began, 1)}}  # fmt: skip


def main() -> None:
    """Measure, print, write the file and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "replay.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "assets" / "replay.svg")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked.steps, asked.trials, Path(folder), asked.picture)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    head = {"command": f"python benchmarks/replay.py --steps {asked.steps} --trials {asked.trials}",
            "date": datetime.now(UTC).date().isoformat(), "machine": machine}  # fmt: skip
    asked.out.write_text(json.dumps(head | found, indent=1) + "\n")
    print(json.dumps(head | found, indent=1))


if __name__ == "__main__":
    main()

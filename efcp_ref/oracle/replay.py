"""Judges a dumped training run step by step; each step starts from the state that the target itself left.

A free run of the reference on the same gradients can be compared and plotted; it is never judged, since after one flip
of Top-k two correct runs part.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.oracle import certify, flush
from efcp_ref.oracle.certify import Certificate
from efcp_ref.oracle.core import ERROR, FAIL, INCONCLUSIVE, PASS, Case, Check, unit_of, verdict_of
from efcp_ref.oracle.criteria import replay as steps
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.replay.run import Run
from efcp_ref.oracle.dump import Arrays, Reader, Step, dimension, in_range
from efcp_ref.oracle.hostile import Hostile

HELD = 1 << 30  # bytes of gradients and directions of a run without states
LISTED = 1000  # failing steps that are listed
NO_GRADIENT = "the gradient holds NaN or infinity"


@dataclass(frozen=True)
class StepVerdict:
    """What became of one step."""

    t: int
    verdict: str  # pass | fail | inconclusive | error
    checks: tuple[Check, ...] = ()
    reason: str = ""  # of an error

    @property
    def blamed(self) -> Check | None:
        """The first failing check, else the first undecided one."""
        found = [c for wanted in (FAIL, INCONCLUSIVE) for c in self.checks if c.verdict == wanted and c.tier != "T3"]
        return found[0] if found else None


@dataclass
class Stage:
    """The checks of one stage over all steps."""

    decided: int = 0
    undecided: int = 0
    failed: int = 0
    largest: float = 0.0
    t: int = 0  # the step with the largest ratio

    def add(self, t: int, check: Check) -> None:
        """Count one check."""
        self.failed += check.verdict == FAIL
        self.undecided += check.verdict == INCONCLUSIVE
        if check.verdict != INCONCLUSIVE:
            self.decided += 1
            if check.ratio >= self.largest:
                self.largest, self.t = check.ratio, t


@dataclass
class Replay:
    """Verdict on a dumped run."""

    name: str
    optimizer: str
    parameters: Mapping[str, Any]
    passed: int = 0
    failed: int = 0
    errors: int = 0
    undecided: Counter[str] = field(default_factory=Counter)  # steps, by reason
    failing: list[int] = field(default_factory=list)  # the first `LISTED` of them
    first: StepVerdict | None = None  # the first step that fails or is an error
    explained: tuple[str, ...] = ()  # known mistakes that take this step alike
    certificate: Certificate | None = None  # with --certify
    stages: dict[tuple[str, str, str], Stage] = field(default_factory=dict)  # by stage, tier, paper line
    notes: list[str] = field(default_factory=list)
    damage: str = ""  # why the dump could not be read to its end
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def judged(self) -> int:
        """Steps judged."""
        return self.passed + self.failed + self.errors + sum(self.undecided.values())

    @property
    def verdict(self) -> str:
        """Fail before error before pass before inconclusive (no step could be decided)."""
        broken = self.errors or self.damage
        return FAIL if self.failed else ERROR if broken else PASS if self.passed else INCONCLUSIVE

    @property
    def exit_code(self) -> int:
        """130 interrupted; 1 if a step fails; 3 if one is an error, the dump is damaged or none was decided; else 0."""
        return 130 if self.interrupted else {FAIL: 1, PASS: 0}.get(self.verdict, 3)

    def add(self, found: StepVerdict) -> None:
        """Count one step."""
        if certify.active():
            self.certificate = certify.total((self.certificate, certify.certificate_of(found.checks)))
        for check in found.checks:
            self.stages.setdefault((check.stage, check.tier, check.line), Stage()).add(found.t, check)
        if found.verdict == PASS:
            self.passed += 1
        elif found.verdict == INCONCLUSIVE:
            self.undecided[found.blamed.reason if found.blamed else ""] += 1
        else:
            self.failed += found.verdict == FAIL
            self.errors += found.verdict == ERROR
            self.first = self.first or found
            self.failing += [found.t] * (len(self.failing) < LISTED)


# --- one step -----------------------------------------------------------------------------------------------------


def _case(reader: Reader, u: np.ndarray, gradients: np.ndarray) -> Case:
    """The run, or one step of it, as a case; float64 runs keep their numbers as they are (`core.hyper`)."""
    flags = frozenset({"given"} if unit_of(u).u < 2.0**-30 else ())
    arguments = {**reader.parameters, "gradients": gradients}
    return Case(reader.optimizer, "real", "dumped run", 0, 0, arguments, flags, str(u.dtype))


def _run(reader: Reader, step: Step) -> Run:
    """One step as a run of length 1."""
    u = step.u[None]
    return Run(_case(reader, u, step.g[None]), reader.declared, u, unit_of(u, reader.declared), reader.parameters)


def judge_step(reader: Reader, before: Mapping[str, Any] | None, step: Step) -> tuple[StepVerdict, Any]:
    """Judge one step from the state before it (None: the first); return also the state that the next starts from."""
    line = OPTIMIZERS[reader.optimizer].line
    if step.u.shape != step.g.shape or step.u.dtype.kind not in "fV":
        wrong = f"u has shape {step.u.shape} and dtype {step.u.dtype}, must be {step.g.shape}"
        return StepVerdict(step.t, FAIL, (t0.failed("u", "T0", line, steps.U_RULE, wrong),)), None
    afters: list[Any] = []

    def judge(given: Any, returned: Any) -> tuple[Check, ...]:
        (g, before), (u, state) = given, returned
        checks, after = steps.one_step(_run(reader, replace(step, g=g, u=u)), 0, before, state)
        afters.append(after)
        return tuple(checks)

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            given, returned = (step.g, before), (step.u, step.state or {})
            checks = flush.twice(judge, given, returned, reader.declared, unit_of(step.u))
    except Exception as why:
        return StepVerdict(step.t, ERROR, (), f"the oracle's own criterion raised {type(why).__name__}: {why}"), None
    checks = tuple(_unfit(step, line)) or checks
    return StepVerdict(step.t, verdict_of(checks), checks), afters[0]


def _unfit(step: Step, line: str) -> list[Check]:
    """A gradient that is not finite decides nothing; a direction that is not, after one that is, is wrong. T0."""
    if not np.isfinite(t0.wide(step.g)).all():
        return [t0.undecided("g", "T0", line, "finite gradient", NO_GRADIENT)]
    bad = np.flatnonzero(~np.isfinite(t0.wide(step.u)))
    if len(bad):
        at = (int(bad[0]),)
        return [t0.failed("u", "T0", line, "finite results", f"u{list(at)} is {step.u[at]}, must be finite", at)]
    return []


# --- a run --------------------------------------------------------------------------------------------------------


def replay(
    path: str | Path, start: int = 1, stop: int | None = None, explain: bool = True, certified: bool = False
) -> Replay:
    """Judge the steps ``start`` to ``stop`` of a dump, each from the state that the target left before it.

    Args:
        path: what `efcp_ref.oracle.dump.Dump` wrote, or the whole part of what it wrote until it was killed.
        start: the first step to judge; those before are read only.
        stop: the last one; default all.
        explain: run the known mistakes on the first step that fails.
        certified: enclose every reference value by rationals or balls (`efcp_ref.oracle.certify`).

    Raises:
        Hostile: it is no dump, or its head breaks a rule. A step that cannot be read ends the replay: ``damage``.
    """
    began, reader = time.monotonic(), Reader(path)
    in_range(reader.parameters)
    found = Replay(str(path), reader.optimizer, reader.parameters)
    try:
        with certify.certifying(certified):
            _judged(reader, found, start, stop, explain)
        found.notes += [reader.ending] * bool(reader.ending and stop is None)
    except Hostile as why:
        found.damage = str(why)
    except KeyboardInterrupt:
        found.interrupted = True
    found.seconds = time.monotonic() - began
    return found


def _judged(reader: Reader, found: Replay, start: int, stop: int | None, explain: bool) -> None:
    source = _checked(reader)
    first = next(source, None)
    if first is None:
        found.notes.append("the dump holds no step")
    elif steps.complete(_run(reader, first), first.state):
        _stateful(reader, first, source, found, start, stop, explain)
    else:
        _unseen(reader, first, source, found)
        whole = start == 1 and stop is None
        found.notes += [] if whole else ["without states a run is judged as a whole: --start and --stop do nothing"]


def _stateful(
    reader: Reader, first: Step, source: Iterator[Step], found: Replay, start: int, stop: int | None, explain: bool
) -> None:
    """Judge step by step; a step whose state is lost (NaN, wrong shape) leaves the next one without a start."""
    before: Any = None
    known = _count(first) == 1
    if not known:
        found.notes.append(f"the dump starts after t = {_count(first) - 1}: its first step is only a start")
    for step in (s for part in ((first,), source) for s in part):
        if stop is not None and step.t > stop:
            return
        if not steps.complete(_run(reader, step), step.state):
            raise Hostile(f"step {step.t}: the state lacks keys that the first one has")
        if not known or step.t < start:
            before, known = {n: np.asarray(a) for n, a in (step.state or {}).items()}, True
            continue
        verdict, after = judge_step(reader, before, step)
        if explain and verdict.verdict == FAIL and found.first is None:
            found.explained = mistakes_like(reader, before, step)
        found.add(verdict)
        before, known = after, after is not None
    if start > step.t:
        found.notes.append(f"no step was judged: the dump ends with step {step.t}, before step {start}")


def _count(step: Step) -> int:
    """The target's own count of steps; 1 where it is not one number."""
    t = np.asarray((step.state or {}).get("t", 1))
    return int(t) if t.shape == () and t.dtype.kind in "iuf" and np.isfinite(t64 := float(t)) and t64 >= 1 else 1


def _unseen(reader: Reader, first: Step, source: Iterator[Step], found: Replay) -> None:
    """Judge a run of which only u is visible; it must be held as a whole."""
    rows, size = [first], 0
    for step in source:
        size += step.g.nbytes + step.u.nbytes
        if size > HELD:
            raise Hostile(f"a run without states of more than {HELD} bytes: dump the state, too")
        rows.append(step)
    u, gradients = np.stack([s.u for s in rows]), np.stack([s.g for s in rows])
    checks = flush.judged(steps.judge, _case(reader, u, gradients), {"u": u, "states": None}, reader.declared)
    found.notes.append("no states were dumped: the run is followed until a Top-k decision lies within rounding")
    last = max((c.at[0] for c in checks if c.at and c.verdict != INCONCLUSIVE), default=len(rows))
    found.add(StepVerdict(last, verdict_of(checks), checks))


def _checked(reader: Reader) -> Iterator[Step]:
    """The steps of a dump, gradients of one length.

    Raises:
        Hostile: they are not.
    """
    d = dimension(reader.parameters)
    for step in reader.steps():
        if step.g.shape != (d,) or step.g.dtype.kind not in "fV":
            raise Hostile(f"step {step.t}: g has shape {step.g.shape} and dtype {step.g.dtype}, must be ({d},)")
        yield step


# --- which mistake ------------------------------------------------------------------------------------------------


def mistakes_like(reader: Reader, before: Mapping[str, Any] | None, step: Step) -> tuple[str, ...]:
    """Return the known mistakes that, from the same state, take the same step, the one that leaves least first.

    As in `efcp_ref.oracle.diagnose`: of every output, 1 % of the departure from the reference may be left, or what
    rounding leaves where nothing departs.
    """
    import efcp_ref
    from efcp_ref.oracle.mutants import MUTANTS

    truth = _taken(getattr(efcp_ref, reader.optimizer), reader, before, step)
    got = _named(step.u, step.state or {})
    if truth is None:
        return ()
    found = []
    for mistake in (m for m in MUTANTS if m.operation == reader.optimizer):
        wrong = _taken(mistake.function, reader, before, step)
        left = None if wrong is None else _unexplained(got, truth, wrong, 1e-5 if step.u.itemsize < 8 else 1e-12)
        if left is not None:
            found.append((left, f"{mistake.text} [{mistake.line}]"))
    return tuple(words for _, words in sorted(found, key=lambda one: one[0]))


def _unexplained(got: Arrays, truth: Arrays, wrong: Arrays, noise: float) -> float | None:
    """The largest relative distance from the mistake to the target; None where it does not explain the target."""
    shared = got.keys() & truth.keys() & wrong.keys()
    if not any(_far(wrong[n], truth[n]) > noise < _far(got[n], truth[n]) for n in shared):
        return None
    left = {n: _far(got[n], wrong[n]) for n in shared}
    explained = all(left[n] <= max(noise, 0.01 * _far(got[n], truth[n])) for n in shared)
    return max(left.values()) if explained else None


def _far(a: np.ndarray, b: np.ndarray) -> float:
    """``|a - b|_max`` relative to the larger of both; infinite where shapes differ or a number is not finite."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf
    size = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    return float(np.abs(a - b).max(initial=0)) / size if size else 0.0


def _taken(optimizer: Any, reader: Reader, before: Mapping[str, Any] | None, step: Step) -> Arrays | None:
    """One step of another implementation from a state; None where it raises or cannot take one."""
    try:
        with np.errstate(all="ignore"):
            it = optimizer(**reader.parameters)
            if before is not None:
                it.load({n: a[()] if a.ndim == 0 else a for n, a in before.items()})
            return _named(it.step(t0.wide(step.g)), it.state())
    except Exception:
        return None


def _named(u: Any, state: Mapping[str, Any]) -> Arrays:
    return {"u": t0.wide(u)} | {name: t0.wide(a) for name, a in state.items()}


# --- a free run ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FreeRun:
    """How far a run of the reference on the same gradients parts from the dumped one: relative distances per step."""

    t: tuple[int, ...]
    u: tuple[float, ...]  # ||u - u_ref|| / ||u_ref||
    xi: tuple[float, ...]  # of the error; empty where there is none


def free_run(path: str | Path, most: int | None = None) -> FreeRun:
    """Run the reference freely on the gradients of a dump that starts at t = 1: a picture, never a verdict.

    Where a step cannot be read the run ends.

    Raises:
        Hostile: it is no dump, or its head breaks a rule.
    """
    import efcp_ref

    reader = Reader(path)
    in_range(reader.parameters)
    it, name = getattr(efcp_ref, reader.optimizer)(**reader.parameters), "xi"
    t, far, left = [], [], []
    with suppress(Hostile):
        for step in _checked(reader):
            if (most is not None and step.t > most) or not np.isfinite(t0.wide(step.g)).all():
                break
            u = it.step(t0.wide(step.g))
            t.append(step.t)
            far.append(_apart(t0.wide(step.u), t0.wide(u)))
            name = "e" if reader.optimizer == "ef_signsgd" else "xi"
            if step.state is not None and name in step.state and name in it.state():
                left.append(_apart(t0.wide(step.state[name]), t0.wide(it.state()[name])))
    return FreeRun(tuple(t), tuple(far), tuple(left))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    size = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size else float(np.linalg.norm(a) > 0)


def refusal(path: str | Path, why: Hostile) -> str:
    """Say what is wrong with a file that was refused; first, whether it is a dump at all."""
    if Path(path).is_file() and os.access(path, os.R_OK):
        with open(path, "rb") as file:
            if file.read(4) != b"HEAD":
                return f"{path} is not a dump of efcp_ref: a dump begins with HEAD"
    return str(why)


# --- words --------------------------------------------------------------------------------------------------------


def text(found: Replay) -> str:
    """Return the verdict as text: the first wrong step with its paper line, then every stage."""
    from efcp_ref.oracle.terminal import _check, line_name

    lines, first = [], found.first
    if first is not None and first.blamed is not None:
        check = first.blamed
        lines.append(f"step {first.t} is the first that fails: {check.stage} ({check.tier}), {line_name(check.line)}")
        lines += [f"  agrees with: {words}" for words in found.explained[:3]]
        lines += ["  " + line for line in _check(check)]
    elif first is not None:
        lines.append(f"step {first.t} cannot be judged: {first.reason}")
    if len(found.failing) > 1:
        shown = ", ".join(map(str, found.failing[1:9])) + (", ..." if len(found.failing) > 9 else "")
        lines.append(f"  later steps that fail from their own states: {found.failed + found.errors - 1} ({shown})")
    lines += _table(found)
    lines += [f"verdicts {found.certificate.text}"] if found.certificate else []
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"the dump cannot be read further: {found.damage}"] * bool(found.damage)
    undecided = ", ".join(f"{n} undecided ({why})" for why, n in found.undecided.most_common(3))
    counts = ", ".join(filter(None, [f"{found.passed} pass", f"{found.failed} fail", undecided]))
    counts += f", {found.errors} error" if found.errors else ""
    lines.append(f"{found.name}: {found.optimizer} {found.verdict}, {found.judged} steps judged: {counts} "
                 f"({found.seconds:.1f} s)")  # fmt: skip
    return "\n".join(lines)


def _table(found: Replay) -> list[str]:
    rows = [("stage", "tier", "line", "decided", "undecided", "worst ratio", "at step")]
    for (stage, tier, line), s in found.stages.items():
        worst = f"{s.largest:.3g}" if tier != "T0" else "-"
        rows.append((stage, tier, line, str(s.decided), str(s.undecided), worst, str(s.t) if tier != "T0" else "-"))
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]


def as_json(found: Replay) -> dict[str, Any]:
    """Return the verdict as JSON values; infinities are text."""
    from efcp_ref.oracle.record import check_json, number

    first = found.first
    told = first and {"step": first.t, "verdict": first.verdict, "reason": first.reason,
                      "check": check_json(first.blamed), "explained": list(found.explained)}  # fmt: skip
    stages = [
        {"stage": stage, "tier": tier, "line": line, "decided": s.decided, "undecided": s.undecided,
         "failed": s.failed, "largest": number(s.largest), "step": s.t}
        for (stage, tier, line), s in found.stages.items()
    ]  # fmt: skip
    numbers = {n: v for n, v in found.parameters.items() if isinstance(v, (int, float))}
    return {
        "dump": found.name, "optimizer": found.optimizer, "parameters": numbers, "verdict": found.verdict,
        "exit_code": found.exit_code, "steps": found.judged, "passed": found.passed, "failed": found.failed,
        "errors": found.errors, "undecided": dict(found.undecided), "failing": found.failing, "first": told,
        "certificate": found.certificate and asdict(found.certificate), "stages": stages, "notes": found.notes,
        "damage": found.damage, "interrupted": found.interrupted, "seconds": round(found.seconds, 3),
    }  # fmt: skip


# --- the picture --------------------------------------------------------------------------------------------------

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito: told apart by colour-blind eyes, and by dashes


def alt(found: Replay, free: FreeRun) -> str:
    """Say in words what the picture shows."""
    if not free.t:
        return "No step was dumped."
    part = next((t for t, far in zip(free.t, free.u, strict=True) if far > 0.01), None)
    words = "stays within one per cent" if part is None else f"parts by more than one per cent at step {part}"
    return (
        f"Relative distance of the directions of a free run of the reference from {len(free.t)} dumped steps of "
        f"{found.optimizer}, logarithmic. It {words} and ends at {free.u[-1]:.2g}. Judged step by step from its own "
        f"states, the run has {found.failed} failing steps."
    )


def plot(found: Replay, free: FreeRun, file: str | Path) -> str:
    """Draw the free run's distance per step into a new SVG or PNG file; return the words that stand for the picture.

    Raises:
        FileExistsError: the file exists; it is not overwritten.
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    if os.path.lexists(file):
        raise FileExistsError(f"{file} exists, and is not overwritten; name a new file")
    figure = Figure(figsize=(5.0, 3.4), layout="constrained")  # so narrow that its text can be read on a phone
    axes = figure.subplots()
    for values, name, colour, dash in ((free.u, "direction u", BLUE, "-"), (free.xi, "error xi", ORANGE, "--")):
        shown = [max(v, 1e-17) for v in values]
        if shown:
            axes.plot(free.t[-len(shown) :], shown, color=colour, linestyle=dash, linewidth=1.4, label=name)
    for t in found.failing[:20]:
        axes.axvline(t, color="black", linestyle=":", linewidth=1.0)
    axes.set(yscale="log", xlabel="step", ylabel="relative distance to the reference")
    axes.set_title(f"{found.optimizer}: a free run of the reference (never judged)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    words = alt(found, free)
    kind = Path(file).suffix.lower().removeprefix(".") or "svg"
    meta = {"Title": words, "Date": None} if kind == "svg" else {"Title": words} if kind == "png" else {}
    figure.savefig(file, format=kind, metadata=meta, dpi=150)
    if kind == "svg":
        _labelled(Path(file), words)
    return words


def _labelled(file: Path, words: str) -> None:
    """Give an SVG its words, for readers who do not see it."""
    from html import escape

    body = file.read_text(encoding="utf-8")
    file.write_text(body.replace("<svg ", f'<svg role="img" aria-label="{escape(words)}" ', 1), encoding="utf-8")


__all__ = ["FreeRun", "Replay", "Stage", "StepVerdict", "alt", "as_json", "free_run", "judge_step", "mistakes_like",
           "plot", "refusal", "replay", "text"]  # fmt: skip

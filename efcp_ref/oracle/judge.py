"""The judge: hands every case to a target, has its results checked, and sums up one verdict per operation."""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from efcp_ref.contract import NAMES, OPERATIONS, OPTIMIZERS
from efcp_ref.oracle import flush
from efcp_ref.oracle.certify import Certificate, certificate_of, certifying, needed, total
from efcp_ref.oracle.core import (
    ERROR,
    FAIL,
    INCONCLUSIVE,
    PASS,
    SKIP,
    UNITS,
    Case,
    CaseVerdict,
    Check,
    Declared,
    quality_of,
    verdict_of,
)
from efcp_ref.oracle.record import Row, row_of
from efcp_ref.oracle.targets import BrokenTarget, Judged, Local, Outcome, Target, UsageError, known, near, numbered

SHOWN = 3  # failures of one operation that are kept, each of another stage; the others are counted
TIMEOUTS = 2  # of one operation, then the oracle gives up on it
DEATHS = 3  # of one operation's process, then the oracle gives up on it
UNFIT = "offered, and not judged: every case asked for holds NaN, and NAN is not declared, or is of another precision"
SOLVES = ("wsm", "mfac_direction", "sparse_mfac_direction")
RUNS = ("dense_mfac", "sparse_mfac", "low_rank_mfac")  # optimizers whose steps solve the same system
FEW = 300  # cases up to which one process is about as quick as two
Progress = Callable[[str, int, int], None]
Seen = Callable[[Row], None]


@dataclass(frozen=True)
class Failure:
    """One failure or error as it is reported: the case as judged, and the smaller case that still shows it."""

    verdict: CaseVerdict
    minimal: CaseVerdict | None = None
    traceback: str = ""
    output: str = ""  # end of what the target printed
    explained: tuple[str, ...] = ()  # known mistakes that give the same result, each with its paper line


@dataclass(frozen=True)
class Quality:
    """How good the numbers are: the ratios to the probabilistic bounds (lambda = 6), one per case; 1 only warns."""

    cases: int
    median: float
    worst: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Quality | None:
        """Return the score of these cases; None without any."""
        finite = [r for r in ratios if math.isfinite(r)]
        return cls(len(ratios), float(np.median(finite)) if finite else math.inf, max(ratios)) if ratios else None


@dataclass(frozen=True)
class OperationReport:
    """Verdict of one operation, and what it rests on."""

    operation: str
    verdict: str
    passed: int = 0
    failed: int = 0
    inconclusive: Mapping[str, int] = field(default_factory=dict)  # by reason
    errors: Mapping[str, int] = field(default_factory=dict)  # by kind: raised, timeout, died, ...
    warnings: int = 0  # cases outside a T3 bound
    worst: Check | None = None  # largest ratio of tiers T1 and T2
    worst_case: str = ""  # id of its case
    failures: tuple[Failure, ...] = ()
    note: str = ""  # "gave up after 2 timeouts, 71 cases not judged"
    seconds: float = 0.0
    quality: Quality | None = None
    certificate: Certificate | None = None  # with --certify

    @property
    def judged(self) -> int:
        """Cases handed over."""
        return self.passed + self.failed + sum(self.inconclusive.values()) + sum(self.errors.values())


@dataclass(frozen=True)
class Report:
    """Verdict on a target: one entry per operation, in contract order."""

    target: str
    operations: tuple[OperationReport, ...] = ()
    seed: int = 0
    cases: int = 40
    broken: str = ""  # the target could not be imported: why
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """130 interrupted; 1 if anything fails; 3 if anything is an error or nothing was decided; else 0."""
        verdicts = {o.verdict for o in self.operations}
        if self.interrupted:
            return 130
        if FAIL in verdicts:
            return 1
        return 3 if self.broken or ERROR in verdicts or PASS not in verdicts else 0

    def __getitem__(self, operation: str) -> OperationReport:
        """Return the entry of one operation."""
        return next(o for o in self.operations if o.operation == operation)


# --- one case -----------------------------------------------------------------------------------------------------


def line_of(operation: str) -> str:
    """Paper line that an operation is blamed on where no stage says more."""
    return (OPERATIONS.get(operation) or OPTIMIZERS[operation]).line


def _inputs(case: Case, mutated: Iterable[str]) -> tuple[Check, ...]:
    """T0: every input holds, bit for bit, what was handed over (the contract: inputs are unmodified)."""
    return tuple(
        Check(
            "inputs",
            "T0",
            line_of(case.operation),
            "inputs unmodified",
            math.inf,
            FAIL,
            f"{name} was modified in place",
        )
        for name in mutated
    )


def _computed_in(declared: Declared, case: Case, results: Mapping[str, Any]) -> Declared:
    """Float32 input may be computed in float32, even where the result is then stored as float64."""
    kinds = {str(r.dtype) for r in results.values() if isinstance(r, np.ndarray) and r.dtype.kind in "fV"}
    if (
        case.dtype != "float32"
        or "accumulator" in declared.arithmetic
        or "float64" not in kinds
        or kinds - {"float64", "float32"}
    ):
        return declared
    return replace(declared, arithmetic={**declared.arithmetic, "accumulator": "float32"})


def _excused(case: Case, outcome: Outcome, declared: Declared) -> bool:
    """A factorisation that breaks down on a matrix indefinite by rounding is no crash (`fisher.indefinite`)."""
    if case.operation not in SOLVES + RUNS or outcome.error != "raised" or outcome.kind.strip("_") != "LinAlgError":
        return False
    from efcp_ref.oracle.criteria import fisher
    from efcp_ref.oracle.criteria.replay import breakdown

    used = (case.dtype, str(declared.arithmetic.get("accumulator")))
    excused = breakdown.excused if case.operation in RUNS else fisher.excused
    return excused(case, declared, max(UNITS[name].u for name in used if name in UNITS))


def _declined(outcome: Outcome) -> bool:
    """A target that offers an operation in part says so case by case: NotImplementedError is no crash."""
    return outcome.error == "raised" and outcome.kind == "NotImplementedError"


def _undecided(case: Case, check: Check) -> CaseVerdict:
    return CaseVerdict(case, INCONCLUSIVE, (replace(check, verdict=INCONCLUSIVE),))


def judge_case(target: Judged, case: Case) -> tuple[CaseVerdict, Outcome]:
    """Hand one case to a target and check what comes back."""
    from efcp_ref.oracle.criteria import CRITERIA

    outcome = target.run(case)
    results: Mapping[str, Any] = outcome.results
    if _declined(outcome):
        return _undecided(case, Check("result", "T0", line_of(case.operation), "offered", reason="declined")), outcome
    if outcome.error and _excused(case, outcome, target.declared):
        rule = "lambda_min(D^-1/2 M D^-1/2) > (2 m (m+1) + m k) u"
        return _undecided(case, Check("c", "T2", line_of(case.operation), rule, reason="indefinite")), outcome
    if outcome.error:
        return CaseVerdict(case, ERROR, (), outcome.reason), outcome
    certified = bool(getattr(target, "certify", False))
    try:
        criteria = getattr(target, "criteria", CRITERIA)  # several workers at once are judged by others
        with certifying(certified):
            computed = _computed_in(target.declared, case, results)
            checks = flush.judged(criteria[case.operation], case, results, computed)
    except Exception as why:
        from efcp_ref.oracle.worker import said, trail

        broken = Outcome(error="oracle", reason=f"the oracle's own criterion {said(why)}", traceback=trail(why))
        return CaseVerdict(case, ERROR, (), broken.reason), broken
    checks = (*_inputs(case, outcome.mutated), *checks)
    certificate = certificate_of(checks) if certified else None
    return CaseVerdict(case, verdict_of(checks), checks, "", certificate, quality_of(checks)), outcome


def both(cases: Iterable[Case], declared: Declared, dtype: str | None = None) -> Iterator[Case]:
    """Every case once per precision that the target takes; NaN only where its policy is declared."""
    for case in cases:
        if "nan" in case.flags and declared.nan is None:
            continue
        for kind in declared.dtypes:
            if dtype in (None, kind):
                yield case if case.dtype == kind else case.with_dtype(kind)


# --- one operation ------------------------------------------------------------------------------------------------


class _Tally:
    """Counts of one operation while it is judged."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.said: Counter[str] = Counter()
        self.undecided: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.warnings = 0
        self.worst: tuple[Check, str] | None = None
        self.bad: dict[tuple[str, str], Failure] = {}  # by (verdict, stage or kind of error): the smallest case
        self.note = ""
        self.quality = array("d")
        self.certificate: Certificate | None = None
        self.start = time.monotonic()

    def add(self, verdict: CaseVerdict, outcome: Outcome, keep: bool = True) -> None:
        """Count one case; ``keep`` it where it is the smallest that fails like this."""
        self.said[verdict.verdict] += 1
        self.warnings += any(c.tier == "T3" and c.verdict != PASS for c in verdict.checks)
        first, worst = verdict.first, verdict.worst
        if verdict.verdict == INCONCLUSIVE and first:
            self.undecided[first.reason or first.stage] += 1
        if verdict.verdict == ERROR:
            self.errors[outcome.error] += 1
        if verdict.quality is not None and verdict.verdict == PASS:
            self.quality.append(verdict.quality)
        self.certificate = total((self.certificate, verdict.certificate))
        if worst and (self.worst is None or worst.ratio > self.worst[0].ratio):
            self.worst = worst, verdict.case.id
        if keep and verdict.verdict in (FAIL, ERROR):
            key = (verdict.verdict, first.stage if first else f"{outcome.error} {outcome.kind}")
            if key not in self.bad or size(verdict.case) < size(self.bad[key].verdict.case):
                self.bad[key] = Failure(verdict, None, outcome.traceback, outcome.output)

    def hopeless(self) -> bool:
        """Whether going on would cost more time than it tells."""
        for kind, most, words in (("timeout", TIMEOUTS, "timeouts"), ("died", DEATHS, "ended processes")):
            if self.errors[kind] >= most:
                self.note = f"gave up after {most} {words}"
        return bool(self.note)

    def verdict(self) -> str:
        """Fail before error before pass before inconclusive (no case could be decided) before skip."""
        return next((v for v in (FAIL, ERROR, PASS, INCONCLUSIVE) if self.said[v]), SKIP)

    def report(self, failures: tuple[Failure, ...]) -> OperationReport:
        """Freeze the counts."""
        worst, where = self.worst or (None, "")
        return OperationReport(
            self.operation, self.verdict(), self.said[PASS], self.said[FAIL], dict(self.undecided), dict(self.errors),
            self.warnings, worst, where, failures, self.note, time.monotonic() - self.start,
            Quality.of(self.quality), self.certificate,
        )  # fmt: skip


def size(case: Case) -> int:
    """How much there is to read in a case: numbers in its arguments."""
    return sum(np.size(a) for v in case.arguments.values() for a in (v if isinstance(v, (list, tuple)) else [v]))


def attempt(target: Judged, case: Case) -> tuple[CaseVerdict, Outcome]:
    """As `judge_case`; a target that cannot be imported any more is an error of this case."""
    try:
        return judge_case(target, case)
    except BrokenTarget as why:
        reason = f"importing it again failed: {why}"
        return CaseVerdict(case, ERROR, (), reason), Outcome(error="died", reason=reason)


def _judge_operation(
    target: Judged, cases: list[Case], tally: _Tally, progress: Progress | None, seen: Seen | None
) -> None:
    for done, case in enumerate(cases):
        if progress:
            progress(tally.operation, done, len(cases))
        verdict, outcome = attempt(target, case)
        tally.add(verdict, outcome)
        if seen:
            seen(row_of(verdict, outcome))
        if tally.hopeless() and done + 1 < len(cases):
            tally.note += f", {len(cases) - done - 1} cases not judged"
            return


def _shown(target: Judged, tally: _Tally, seconds: float) -> tuple[Failure, ...]:
    """The failures to report; the first is explained by the known mistakes, then made small."""
    from efcp_ref.oracle.shrink import minimise

    end = time.monotonic() + seconds
    failures = sorted(tally.bad.values(), key=lambda f: (f.verdict.verdict != FAIL, f.verdict.case.index))[:SHOWN]
    if failures and failures[0].verdict.verdict == FAIL and seconds > 0:
        explained = _explained(target, failures[0].verdict.case, seconds / 4)
        minimal = minimise(target, failures[0].verdict, end - time.monotonic())
        failures[0] = replace(failures[0], minimal=minimal, explained=explained)
    return tuple(failures)


def _explained(target: Judged, case: Case, seconds: float) -> tuple[str, ...]:
    """What the known mistakes that agree with the target on this case are called."""
    from efcp_ref.oracle.diagnose import explain

    try:
        outcome = target.run(case)
    except BrokenTarget:
        return ()
    return tuple(m.text for m in explain(case, outcome.results, target.declared, seconds)) if not outcome.error else ()


def _cases(operation: str, cases: int, seed: int, only: int | None) -> Iterable[Case]:
    from efcp_ref.oracle.cases import generate, standard

    if only is None:
        return standard(operation, cases, seed)
    return [generate(operation, seed, numbered(operation, seed, only))]


# --- a target -----------------------------------------------------------------------------------------------------


def _wanted(target: Judged, operations: Iterable[str] | None) -> tuple[str, ...]:
    asked = None if operations is None else {known(o) for o in operations}
    return tuple(n for n in NAMES if asked is None or n in asked)


def judge(
    target: Judged, operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, *,
    progress: Progress | None = None, shrink_seconds: float = 5.0, only: int | None = None, dtype: str | None = None,
    given: Mapping[str, Sequence[Case]] | None = None, seen: Seen | None = None,
) -> Report:  # fmt: skip
    """Judge an open target; see `check_target` for the arguments. ``given``: these cases, instead of generated ones."""
    began, entries, interrupted = time.monotonic(), [], False
    for operation in _wanted(target, operations):
        if operation not in target.offered:
            entries.append(OperationReport(operation, SKIP))
            continue
        tally = _Tally(operation)
        failures: tuple[Failure, ...] = ()
        try:
            drawn = both(_cases(operation, cases, seed, only), target.declared, dtype)
            _judge_operation(target, list(drawn if given is None else given[operation]), tally, progress, seen)
            tally.note = tally.note if tally.said else UNFIT
            failures = _shown(target, tally, shrink_seconds)
        except KeyboardInterrupt:
            interrupted, failures = True, tuple(tally.bad.values())
        entries.append(tally.report(failures))
        if interrupted:
            break
    notes = (*target.notes, *(() if target.offered else (_nothing(target),)))
    cases = cases if only is None else 1
    return Report(target.name, tuple(entries), seed, cases, "", notes, interrupted, time.monotonic() - began)


def _nothing(target: Judged) -> str:
    from efcp_ref.oracle.worker import part

    if said := getattr(target, "nothing", ""):
        return str(said)
    where, inside = part(target.name)
    if inside in NAMES:
        rule = f"what follows the colon must hold operations, and {inside} is one itself"
        return f"{rule}: `efcp-ref check {where} -o {inside}` judges it"
    hints = [f"{n}{near(n, NAMES)}" for n in getattr(target, "names", ()) if n not in NAMES and near(n, NAMES)]
    return "; ".join(["it offers no operation of the contract (`efcp-ref list` shows them)", *hints[:5]])


def check_target(
    target: str, operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, timeout: float = 10.0,
    memory: float = 8.0, progress: Progress | None = None, shrink_seconds: float = 5.0, *, only: int | None = None,
    dtype: str | None = None, start_timeout: float = 60.0, jobs: int | None = None, seen: Seen | None = None,
    certify: bool = False,
) -> Report:  # fmt: skip
    """Judge a Python target in a child process and return the report.

    Args:
        target: ``my_code.py``, ``package.module``, or either with ``:object``.
        operations: contract names; default all that the target offers.
        cases: cases per operation, each judged in float64 and in float32.
        seed: of the cases; the same seed gives the same cases on every machine.
        timeout: seconds for one case.
        memory: GiB of address space for the child, 0 for no limit (CUDA reserves more than it uses).
        progress: called with operation, cases done, cases in all.
        shrink_seconds: budget for making the failing case of an operation small; 0 leaves it as it is.
        only: judge this one index of case.
        dtype: judge in this precision only.
        start_timeout: seconds for the target's imports.
        jobs: processes to judge in; default two where there are many cases. The verdicts are the same.
        seen: called with the row of every case, in order.
        certify: enclose every reference value by rationals or balls (`efcp_ref.oracle.certify`).

    Raises:
        UsageError: no such target or operation, or a wrong declaration.
        ModuleNotFoundError: ``certify`` without python-flint.
    """
    if certify:
        needed()
    wanted = None if operations is None else [known(o) for o in operations]
    try:
        opened = Target(target, timeout, memory, start_timeout)
    except BrokenTarget as why:
        return Report(target, (), seed, cases, str(why))
    except KeyboardInterrupt:
        return Report(target, (), seed, cases, interrupted=True)
    opened.certify = certify
    try:
        more = {"progress": progress, "shrink_seconds": shrink_seconds, "dtype": dtype, "seen": seen}
        if only is not None or (jobs or usual_jobs(opened, wanted, cases)) == 1:
            return judge(opened, wanted, cases, seed, only=only, **more)  # type: ignore[arg-type]
        from efcp_ref.oracle import campaign

        door = campaign.Door(target, timeout, memory, start_timeout, certify=certify)
        return campaign.on(opened, door, wanted, cases, seed, jobs=jobs or 2, **more)  # type: ignore[arg-type]
    finally:
        opened.close()


def usual_jobs(target: Judged, operations: Iterable[str] | None, cases: int) -> int:
    """Return how many processes to judge in where nobody says: two, unless there is little to do or one core."""
    from efcp_ref.oracle.pool import cores

    return 2 if cores() > 1 and cases * len({*_wanted(target, operations)} & {*target.offered}) > FEW else 1


def assert_conforms(
    function: Callable[..., Any], operation: str, cases: int = 40, seed: int = 0, *, declared: Declared | None = None,
    shrink_seconds: float = 5.0, certify: bool = False,
) -> None:  # fmt: skip
    """Judge one function (or optimizer class) of this process by the contract.

    Nothing protects from a crash or a hang here; a debugger works. `check_target` is the safe way.

    Raises:
        AssertionError: it fails, is an error, or no case could be decided; the text is the report's.
        UsageError: no such operation.

    >>> import numpy as np
    >>> assert_conforms(lambda indices, values, g: (values * g[indices]).sum(1), "sp", cases=5)
    """
    from efcp_ref.oracle.terminal import text

    name = getattr(function, "__name__", type(function).__name__)
    target = Local({operation: function}, declared, name)
    target.certify = certify
    report = judge(target, [operation], cases, seed, shrink_seconds=shrink_seconds)
    if report.exit_code == 130:
        raise KeyboardInterrupt
    if report.exit_code:
        raise AssertionError("\n" + text(report))


__all__ = [
    "Failure",
    "OperationReport",
    "Report",
    "UsageError",
    "assert_conforms",
    "check_target",
    "judge",
    "judge_case",
]

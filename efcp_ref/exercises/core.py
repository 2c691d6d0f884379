"""The checker: runs a learner's function on small inputs, judges it by the oracle, keeps the smallest that fails."""

from __future__ import annotations

import html
import inspect
import os
import re
import signal
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper._validate import Array

EXAMPLES = 60  # inputs that a right answer is tried on
TELLING = 6  # failing inputs that a known mistake must explain, all of them
SMALLER = 120  # inputs that are tried to make a failing one smaller
SEARCH = 20.0  # seconds that this may take at most
Draw = Callable[..., Any]
Inputs = Callable[[Draw, Any], dict[str, Any]]  # (draw, hypothesis.strategies) -> arguments by name


class Stage(NamedTuple):
    """One variable that an answer must get right: judged in order, the first that differs is blamed."""

    line: str  # paper line
    name: str
    value: Any
    bound: Any = 0.0  # how far a right answer may be off: 0 where the arithmetic is exact


@dataclass(frozen=True)
class Exercise:
    """One exercise: its solution is a plain function, its starter is the same function without a body."""

    id: str  # paper line
    solve: Callable[..., Any]
    hint: str
    inputs: Inputs
    operation: str = ""  # of the contract: judged by the oracle's criterion
    stages: Callable[..., list[Stage]] | None = None  # else: what each variable must be
    blame: Mapping[str, str] = field(default_factory=dict)  # line of the criterion -> line of this exercise
    edges: tuple[dict[str, Any], ...] = ()  # inputs that are always tried
    refine: Callable[..., str] | None = None  # (arguments, results, line) -> the line that is to blame

    @property
    def text(self) -> str:
        """What is asked, from the solution's docstring."""
        return inspect.cleandoc(self.solve.__doc__ or "")

    @property
    def source(self) -> str:
        """The solution's code, without its decorator and the type of its result."""
        lines = textwrap.dedent(inspect.getsource(self.solve)).splitlines()
        start = next(n for n, line in enumerate(lines) if line.startswith("def "))
        lines[start] = re.sub(r"\) -> .*:$", "):", lines[start])
        return "\n".join(lines[start:]) + "\n"

    @property
    def starter(self) -> str:
        """The function's head and docstring; the body is the learner's."""
        head = self.source.split('"""')
        return f'{head[0]}"""{head[1]}"""\n    raise NotImplementedError\n'


class Difference(NamedTuple):
    """What is wrong with one result."""

    line: str
    variable: str
    reason: str
    at: tuple[int, ...] = ()
    got: Any = None
    expected: Any = None


@dataclass(frozen=True)
class Answer:
    """What `check` says: true where the function is right, and readable in a terminal and in a notebook."""

    exercise: str
    passed: bool
    tried: int  # inputs
    line: str = ""  # paper line that is wrong
    variable: str = ""  # the first that differs
    index: tuple[int, ...] = ()
    got: Any = None
    expected: Any = None
    reason: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)  # the smallest input found that shows it
    explained: str = ""  # the known mistake that gives the same numbers

    def __bool__(self) -> bool:
        return self.passed

    def rows(self) -> list[tuple[str, str]]:
        """Return what is said, as (label, text)."""
        from efcp_ref.tracing import brief

        if self.passed:
            return [("inputs tried", str(self.tried))]
        where = self.variable + (f"[{', '.join(map(str, self.index))}]" if self.index else "")
        found = [("paper line", f"{self.line}   {printed(self.line)}"), ("first differs", where)]
        if self.got is not None or self.expected is not None:
            found.append(("values", f"yours {brief(_number(self.got))}, the paper's {brief(_number(self.expected))}"))
        found += [("reason", self.reason)] if self.reason else []
        shown = ", ".join(f"{name} = {brief(_number(value))}" for name, value in self.arguments.items())
        found.append(("smallest input", shown))
        found += [("the same as", self.explained)] if self.explained else []
        return [*found, ("more", f'hint("{self.exercise}")')]

    def __str__(self) -> str:
        head = f"{self.exercise} {'accepted' if self.passed else 'refused'}"
        return "\n".join([head, *(f"  {label:15}{text}" for label, text in self.rows())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        mark = "accepted" if self.passed else "refused"
        cells = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(a)}</th>'
            f'<td style="text-align:left"><code>{html.escape(b)}</code></td></tr>'
            for a, b in self.rows()
        )
        head = f"<caption>Exercise {html.escape(self.exercise)}: {mark}</caption>"
        return f'<table style="color:inherit">{head}{cells}</table>'


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def printed(line: str) -> str:
    """Return a line as the paper prints it, in LaTeX.

    >>> printed("1:5")
    '$a_t \\\\leftarrow \\\\xi_{t-1} + g_t$'
    """
    from efcp_ref.paper.printed import lines

    return lines()[line].latex if line in lines() else ""


# ---- calling the learner's function ------------------------------------------------------------------------------


class _TooLong(BaseException):
    """A call took too long; no `Exception`, so that nothing on the way takes it for a mistake of the function."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` inside the block after some seconds, where the platform can: the main thread of a POSIX system.

    >>> try:
    ...     with limited(0.05):
    ...         while True: pass
    ... except BaseException as why:
    ...     print(type(why).__name__)
    _TooLong
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: Any) -> None:
        raise _TooLong

    before, left = signal.signal(signal.SIGALRM, ring), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def judge(
    exercise: Exercise, function: Callable[..., Any], arguments: Mapping[str, Any], seconds: float
) -> Difference | None:
    """Return what is wrong on one input, or None."""
    try:
        with limited(seconds), np.errstate(all="ignore"):
            if exercise.operation:
                return _by_criterion(exercise, function, arguments)
            return _by_stages(exercise, function, arguments)
    except _TooLong:
        return Difference(exercise.id, "the call", f"it took longer than {seconds:g} s")


def _by_criterion(exercise: Exercise, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Difference | None:
    """Judge by the oracle's criterion of the operation."""
    from efcp_ref.oracle.core import ERROR, FAIL, Case
    from efcp_ref.oracle.judge import judge_case
    from efcp_ref.oracle.targets import Local

    case = Case(exercise.operation, "generic", f"exercise {exercise.id}", 0, 0, arguments)
    verdict, outcome = judge_case(Local({exercise.operation: function}), case)
    if outcome.error or verdict.verdict == ERROR:  # also NotImplementedError, which the oracle counts as declined
        return Difference(exercise.id, "the call", outcome.reason or verdict.reason)
    check = verdict.first
    if verdict.verdict != FAIL or check is None:
        return None
    line = exercise.blame.get(check.line, check.line)
    line = exercise.refine(arguments, outcome.results, line) if exercise.refine else line
    rule = f"{check.reason}; the rule: {check.rule}" if check.reason else check.rule
    place = _departure(exercise.operation, arguments, outcome.results, check.stage, check.bound or 0.0)
    if place is None:
        return Difference(line, check.stage, rule, check.at, check.got, check.expected)
    return Difference(line, check.stage, rule, *place)


def _departure(
    operation: str, arguments: Mapping[str, Any], results: Mapping[str, Any], name: str, bound: float
) -> tuple[tuple[int, ...], Any, Any] | None:
    """Return where a result first departs from the reference, and both values; None where they cannot be compared."""
    import efcp_ref
    from efcp_ref.oracle.results import run

    hand = {"arrays": "numpy", "device": None, "flags": ()}
    truth = run(getattr(efcp_ref, operation), operation, dict(arguments), "float64", hand)["results"]
    got, want = results.get(name), truth.get(name)
    if got is not None and np.iscomplexobj(got):
        return None
    if got is None or want is None or np.shape(got) != np.shape(want):
        return None if got is None or want is None else ((), f"shape {np.shape(got)}", f"shape {np.shape(want)}")
    return first_difference(got, want, bound)


def first_difference(got: Any, want: Any, bound: Any) -> tuple[tuple[int, ...], Any, Any] | None:
    """Return the first index at which two arrays differ by more than the bound, and both values.

    >>> first_difference(np.array([1.0, 2.0]), np.array([1.0, 3.0]), 0.0)
    ((1,), 2.0, 3.0)
    """
    got, want = np.asarray(got), np.asarray(want)
    near = np.abs(got.astype(np.float64) - want.astype(np.float64)) <= bound
    wrong = np.argwhere(np.atleast_1d(~near))
    if not len(wrong):
        return None
    index = tuple(int(n) for n in wrong[0]) if got.ndim else ()
    return index, got[index].item(), want[index].item()


def _by_stages(exercise: Exercise, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Difference | None:
    """Judge by the variables that the exercise asks for, in the paper's order."""
    assert exercise.stages is not None
    stages = exercise.stages(**_copy(arguments))
    given = _copy(arguments)
    try:
        returned = function(*given.values())
    except (Exception, SystemExit) as why:
        return Difference(exercise.id, "the call", f"it raised {type(why).__name__}: {why}")
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and not np.array_equal(value, given[name]):
            return Difference(exercise.id, name, f"the argument {name} was changed in place")
    values = returned if len(stages) > 1 else (returned,)
    if not isinstance(values, (tuple, list)) or len(values) != len(stages):
        names = ", ".join(stage.name for stage in stages)
        return Difference(exercise.id, "the result", f"must be ({names}), is {type(returned).__name__}")
    return next((found for found in map(_differs, stages, values) if found), None)


def _copy(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in arguments.items()}


def _differs(stage: Stage, value: Any) -> Difference | None:
    from efcp_ref.tracing import brief

    line, name, want, bound = stage
    try:
        got = np.asarray(value)
        if np.iscomplexobj(got):
            raise TypeError("complex")
        got.astype(np.float64)
    except Exception:  # whatever the result's own __array__ raises
        return Difference(line, name, f"must be real numbers in shape {np.shape(want)}, is {brief(value)}")
    if got.shape != np.shape(want):
        wrong = f"has shape {got.shape}, must have {np.shape(want)}"
        return Difference(line, name, wrong, (), got.tolist(), np.asarray(want).tolist())
    place = first_difference(got, want, bound)
    return None if place is None else Difference(line, name, "", *place)


# ---- the search --------------------------------------------------------------------------------------------------


class _Late(BaseException):
    """The time for the search is spent; no `Exception`, which Hypothesis would take for a failure to shrink."""


class _Search:
    """Tries inputs and keeps the last that fails: Hypothesis hands over smaller and smaller ones."""

    def __init__(self, exercise: Exercise, function: Callable[..., Any], seconds: float) -> None:
        self.exercise, self.function, self.seconds = exercise, function, seconds
        self.tried, self.smaller, self.end = 0, 0, np.inf
        self.found: tuple[Difference, Mapping[str, Any]] | None = None
        self.failing: list[Mapping[str, Any]] = []  # the first few, before they are made small

    def fails(self, arguments: Mapping[str, Any]) -> bool:
        """Judge one input; a smaller one counts if it shows the same variable of the same line."""
        self.tried += self.found is None
        self.smaller += self.found is not None
        if self.smaller > SMALLER or time.monotonic() > self.end:
            raise _Late
        difference = judge(self.exercise, self.function, arguments, self.seconds)
        if difference is None or (self.found and difference[:2] != self.found[0][:2]):
            return False
        if len(self.failing) < TELLING:
            self.failing.append(arguments)
        if self.found is None:
            self.end = time.monotonic() + SEARCH
        if self.found is None or size(arguments) <= size(self.found[1]):
            self.found = difference, arguments
        return True

    def run(self) -> None:
        """Try the edges, then what Hypothesis draws."""
        from hypothesis import HealthCheck, Phase, Verbosity, find, settings, strategies
        from hypothesis.errors import HypothesisException

        folder = os.path.join(tempfile.gettempdir(), "efcp_ref_hypothesis")
        os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", folder)
        quiet = settings(
            max_examples=EXAMPLES, deadline=None, database=None, verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        any(self.fails(edge) for edge in self.exercise.edges)

        @strategies.composite
        def drawn(draw: Draw) -> dict[str, Any]:
            return self.exercise.inputs(draw, strategies)

        try:
            find(drawn(), self.fails, settings=quiet, random=Random(0))
        except (HypothesisException, _Late):
            return


def size(arguments: Mapping[str, Any]) -> tuple[int, float]:
    """How much there is to read in an input: numbers, then their magnitudes.

    >>> size({"a": np.array([1.0, -3.0]), "k": 1})
    (3, 5.0)
    """
    values = [np.asarray(value, dtype=np.float64) for value in arguments.values()]
    return sum(value.size for value in values), float(sum(np.abs(value).sum() for value in values))


def check(id: str, function: Callable[..., Any], *, seconds: float = 5.0) -> Answer:
    """Judge a learner's function.

    Args:
        id: paper line of the exercise, one of `ids()`.
        function: the answer, called positionally with the arguments that the statement names.
        seconds: a call that takes longer is refused (in the main thread of a POSIX system).

    Returns:
        An `Answer`, true where right; else with the paper line, the first variable that differs, its index, both
        values, and the smallest input found that shows it.

    Raises:
        ValueError: no such exercise.
        TypeError: function cannot be called.

    Cost: a few tenths of a second; more where a call is slow.

    >>> def lanes(Tid, k, T):
    ...     return [j for j in range(k) if j // 2 == Tid]  # neighbours for one lane: not coalesced
    >>> print(check("2:8", lanes))
    2:8 refused
      paper line     2:8   for $j \\in \\{Tid < k, T\\}$ do
      first differs  j
      ...
    """
    from efcp_ref.exercises.book import exercise

    task = exercise(id)
    if not callable(function):
        raise TypeError(f"function has type {type(function).__name__}, must be callable")
    search = _Search(task, function, seconds)
    search.run()
    if search.found is None:
        return Answer(id, True, search.tried)
    found, arguments = search.found
    line, explained = _explained(task, function, [*search.failing, arguments], seconds)
    taken = inspect.signature(task.solve).parameters  # what the criterion alone needs is not shown
    if taken.keys() <= arguments.keys():
        arguments = {name: arguments[name] for name in taken}
    return Answer(id, False, search.tried, task.blame.get(line, line) or found.line, found.variable, found.at,
                  found.got, found.expected, found.reason, arguments, explained)  # fmt: skip


def _explained(
    task: Exercise, function: Callable[..., Any], failing: list[Mapping[str, Any]], seconds: float
) -> tuple[str, str]:
    """Return the line and the text of the known mistake that gives the same results on all failing inputs, if any."""
    if not task.operation:
        return "", ""
    from efcp_ref.oracle.core import Case
    from efcp_ref.oracle.diagnose import explain
    from efcp_ref.oracle.targets import Local

    common: dict[str, tuple[str, str]] | None = None
    for arguments in failing:
        case = Case(task.operation, "generic", "exercise", 0, 0, arguments)
        try:
            with limited(seconds), np.errstate(all="ignore"):
                outcome = Local({task.operation: function}).run(case)
        except _TooLong:
            return "", ""
        odd = outcome.error or any(map(np.iscomplexobj, outcome.results.values()))
        mistakes = [] if odd else explain(case, outcome.results, seconds=0.5)
        said = {mistake.name: (mistake.line, mistake.text) for mistake in mistakes}
        common = said if common is None else {name: common[name] for name in common if name in said}
        if not common:
            return "", ""
    return next(iter((common or {}).values()), ("", ""))


def near(want: Any, terms: Any, count: int) -> Array:
    """Return the bound ``count u sum |terms|`` of a sum of ``count`` rounded products, u = 2^-53.

    >>> float(near(0.0, 2.0, 4)) == 4 * 2.0**-53 * 2
    True
    """
    return np.asarray(count * 2.0**-53 * np.asarray(terms) + 0 * np.asarray(want))

"""Several workers: one target in W processes, each with gradients of its own, as error feedback is used in training.

``efcp-ref check my_distributed.py --workers 4`` starts the target four times with the variables that
`torch.distributed` reads (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), and calls all four at once. What has
a meaning for several workers is judged: `topk_sgd` and `power_compress` (`efcp_ref.oracle.criteria.workers`). Which
residual the target keeps, averaged or local, is found out from what it returns, and named.
"""

from __future__ import annotations

import re
import shlex
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from efcp_ref.oracle import judge as judging
from efcp_ref.oracle import lifeline
from efcp_ref.oracle.core import Case, Check, Declared, dressed
from efcp_ref.oracle.criteria import workers as criteria
from efcp_ref.oracle.judge import Progress, Report, Seen
from efcp_ref.oracle.targets import START_TIMEOUT, Abandoned, BrokenTarget, Outcome, Target, UsageError, known
from efcp_ref.paper._validate import Array

MULTIPLE = ("topk_sgd", "power_compress")
SIZES = (2, 4, 8)  # powers of two: the mean is exact
LARGEST = 1024  # of the integers in the gradients; times 64 where one worker is loud
CAUSES = ("died", "raised", "exit", "memory", "result shape", "lost", "timeout")  # before what follows from it
LOST = re.compile("connection|peer|socket|broken pipe|closed", re.IGNORECASE)  # raised where another worker is gone
GRACE = 0.5  # seconds that the others have to fail by themselves when one worker cannot be started


# --- cases --------------------------------------------------------------------------------------------------------

FAMILIES = {
    "one gradient each": "the workers do not talk to each other, or a residual is kept twice",
    "the workers see different coordinates": "what one worker sends is taken for what all send",
    "one worker has no gradient": "a worker that has nothing to send is waited for, or skipped",
    "two gradients cancel": "what cancels in the mean leaves a zero matrix to orthogonalise, or is kept for ever",
    "one worker is loud": "the largest gradient decides alone",
    "the same gradient everywhere": "the sum is not divided by the number of workers",
    "one gradient again and again": "the error is not sent later",
}


def _integers(rng: np.random.Generator, shape: tuple[int, ...], family: str) -> Array:
    """Gradients (W, ...) of one family, integers."""
    g = rng.integers(-LARGEST, LARGEST + 1, shape).astype(float)
    if family == "the workers see different coordinates":
        g *= (np.arange(shape[-1]) % shape[0])[None, :] == np.arange(shape[0])[:, None].reshape(
            shape[0], *[1] * (len(shape) - 1)
        )
    elif family == "one worker has no gradient":
        g[0] = 0
    elif family == "two gradients cancel":
        g[1] = -g[0]
    elif family == "one worker is loud":
        g[0] *= 64
    elif family == "the same gradient everywhere":
        g[:] = g[0]
    elif family == "one gradient again and again":
        g[:] = g[:, :1]
    return g


def _decided(a: Array, k: int) -> bool:
    """Whether Top-k has no choice: nothing ties at the cut, or only zeros do."""
    size = np.sort(np.abs(a))[::-1]
    return k == len(a) or size[k - 1] > size[k] or size[k] == 0


def _steps_decided(gradients: Array, k: int) -> bool:
    u, xi = criteria.reference(gradients, k)
    return all(_decided(sent + kept, k) for sent, kept in zip(u, xi, strict=True))


def generate(operation: str, seed: int, index: int, workers: int) -> Case:
    """Return case ``index``: an operation's arguments, where gradients and ``g`` have the workers as first axis.

    >>> generate("topk_sgd", 0, 0, 2).arguments["gradients"].shape[0]
    2
    """
    label, why = list(FAMILIES.items())[index % len(FAMILIES)]
    for attempt in count():
        rng = np.random.default_rng([seed, index, workers, attempt])
        arguments = _topk(rng, workers, label) if operation == "topk_sgd" else _power(rng, workers, label)
        if arguments is not None:
            return Case(operation, "workers", label, seed, index, dressed(arguments, frozenset()), why=why)
    raise AssertionError("endless")


def _topk(rng: np.random.Generator, workers: int, label: str) -> dict[str, Any] | None:
    """Parameters and gradients (W, T, d) without a tie in either convention; None where there is one."""
    d, T = int(rng.integers(6, 40)), int(rng.integers(4, 13))
    k = max(1, d // int(rng.integers(2, 7)))
    g = _integers(rng, (workers, T, d), label) * 2.0**-5
    if not all(_steps_decided(part, k) for part in (g.mean(axis=0), *g)):
        return None
    return {"d": d, "k": k, "gradients": g}


def _power(rng: np.random.Generator, workers: int, label: str) -> dict[str, Any]:
    """A gradient tensor per worker (W, p1, ...), and the Q that all share."""
    shape = ((6, 4), (5, 7), (8, 3, 2), (4, 12))[int(rng.integers(4))]
    p1, p2s = shape[0], int(np.prod(shape[1:]))
    Q = rng.standard_normal((p2s, int(rng.integers(1, min(p1, p2s, 3) + 1))))
    return {"g": _integers(rng, (workers, *shape), label) * 2.0**-5, "Q": Q.astype(np.float32).astype(np.float64)}


def share(case: Case, worker: int) -> Case:
    """Return what one worker is handed."""
    own = {n: a[worker] if n in ("gradients", "g") else a for n, a in case.arguments.items()}
    return replace(case, arguments=own)


# --- the target ---------------------------------------------------------------------------------------------------


class Group:
    """One target in several processes, called together."""

    def __init__(
        self, name: str, workers: int, timeout: float = 10.0, memory: float = 8.0, start_timeout: float = START_TIMEOUT,
        certify: bool = False,
    ) -> None:  # fmt: skip
        """Start all processes.

        Raises:
            UsageError: no such target, a wrong declaration, or not 2, 4 or 8 workers.
            BrokenTarget: importing it failed in one of them.
        """
        if workers not in SIZES:
            raise UsageError(
                f"--workers {workers}, must be one of {', '.join(map(str, SIZES))}: the mean must be exact"
            )
        self.target, self.workers, self._limits = name, workers, (timeout, memory, start_timeout)
        self.name, self.certify = title(name, workers), certify
        self.members: list[Target] = []
        self._abandoned = threading.Event()
        self.found: Counter[tuple[str, str]] = Counter()
        self._start()
        first = self.members[0]
        self.offered = tuple(n for n in MULTIPLE if n in first.offered)
        self.names, self.declared, self._notes = first.names, first.declared, first.notes
        self.criteria = {"topk_sgd": self._topk, "power_compress": criteria.power_compress}

    @property
    def notes(self) -> tuple[str, ...]:
        """The target's own, and which residual it keeps."""
        told = []
        for operation in self.offered:
            seen = {name: n for (where, name), n in self.found.items() if where == operation}
            named = [n for n in (criteria.AVERAGED, criteria.LOCAL) if n in seen]
            if seen:
                words = " and ".join(f"{n} in {seen[n]} cases" for n in named) or "no case tells which residual"
                more = f"; {seen[criteria.EITHER]} cases cannot tell" if criteria.EITHER in seen and named else ""
                told.append(f"{operation} with {self.workers} workers: {words}{more}")
        return (*self._notes, *told)

    def _topk(self, case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
        checks = criteria.topk_sgd(case, result, declared)
        named = [c.reason for c in checks if c.stage == "u" and c.tier == "T1" and c.verdict == "pass"]
        self.found.update((case.operation, name) for name in named)
        return checks

    def _environment(self, worker: int, port: int) -> dict[str, str]:
        given = {"RANK": worker, "LOCAL_RANK": worker, "WORLD_SIZE": self.workers, "LOCAL_WORLD_SIZE": self.workers,
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
        return {n: str(v) for n, v in given.items()}

    def _start(self) -> None:
        """Start all at once: a target may join its group while it is imported. Where one fails, all are ended."""
        port, started = free_port(), dict[int, Target]()

        def one(worker: int) -> None:
            given = self._environment(worker, port)
            started[worker] = Target(self.target, *self._limits, environment=given, abandoned=self._abandoned)

        try:
            broken = self._together(one, GRACE)
        finally:
            self.members = [started[w] for w in sorted(started)]
            if len(started) < self.workers:
                self.close()
        if broken:
            raise _first(broken)

    def _together(self, call: Callable[[int], None], grace: float | None = None) -> dict[int, BaseException]:
        """Call for every worker at once; return what was raised.

        ``grace``: seconds after the first failure until the others are abandoned, as all are on an interrupt.
        """
        lifeline.mind()
        self._abandoned.clear()
        futures: dict[Future[None], int] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                futures |= {pool.submit(call, w): w for w in range(self.workers)}
                waiting = wait(futures, return_when=FIRST_EXCEPTION if grace is not None else ALL_COMPLETED)[1]
                wait(waiting, grace)
            finally:
                self._abandoned.set()
        raised = {w: why for f, w in futures.items() if (why := f.exception()) is not None}
        return {w: why for w, why in raised.items() if not isinstance(why, Abandoned)}

    def run(self, case: Case) -> Outcome:
        """Hand every worker its share; where one fails, all are started anew for the next case.

        Raises:
            BrokenTarget: the target cannot be imported any more.
        """
        if not self.members:
            self._start()
        outcomes = self._outcomes(case)
        lost = {w: o for w, o in enumerate(outcomes) if o.error}
        if lost:
            if len(lost) < self.workers or any(o.error in ("died", "timeout") for o in lost.values()):
                self.close()
            first, who = blamed({w: (o.error, o.reason) for w, o in lost.items()})
            return replace(lost[first], reason=f"{who}: {lost[first].reason}")
        mutated = tuple(sorted({n for o in outcomes for n in o.mutated}))
        return Outcome({"workers": [o.results for o in outcomes]}, mutated)

    def _outcomes(self, case: Case) -> list[Outcome]:
        found: dict[int, Outcome] = {}

        def one(worker: int) -> None:
            found[worker] = self.members[worker].run(share(case, worker))

        try:
            if broken := self._together(one):
                raise _first(broken)
        except BaseException:
            self.close()
            raise
        return [found[w] for w in range(self.workers)]

    def close(self) -> None:
        """End all processes."""
        for member in self.members:
            with suppress(ProcessLookupError):
                member.close()
        self.members = []


def _distance(error: str, words: str) -> int:
    """Return how far from the cause an error is."""
    lost = error == "raised" and LOST.search(words.partition("\n")[0])
    kind = "lost" if lost else error
    return CAUSES.index(kind) if kind in CAUSES else 0


def blamed(errors: Mapping[int, tuple[str, str]]) -> tuple[int, str]:
    """Return the worker whose error (kind, words) is the cause of the others', and who is told to be.

    >>> blamed({0: ("raised", "raised RuntimeError: Connection closed by peer"), 1: ("died", "was killed")})
    (1, 'worker 1')
    >>> blamed({0: ("timeout", ""), 1: ("timeout", "")})
    (0, 'workers 0 and 1')
    """
    first = min(errors, key=lambda w: (_distance(*errors[w]), w))
    *most, last = map(str, sorted(errors))
    told = errors[first][0] == "timeout" and most  # each may have waited for any other
    return first, f"workers {', '.join(most)} and {last}" if told else f"worker {first}"


def _first(broken: Mapping[int, BaseException]) -> BaseException:
    """Of what was raised by several workers, what is to be told: wrong usage, or the cause and its worker."""
    told = {w: why for w, why in broken.items() if isinstance(why, BrokenTarget)}
    if others := [why for w, why in broken.items() if w not in told]:
        return others[0]
    first, who = blamed({w: (why.kind, str(why)) for w, why in told.items()})
    return BrokenTarget(f"{who}: {told[first]}", told[first].kind)


def title(target: str, workers: int) -> str:
    """Return what reports call a group; pasted after ``efcp-ref check``, it is judged again."""
    return f"--workers {workers} {shlex.quote(target)}"


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def check_workers(
    target: str, workers: int, operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, *,
    timeout: float = 10.0, memory: float = 8.0, start_timeout: float = START_TIMEOUT, only: int | None = None,
    dtype: str | None = None, progress: Progress | None = None, seen: Seen | None = None, certify: bool = False,
) -> Report:  # fmt: skip
    """Judge a target in several processes at once; its notes name the residual that it keeps.

    Args:
        target: as `efcp_ref.oracle.judge.check_target` takes it.
        workers: 2, 4 or 8.
        operations, cases, seed, timeout, memory, start_timeout, only, dtype, progress, seen, certify: as
            `check_target`.

    Raises:
        UsageError: no such target or operation, a wrong declaration, or another number of workers.
    """
    wanted = None if operations is None else [known(o) for o in operations]
    if lost := [o for o in wanted or () if o not in MULTIPLE]:
        raise UsageError(f"{', '.join(lost)}: with --workers only {' and '.join(MULTIPLE)} are judged")
    try:
        group = Group(target, workers, timeout, memory, start_timeout, certify)
    except BrokenTarget as why:
        return Report(title(target, workers), (), seed, cases, str(why))
    indices = range(cases) if only is None else [only]
    given = {
        o: list(judging.both([generate(o, seed, i, workers) for i in indices], group.declared, dtype))
        for o in group.offered
    }
    with closing(group):
        return judging.judge(
            group, wanted or MULTIPLE, cases, seed, progress=progress, shrink_seconds=0, dtype=dtype, given=given,
            seen=seen,
        )  # fmt: skip


__all__ = ["Group", "blamed", "check_workers", "free_port", "generate", "share"]

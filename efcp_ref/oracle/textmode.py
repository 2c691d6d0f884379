"""Door 2 without JSON: ``efcp-ref gen sp | ./mine | efcp-ref verify sp``, words between blanks.

A case is ``case OPERATION SEED INDEX DTYPE``, then one entry per argument, then ``end``. An entry is
``NAME TYPE AXES SIZE ... VALUE ...``; floats are hexadecimal, so nothing is lost::

    case sp 0 3 float64
    indices int32 2 1 2 0 3
    values float64 2 1 2 0x1.8p+1 -0x1p+0
    g float64 1 4 0x0.0p+0 0x1p+0 0x1p+1 0x1.8p+1
    block_size int64 0 4
    density float64 0 0x1p-1
    end

The program echoes the case line and writes its results in the same form, ``end`` included; hexadecimal floats, 9 or
17 decimal digits, ``nan`` and ``inf`` are read. Lists are ``Q0.0``, ``Q0.1``; the state after step t of an optimizer
``state.t.NAME``. Lines of words before the first case may declare: ``declare SOLVER lu``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from efcp_ref.contract import OPERATIONS, OPTIMIZERS
from efcp_ref.oracle import hostile, results
from efcp_ref.oracle.core import ERROR, FAIL, Case, Declared
from efcp_ref.oracle.hostile import Hostile
from efcp_ref.oracle.judge import Report, both, judge
from efcp_ref.oracle.targets import Outcome, UsageError, declared, known, numbered

LONGEST = 64  # characters of one word
MOST = 1 << 28  # bytes of a whole stream
CASES = 100  # of gen, unless it is told otherwise
LARGEST = 1_000_000  # cases of one seed
_FLOAT = re.compile(r"[+-]?(0x[0-9a-f]*\.?[0-9a-f]*p[+-]?\d+|\d*\.?\d*(e[+-]?\d+)?|nan|inf(inity)?)", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)


# --- writing ------------------------------------------------------------------------------------------------------


def _word(x: Any, decimal: bool = False) -> str:
    value = float(x)
    if decimal:
        return f"{value:.17g}"
    return value.hex().replace("0000000000000p", "p").replace(".p", "p") if math.isfinite(value) else str(value)


def entry(name: str, value: Any, decimal: bool = False) -> Iterator[str]:
    """Yield the lines of one argument or result; floats hexadecimal, or with 17 decimal digits.

    >>> list(entry("g", np.float32([0.5, -3]))), list(entry("k", 3))
    (['g float32 1 2 0x1p-1 -0x1.8000000000000p+1'], ['k int64 0 3'])
    """
    if isinstance(value, (list, tuple)):
        for i, inside in enumerate(value):
            array = inside if isinstance(inside, np.ndarray) else np.array(inside, np.int64)
            yield from entry(f"{name}.{i}", array, decimal)
        return
    a = np.asarray(float(value) if isinstance(value, Fraction) else value)
    kind = a.dtype.name
    words = [str(int(x)) if a.dtype.kind in "iub" else _word(x, decimal) for x in a.reshape(-1)]
    yield " ".join([name, kind, str(a.ndim), *map(str, a.shape), *words])


def text_of(case: Case, decimal: bool = False) -> str:
    """Return a case as text."""
    head = f"case {case.operation} {case.seed} {case.index} {case.dtype}"
    return "\n".join([head, *(line for n, v in case.arguments.items() for line in entry(n, v, decimal)), "end", ""])


def generated(
    operation: str, cases: int, seed: int = 0, dtype: str | None = "float64", only: int | None = None
) -> Iterator[Case]:
    """Yield the cases that ``gen`` writes; both precisions where ``dtype`` is None.

    >>> [case.id for case in generated("sp", 2)]
    ['sp:0:0:float64', 'sp:0:1:float64']
    """
    from efcp_ref.oracle.cases import generate, standard

    known(operation)
    if only is None:
        chosen: Iterable[Case] = standard(operation, cases, seed)
    else:
        chosen = [generate(operation, seed, numbered(operation, seed, only))]
    yield from both(chosen, Declared(), dtype)


# --- reading ------------------------------------------------------------------------------------------------------


class Words:
    """The words of a stream, one after another, with their place for messages."""

    def __init__(self, data: bytes) -> None:
        """Take the whole stream.

        Raises:
            Hostile: it is longer than `MOST` bytes, or no ASCII.
        """
        if len(data) > MOST:
            raise Hostile(f"text of {len(data)} bytes, at most {MOST} are read")
        if not data.isascii():
            raise Hostile("text holds bytes that are no ASCII")
        self._words = re.finditer(r"\S+", data.decode("ascii"))
        self.number = 0

    def next(self) -> str | None:
        """Return the next word, None at the end."""
        found = next(self._words, None)
        self.number += 1
        if found is None:
            return None
        if found.end() - found.start() > LONGEST:
            raise Hostile(f"word {self.number} is longer than {LONGEST} characters: {found.group()[:20]!r}...")
        return found.group()

    def must(self, what: str) -> str:
        """Return the next word; the end of the stream is an error."""
        if (word := self.next()) is None:
            raise Hostile(f"the text ends where {what} was expected")
        return word

    def integer(self, what: str) -> int:
        """Return the next word as an integer."""
        word = self.must(what)
        if not _INTEGER.fullmatch(word):
            raise Hostile(f"word {self.number} is {word!r}, expected {what}")
        return int(word)

    def number_(self, what: str) -> float:
        """Return the next word as a float: hexadecimal, decimal, nan or inf."""
        word = self.must(what)
        if not _FLOAT.fullmatch(word.lower()):
            raise Hostile(f"word {self.number} is {word!r}, expected {what}")
        try:
            return float.fromhex(word) if "x" in word.lower() else float(word)
        except OverflowError:
            return math.copysign(math.inf, -1 if word.startswith("-") else 1)
        except ValueError:
            raise Hostile(f"word {self.number} is {word!r}, expected {what}") from None


def _array(words: Words, name: str) -> np.ndarray:
    """The array behind a name: ``TYPE AXES SIZE ... VALUE ...``."""
    dtype = hostile.dtype_named(words.must(f"the type of {name}"))
    axes = words.integer(f"the number of axes of {name}")
    if not 0 <= axes <= hostile.AXES:
        raise Hostile(f"{name} has {axes} axes, at most {hostile.AXES} are read")
    shape = hostile.shape_of([words.integer(f"a size of {name}") for _ in range(axes)], 64)
    size = math.prod(shape)
    if dtype.kind in "iub":
        numbers: list[Any] = [words.integer(f"an integer of {name}") for _ in range(size)]
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if any(not low <= n <= high for n in numbers):
            raise Hostile(f"{name} holds an integer that {dtype} does not hold")
    else:
        numbers = [words.number_(f"a float of {name}") for _ in range(size)]
    with np.errstate(over="ignore"):
        return np.array(numbers).astype(dtype).reshape(shape)


@dataclass
class Answers:
    """What a program wrote: results by case, and its declarations."""

    by_case: dict[tuple[str, int, int, str], dict[str, np.ndarray]] = field(default_factory=dict)
    declarations: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""  # why reading stopped


def _value(word: str) -> Any:
    try:
        return hostile.json_value(word.encode())
    except Hostile:
        return word


def _declare(words: Words, found: dict[str, Any]) -> None:
    name, value = words.must("a declaration's name"), _value(words.must("a declaration's value"))
    outer, dot, inner = name.partition(".")
    if dot:
        group = found.setdefault(outer, {})
        if not isinstance(group, dict):
            raise Hostile(f"{outer} is declared twice")
        group[inner] = value
    else:
        found[name] = [value] if name == "DTYPES" else value


def _head(words: Words) -> tuple[tuple[str, int, int, str], str | None]:
    """The key after ``case``, and the word after it; the precision may be left out."""
    operation = words.must("an operation")
    if operation not in OPERATIONS and operation not in OPTIMIZERS:
        raise Hostile(f"case of {operation!r}, which is no operation")
    seed, index, after = words.integer("a seed"), words.integer("an index"), words.next()
    dtype = after if after in ("float64", "float32") else "float64"
    return (operation, seed, index, dtype), words.next() if after in ("float64", "float32") else after


def _read(words: Words, answers: Answers) -> None:
    word = words.next()
    while word is not None:
        if word == "declare":
            _declare(words, answers.declarations)
            word = words.next()
            continue
        if word != "case":
            raise Hostile(f"word {words.number} is {word!r}, expected case")
        key, word = _head(words)
        if key in answers.by_case:
            raise Hostile(f"case {' '.join(map(str, key))} is answered twice")
        named: dict[str, np.ndarray] = {}
        while word not in (None, "end", "case"):
            assert word is not None
            if word in named:
                raise Hostile(f"{word} is given twice in case {' '.join(map(str, key))}")
            named[word] = _array(words, word)
            word = words.next()
        answers.by_case[key] = named
        word = words.next() if word == "end" else word


def read_answers(stream: BinaryIO | bytes) -> Answers:
    """Read what a program wrote, as far as it can be read; ``trouble`` says what stopped it.

    >>> found = read_answers(b"case sp 0 3  omega float64 1 1 0x1p+1 end")
    >>> found.by_case
    {('sp', 0, 3, 'float64'): {'omega': array([2.])}}
    """
    answers = Answers()
    try:
        _read(Words(stream if isinstance(stream, bytes) else stream.read(MOST + 1)), answers)
    except Hostile as why:
        answers.trouble = str(why)
    return answers


def named_results(operation: str, given: Mapping[str, np.ndarray], dtype: str) -> dict[str, Any]:
    """Return the results of one case as `results.run` gives them.

    Raises:
        ResultShape: one is missing.
    """
    if operation in OPTIMIZERS:
        u = results.normalise({n: a for n, a in given.items() if n == "u"}, ("u",), (), dtype, {})["u"]
        states: dict[int, dict[str, np.ndarray]] = {}
        for name, a in given.items():
            if found := re.fullmatch(r"state\.(\d{1,6})\.(\w+)", name):
                states.setdefault(int(found.group(1)), {})[found.group(2)] = a
        return {"u": u, "states": [states[t] for t in sorted(states)] or None}
    op = OPERATIONS[operation]
    needed, optional = tuple(r.name for r in op.results), tuple(s.name for s in op.stages)
    return results.normalise(dict(given), needed, optional, dtype, {})


# --- judging ------------------------------------------------------------------------------------------------------


class Given:
    """Results that are already there, as a target: every case is looked up."""

    def __init__(self, name: str, operation: str, answers: Answers) -> None:
        """Take the results of one operation.

        Raises:
            UsageError: a wrong declaration.
        """
        self.name, self._answers = name, answers
        self.offered: tuple[str, ...] = (operation,)
        self.notes: tuple[str, ...] = ()
        self.declared = declared(answers.declarations)

    def run(self, case: Case) -> Outcome:
        """Look a case up."""
        given = self._answers.by_case.get((case.operation, case.seed, case.index, case.dtype))
        if given is None:
            reason = "no result of this case" + (f": {self._answers.trouble}" if self._answers.trouble else "")
            return Outcome(error="missing", reason=reason)
        try:
            return Outcome(results=named_results(case.operation, given, case.dtype))
        except results.ResultShape as why:
            return Outcome(error="result shape", reason=str(why))

    def close(self) -> None:
        """Nothing is held."""


def _expected(operation: str, answers: Answers, cases: int | None) -> tuple[list[Case], int]:
    """The cases that must be answered, rebuilt: all below the highest index seen, or the number asked for."""
    keys = [key for key in answers.by_case if key[0] == operation]
    if wrong := [key for key in answers.by_case if key[0] != operation]:
        raise UsageError(f"the text answers {wrong[0][0]}, and {operation} is to be verified")
    for _, seed, index, _ in keys:
        numbered(operation, seed, index)
    seeds, kinds = sorted({key[1] for key in keys}) or [0], sorted({key[3] for key in keys}) or ["float64"]
    if len(seeds) > 1:
        raise UsageError(f"the text answers cases of the seeds {seeds[:3]}; one seed at a time is verified")
    if not keys or cases is not None or len(keys) > len(kinds):
        count = cases or max((key[2] for key in keys), default=CASES - 1) + 1
        if count > min(100 * len(keys) + 10_000, LARGEST):
            raise UsageError(f"the text answers {len(keys)} cases, and the highest index is {count - 1}")
        both_kinds = None if len(kinds) > 1 else kinds[0]
        return list(generated(operation, count, seeds[0], both_kinds)), seeds[0]
    return list(generated(operation, 1, seeds[0], None if len(kinds) > 1 else kinds[0], keys[0][2])), seeds[0]


def verify(operation: str, stream: BinaryIO | bytes, cases: int | None = None) -> Report:
    """Judge what a program wrote on the cases of ``gen``.

    Args:
        operation: the contract's name.
        stream: the program's output.
        cases: how many were generated; default: up to the highest index that is answered.

    Text that cannot be read to its end is an error, whatever passed before it.

    Raises:
        UsageError: no such operation, or the text answers another one, or several seeds.

    >>> verify("sp", b"case sp 0 1 omega float64 1 1 0x1p+1 end").exit_code
    1
    """
    known(operation)
    answers = read_answers(stream)
    unread = bool(answers.trouble)
    if not answers.by_case and not unread:
        answers.trouble = "nothing was read, no case is answered"
    target = Given("standard input", operation, answers)
    chosen, seed = _expected(operation, answers, cases)
    if answers.trouble:
        target.notes = (f"the text could not be read to its end: {answers.trouble}",)
    elif cases is None:
        target.notes = (f"{len(answers.by_case)} answers; with --cases N a program that ended early is noticed",)
    report = judge(target, [operation], len(chosen), seed, shrink_seconds=0.0, given={operation: chosen})
    return _unread(report) if unread else report


def _unread(report: Report) -> Report:
    """What cannot be read, or answers a case twice, is an error of its own: nothing passes beside it."""
    (found,) = report.operations
    verdict = FAIL if found.verdict == FAIL else ERROR
    return replace(report, operations=(replace(found, verdict=verdict, errors={**found.errors, "unreadable": 1}),))

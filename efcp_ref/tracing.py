"""Runs the executable paper and writes down what every printed line did.

The code that runs is the code that is read: `trace` puts a tracer under it (`sys.settrace`) and the algorithms hold no
instrumentation. A line counts as printed when it carries a tag such as ``# 1:5`` (see ``paper/printed.toml``).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import html
import importlib
import inspect
import io
import json
import linecache
import math
import numbers
import os
import re
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from efcp_ref import contract
from efcp_ref.paper.printed import TAG, lines, tags

PAPER = str(Path(__file__).parent / "paper") + os.sep
FORMAT = "efcp-ref trace 1"
MOST_ROWS = 300  # of a trace shown in a notebook
DEEPEST = 20  # a collection nested deeper is written as a text: it may hold itself


@dataclass(frozen=True, eq=False)
class Event:
    """One printed line that has run; the variables are those of its function just after it."""

    line: str  # paper line: "1:5"
    file: str  # "paper/algorithm_1.py"
    number: int  # code line
    code: str  # its text, without the comment
    note: str  # its comment, without the tag: "(d,) (R14)"
    function: str
    depth: int  # printed functions around this one
    variables: dict[str, Any]  # plain copies of all locals
    changed: tuple[str, ...]  # "a", or "state.xi" for one field
    returned: bool = False  # whether the line left the function
    result: Any = None  # what it returned


@dataclass(frozen=True, eq=False)
class Trace:
    """A run: its events in the order in which the lines finished, an inner line before the one that called it."""

    function: str
    events: tuple[Event, ...]
    result: Any  # plain copy of what the function returned

    def to_json(self) -> str:
        """Return the trace as JSON, one event per line; the same run gives the same bytes.

        Arrays are ``{"$array": dtype, "shape": ..., "data": ...}`` with exact decimals; NaN and infinities are
        ``{"$float": "nan"}``.
        """
        events = ",\n".join(_dumps({**_fields(e), "variables": e.variables, "result": e.result}) for e in self.events)
        head = f'{{"format": {json.dumps(FORMAT)}, "function": {json.dumps(self.function)}, "events": [\n'
        return head + events + f'\n], "result": {_dumps(self.result)}}}\n'

    @staticmethod
    def from_json(text: str) -> Trace:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, or not a trace of this format.
        """
        try:
            data = json.loads(text)
        except RecursionError:
            raise ValueError("trace is nested too deeply") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"trace must hold the format {FORMAT!r}")
        try:
            events = [_decoded(event) for event in data["events"]]
            return Trace(data["function"], tuple(Event(**{**e, "changed": tuple(e["changed"])}) for e in events),
                         _decoded(data["result"]))  # fmt: skip
        except (TypeError, LookupError, AttributeError, OverflowError, RecursionError) as why:
            raise ValueError(f"trace breaks its format: {type(why).__name__}: {why}") from None

    def _repr_html_(self) -> str:
        """Show the trace in a notebook as a table: printed line, code, what changed. It needs no widgets."""
        return _html(self)

    def __eq__(self, other: object) -> bool:
        """Equal when every byte of the JSON is."""
        return isinstance(other, Trace) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]


def trace(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Trace:
    """Run ``function(*args, **kwargs)`` and record every tagged line of the paper, and of the function's own file.

    Args:
        function: a function, closure, method, partial or class; it runs unchanged.
        args, kwargs: its arguments.

    Returns:
        The events and the result. An array in them is a copy, named tuples and dataclasses are dicts, numbers are
        Python's, and what is neither (a function, a generator) is a short text.

    Raises:
        BaseException: whatever the function raises; the tracer that was there before is restored in any case.

    Cost: copies a local whenever it changes; about 20 us per line of code and 1 ns per byte of its locals.

    >>> from efcp_ref.paper.algorithm_5 import power_compress
    >>> run = trace(power_compress, [[3.0, 0.0], [0.0, 1.0]], [[1.0], [0.0]])
    >>> [event.line for event in run.events], run.events[1].changed, run.events[1].variables["P"].tolist()
    (['5:2', '5:3', '5:4', '5:5', '5:6'], ('P',), [[3.0], [0.0]])
    """
    recorder = _Recorder(_own_file(function))
    before = sys.gettrace()
    sys.settrace(recorder.enter)
    try:
        result = function(*args, **kwargs)
    finally:
        sys.settrace(before)
    return Trace(_name(function), tuple(recorder.events), plain(result))


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if inspect.isclass(function):
        function = function.__init__
    elif not hasattr(function, "__code__") and not inspect.ismethod(function):
        function = type(function).__call__  # an object that can be called
    return getattr(function, "__func__", function)


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _own_file(function: Any) -> str | None:
    code = getattr(_innermost(function), "__code__", None)
    return code.co_filename if isinstance(code, CodeType) else None


# ---- plain values ------------------------------------------------------------------------------------------------


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of a value that holds nothing but None, bool, int, float, str, list, dict and arrays.

    >>> class Kept(NamedTuple):
    ...     k: int
    >>> plain((Kept(np.int64(3)), Fraction(1, 3), print))
    [{'k': 3}, '1/3', '<print>']
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, numbers.Real):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, np.ndarray):
        stored = value.dtype.kind in "biuf" or value.dtype.name == "bfloat16"
        return np.array(value) if stored else plain(value.tolist(), depth + 1)
    return _text(value) if depth > DEEPEST else _collection(value, depth + 1)


def _collection(value: Any, depth: int) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), depth) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(getattr(value, name), depth) for name in value._fields}
    if isinstance(value, Mapping):
        return {str(name): plain(item, depth) for name, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(item, depth) for item in value]
    return _text(value)


def _text(value: Any) -> str:
    return f"<{getattr(value, '__qualname__', type(value).__qualname__).replace('<locals>.', '')}>"


def _kept(value: Any, before: Any) -> Any:
    """Return ``before`` where it says the same, so that events share what did not change."""
    if isinstance(value, dict) and isinstance(before, dict):
        value = {name: _kept(item, before.get(name)) for name, item in value.items()}
    return before if _same(value, before) else value


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return repr(a) == repr(b) if isinstance(a, float) else a == b


def _changes(before: dict[str, Any], after: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in after.items():
        old = before.get(name)
        if name not in before or not _same(value, old):
            if isinstance(value, dict) and isinstance(old, dict) and value.keys() == old.keys():
                yield from _changes(old, value, f"{path}{name}.")
            else:
                yield path + name


# ---- the tracer --------------------------------------------------------------------------------------------------


class _Statement(NamedTuple):
    """A tagged statement: its tag, the code line that carries it, its text and its comment."""

    tag: str
    number: int
    code: str
    note: str


@functools.cache
def _statements(path: str, source: str) -> dict[int, _Statement]:
    """Map every code line of a tagged statement (of a loop or condition: of its head) to that statement."""
    found: dict[int, _Statement] = {}
    tagged = tags(source)
    if tagged:
        tree, rows, comments = ast.parse(source), source.splitlines(), _comments(source)
    for number, tag in tagged:
        first, last = _span(tree, number)
        span = range(first, last + 1)
        code = "\n".join(rows[n - 1][: comments[n][0] if n in comments else None].strip() for n in span)
        note = " ".join(TAG.sub("", comments[n][1]).replace("#", " ") for n in span if n in comments)
        found.update(dict.fromkeys(span, _Statement(tag, number, code, " ".join(note.split()))))
    return found


def _comments(source: str) -> dict[int, tuple[int, str]]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: (token.start[1], token.string) for token in tokens if token.type == tokenize.COMMENT}


def _span(tree: ast.AST, number: int) -> tuple[int, int]:
    spans = [_head(node) for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    inside = [span for span in spans if span[0] <= number <= span[1]]
    return min(inside, key=lambda span: span[1] - span[0], default=(number, number))


def _head(node: ast.stmt) -> tuple[int, int]:
    body = getattr(node, "body", None)
    end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
    return node.lineno, end or node.lineno


def _file(path: str) -> str:
    return str(Path("paper", Path(path).relative_to(PAPER)).as_posix()) if path.startswith(PAPER) else Path(path).name


class _Recorder:
    """Follows the calls of one run; a frame with tagged lines gets a `_Follower`."""

    def __init__(self, own: str | None) -> None:
        self.own = own
        self.depth = 0
        self.events: list[Event] = []
        self.tagged: dict[CodeType, dict[int, _Statement]] = {}

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Serve as the global trace function: called when a frame begins."""
        code = frame.f_code
        if code not in self.tagged:
            self.tagged[code] = self._lines(code)
        return _Follower(self, frame, self.tagged[code]).step if self.tagged[code] else None

    def _lines(self, code: CodeType) -> dict[int, _Statement]:
        path = code.co_filename
        if not (path == self.own or path.startswith(PAPER)) or code.co_name.startswith("<"):
            return {}  # a comprehension or a lambda is part of the statement around it
        own = {line for _, _, line in code.co_lines() if line}
        statements = _statements(path, "".join(linecache.getlines(path)))
        return {line: statements[line] for line in own if line in statements}


class _Follower:
    """Records the tagged lines of one frame, each when the next line of the frame begins or the frame ends."""

    def __init__(self, recorder: _Recorder, frame: FrameType, lines: dict[int, _Statement]) -> None:
        self.recorder, self.lines = recorder, lines
        self.depth = recorder.depth
        recorder.depth += 1
        self.running: _Statement | None = None
        self.before: dict[str, Any] = self._locals(frame, {})

    def step(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Serve as the frame's trace function: called for every line, return and exception."""
        if event == "line":
            self._line(frame)
        elif event == "exception" and not issubclass(argument[0], StopIteration):
            self.running = None  # the line did not finish
        elif event == "return":
            self._finish(frame, True, argument)
            self.recorder.depth -= 1
        return self.step

    def _line(self, frame: FrameType) -> None:
        statement = self.lines.get(frame.f_lineno)
        if statement is not None and statement is self.running:
            return  # the statement goes on
        self._finish(frame, False, None)
        if statement is not None:
            self.before = self._locals(frame, self.before)
        self.running = statement

    def _finish(self, frame: FrameType, left: bool, result: Any) -> None:
        if self.running is None:
            return
        after = self._locals(frame, self.before)
        code, (tag, number, text, note) = frame.f_code, self.running
        left = left and re.search(r"\b(return|yield)\b", text) is not None
        self.recorder.events.append(Event(
            tag, _file(code.co_filename), number, text, note, code.co_name, self.depth, after,
            tuple(_changes(self.before, after)), left, plain(result) if left else None,
        ))  # fmt: skip
        self.before, self.running = after, None

    @staticmethod
    def _locals(frame: FrameType, before: dict[str, Any]) -> dict[str, Any]:
        return {name: _kept(plain(value), before.get(name)) for name, value in frame.f_locals.items()}


# ---- JSON --------------------------------------------------------------------------------------------------------


def _fields(event: Event) -> dict[str, Any]:
    return {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}


def _dumps(value: Any) -> str:
    return json.dumps(_encoded(value), separators=(",", ":"), allow_nan=False)


def _encoded(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.ndarray):
        flat = value.ravel() if value.dtype.kind in "biu" else value.ravel().astype(np.float64)
        return {"$array": value.dtype.name, "shape": list(value.shape), "data": [_encoded(x) for x in flat.tolist()]}
    if isinstance(value, dict):
        return {f"${name}" if name.startswith("$") else name: _encoded(item) for name, item in value.items()}
    return [_encoded(item) for item in value] if isinstance(value, (list, tuple)) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return float(value["$float"])
    if "$array" in value:
        data = [_decoded(item) for item in value["data"]]
        return np.array(data, dtype=_dtype(value["$array"])).reshape(value["shape"])
    return {name.removeprefix("$"): _decoded(item) for name, item in value.items()}


def _dtype(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


# ---- the table ---------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One row of the printed table."""

    line: str  # paper line
    code: str  # indented by depth
    changed: str  # "a = [1. 2.]; xi = ..."


def table(run: Trace, depth: int | None = None) -> list[Row]:
    """Return the events as rows of text: paper line, code, what changed; only those at most ``depth`` deep, if given.

    >>> from efcp_ref.paper.algorithm_5 import power_compress
    >>> table(trace(power_compress, [[3.0, 0.0], [0.0, 1.0]], [[1.0], [0.0]]))[1]
    Row(line='5:3', code='P = g @ Q', changed='P = [[3.] [0.]]')
    """
    shown = [event for event in run.events if depth is None or event.depth <= depth]
    return [Row(e.line, "  " * e.depth + " ".join(e.code.split("\n")), _what(e)) for e in shown]


def _what(event: Event) -> str:
    changes = [f"{name} = {brief(_at(event.variables, name))}" for name in event.changed]
    return "; ".join([*changes, *([f"returns {brief(event.result)}"] if event.returned else [])])


def _at(variables: dict[str, Any], path: str) -> Any:
    if path in variables:
        return variables[path]
    for depth in range(len(parts := path.split("."))):
        head = ".".join(parts[: depth + 1])
        if head in variables:
            return _at(variables[head], ".".join(parts[depth + 1 :]))
    raise KeyError(path)


def brief(value: Any) -> str:
    """Return a value as one short line.

    >>> brief(np.array([[1.0, 0.333333], [2.0, 4.0]])), brief({"t": 1, "xi": np.zeros(20)})
    ('[[1. 0.3333] [2. 4.]]', '{t: 1, xi: [0. 0. 0. ... 0. 0. 0.]}')
    """
    if isinstance(value, np.ndarray):
        entries = value.astype(np.float64) if value.dtype.name == "bfloat16" else value
        text = np.array2string(entries, precision=4, threshold=12, edgeitems=3, max_line_width=10**6)
        return " ".join(text.split()).replace("[ ", "[").replace(" ]", "]")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {brief(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        shown = [brief(item) for item in (value if len(value) <= 6 else value[:3])]
        return "[" + ", ".join(shown) + (f", ... {len(value)} in all]" if len(value) > 6 else "]")
    return str(value)


# ---- notebooks ---------------------------------------------------------------------------------------------------

_LEFT = ' style="text-align: left; vertical-align: top; padding: .15em .6em"'


def _html(run: Trace) -> str:
    """Return the trace as an HTML table; it sets no colours, so it reads on a light and on a dark page."""
    names = ("paper line", "printed", "code", "what changed")
    head = "".join(f'<th scope="col"{_LEFT}>{name}</th>' for name in names)
    body = "".join(_html_row(event, row) for event, row in zip(run.events[:MOST_ROWS], table(run), strict=False))
    more = len(run.events) - MOST_ROWS
    rest = f"<p>{more} more events: <code>efcp_ref.tracing.table(run)</code> has all.</p>" if more > 0 else ""
    title = f"{html.escape(run.function.lstrip('_'))}: {len(run.events)} events"
    return (
        f'<div style="max-height: 32em; overflow: auto" tabindex="0" role="region" aria-label="trace of {title}">'
        f'<table style="color: inherit"><caption style="text-align: left">{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}</div>"
    )


def _html_row(event: Event, row: Row) -> str:
    code = f'<code style="white-space: pre-wrap; margin-left: {event.depth}em">{html.escape(event.code)}</code>'
    cells = (printed_html(event.line), code, f"<code>{html.escape(row.changed)}</code>" if row.changed else "")
    return f'<tr><th scope="row"{_LEFT}>{event.line}</th>' + "".join(f"<td{_LEFT}>{c}</td>" for c in cells) + "</tr>"


def printed_html(tag: str) -> str:
    """Return a printed line as HTML, its mathematics between ``\\(`` and ``\\)``; "" for a tag that nobody printed.

    >>> print(printed_html("1:4"), printed_html("6:4"))
    \\(g_t \\leftarrow \\nabla_{\\theta} L(\\theta_t)\\) \\(\\delta \\leftarrow\\) zero vector of size \\(m\\)
    """
    latex = lines()[tag].latex if tag in lines() else ""
    parts = [html.escape(part) for part in latex.split("$")]
    parts[1::2] = [rf"\({part}\)" for part in parts[1::2]]
    parts[::2] = [re.sub(r"\\text\w*\{(.*?)\}", r"\1", part).replace(r"\_", "_") for part in parts[::2]]
    return "".join(parts)


# ---- demonstrations ----------------------------------------------------------------------------------------------


def demo(name: str, d: int = 6, steps: int = 3, seed: int = 0) -> Trace:
    """Trace an operation, or some steps of an optimizer, of the contract on a small example.

    Args:
        name: one of `contract.NAMES`.
        d: dimension, at least 4.
        steps: steps of an optimizer, at least 1; an operation runs once, on a window of ``steps`` rows.
        seed: of the example's numbers, multiples of 1/4.

    Raises:
        ValueError: no such name, or d or steps too small.

    >>> demo("error_feedback", d=4).events[0].line
    '1:5'
    """
    if name not in contract.NAMES:
        raise ValueError(f"name = {name!r}, must be one of {', '.join(contract.NAMES)}")
    if d < 4 or steps < 1:
        raise ValueError(f"d = {d}, steps = {steps}, must be at least 4 and 1")
    reference = getattr(importlib.import_module("efcp_ref"), name)
    example = _Example(d, steps, np.random.default_rng(seed))
    if name in contract.OPERATIONS:
        return trace(reference, *(example.value(name, a.name, a.shape) for a in contract.OPERATIONS[name].arguments))
    arguments = {a.name: example.value(name, a.name, a.shape) for a in contract.OPTIMIZERS[name].parameters}
    gradients = [example.dyadic(d) for _ in range(steps)]
    run = trace(_steps, reference(**arguments), gradients)
    return dataclasses.replace(run, function=name)


def _steps(optimizer: Any, gradients: list[Any]) -> list[Any]:
    return [optimizer.step(g) for g in gradients]


class _Example:
    """Arguments of any operation of the contract, by name and shape; numbers are multiples of 1/4."""

    def __init__(self, d: int, m: int, rng: np.random.Generator) -> None:
        self.d, self.m, self.rng = d, m, rng
        self.block_size, self.density = (d + 1) // 2, 0.5
        self.p2, self.rho = d // 2, 1
        self.rows = [self._row() for _ in range(m)]

    def dyadic(self, *shape: int) -> Any:
        """Return multiples of 1/4 between -3 and 3."""
        return self.rng.integers(-12, 13, shape) / 4

    def _row(self) -> Any:
        from efcp_ref.paper.top_k import block_top_k

        return block_top_k(self.dyadic(self.d), self.block_size, self.density)

    def value(self, operation: str, name: str, shape: str) -> Any:
        """Return the argument ``name`` of ``operation``."""
        by_name: dict[str, Callable[[], Any]] = {
            "d": lambda: self.d, "m": lambda: self.m, "k": lambda: max(1, self.d // 3),
            "lam": lambda: 0.5, "eps": lambda: 0.5, "eta": lambda: 0.5, "gamma": lambda: 0.5, "cutoff": lambda: 1e-6,
            "block_size": lambda: self.block_size, "density": lambda: self.density, "rank": lambda: self.rho,
            "indices": lambda: np.stack([row.indices for row in self.rows]),
            "values": lambda: np.stack([row.values for row in self.rows]),
            "H": lambda: self._definite(), "shapes": lambda: self._shapes(),
            "Q0": lambda: [self.dyadic(self.p2, self.rho)],
        }  # fmt: skip
        if name == "G" and operation == "adagrad_step":
            return self.dyadic(self.d) ** 2
        return by_name[name]() if name in by_name else self._by_shape(operation, name, shape)

    def _by_shape(self, operation: str, name: str, shape: str) -> Any:
        if operation in ("power_compress", "low_rank_inner_product"):
            rows = self.p2 if name.startswith("Q") else 2
            return self.dyadic(rows, self.p2 if name == "g" else self.rho)
        return self.dyadic(*{"(d,)": (self.d,), "(m,)": (self.m,), "(m, d)": (self.m, self.d)}[shape])

    def _definite(self) -> Any:
        root = self.rng.integers(-2, 3, (self.d, self.d))
        return root @ root.T + 1.0 * np.eye(self.d)

    def _shapes(self) -> list[tuple[int, ...]]:
        return [(2, self.p2), *([(1,)] if self.d % 2 else [])]

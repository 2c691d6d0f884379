"""The tracer: the same code, the right lines, the locals after them, JSON that is the same to the byte."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import efcp_ref
from efcp_ref import contract, tracing
from efcp_ref.paper import printed
from efcp_ref.paper.algorithm_2 import sp, sp_kernel
from efcp_ref.paper.algorithm_3 import lcg_kernel
from efcp_ref.tracing import Event, Trace, brief, demo, plain, table, trace


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Held:
    xi: Any
    pair: Pair


# ---- functions that are traced: their own tags count, since they live in the traced function's file ------------------


def loop(n: int) -> list[int]:
    made = []
    for j in range(n):  # j                                                  # 2:8
        made.append(j * j)  #                                               # 2:11
    return made  #                                                          # 5:6


def several_lines(a: int) -> int:
    b = max(
        a,
        len([x for x in range(3) if x]),
    )  # the tag stands on the last line                                    # 1:5
    c = (b + 1)  # 1:6
    return c


def in_place(G: np.ndarray) -> None:
    G[0] = 7.0  # 4:6


def fails(a: int) -> int:
    b = a + 1  # 1:5
    c = b // 0  # 1:6
    return c


def recovers(a: int) -> int:
    try:
        b = a // 0  # 1:5
    except ZeroDivisionError:
        b = 5  # 1:6
    return b


def outer(a: int) -> int:
    b = inner(a) + 1  # 1:8
    return b


def inner(a: int) -> int:
    return a * 2  # 1:5


def expands(xi: np.ndarray) -> Held:
    held = Held(xi, Pair(1, 2.5))  # 1:2
    held = Held(held.xi + 1, held.pair)  # 1:7
    return held


def yields(n: int) -> list[int]:
    def numbers() -> Any:
        for j in range(n):
            yield -j  # 2:9

    return list(numbers())


def undecided(c: bool) -> int:
    a = 1
    if c:  # 2:15
        a = 2  # 2:16
    return a


def cyclic() -> int:
    a: list[Any] = [1]
    a.append(a)  # 1:5
    return 3


def retyped() -> np.ndarray:
    a = np.zeros(2)
    a = np.zeros(2, np.int64)  # 1:5
    return a


class Stepper:
    def __init__(self) -> None:
        self.t = 0

    def step(self, g: float) -> float:
        u = g * 2  # 1:8
        self.t += 1
        return u

    def __call__(self, g: float) -> float:
        return self.step(g)


def lines(run: Trace) -> list[str]:
    return [event.line for event in run.events]


# ---- which lines, when, with what ------------------------------------------------------------------------------------


def test_every_iteration_of_a_loop_is_there() -> None:
    run = trace(loop, 2)
    assert lines(run) == ["2:8", "2:11", "2:8", "2:11", "2:8", "5:6"]
    assert [event.changed for event in run.events] == [("j",), ("made",), ("j",), ("made",), (), ()]
    assert run.result == [0, 1]
    assert run.events[-1].returned
    assert run.events[-1].result == [0, 1]
    assert not any(event.returned for event in run.events[:-1])


def test_an_event_holds_the_locals_after_its_line() -> None:
    first, last = trace(loop, 2).events[1], trace(loop, 2).events[3]
    assert first.variables == {"n": 2, "made": [0], "j": 0}
    assert last.variables == {"n": 2, "made": [0, 1], "j": 1}


def test_an_event_says_where_it_is() -> None:
    event = trace(loop, 1).events[1]
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert (event.file, event.function, event.depth) == ("test_tracing.py", "loop", 0)
    assert event.code == "made.append(j * j)"
    assert event.code in source[event.number - 1]
    assert trace(loop, 1).events[0].note == "j"


def test_a_statement_of_several_lines_is_one_event() -> None:
    run = trace(several_lines, 1)
    assert lines(run) == ["1:5", "1:6"]
    assert run.events[0].variables == {"a": 1, "b": 2}
    assert run.events[0].code.split("\n") == ["b = max(", "a,", "len([x for x in range(3) if x]),", ")"]
    assert run.events[0].note == "the tag stands on the last line"


def test_nested_functions_come_first_and_deeper() -> None:
    run = trace(outer, 3)
    assert [(e.line, e.depth, e.function) for e in run.events] == [("1:5", 1, "inner"), ("1:8", 0, "outer")]
    assert run.events[0].result == 6
    assert run.events[1].variables == {"a": 3, "b": 7}


def test_conditions_and_generators() -> None:
    assert lines(trace(undecided, False)) == ["2:15"]
    assert lines(trace(undecided, True)) == ["2:15", "2:16"]
    run = trace(yields, 3)
    assert [(e.line, e.result) for e in run.events] == [("2:9", 0), ("2:9", -1), ("2:9", -2)]
    assert {e.depth for e in run.events} == {0}


def test_changes_in_place_are_seen_and_copied() -> None:
    G = np.zeros(3)
    run = trace(in_place, G)
    assert run.events[0].changed == ("G",)
    G[:] = -1
    assert run.events[0].variables["G"].tolist() == [7, 0, 0]


def test_a_change_of_dtype_alone_is_seen() -> None:
    event = trace(retyped).events[0]
    assert event.changed == ("a",)
    assert event.variables["a"].dtype == np.int64


def test_a_change_of_sign_of_zero_is_seen_and_nan_is_nan() -> None:
    assert tracing._same(float("nan"), float("nan"))
    assert not tracing._same(0.0, -0.0)


def test_dataclasses_and_named_tuples_become_dicts_and_fields_are_named() -> None:
    run = trace(expands, np.zeros(2, np.float32))
    assert run.events[0].changed == ("held",)
    assert run.events[1].changed == ("held.xi",)
    held = run.events[1].variables["held"]
    assert held["pair"] == {"left": 1, "right": 2.5}
    assert held["xi"].dtype == np.float32
    assert held["xi"].shape == (2,)
    assert run.result["xi"].tolist() == [1, 1]


def closure() -> Callable[[int], int]:
    offset = 4

    def add(a: int) -> int:
        return a + offset  # 1:5

    return add


@pytest.mark.parametrize(
    ("function", "argument", "expected", "result"),
    [
        (Stepper().step, 3.0, ["1:8"], 6.0), (Stepper(), 3.0, ["1:8"], 6.0), (closure(), 1, ["1:5"], 5),
        (functools.partial(outer), 3, ["1:5", "1:8"], 7), (lambda a: inner(a), 3, ["1:5"], 6),
        (abs, -2, [], 2),
    ],
)  # fmt: skip
def test_methods_closures_partials_and_builtins(function: Any, argument: Any, expected: list[str], result: Any) -> None:
    run = trace(function, argument)
    assert lines(run) == expected
    assert run.result == result


def test_a_foreign_file_is_not_traced_but_the_paper_is() -> None:
    def caller() -> Any:
        return sp([[0, 1]], [[1.0, 2.0]], [3.0, 4.0])

    run = trace(caller)
    assert {event.file for event in run.events} == {"paper/algorithm_2.py"}
    assert lines(trace(json.loads, "1")) == []


def test_the_tracer_itself_holds_no_tag() -> None:
    assert printed.tags(Path(tracing.__file__).read_text(encoding="utf-8")) == []


def test_a_list_that_holds_itself_ends() -> None:
    assert lines(trace(cyclic)) == ["1:5"]


# ---- exceptions, other tracers ---------------------------------------------------------------------------------------


def test_exceptions_propagate_and_the_tracer_before_is_restored() -> None:
    def before(frame: FrameType, event: str, argument: Any) -> None:
        return None

    kept = sys.gettrace()
    try:
        sys.settrace(before)
        with pytest.raises(ZeroDivisionError):
            trace(fails, 1)
        assert sys.gettrace() is before
        trace(loop, 1)
        assert sys.gettrace() is before
    finally:
        sys.settrace(kept)


def test_a_line_that_raised_is_no_event() -> None:
    assert lines(trace(recovers, 1)) == ["1:6"]


# ---- the paper -------------------------------------------------------------------------------------------------------


def test_the_kernels_run_every_line_and_give_the_same_result() -> None:
    I, V = np.array([[0, 1, 4], [0, 3, 4]]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    runs: tuple[tuple[str, Callable[..., Any], dict[str, Any]], ...] = (
        ("2", sp_kernel, {"indices": I, "values": V, "g": np.arange(5.0), "T": 4}),
        ("3", lcg_kernel, {"indices": I, "values": V, "c": np.ones(2), "d": 5, "B_d": 4, "B_k": 2, "T": 4}),
    )
    for key, function, arguments in runs:
        run = trace(function, **arguments)
        code = {tag for tag, line in printed.lines().items() if line.key == key and line.kind == "code"}
        assert set(lines(run)) == code
        assert np.array_equal(run.result, function(**arguments))
        source = (Path(tracing.PAPER) / f"algorithm_{key}.py").read_text(encoding="utf-8").splitlines()
        assert all(source[e.number - 1].endswith(f"# {e.line}") and e.code in source[e.number - 1] for e in run.events)


def test_the_accumulator_of_a_lane_is_visible() -> None:
    run = trace(sp_kernel, np.array([[0, 2, 1]]), np.array([[1.0, 2.0, 3.0]]), np.array([10.0, 20.0, 30.0]), T=2)
    sigmas = [event.variables["sigma"].tolist() for event in run.events if event.line == "2:11"]
    assert sigmas == [[10, 60], [70, 60]]
    assert [e.variables["mem"].tolist() for e in run.events if e.line == "2:14"] == [[130, 60]]


# ---- JSON ------------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, 3, -(2**70), 0.1, -0.0, float("nan"), float("inf"), -float("inf"), "é$", [1, [2.5]], {"$a": 1, "b": {}},
    np.zeros((2, 0, 3)), np.array(2.5), np.array([1.1, -0.0, np.nan, np.inf]), np.array([[1, 2]], np.int32),
    np.array([0.1, 5e-324]), np.array([0.1, 1e-45], np.float32), np.array([0.1], np.float16), np.array([True]),
    np.array([0.1, -3], ml_dtypes.bfloat16), np.array([2**64 - 1], np.uint64),
]  # fmt: skip


def returned(value: Any) -> Any:
    a = value  # 1:5
    return a


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_json_round_trip_is_the_same_to_the_byte(value: Any) -> None:
    run = trace(returned, value)
    text = run.to_json()
    back = Trace.from_json(text)
    assert back.to_json() == text
    assert back == run
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    if isinstance(value, np.ndarray):
        assert (back.result.dtype, back.result.shape) == (value.dtype, value.shape)
        assert back.result.tobytes() == value.tobytes()


@given(st.floats(), st.floats(width=32))
def test_floats_are_exact(x: float, y: float) -> None:
    back = Trace.from_json(Trace("f", (), {"x": x, "y": np.array([y], np.float32)}).to_json()).result
    assert np.array(back["x"]).tobytes() == np.array(x).tobytes() or (x != x and back["x"] != back["x"])
    assert np.array_equal(back["y"], np.array([y], np.float32), equal_nan=True)


def test_the_same_run_gives_the_same_bytes() -> None:
    assert demo("sparse_mfac").to_json() == demo("sparse_mfac").to_json()
    assert demo("sparse_mfac", seed=1) != demo("sparse_mfac")
    assert "0x" not in demo("sparse_mfac").to_json()
    assert str(Path(efcp_ref.__file__).parent) not in demo("sparse_mfac").to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "events": []}'])
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Trace.from_json(text)


def test_traces_differ_when_a_bit_differs() -> None:
    assert trace(returned, 0.0) != trace(returned, -0.0)
    assert trace(returned, np.zeros(1)) != trace(returned, np.zeros(1, np.float32))
    assert trace(returned, 1) != 1


def test_plain_values() -> None:
    assert plain(Pair(Fraction(1, 3), (np.float32(0.5), np.int8(3)))) == {"left": "1/3", "right": [0.5, 3]}
    assert plain({1: len, 2: Stepper()}) == {"1": "<len>", "2": "<Stepper>"}
    assert plain(np.array(["a", "b"])) == ["a", "b"]
    assert plain(ml_dtypes.bfloat16(0.5)) == 0.5
    assert type(plain(np.bool_(True))) is bool


# ---- the table, the demonstrations -----------------------------------------------------------------------------------


def test_the_table_says_line_code_and_change() -> None:
    rows = table(trace(outer, 3))
    assert rows == [("1:5", "  return a * 2", "returns 6"), ("1:8", "b = inner(a) + 1", "b = 7")]
    assert table(trace(outer, 3), depth=0) == rows[1:]
    assert table(trace(expands, np.zeros(2)))[1].changed == "held.xi = [1. 1.]"


def test_long_values_are_brief() -> None:
    assert brief(np.arange(100)) == "[0 1 2 ... 97 98 99]"
    assert brief(np.array([0.1], ml_dtypes.bfloat16)) == "[0.1001]"
    assert brief(list(range(9))) == "[0, 1, 2, ... 9 in all]"
    assert brief(1 / 3) == "0.333333"
    assert "\n" not in brief(np.zeros((3, 3)))


@pytest.mark.parametrize("name", contract.NAMES)
def test_every_name_of_the_contract_can_be_shown(name: str) -> None:
    run = demo(name, d=5, steps=2)
    assert run.function == name
    assert Trace.from_json(run.to_json()) == run
    assert all(isinstance(event, Event) and event.line in printed.lines() for event in run.events)
    if name in contract.OPTIMIZERS:
        assert len(run.result) == 2
        assert all(u.shape == (5,) for u in run.result)


@pytest.mark.parametrize("name", contract.NAMES)
def test_a_demonstration_shows_printed_lines(name: str) -> None:
    silent = {"ggt_direction", "sparse_ggt_direction", "low_rank_inner_product"}  # formulas without a line of their own
    assert bool(demo(name).events) == (name not in silent)


def test_a_demonstration_runs_the_reference() -> None:
    run = demo("topk_sgd")
    steps = [event.variables for event in run.events if event.line == "1:5"]
    optimizer = efcp_ref.topk_sgd(d=6, k=2)
    directions = [optimizer.step(at["a"] - at["state"]["xi"]) for at in steps]  # g = a - xi, exact in quarters
    assert [u.tolist() for u in directions] == [u.tolist() for u in run.result]


@pytest.mark.parametrize("arguments", [{"name": "adam"}, {"name": "sp", "d": 3}, {"name": "sp", "steps": 0}])
def test_bad_demonstrations_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name = 'adam'|d = |steps = "):
        demo(**arguments)


# ---- in a notebook ---------------------------------------------------------------------------------------------------


class Cells(HTMLParser):
    """Texts of the cells of a table, row by row; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("name", contract.NAMES)
def test_a_notebook_shows_line_print_code_and_what_changed(name: str) -> None:
    run = demo(name)
    head, *rows = Cells(run._repr_html_()).rows
    assert head == ["paper line", "printed", "code", "what changed"]
    assert len(rows) == min(len(run.events), tracing.MOST_ROWS)
    for cells, row, event in zip(rows, table(run), run.events, strict=False):
        assert [cells[0], cells[2], cells[3]] == [row.line, event.code, row.changed]
        assert cells[1].count("\\(") == cells[1].count("\\)")
        assert printed.lines()[row.line].latex.count("$") == 2 * cells[1].count("\\(")


def test_a_notebook_says_how_much_it_left_out() -> None:
    shown = trace(loop, tracing.MOST_ROWS)._repr_html_()
    assert f"{tracing.MOST_ROWS + 2} more events" in shown
    assert len(Cells(shown).rows) == tracing.MOST_ROWS + 1


def test_a_notebook_escapes_what_it_shows() -> None:
    event = Event("9:9", "f.py", 1, "a = '<b>' & c", "", "<lambda>", 0, {"a": "<i>"}, ("a",))
    shown = Trace("<lambda>", (event,), None)._repr_html_()
    assert Cells(shown).rows[1] == ["9:9", "", "a = '<b>' & c", "a = <i>"]
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "<lambda>" not in shown

"""A Hypothesis strategy per operation and optimizer, for those who write their own properties.

What is drawn obeys the contract: shapes that fit, distinct indices in block order, counts that are beyond doubt,
numbers that float32 represents. It shrinks towards one row, one coordinate, zeros and ones.

>>> from hypothesis import given, settings
>>> @settings(max_examples=20, database=None)
... @given(arguments("sp"))
... def doubling_g_doubles_omega(case):
...     import efcp_ref
...     twice = {**case, "g": 2 * case["g"]}
...     assert (efcp_ref.sp(**twice) == 2 * efcp_ref.sp(**case)).all()
>>> doubling_g_doubles_omega()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from efcp_ref.contract import OPERATIONS, OPTIMIZERS
from efcp_ref.oracle.cases.build import agrees
from efcp_ref.oracle.core import Case
from efcp_ref.oracle.targets import known
from efcp_ref.paper import top_k as paper

Draw = Callable[[st.SearchStrategy[Any]], Any]
Strategy = st.SearchStrategy[dict[str, Any]]
DENSITIES = (1.0, 0.5, 0.25, 0.75, 0.1, 0.05)
POSITIVE = ("lam", "eps", "eta", "gamma")  # numbers greater than 0


def numbers(largest: float = 1e3) -> st.SearchStrategy[float]:
    """Return a strategy of numbers that float32 represents, signed zeros among them, subnormal ones not."""
    return st.floats(-largest, largest, width=32, allow_subnormal=False)


def positive(smallest: float = 2.0**-20, largest: float = 2.0**10) -> st.SearchStrategy[float]:
    """Return a strategy of positive numbers that float32 represents."""
    return st.floats(smallest, largest, width=32)


def arguments(
    operation: str, *, d: int = 24, m: int = 5, steps: int = 6, elements: st.SearchStrategy[float] | None = None
) -> Strategy:
    """Return a strategy of arguments by name, in calling order; an optimizer's hold ``gradients`` (T, d) last.

    Args:
        operation: a name of the contract.
        d, m, steps: largest dimension, window and number of steps.
        elements: strategy of the entries of arrays; default `numbers`.

    Raises:
        UsageError: no such operation.
    """
    known(operation)
    entries = numbers() if elements is None else elements

    @st.composite
    def drawn(draw: Draw) -> dict[str, Any]:
        sizes = _Sizes(draw, d, m, steps)
        if operation in OPTIMIZERS:
            return _optimizer(draw, operation, sizes, entries)
        wanted = OPERATIONS[operation].arguments
        return {a.name: _value(draw, operation, a.name, a.shape, sizes, entries) for a in wanted}

    return drawn()


def cases(operation: str, **settings: Any) -> st.SearchStrategy[Case]:
    """Return a strategy of cases, as `efcp_ref.oracle.judge_case` takes them; the keywords are those of `arguments`."""
    why = "drawn by Hypothesis"
    return arguments(operation, **settings).map(lambda a: Case(operation, "drawn", "hypothesis", 0, 0, a, why=why))


class _Sizes:
    """Sizes that fit each other, each drawn when it is first asked for."""

    def __init__(self, draw: Draw, d: int, m: int, steps: int) -> None:
        self.draw, self.most = draw, {"d": d, "m": m, "T": steps, "p1": 6, "p2": 6, "rho1": 3, "rho2": 3}
        self.drawn: dict[str, Any] = {}

    def __getitem__(self, letter: str) -> int:
        if letter not in self.drawn:
            most = self["d"] if letter == "k" else self.most[letter]
            self.drawn[letter] = self.draw(st.integers(1, most))
        return self.drawn[letter]

    def layout(self) -> tuple[int, float]:
        """Block size and density."""
        if "layout" not in self.drawn:
            d = self["d"]
            pairs = st.tuples(st.integers(1, d), st.sampled_from(DENSITIES))
            self.drawn["layout"] = self.draw(pairs.filter(lambda pair: agrees(d, *pair)))
        return self.drawn["layout"]

    def rows(self) -> np.ndarray:
        """Indices (m, K) in block order."""
        if "rows" not in self.drawn:
            block_size, density = self.layout()
            _, exact, blocks = paper.layout(self["d"], block_size, density)
            self.drawn["rows"] = np.array([self._row(exact, blocks) for _ in range(self["m"])], np.int32)
        return self.drawn["rows"]

    def _row(self, density: Any, blocks: Any) -> list[int]:
        chosen: list[int] = []
        for start, end in blocks:
            count = paper.kept(end - start, density)
            chosen += self.draw(st.permutations(range(start, end)))[:count]
        return chosen

    def tensor(self) -> tuple[int, ...]:
        """Shape of a tensor of two to four dimensions."""
        if "tensor" not in self.drawn:
            self.drawn["tensor"] = tuple(self.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
        return self.drawn["tensor"]


def _array(draw: Draw, shape: tuple[int, ...], entries: st.SearchStrategy[float]) -> np.ndarray:
    return draw(npst.arrays(np.float64, shape, elements=entries))


def _rho(draw: Draw, p1: int, p2: int) -> int:
    return draw(st.integers(1, min(p1, p2, 3)))


def _value(
    draw: Draw, operation: str, name: str, shape: str, sizes: _Sizes, entries: st.SearchStrategy[float]
) -> Any:
    """One argument, by its name; arrays by the letters of their shape."""
    if name in ("d", "k"):
        return sizes[name]
    if name in ("block_size", "density"):
        return sizes.layout()[name == "density"]
    if name == "indices":
        return sizes.rows()
    if name == "cutoff":
        return draw(st.sampled_from([0.0, 2.0**-40, 2.0**-20]))
    if name in POSITIVE:
        return draw(positive())
    if name == "H":
        return _definite(draw, sizes["d"])
    if operation == "power_compress":
        tensor = sizes.tensor()
        p2 = int(np.prod(tensor[1:]))
        return _array(draw, tensor if name == "g" else (p2, _rho(draw, tensor[0], p2)), entries)
    if name == "values":
        return _array(draw, sizes.rows().shape, entries)
    a = _array(draw, tuple(sizes[letter] for letter in shape.strip("(,)").replace(" ", "").split(",")), entries)
    return np.abs(a) if operation == "adagrad_step" and name == "G" else a


def _definite(draw: Draw, d: int) -> np.ndarray:
    """``A A^T + I`` with small integers: exact, and far from singular."""
    A = draw(npst.arrays(np.float64, (d, d), elements=st.integers(-2, 2).map(float)))
    return A @ A.T + np.eye(d)


def _optimizer(draw: Draw, operation: str, sizes: _Sizes, entries: st.SearchStrategy[float]) -> dict[str, Any]:
    """The constructor's parameters and the gradients."""
    found: dict[str, Any] = {}
    for parameter in OPTIMIZERS[operation].parameters:
        name = parameter.name
        if name == "shapes":
            shape = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
            found[name] = draw(st.lists(shape, min_size=1, max_size=3))
        elif name == "rank":
            found[name] = draw(st.integers(1, 2))
        elif name == "Q0":
            found[name] = _starts(draw, found["shapes"], found["rank"], entries)
        elif name == "m":
            found[name] = sizes["m"]
        else:
            found[name] = _value(draw, operation, name, "", sizes, entries)
    d = sum(int(np.prod(shape)) for shape in found["shapes"]) if "shapes" in found else sizes["d"]
    return found | {"gradients": _array(draw, (sizes["T"], d), entries)}


def _starts(
    draw: Draw, shapes: list[tuple[int, ...]], rank: int, entries: st.SearchStrategy[float]
) -> list[np.ndarray]:
    """A starting Q for every tensor of two or more dimensions."""
    sides = [(shape[0], int(np.prod(shape[1:]))) for shape in shapes if len(shape) > 1]
    return [_array(draw, (p2, min(rank, p1, p2)), entries) for p1, p2 in sides]

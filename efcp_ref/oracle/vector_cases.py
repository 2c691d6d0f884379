"""What the vectors are: for every operation a few cases, each with the bug that it shows and what the bug does.

All inputs are integers times powers of two (recorded gradients quantised and committed), drawn from SHA-256, so they
are the same bits with every NumPy on every machine. ``make(operation, seed, number)`` with another seed gives random
small cases of the same kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.data.quantised import quantised_gradients
from efcp_ref.oracle.cases import build
from efcp_ref.oracle.cases.build import Arguments, Array, Shape, Source, integers, nonzero

CUTOFF = 2.0**-40
CLEAR = 2.0**-10  # a cut-off far from a spectrum that may be close to singular
LAYOUT: build.Layout = (24, 8, 0.25)
PARTIAL: build.Layout = (21, 8, 0.25)  # the last block has 5 entries: 2 kept, as in a full one
ONE: build.Layout = (17, 8, 0.25)  # the last block has one entry
SPARSE = ("sp", "lcg", "sparse_mfac_direction", "sparse_ggt_direction")
SOLVES = ("wsm", "mfac_direction", "sparse_mfac_direction")
GGT = ("ggt_direction", "sparse_ggt_direction")


class Dice:
    """Random integers from SHA-256 in counter mode, called as NumPy's generator is where the builders call it.

    >>> Dice("a seed").integers(0, 10, 5)
    array([7, 8, 9, 2, 1])
    """

    def __init__(self, seed: str) -> None:
        """Start a stream of 64-bit words."""
        self._seed, self._count = seed, 0

    def _words(self, n: int) -> list[int]:
        blocks = range(self._count, self._count + -(-n // 4))
        self._count += len(blocks)
        data = b"".join(sha256(f"{self._seed} {i}".encode()).digest() for i in blocks)
        return [int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(n)]

    def integers(self, low: int, high: int, size: Shape | None = None) -> Any:
        """Return integers of low..high - 1."""
        shape = () if size is None else (size,) if isinstance(size, int) else tuple(size)
        drawn = [low + word % (high - low) for word in self._words(prod(shape))]
        return drawn[0] if size is None else np.array(drawn, np.int64).reshape(shape)

    def random(self, size: Shape) -> Array:
        """Return multiples of 2^-53 in 0..1."""
        return np.ldexp(self.integers(0, 2**53, size).astype(np.float64), -53)

    def choice(self, values: Any, size: Shape) -> Array:
        """Return entries of a list."""
        return np.array(values)[self.integers(0, len(values), size)]


@dataclass(frozen=True)
class VectorRecipe:
    """How a vector is made, and why it exists."""

    label: str
    bug: str  # type of bug that it shows
    effect: str  # what that bug does to this case
    make: Callable[[Any], Arguments]  # Dice -> arguments
    family: str = "exact"
    flags: frozenset[str] = frozenset()


# --- samplers: float64 numbers that float32 represents ------------------------------------------------------------


def wide(dice: Any, shape: Shape) -> Array:
    """Integers times 2^-10..2^10, every entry its own power."""
    return np.ldexp(dice.integers(-100, 101, shape).astype(np.float64), dice.integers(-10, 11, shape))


def cancelling(dice: Any, shape: Shape) -> Array:
    """The second half of every row is minus the first half, one unit in 2^20 apart."""
    a = dice.integers(2**19, 2**20, shape).astype(np.float64)
    half = a.shape[-1] // 2
    a[..., half : 2 * half] = -a[..., :half] + dice.integers(-1, 2, a[..., :half].shape)
    return a


def signed_zeros(dice: Any, shape: Shape) -> Array:
    """Half of the entries are 0.0 or -0.0."""
    return dice.choice([0.0, -0.0, 3.0, -5.0], shape)


def negative(dice: Any, shape: Shape) -> Array:
    """Integers below 0."""
    return -abs(nonzero(99)(dice, shape))


def tied(dice: Any, shape: Shape) -> Array:
    """Magnitudes 1 and 2 alone."""
    return dice.choice([1.0, -1.0, 2.0, -2.0], shape)


def recorded(rows: int) -> Array:
    """Return the first recorded gradients (rows, 650)."""
    return quantised_gradients()[:rows].copy()


# --- operations ---------------------------------------------------------------------------------------------------


def built(operation: str, source: Source, power: int = 0, **sizes: Any) -> Callable[[Any], Arguments]:
    """Return the maker of an operation's arguments whose entries are of the size 2^power."""
    if operation in SOLVES:
        sizes = {"lam": 2.0 ** (2 * power + 4), **sizes}
    elif operation in GGT:
        sizes = {"eps": 2.0**power, "cutoff": CUTOFF, **sizes}
    elif operation == "adagrad_step":
        return lambda dice: _adagrad(dice, source, **sizes)
    elif operation == "sign_step":
        sizes = {"gamma": 0.25, **sizes}
    elif operation == "scaled_top_k":
        return lambda dice: _scaled(dice, source, **sizes)
    elif operation == "power_compress":
        return lambda dice: _power(dice, source, **sizes)
    return partial(build.BUILDERS[operation], source=source, **sizes)


def _adagrad(dice: Any, source: Source, d: int = 12, k: int = 4, eta: float = 0.5) -> Arguments:
    theta, xi, g = source(dice, (3, d))
    return {"theta": theta, "xi": xi, "G": build.f32(source(dice, d) ** 2), "g": g, "k": k, "eta": eta}


def _scaled(dice: Any, source: Source, d: int = 6, k: int = 2) -> Arguments:
    A = dice.integers(-2, 3, (d, d)).astype(np.float64)
    return {"v": source(dice, d), "H": A @ A.T + 4 * np.eye(d), "k": k}


def _power(dice: Any, source: Source, shape: tuple[int, ...] = (6, 5), rho: int = 2) -> Arguments:
    return {"g": source(dice, shape), "Q": integers(9)(dice, (prod(shape[1:]), rho))}


def _sizes(operation: str) -> Arguments:
    """Small sizes, the same for every plain case of an operation."""
    if operation in SPARSE:
        return {"layout": LAYOUT, "m": 3}
    if operation in ("block_top_k", "error_feedback"):
        return {"layout": LAYOUT}
    if operation in ("wsm", "mfac_direction", "ggt_direction"):
        return {"m": 3, "d": 12}
    if operation == "top_k":
        return {"d": 16, "k": 4}
    if operation == "sign_step":
        return {"d": 16}
    return {"sizes": (4, 3, 2, 1)} if operation == "low_rank_inner_product" else {}


def changed(make: Callable[[Any], Arguments], **fixed: Callable[[Arguments], Any]) -> Callable[[Any], Arguments]:
    """Return a maker whose named arguments are computed from those drawn."""

    def made(dice: Any) -> Arguments:
        arguments = make(dice)
        return {**arguments, **{name: change(arguments) for name, change in fixed.items()}}

    return made


def _common(operation: str) -> Iterator[VectorRecipe]:
    sizes = _sizes(operation)
    whole = "a dropped, doubled or misplaced entry"
    plain, small = built(operation, nonzero(9), **sizes), built(operation, nonzero(99, -40), -40, **sizes)
    yield VectorRecipe("small integers", whole, "the result is off by a whole unit", plain)
    yield VectorRecipe(
        "integers times 2^-40", "an absolute constant beside the data", "it hides or replaces the data", small
    )
    yield VectorRecipe(
        "every entry its own power of two", "the wrong index for a value", "the result is off by powers of two",
        built(operation, wide, **sizes), "generic",
    )  # fmt: skip
    if operation not in GGT and operation != "scaled_top_k":
        yield VectorRecipe(
            "nearly cancelling", "sums in too short a format", "most digits of the result are wrong",
            built(operation, cancelling, 20, **sizes), "generic",
        )  # fmt: skip


def _selections(operation: str) -> Iterator[VectorRecipe]:
    layouts = operation != "top_k"
    every: Arguments = {"layout": (12, 4, 1.0)} if layouts else {"d": 12, "k": 12}
    few: Arguments = {"layout": (12, 12, 0.0625)} if layouts else {"d": 12, "k": 1}
    yield VectorRecipe("ties at the cut", "a tie kept twice or not at all", "too many or too few entries (R12)",
                       built(operation, tied, **_sizes(operation)), "adversarial")  # fmt: skip
    yield VectorRecipe("everything kept", "k = d", "an entry is left out, or the error is not zero",
                       built(operation, nonzero(9), **every), "adversarial")  # fmt: skip
    yield VectorRecipe("one entry kept", "Top-k of values instead of magnitudes", "a negative entry loses",
                       built(operation, negative, **few), "adversarial")  # fmt: skip
    yield VectorRecipe("signed zeros", "-0.0 taken as smaller than 0.0", "zeros are kept before numbers",
                       built(operation, signed_zeros, **_sizes(operation)), "adversarial")  # fmt: skip


def _layouts(operation: str) -> Iterator[VectorRecipe]:
    more: Arguments = {"m": 2} if operation in SPARSE else {}
    for label, effect, layout in (
        ("partial last block", "the last block holds the wrong number of entries", PARTIAL),
        ("last block of one entry", "the last block is left out", ONE),
    ):
        yield VectorRecipe(label, "the count of a block (R11)", effect,
                           built(operation, nonzero(9), layout=layout, **more), "adversarial")  # fmt: skip


def _windows(operation: str) -> Iterator[VectorRecipe]:
    """Windows with one row, an empty row, or all rows empty."""
    sizes = _sizes(operation)
    rows = "values" if operation in SPARSE else "G"
    one = built(operation, nonzero(9), **{**sizes, "m": 1})
    yield VectorRecipe("one row", "m = 1", "a loop over pairs of rows does nothing", one, "adversarial")

    def half(arguments: Arguments) -> Any:
        a = arguments[rows].copy()
        a[-1] = 0
        return a

    plain = built(operation, nonzero(9), **sizes)
    fixed: dict[str, Callable[[Arguments], Any]] = {rows: half}
    if operation in SPARSE:
        fixed["indices"] = _first_positions
    yield VectorRecipe("an empty row", "division by the rows stored (R4)", "the damping is too small",
                       changed(plain, **fixed), "adversarial")  # fmt: skip
    fixed = {rows: lambda arguments: np.zeros_like(arguments[rows])}
    if operation in SPARSE:
        fixed["indices"] = lambda arguments: build.first_positions(len(arguments["values"]), LAYOUT)
    yield VectorRecipe("an empty window", "0 / 0 before anything is known", "NaN",
                       changed(plain, **fixed), "adversarial")  # fmt: skip


def _first_positions(arguments: Arguments) -> Any:
    indices = arguments["indices"].copy()
    indices[-1] = build.first_positions(1, LAYOUT)[0]
    return indices


def _damping(operation: str) -> Iterator[VectorRecipe]:
    name, sizes = ("lam" if operation in SOLVES else "eps"), _sizes(operation)
    yield VectorRecipe("damping 2^-8", "the damping on the wrong side", "x / lam - c G cancels",
                       built(operation, nonzero(9), **{**sizes, name: 2.0**-8}), "adversarial")  # fmt: skip
    rows = "G" if "d" in sizes else "values"
    if operation in SOLVES:
        twice = changed(
            built(operation, nonzero(9), **sizes),
            **{rows: lambda a: np.repeat(a[rows][:1], 3, 0)},
            **({} if rows == "G" else {"indices": lambda a: np.repeat(a["indices"][:1], 3, 0)}),
        )
        yield VectorRecipe("equal rows", "S is singular without the damping", "the solve breaks down", twice,
                           "adversarial")  # fmt: skip


def _elementwise(operation: str) -> Iterator[VectorRecipe]:
    zero = changed(built(operation, nonzero(9)), g=lambda a: np.zeros_like(a["g"]))
    yield VectorRecipe("zero gradient", "the error is not sent", "a step is skipped", zero, "adversarial")
    if operation == "adagrad_step":
        none = changed(zero, xi=lambda a: np.zeros_like(a["g"]), G=lambda a: np.zeros_like(a["g"]))
        yield VectorRecipe("nothing yet", "0 / 0 in c / sqrt(G) (R29)", "NaN", none, "adversarial")
        for k in (0, 12):
            yield VectorRecipe(f"k = {k}", "the ends of k", "one entry too many or too few",
                               built(operation, nonzero(9), k=k), "adversarial")  # fmt: skip
    else:
        for d in (1, 7):
            yield VectorRecipe(f"d = {d}", "a mean over another number than d", "the scale is wrong",
                               built(operation, nonzero(9), d=d), "adversarial")  # fmt: skip
        yield VectorRecipe("signed zeros", "sign(0) taken as 1 (R34)", "coordinates move that must not",
                           built(operation, signed_zeros, d=16), "adversarial")  # fmt: skip


def _low_rank(operation: str) -> Iterator[VectorRecipe]:
    if operation == "low_rank_inner_product":
        for sizes in ((1, 1, 1, 1), (5, 2, 1, 2), (2, 7, 3, 3)):
            yield VectorRecipe(f"p1, p2, rho1, rho2 = {sizes}", "ranks or sides exchanged", "wrong shapes or sums",
                               built(operation, nonzero(9), sizes=sizes), "adversarial")  # fmt: skip
        return
    for shape, rho in (((4, 3, 2), 2), ((3, 11), 3), ((7, 2), 1), ((2, 2, 2, 2), 2)):
        yield VectorRecipe(f"tensor {shape}, rank {rho}", "unfolding in another order", "rows of g~ are mixed",
                           built(operation, nonzero(9), shape=shape, rho=rho), "adversarial")  # fmt: skip
    zero = changed(built(operation, nonzero(9)), g=lambda a: np.zeros_like(a["g"]))
    yield VectorRecipe("zero gradient", "normalisation by zero (R25)", "NaN for ever", zero, "adversarial")


def _scaled_cases(operation: str) -> Iterator[VectorRecipe]:
    plain = built(operation, nonzero(9))
    yield VectorRecipe("H = I", "the root of the wrong matrix", "another selection than Top-k",
                       changed(plain, H=lambda a: np.eye(len(a["v"]))), "adversarial")  # fmt: skip
    for k in (0, 1, 6):
        yield VectorRecipe(f"k = {k}", "the ends of k", "one entry too many or too few",
                           built(operation, nonzero(9), k=k), "adversarial")  # fmt: skip


# --- recorded gradients -------------------------------------------------------------------------------------------

REAL_LAYOUT: build.Layout = (650, 128, 0.05)


def _real(operation: str) -> Arguments:
    """The arguments of an operation on recorded gradients."""
    g, tail = recorded(8), build.tail(REAL_LAYOUT)
    indices, values = build.compressed(g[:4], REAL_LAYOUT)
    rows: Arguments = {"indices": indices, "values": values}
    M = g[:2, :640].reshape(2, 64, 10)
    Q = np.arange(20, dtype=np.float64).reshape(10, 2) % 7 - 3
    damping = 2.0**-10
    made: dict[str, Callable[[], Arguments]] = {
        "top_k": lambda: {"a": g[0], "k": 33}, "block_top_k": lambda: {"a": g[0], **tail},
        "error_feedback": lambda: {"xi": g[0], "g": g[1], **tail},
        "sp": lambda: {**rows, "g": g[4], **tail},
        "lcg": lambda: {**rows, "c": np.array([1.0, -2.0, 0.5, 3.0]), "d": 650, **tail},
        "wsm": lambda: {"G": g[:3, 30:54].copy(), "lam": damping, "x": g[3, 30:54].copy()},
        "mfac_direction": lambda: {"G": g[:4], "lam": damping, "x": g[4]},
        "sparse_mfac_direction": lambda: {**rows, "d": 650, "lam": damping, "x": g[4], **tail},
        "ggt_direction": lambda: {"G": g[:4], "x": g[4], "eps": 2.0**-6, "cutoff": CUTOFF},
        "sparse_ggt_direction": lambda: {
            **rows, "d": 650, "x": g[4], "eps": 2.0**-6, "cutoff": CUTOFF, **tail,
        },
        "power_compress": lambda: {"g": M[0].copy(), "Q": Q},
        "low_rank_inner_product": lambda: {"P1": M[0][:, :2].copy(), "Q1": Q, "P2": M[1][:, :2].copy(), "Q2": Q},
        "adagrad_step": lambda: {
            "theta": np.zeros(650), "xi": g[0], "G": build.f32(g[1] ** 2), "g": g[2], "k": 33, "eta": 0.125,
        },
        "sign_step": lambda: {"x": np.zeros(650), "e": g[0], "g": g[1], "gamma": 0.125},
        "scaled_top_k": lambda: {
            "v": g[0, 34:42].copy(), "H": build.f32(g[:, 34:42].T @ g[:, 34:42] + 2.0**-6 * np.eye(8)), "k": 3,
        },
    }  # fmt: skip
    return made[operation]()


# --- optimizers ---------------------------------------------------------------------------------------------------

SHAPES = [(4, 3), (5,), (2, 3, 2)]


def _run(name: str, source: Source, T: int = 5, **given: Any) -> Callable[[Any], Arguments]:
    """Return the maker of a run of T steps."""
    shapes = given.get("shapes", SHAPES)
    sizes = [(shape[0], prod(shape[1:])) for shape in shapes if len(shape) > 1]

    def make(dice: Any) -> Arguments:
        rank = given.get("rank", 1)
        starts = [nonzero(5)(dice, (p2, min(rank, p1, p2))) for p1, p2 in sizes]
        drawn = {"d": 12, "k": 3, "m": 3, "lam": 16.0, "block_size": 5, "density": 0.25, "eps": 1.0, "cutoff": CLEAR,
                 "gamma": 0.25, "shapes": shapes, "rank": rank, "Q0": starts}  # fmt: skip
        arguments = {a.name: given.get(a.name, drawn[a.name]) for a in OPTIMIZERS[name].parameters}
        d = sum(map(prod, shapes)) if name == "low_rank_mfac" else arguments["d"]
        return {**arguments, "gradients": source(dice, (T, d))}

    return make


def _optimizer(name: str) -> Iterator[VectorRecipe]:
    order, full = "rows in the wrong order, or the ring one short", "the first step after the window is full is wrong"
    yield VectorRecipe("small integers", order, full, _run(name, nonzero(9)))
    tiny: Arguments = {"lam": 2.0**-60, "eps": 2.0**-32}
    yield VectorRecipe("integers times 2^-32", "an absolute constant beside the data", "it hides the data",
                       _run(name, nonzero(9, -32), **tiny))  # fmt: skip

    def gaps(dice: Any, shape: Shape) -> Array:
        g = nonzero(9)(dice, shape)
        g[0], g[3] = 0, 0
        return g

    if name != "low_rank_mfac":
        yield VectorRecipe("zero gradients", "a step skipped, or 0 / 0", "the error is not sent, or NaN",
                           _run(name, gaps), "adversarial")  # fmt: skip
    yield VectorRecipe("one row, one entry", "m = 1 and k = 1", "loops that run one time less",
                       _run(name, nonzero(9), m=1, k=1, shapes=[(3, 2)]), "adversarial")  # fmt: skip
    real: Arguments = {"d": 650, "k": 33, "m": 3, "lam": 2.0**-10, "eps": 2.0**-6, "block_size": 128, "density": 0.05,
                       "shapes": [(64, 10), (10,)], "rank": 2}  # fmt: skip
    yield VectorRecipe("softmax regression on the digits", "anything that small data hides", REAL_EFFECT,
                       _run(name, lambda dice, shape: recorded(4), T=4, **real), "real")  # fmt: skip


REAL_EFFECT = "what training gives: zeros, near-parallel rows, magnitudes over many decades"


# --- all of them --------------------------------------------------------------------------------------------------


def recipes(operation: str) -> tuple[VectorRecipe, ...]:
    """Return the recipes of one operation or optimizer, in the order of their numbers.

    >>> [recipe.label for recipe in recipes("sp")][:3]
    ['small integers', 'integers times 2^-40', 'every entry its own power of two']
    """
    if operation in OPTIMIZERS:
        return tuple(_optimizer(operation))
    found = list(_common(operation))
    if operation in ("top_k", "block_top_k", "error_feedback"):
        found += _selections(operation)
    if operation in SPARSE or operation in ("block_top_k", "error_feedback"):
        found += _layouts(operation)
    if operation in SPARSE + SOLVES + GGT:
        found += _windows(operation)
    if operation in SOLVES + GGT:
        found += _damping(operation)
    if operation in ("adagrad_step", "sign_step"):
        found += _elementwise(operation)
    if operation in ("power_compress", "low_rank_inner_product"):
        found += _low_rank(operation)
    if operation == "scaled_top_k":
        found += _scaled_cases(operation)
    real = VectorRecipe("softmax regression on the digits", "anything that small data hides", REAL_EFFECT,
                        lambda dice: _real(operation), "real")  # fmt: skip
    return (*found, real)


def make(operation: str, seed: int, number: int) -> Arguments:
    """Return the arguments of one vector.

    >>> make("top_k", 0, 0)["k"]
    4
    """
    return recipes(operation)[number].make(Dice(f"efcp vectors 1 {operation} {seed} {number}"))

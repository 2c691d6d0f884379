"""Corners: one recipe for each way in which real code has been wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from efcp_ref.contract import OPERATIONS
from efcp_ref.oracle.cases import build
from efcp_ref.oracle.cases.build import BUILDERS, Arguments, Layout, Make, Recipe, Rng, Source, f32, normal, scalar


def _recipe(label: str, why: str, make: Make, *flags: str) -> Recipe:
    return Recipe("adversarial", label, why, make, frozenset(flags))


def with_(make: Make, change: Callable[[Rng, Arguments], Arguments]) -> Make:
    """Return the maker followed by a change of some arguments."""

    def changed(rng: Rng) -> Arguments:
        arguments = make(rng)
        return {**arguments, **change(rng, arguments)}

    return changed


def given(operation: str, source: Source = normal, **sizes: Any) -> Make:
    """Return the operation's builder with fixed sizes."""
    return partial(BUILDERS[operation], source=source, **sizes)


# ---- samplers ---------------------------------------------------------------------------------------------------


def tied(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Three magnitudes with random signs: many ties wherever the cut falls."""
    return rng.choice([1.0, 2.0, 3.0], shape) * rng.choice([-1.0, 1.0], shape)


def equal(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Equal magnitudes, random signs."""
    return rng.choice([-1.0, 1.0], shape)


def negative(rng: Rng, shape: build.Shape) -> np.ndarray:
    """The large magnitudes are negative, the positive entries small."""
    a = rng.standard_normal(shape)
    return f32(np.where(a < 0, a - 3, a / 10))


def neighbours(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Neighbouring float32 numbers around 1, either sign: comparing in lower precision makes false ties."""
    return (1 + rng.permutation(int(np.prod(shape))).reshape(shape) * 2.0**-23) * rng.choice([-1.0, 1.0], shape)


def subnormal(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Subnormal float32 numbers."""
    return rng.integers(-400, 401, shape) * 2.0**-149


def some_subnormal(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Normal numbers and subnormal ones."""
    return np.where(rng.random(shape) < 0.5, subnormal(rng, shape), normal(rng, shape))


def signed_zeros(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Half of the entries +0 or -0."""
    zeros = np.copysign(0.0, rng.choice([-1.0, 1.0], shape))
    return np.where(rng.random(shape) < 0.5, zeros, normal(rng, shape))


def zeros(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Nothing but zeros."""
    return np.zeros(shape)


def bfloat16(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Normal numbers stored in bfloat16."""
    import ml_dtypes

    return normal(rng, shape).astype(ml_dtypes.bfloat16)


# ---- shared groups ----------------------------------------------------------------------------------------------


def common(operation: str, **sizes: Any) -> list[Recipe]:
    """Return what any operation with real vectors must bear: layout in memory, signed zeros."""
    return [
        _recipe(
            "read-only arrays",
            "in-place mutation of an input: raises here, corrupts the caller elsewhere",
            given(operation, **sizes),
            "readonly",
        ),
        _recipe(
            "non-contiguous arrays",
            "reading raw memory with the wrong stride: neighbours' values",
            given(operation, **sizes),
            "strided",
        ),
        _recipe("signed zeros", "-0.0 taken as a kept or negative entry", given(operation, signed_zeros, **sizes)),
    ]


BLOCK_SIZES = (41_728, 32_768, 32_769, 32_767)


def far_positions(rng: Rng, m: int, layout: Layout) -> np.ndarray:
    """Return indices (m, K) of a full block and a short one; every row holds the full one's last four."""
    d, B, density = layout
    full, short = (build.paper.kept(size, build.Fraction(str(density))) for size in (B, d - B))
    near = [np.sort(rng.choice(B - 4, full - 4, replace=False)) for _ in range(m)]
    far = [B + np.sort(rng.choice(d - B, short, replace=False)) for _ in range(m)]
    end = np.arange(B - 4, B)
    return np.stack([np.concatenate([n, end, f]) for n, f in zip(near, far, strict=True)]).astype(np.int32)


def beyond(operation: str, B: int) -> Make:
    """Return a maker with one block of B entries and a short second one; the last entries of the block are kept."""
    layout: Layout = (B + 60, B, 2.0**-10)
    sparse = operation in ("sp", "lcg", "sparse_mfac_direction", "sparse_ggt_direction")

    def keep_last(rng: Rng, arguments: Arguments) -> Arguments:
        if sparse:
            return {"indices": far_positions(rng, 2, layout)}
        name = "a" if "a" in arguments else "g"
        a = arguments[name].copy()
        a[B - 4 : B] *= 64
        return {name: a}

    rows: Arguments = {"m": 2} if sparse else {}
    return with_(given(operation, layout=layout, **rows), keep_last)


def big_blocks(operation: str) -> list[Recipe]:
    """Return blocks around the ends of int16 and the paper's A100 block."""
    why = "block-relative positions in int16 wrap: entries past 32767 land 65536 lower"
    return [_recipe(f"block of {B}", why, beyond(operation, B), "large") for B in BLOCK_SIZES]


PARTIAL: Layout = (23, 10, 0.3)  # 3 + 3 + 1 kept


def layouts(operation: str) -> list[Recipe]:
    """Return the corners of the block layout, the most telling four first."""
    short = "the last block counted with the full block's k, or left out: wrong length, entries lost"
    much = "ceil(density * size) in floating point: one entry too many"
    every = "k = block size: a loop that assumes dropped entries"
    corners: list[tuple[str, str, Layout]] = [
        ("partial last block", short, PARTIAL),
        ("density 1", every, (12, 5, 1.0)),
        ("density 0.29", "int(0.29 * 100) is 28: an entry lost", (100, 100, 0.29)),
        ("density 0.07", much, (100, 100, 0.07)),  # 7.000000000000001
        ("last block of one entry", short, (17, 8, 0.25)),
        ("blocks of one entry", every, (7, 1, 0.5)),
        ("one block", "block_size = d", (40, 40, 0.125)),
        ("density 0.14", much, (300, 100, 0.14)),  # 14.000000000000002
    ]
    return [
        _recipe(label, why, given(operation, layout=layout), *(() if build.agrees(*layout) else ("density",)))
        for label, why, layout in corners
    ]


def underflow(operation: str, **sizes: Any) -> list[Recipe]:
    """Return subnormal data."""
    why = "flush to zero: entries or products below 2^-126 vanish"
    return [
        _recipe("subnormal entries", why, given(operation, some_subnormal, **sizes), "subnormal"),
        _recipe("only subnormal entries", why, given(operation, subnormal, **sizes), "subnormal"),
    ]


# ---- Top-k ------------------------------------------------------------------------------------------------------


def _special(value: float, operation: str, **sizes: Any) -> Make:
    def place(rng: Rng, arguments: Arguments) -> Arguments:
        a = arguments["a"].copy()
        a[rng.choice(len(a), 2, replace=False)] = value, -value
        return {"a": a}

    return with_(given(operation, **sizes), place)


def selections(operation: str) -> list[Recipe]:
    """Return ties, signs and special values for the two selections."""
    cut = {"d": 40, "k": 13} if operation == "top_k" else {"layout": (48, 16, 0.25)}
    nan = "NaN compares false with everything: a sort loses its order and entries"
    return [
        _recipe(
            "ties at the cut", "ties kept on both sides: too many or doubled entries", given(operation, tied, **cut)
        ),
        _recipe(
            "large negatives",
            "Top-k of a instead of |a|: the largest magnitudes are lost",
            given(operation, negative, **cut),
        ),
        _recipe("all equal", "a threshold keeps all or none", given(operation, equal, **cut)),
        _recipe(
            "all zero",
            "a threshold of 0 keeps everything, or distinct positions are missing",
            given(operation, zeros, **cut),
        ),
        _recipe(
            "neighbouring magnitudes", "magnitudes compared in lower precision", given(operation, neighbours, **cut)
        ),
        _recipe("NaN", nan, _special(np.nan, operation, **cut), "nan"),
        _recipe("infinity", "inf - inf in a threshold search", _special(np.inf, operation, **cut), "nan"),
        *underflow(operation, **cut),
    ]


def _top_k() -> list[Recipe]:
    return [
        *selections("top_k"),
        _recipe("k = 0", "an empty selection: a slice of -0 keeps everything", given("top_k", d=9, k=0)),
        _recipe("k = d", "everything is kept: a partition index out of range", given("top_k", d=9, k=9)),
        _recipe("one entry", "d = 1: the result loses its dimension", given("top_k", d=1, k=1)),
        _recipe("k = d - 1", "one entry dropped: off by one", given("top_k", d=17, k=16)),
        _recipe("d = 41788", "positions in int16 wrap", given("top_k", d=41_788, k=41), "large"),
        *common("top_k", d=30, k=7),
    ]


def _one_block_rules(rng: Rng, arguments: Arguments) -> Arguments:
    a = arguments["a"].copy()
    a[:16] *= 1000
    return {"a": f32(a)}


def _block_top_k() -> list[Recipe]:
    why = "one global Top-k: the other blocks lose their entries"
    dominated = with_(given("block_top_k", layout=(48, 16, 0.25)), _one_block_rules)
    wide = _recipe("block larger than the vector", "k of the nominal block: too many entries",
                   given("block_top_k", layout=(20, 64, 0.25)))  # fmt: skip
    return [
        *selections("block_top_k")[:2],
        _recipe("one block rules", why, dominated),
        *big_blocks("block_top_k"),
        *layouts("block_top_k"),
        *selections("block_top_k")[2:],
        *common("block_top_k"),
        wide,
    ]


# ---- error feedback and the other elementwise steps ---------------------------------------------------------------


def _zero(*names: str) -> Callable[[Rng, Arguments], Arguments]:
    return lambda rng, arguments: {n: np.zeros_like(arguments[n]) for n in names}


def _opposite(rng: Rng, arguments: Arguments) -> Arguments:
    return {"xi": -arguments["g"]}


def _tied_sum(rng: Rng, arguments: Arguments) -> Arguments:
    g = arguments["g"]
    return {"xi": rng.choice([1.0, 2.0], g.shape) * rng.choice([-1.0, 1.0], g.shape) - g}


def _halfway(rng: Rng, arguments: Arguments) -> Arguments:
    """1 + 2^-24 (2 n + 1): the sum lies between two float32 numbers."""
    d = len(arguments["g"])
    return {"xi": np.full(d, 1.0), "g": (2 * rng.integers(1, 99, d) + 1) * 2.0**-24}


def _error_feedback() -> list[Recipe]:
    made = given("error_feedback", layout=(48, 16, 0.25))
    dyadic = given("error_feedback", build.integers(8), layout=(48, 16, 0.25))
    return [
        _recipe(
            "large error",
            "the error is forgotten: selection by g alone",
            with_(made, lambda rng, a: {"xi": f32(50 * a["xi"])}),
        ),
        _recipe("ties at the cut", "the tie is kept twice: in c and in the error", with_(dyadic, _tied_sum)),
        _recipe(
            "large negatives", "Top-k of a instead of |a|", given("error_feedback", negative, layout=(48, 16, 0.25))
        ),
        *big_blocks("error_feedback")[:1],
        _recipe("zero gradient", "a shortcut for g = 0 keeps or drops the whole error", with_(made, _zero("g"))),
        _recipe("zero error", "the first step", with_(made, _zero("xi"))),
        _recipe("zero error and gradient", "an empty selection", with_(made, _zero("xi", "g"))),
        *big_blocks("error_feedback")[1:],
        _recipe("error = -gradient", "the sum is zero everywhere", with_(made, _opposite)),
        _recipe(
            "sums between two numbers",
            "the error taken from the unrounded sum: sum c + xi = sum g breaks",
            with_(made, _halfway),
        ),
        *layouts("error_feedback"),
        *underflow("error_feedback", layout=(48, 16, 0.25)),
        *common("error_feedback"),
    ]


def _small_squares(rng: Rng, arguments: Arguments) -> Arguments:
    return {n: f32(1e-21 * arguments[n]) for n in ("xi", "g")}


def _adagrad_step() -> list[Recipe]:
    made = given("adagrad_step", d=24, k=6)
    return [
        _recipe("no squares yet", "0 / 0 at coordinates with G = 0: NaN for ever (R29)", with_(made, _zero("G", "xi"))),
        _recipe(
            "large error",
            "no error feedback: the error is forgotten",
            with_(made, lambda rng, a: {"xi": f32(50 * a["xi"])}),
        ),
        _recipe("zero gradient and error", "0 / 0 everywhere", with_(made, _zero("G", "xi", "g"))),
        _recipe(
            "ties at the cut", "ties kept twice", with_(given("adagrad_step", build.integers(8), d=24, k=6), _tied_sum)
        ),
        _recipe("k = d", "full AdaGrad: nothing is left in the error", given("adagrad_step", d=24, k=24)),
        _recipe("k = 1", "one coordinate moves, the others stay exactly", given("adagrad_step", d=24, k=1)),
        _recipe("one coordinate", "d = 1: a scalar in place of a vector", given("adagrad_step", d=1, k=1)),
        _recipe("large negatives", "Top-k of a instead of |a|", given("adagrad_step", negative, d=24, k=6)),
        _recipe(
            "squares that underflow",
            "c^2 < 2^-126: G stays 0 and the step is infinite",
            with_(made, lambda rng, a: {**_small_squares(rng, a), "G": np.zeros(24)}),
            "subnormal",
        ),
        _recipe("zero gradient", "the error alone is sent", with_(made, _zero("g"))),
        *underflow("adagrad_step", d=24, k=6)[:1],
        *common("adagrad_step", d=24, k=6),
    ]


def _sign_zeros(rng: Rng, arguments: Arguments) -> Arguments:
    idle = rng.random(len(arguments["g"])) < 0.5
    return {n: np.where(idle, 0.0, arguments[n]) for n in ("e", "g")}


def _sign_step() -> list[Recipe]:
    made = given("sign_step", d=24)
    return [
        _recipe("zeros in p", "sign(0) = 1: coordinates at rest move (R34)", with_(made, _sign_zeros)),
        _recipe("large error", "no error feedback", with_(made, lambda rng, a: {"e": f32(50 * a["e"])})),
        _recipe(
            "one large entry",
            "the norm is |p|_2 or max |p| in place of |p|_1 / d",
            with_(made, lambda rng, a: {"g": np.concatenate([[4096.0], a["g"][1:]])}),
        ),
        _recipe("one coordinate", "d = 1", given("sign_step", d=1)),
        _recipe("zero gradient", "the error alone decides", with_(made, _zero("g"))),
        _recipe("zero gradient and error", "s = 0: 0 / 0", with_(made, _zero("g", "e"))),
        _recipe("d = 1000", "a mean over the wrong length", given("sign_step", d=1000)),
        _recipe("rate 1e3", "feedback of g in place of gamma g (R10)", given("sign_step", d=24, gamma=1e3)),
        _recipe("rate 1e-7", "feedback of g in place of gamma g (R10)", given("sign_step", d=24, gamma=1e-7)),
        *underflow("sign_step", d=24)[:1],
        *common("sign_step", d=24),
    ]


# ---- sparse products ----------------------------------------------------------------------------------------------


def _half_filled(make: Make) -> Make:
    """Return the maker with the window's second half empty."""

    def empty(rng: Rng, arguments: Arguments) -> Arguments:
        if "G" in arguments:
            G = arguments["G"].copy()
            G[(len(G) + 1) // 2 :] = 0
            return {"G": G}
        indices, values = arguments["indices"].copy(), arguments["values"].copy()
        d = arguments["d"] if "d" in arguments else len(arguments["g"])
        layout = (d, arguments["block_size"], arguments["density"])
        half = (len(values) + 1) // 2
        indices[half:], values[half:] = build.first_positions(len(values) - half, layout), 0
        return {"indices": indices, "values": values}

    return with_(make, empty)


def _empty(rng: Rng, arguments: Arguments) -> Arguments:
    """Empty every row."""
    if "G" in arguments:
        return {"G": np.zeros_like(arguments["G"])}
    d = arguments["d"] if "d" in arguments else len(arguments["g"])
    layout = (d, arguments["block_size"], arguments["density"])
    return {
        "indices": build.first_positions(len(arguments["values"]), layout),
        "values": np.zeros_like(arguments["values"]),
    }


def _same_positions(rng: Rng, arguments: Arguments) -> Arguments:
    return {"indices": np.repeat(arguments["indices"][:1], len(arguments["indices"]), axis=0)}


def _disordered(rng: Rng, arguments: Arguments) -> Arguments:
    """Shuffle the order inside every block, which the contract leaves free."""
    indices = arguments["indices"].copy()
    for row in indices:
        block = row // arguments["block_size"]
        row[:] = row[np.lexsort((rng.random(len(row)), block))]
    return {"indices": indices}


def sparse(operation: str) -> list[Recipe]:
    """Return the corners of sparse rows."""
    medium: Layout = (50, 16, 0.25)
    return [
        _recipe(
            "half-filled window",
            "empty rows read as garbage, or divided by",
            _half_filled(given(operation, layout=medium, m=6)),
        ),
        _recipe(
            "rows at the same positions",
            "a race on one coordinate: additions are lost",
            with_(given(operation, layout=medium, m=5), _same_positions),
        ),
        _recipe(
            "order inside a block is free",
            "binary search or merging that needs ascending positions",
            with_(given(operation, layout=medium, m=3), _disordered),
        ),
        _recipe("one row", "m = 1: the result loses its dimension", given(operation, layout=medium, m=1)),
        _recipe("empty window", "no row is filled yet", with_(given(operation, layout=medium, m=3), _empty)),
        _recipe(
            "bfloat16 values",
            "values taken before they were rounded for storage, or summed in bfloat16",
            given(operation, bfloat16_values, layout=medium, m=4),
            "bf16",
        ),
    ]


def stored(operation: str) -> list[Recipe]:
    """Return the corners of sparse rows that the dense solves do not have."""
    labels = ("rows at the same positions", "order inside a block is free", "bfloat16 values")
    return [recipe for recipe in sparse(operation) if recipe.label in labels]


def bfloat16_values(rng: Rng, shape: build.Shape) -> np.ndarray:
    """Bfloat16 for the stored (two-dimensional) values, float32 for vectors."""
    stored = isinstance(shape, tuple) and len(shape) == 2
    return bfloat16(rng, shape) if stored else normal(rng, shape)


def _sp() -> list[Recipe]:
    medium: Layout = (50, 16, 0.25)
    return [
        *sparse("sp")[:1],
        *big_blocks("sp")[:1],
        *sparse("sp")[1:3],
        *layouts("sp")[:1],
        *sparse("sp")[3:],
        *big_blocks("sp")[1:],
        _recipe("zero gradient", "a product with nothing", with_(given("sp", layout=medium), _zero("g"))),
        *layouts("sp")[1:],
        *underflow("sp", layout=medium),
        *common("sp", layout=medium),
    ]


def _lcg() -> list[Recipe]:
    medium: Layout = (50, 16, 0.25)
    return [
        *sparse("lcg")[:1],
        *big_blocks("lcg")[:1],
        *sparse("lcg")[1:3],
        *layouts("lcg")[:1],
        *sparse("lcg")[3:],
        *big_blocks("lcg")[1:],
        _recipe(
            "zero coefficients", "rows skipped or read out of turn", with_(given("lcg", layout=medium), _zero("c"))
        ),
        _recipe(
            "many rows", "m = 40: a loop over rows that ends with the workload (R20)", given("lcg", layout=medium, m=40)
        ),
        *layouts("lcg")[1:],
        *underflow("lcg", layout=medium),
        *common("lcg", layout=medium),
    ]


# ---- solves -------------------------------------------------------------------------------------------------------


def _rows(arguments: Arguments) -> tuple[str, np.ndarray]:
    name = "G" if "G" in arguments else "values"
    return name, arguments[name]


STORED = ("G", "indices", "values")


def _graded(rng: Rng, arguments: Arguments) -> Arguments:
    name, rows = _rows(arguments)
    return {name: f32(rows * 10.0 ** np.linspace(-4, 4, len(rows))[rng.permutation(len(rows)), None])}


def _duplicate(rng: Rng, arguments: Arguments) -> Arguments:
    """Make the last row a copy of the first."""
    return {n: np.concatenate([arguments[n][:-1], arguments[n][:1]]) for n in STORED if n in arguments}


def _parallel(rng: Rng, arguments: Arguments) -> Arguments:
    """Make every row a multiple of the first."""
    factors = np.ldexp(1.0, rng.integers(-3, 4, len(_rows(arguments)[1])))[:, None]
    first = {n: np.repeat(arguments[n][:1], len(arguments[n]), axis=0) for n in STORED if n in arguments}
    name, _ = _rows(arguments)
    return {**first, name: first[name] * factors}


def _in_span(rng: Rng, arguments: Arguments) -> Arguments:
    """Take x from the window itself: u = x / lam - c G cancels most of x / lam."""
    if "G" in arguments:
        return {"x": arguments["G"][-1].copy()}
    return {"x": build.dense(arguments["indices"][-1:], arguments["values"][-1:], arguments["d"])[0]}


def _lam(lam: float) -> Callable[[Rng, Arguments], Arguments]:
    return lambda rng, arguments: {"lam": scalar(lam)}


def solves(operation: str, sizes: Arguments, one: Arguments, filled: Arguments) -> list[Recipe]:
    """Return the corners of the damped inverse: ``sizes`` with five rows, ``one`` with one, ``filled`` with six."""
    made = given(operation, **sizes)
    return [
        _recipe(
            "half-filled window",
            "division by the number stored in place of m (R4), or garbage in empty rows",
            _half_filled(given(operation, lam=0.1, **filled)),
        ),
        _recipe("damping 1e-7", "x / lam - c G cancels: errors grow by |c|^2 / (lam m)", with_(made, _lam(1e-7))),
        _recipe(
            "damping 1e3", "a large damping hides the window: u must still differ from x / lam", with_(made, _lam(1e3))
        ),
        _recipe("vector from the window", "the worst cancellation of x / lam - c G", with_(made, _in_span)),
        _recipe("duplicate rows", "S is singular: its inverse without damping is infinite", with_(made, _duplicate)),
        _recipe("one row", "m = 1: u = x / lam - g (g.x) / (lam (lam + g.g))", given(operation, **one)),
        _recipe("parallel rows", "S has rank one", with_(made, _parallel)),
        _recipe(
            "rows scaled 1e-4 to 1e4",
            "pivoting and thresholds on a graded matrix",
            with_(made, lambda rng, a: {**_graded(rng, a), "lam": 0.125}),
        ),
        _recipe("empty window", "no gradient yet: u = x / lam", with_(given(operation, lam=0.1, **sizes), _empty)),
        _recipe("zero vector", "0 must give exactly 0", with_(made, _zero("x"))),
    ]


def _dense_solves(operation: str) -> list[Recipe]:
    sizes: Arguments = {"m": 5, "d": 30}
    tall = _recipe("more rows than coordinates", "m > d: S has rank d", given(operation, m=12, d=5))
    tiny = _recipe(
        "subnormal entries",
        "flush to zero inside the window",
        given(operation, some_subnormal, lam=0.1, **sizes),
        "subnormal",
    )
    single = _recipe("one coordinate", "d = 1", given(operation, m=3, d=1))
    rows = solves(operation, sizes, {"m": 1, "d": 30}, {"m": 6, "d": 30})
    return [*rows, tall, tiny, single, *common(operation, **sizes)]


def _sparse_solves() -> list[Recipe]:
    name, medium = "sparse_mfac_direction", (50, 16, 0.25)
    rows = solves(name, {"m": 5, "layout": medium}, {"m": 1, "layout": medium}, {"m": 6, "layout": medium})
    more = stored(name)
    tiny = _recipe(
        "subnormal entries",
        "flush to zero inside the window",
        given(name, some_subnormal, lam=0.1, layout=medium, m=4),
        "subnormal",
    )
    return [
        rows[0],
        *big_blocks(name)[:1],
        *rows[1:4],
        *more,
        *layouts(name)[:1],
        *rows[4:],
        *big_blocks(name)[1:],
        *layouts(name)[1:4],
        tiny,
        *common(name, layout=medium, m=5),
    ]


CLEAR = scalar(1e-3)  # a cut-off far above float32's noise: rank-deficient windows stay decidable


def _spread(rng: Rng, arguments: Arguments) -> Arguments:
    """Orthogonal rows of norms 1, 8, 64, ...: the cut-off 2^-10 falls between 2^-6 and 2^-12."""
    m, d = arguments["G"].shape
    G = np.zeros((m, d))
    G[np.arange(m), rng.permutation(d)[:m]] = 8.0 ** np.arange(m)
    return {"G": G, "eps": 0.5, "cutoff": 2.0**-10}


def _dependent_rows(rng: Rng, arguments: Arguments) -> Arguments:
    """Make the window of rank two, at the first row's positions: rows a, b, a + b, a / 2, and so on, exactly."""
    name, rows = _rows(arguments)
    a, b = build.nonzero(8)(rng, (2, rows.shape[1]))
    made = np.stack([(a, b, a + b, a / 2)[r % 4] * 2.0 ** -(r // 4) for r in range(len(rows))])
    places = {"indices": np.repeat(arguments["indices"][:1], len(rows), axis=0)} if "indices" in arguments else {}
    return {**places, name: made.astype(rows.dtype), "eps": 0.5}


def dependent(operation: str, **sizes: Any) -> Recipe:
    """Return the window of lower rank than it has different rows that are not zero."""
    made = with_(given(operation, **sizes, cutoff=CLEAR), _dependent_rows)
    why = "sigma = 0 that no zero or equal row gives away: 1 / sigma is noise"
    return _recipe("a row is the sum of two others", why, made)


def ggt(operation: str, sizes: Arguments, one: Arguments, filled: Arguments) -> list[Recipe]:
    """Return the corners of GGT: damping, cut-off and windows of lower rank."""
    made = given(operation, **sizes)
    clear = given(operation, **sizes, cutoff=CLEAR)
    rank = "dropped directions divided by zero: sigma = 0 gives inf or noise"
    return [
        _recipe("half-filled window", rank, _half_filled(given(operation, **filled, cutoff=CLEAR))),
        _recipe("duplicate rows", rank, with_(clear, _duplicate)),
        _recipe("damping 1e-7", "1 / (sigma + eps) with eps lost beside sigma", given(operation, **sizes, eps=1e-7)),
        _recipe("damping 1e3", "sqrt(sigma^2 + eps) in place of sigma + eps", given(operation, **sizes, eps=1e3)),
        _recipe("empty window", "no gradient yet: u = x / eps", with_(given(operation, **sizes, eps=0.1), _empty)),
        _recipe("one row", "first step: g / (|g| + eps)", with_(given(operation, **one), _in_span)),
        _recipe("parallel rows", rank, with_(clear, _parallel)),
        _recipe("duplicate rows, cut-off 1e-12", rank, with_(made, _duplicate)),
        _recipe("zero vector", "0 must give exactly 0", with_(made, _zero("x"))),
        _recipe("vector from the window", "u = x / eps - ... cancels", with_(made, _in_span)),
    ]


def _ggt_direction() -> list[Recipe]:
    sizes: Arguments = {"m": 4, "d": 30}
    name = "ggt_direction"
    spread = _recipe("cut-off inside the spectrum", "the cut-off compares sigma with sigma^2 or is left out",
                     with_(given(name, **sizes), _spread))  # fmt: skip
    equal_ = _recipe("equal eigenvalues", "eigenvectors are free up to a rotation",
                     with_(given(name, **sizes), lambda rng, a: {"G": 3 * np.eye(4, 30), "eps": 0.5}))  # fmt: skip
    rows = ggt(name, sizes, {"m": 1, "d": 30}, {"m": 6, "d": 30})
    return [*rows[:1], spread, *rows[1:4], equal_, *rows[4:], *common(name, **sizes), dependent(name, **sizes)]


def _sparse_ggt_direction() -> list[Recipe]:
    name, medium = "sparse_ggt_direction", (50, 16, 0.25)
    rows = ggt(name, {"m": 4, "layout": medium}, {"m": 1, "layout": medium}, {"m": 6, "layout": medium})
    more = stored(name)
    return [
        *rows[:1],
        *big_blocks(name)[:1],
        *rows[1:3],
        *more,
        *layouts(name)[:1],
        *rows[3:],
        *big_blocks(name)[1:],
        *layouts(name)[1:],
        *common(name, layout=medium, m=4),
        dependent(name, m=4, layout=medium),
    ]


# ---- low rank -----------------------------------------------------------------------------------------------------


def _outer(rng: Rng, arguments: Arguments) -> Arguments:
    p1, *rest = arguments["g"].shape
    return {"g": np.multiply.outer(build.integers(9)(rng, p1) + 0.5, build.integers(9)(rng, tuple(rest)) + 0.5)}


def _dependent(rng: Rng, arguments: Arguments) -> Arguments:
    return {"Q": np.repeat(arguments["Q"][:, :1], arguments["Q"].shape[1], axis=1)}


def _power_compress() -> list[Recipe]:
    name = "power_compress"
    made = given(name, shape=(6, 5), rho=2)
    return [
        _recipe(
            "zero gradient", "eps = 0 gives NaN for ever, eps > 0 gives zero for ever (R25)", with_(made, _zero("g"))
        ),
        _recipe("gradient of rank one", "M Q has rank one: the other columns are noise", with_(made, _outer)),
        _recipe("three dimensions", "flattened from the wrong side", given(name, shape=(4, 3, 5), rho=2)),
        _recipe("equal columns of Q", "no orthogonalisation shows at once", with_(made, _dependent)),
        _recipe("rank = min(p1, p2)", "full rank: P is square", given(name, shape=(3, 7), rho=3)),
        _recipe("rank = p2", "full rank: Q is square", given(name, shape=(7, 3), rho=3)),
        _recipe("Q = 0", "recovery from a dead factor", with_(made, _zero("Q"))),
        _recipe("one row", "p1 = 1: P is +1 or -1", given(name, shape=(1, 6), rho=1)),
        _recipe("one column", "p2 = 1", given(name, shape=(6, 1), rho=1)),
        _recipe(
            "graded columns",
            "Gram-Schmidt loses orthogonality as the condition grows",
            with_(given(name, shape=(9, 8), rho=3), lambda rng, a: {"Q": f32(a["Q"] * [1.0, 1e-2, 1e-4])}),
        ),
        *common(name, shape=(4, 3, 2), rho=2),
    ]


def _opposite_columns(rng: Rng, arguments: Arguments) -> Arguments:
    P1, Q1 = arguments["P1"][:, :1], arguments["Q1"][:, :1]
    return {"P1": np.hstack([P1, P1]), "Q1": f32(np.hstack([Q1, Q1 * (-1 + 2e-5)]))}


def _low_rank_inner_product() -> list[Recipe]:
    name = "low_rank_inner_product"
    made = given(name, sizes=(6, 5, 2, 3))
    return [
        _recipe("different ranks", "a product that needs rho1 = rho2", given(name, sizes=(8, 3, 1, 4))),
        _recipe("zero factor", "nothing stored yet", with_(made, _zero("P1"))),
        _recipe(
            "a matrix with itself",
            "the square of the Frobenius norm",
            with_(given(name, sizes=(6, 5, 2, 2)), lambda rng, a: {"P2": a["P1"].copy(), "Q2": a["Q1"].copy()}),
        ),
        _recipe("opposite columns", "the trace cancels", with_(made, _opposite_columns)),
        _recipe("all sizes one", "the result has a dimension", given(name, sizes=(1, 1, 1, 1))),
        _recipe("tall", "p1 much larger than p2", given(name, sizes=(200, 2, 2, 2))),
        *underflow(name, sizes=(6, 5, 2, 3))[:1],
        *common(name, sizes=(6, 5, 2, 3)),
    ]


def _scaled_top_k() -> list[Recipe]:
    name = "scaled_top_k"
    round_ = given(name, d=8, k=3, condition=10.0)

    def other_order(rng: Rng, arguments: Arguments) -> Arguments:
        return {"H": np.diag([256.0, 64.0, 16.0, 4.0, 1.0]), "v": np.array([5.0, 4.0, 3.0, 2.0, 1.5])}

    return [
        _recipe(
            "basis reverses the order", "selection on v in place of H^-1/2 v", with_(given(name, d=5, k=2), other_order)
        ),
        _recipe("k = 0", "nothing is kept: the zero vector", given(name, d=6, k=0)),
        _recipe("k = d", "everything is kept: v itself", given(name, d=6, k=6)),
        _recipe("H = I", "plain Top-k", with_(given(name, d=8, k=3), lambda rng, a: {"H": np.eye(8)})),
        _recipe("one coordinate", "d = 1", given(name, d=1, k=1)),
        _recipe("zero vector", "0 / 0", with_(given(name, d=6, k=2), _zero("v"))),
        _recipe("condition 1e4", "roots by an iteration that stops early", given(name, d=8, k=3, condition=1e4)),
        _recipe("H of scale 1e-8", "a ridge added to H", with_(round_, lambda rng, a: {"H": f32(1e-8 * a["H"])})),
        _recipe("H of scale 1e8", "H in place of its root", with_(round_, lambda rng, a: {"H": f32(1e8 * a["H"])})),
        *common(name, d=8, k=3),
    ]


MAKERS: dict[str, Callable[[], Iterable[Recipe]]] = {
    "top_k": _top_k, "block_top_k": _block_top_k, "error_feedback": _error_feedback, "sp": _sp, "lcg": _lcg,
    "wsm": lambda: _dense_solves("wsm"), "mfac_direction": lambda: _dense_solves("mfac_direction"),
    "sparse_mfac_direction": _sparse_solves, "ggt_direction": _ggt_direction,
    "sparse_ggt_direction": _sparse_ggt_direction, "power_compress": _power_compress,
    "low_rank_inner_product": _low_rank_inner_product, "adagrad_step": _adagrad_step, "sign_step": _sign_step,
    "scaled_top_k": _scaled_top_k,
}  # fmt: skip
FAMILY: dict[str, tuple[Recipe, ...]] = {operation: tuple(MAKERS[operation]()) for operation in OPERATIONS}

"""Cases are reproducible, obey the contract, are what their family and flags promise, and come early enough."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from efcp_ref.contract import NAMES, OPERATIONS, OPTIMIZERS
from efcp_ref.oracle.cases import FIXED, build, generate, recipe, standard
from efcp_ref.oracle.core import Case
from efcp_ref.paper.top_k import kept, layout

SEED = 7
MORE = 30  # random cases after the fixed ones
FLAGS = {"exact", "density", "nan", "subnormal", "bf16", "readonly", "strided", "large"}


def walk(operation, seed=SEED):
    return list(standard(operation, len(FIXED[operation]) + MORE, seed))


def family(operation, name, seed):
    """The cases of one family among those of `walk`."""
    indices = range(len(FIXED[operation]) + MORE)
    return [generate(operation, seed, i) for i in indices if recipe(operation, i).family == name]


@pytest.fixture(scope="module")
def cases():
    return {operation: walk(operation) for operation in NAMES}


def arrays(case: Case):
    for name, value in case.arguments.items():
        for array in value if name == "Q0" else [value]:
            if isinstance(array, np.ndarray):
                yield name, array


def printed(case: Case) -> bytes:
    rest = [repr(v) for v in case.arguments.values() if not isinstance(v, (np.ndarray, list))]
    return pickle.dumps([*((n, a.dtype.str, a.shape, a.tobytes()) for n, a in arrays(case)), *rest])


# ---- determinism --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", NAMES)
def test_same_bytes_in_any_order(operation, cases):
    again = [generate(operation, SEED, index) for index in reversed(range(len(cases[operation])))]
    assert [printed(c) for c in reversed(again)] == [printed(c) for c in cases[operation]]
    assert [printed(c) for c in standard(operation, 5, SEED)] == [printed(c) for c in cases[operation][:5]]


@pytest.mark.parametrize("operation", NAMES)
def test_seed_and_index_matter(operation, cases):
    other = walk(operation, SEED + 1)
    changed = [printed(a) != printed(b) for a, b in zip(cases[operation], other, strict=True)]
    assert np.mean(changed) > 0.9  # a few corners hold no random number
    first = len(FIXED[operation])
    again = next(i for i in range(first, 10**6) if generate(operation, SEED, i).family == "generic")
    label = generate(operation, SEED, again).label
    twin = next(c for c in cases[operation][:first] if c.label == label and c.family == "generic")
    assert printed(twin) != printed(generate(operation, SEED, again))


def test_cases_share_no_memory():
    first, second = generate("top_k", 0, 4), generate("top_k", 0, 4)
    assert first.family == "real"
    first.arguments["a"][:] = 0
    assert second.arguments["a"].any()
    assert generate("top_k", 0, 4).arguments["a"].any()


@pytest.mark.parametrize("wrong", [("nothing", 0, 0), ("sp", -1, 0), ("sp", 0, -1), ("sp", 0.5, 0), ("sp", 0, True)])
def test_bad_input(wrong):
    with pytest.raises((TypeError, ValueError)):
        generate(*wrong)


def test_standard_wants_a_case():
    with pytest.raises(ValueError, match="cases"):
        list(standard("sp", 0))


# ---- contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", NAMES)
def test_arguments_in_contract_order(operation, cases):
    if operation in OPERATIONS:
        names = [a.name for a in OPERATIONS[operation].arguments]
    else:
        names = [a.name for a in OPTIMIZERS[operation].parameters] + ["gradients"]
    for index, case in enumerate(cases[operation]):
        assert list(case.arguments) == names
        assert (case.operation, case.seed, case.index, case.dtype) == (operation, SEED, index, "float64")
        assert case.label
        assert case.why
        assert case.flags <= FLAGS


def dimensions(case: Case) -> dict[str, int]:
    """The letters of the contract's shapes, taken from the case's arguments."""
    a = case.arguments
    letters = {n: a[n] for n in ("d", "m") if n in a}
    for name in ("g", "x", "a", "v", "theta"):
        if name in a and np.ndim(a[name]) == 1:
            letters["d"] = len(a[name])
    if "G" in a and np.ndim(a["G"]) == 2:
        letters["m"], letters["d"] = a["G"].shape
    if "indices" in a:
        letters["m"] = len(a["indices"])
        _, density, blocks = layout(letters["d"], a["block_size"], a["density"])
        letters["k"] = sum(kept(end - start, density) for start, end in blocks)
    return letters


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"power_compress", "low_rank_inner_product"}))
def test_shapes(operation, cases):
    for case in cases[operation]:
        letters = dimensions(case)
        for argument in OPERATIONS[operation].arguments:
            value = case.arguments[argument.name]
            wanted = tuple(letters[s.strip()] for s in argument.shape.strip("()").split(",") if s.strip())
            assert np.shape(value) == wanted, (case.id, case.label, argument.name)
            if argument.kind == "int":
                assert type(value) is int
            elif argument.kind == "index":
                assert value.dtype == np.int32
            elif not argument.shape:
                assert type(value) is float
            else:
                assert value.dtype == (ml_dtypes.bfloat16 if value.ndim == 2 and "bf16" in case.flags else np.float64)


def test_shapes_of_low_rank(cases):
    for case in cases["power_compress"]:
        g, Q = case.arguments["g"], case.arguments["Q"]
        p1, p2 = g.shape[0], int(np.prod(g.shape[1:]))
        assert g.ndim >= 2
        assert Q.shape[0] == p2
        assert 1 <= Q.shape[1] <= min(p1, p2)
    for case in cases["low_rank_inner_product"]:
        P1, Q1, P2, Q2 = case.arguments.values()
        assert P1.shape[0] == P2.shape[0]
        assert Q1.shape[0] == Q2.shape[0]
        assert (P1.shape[1], P2.shape[1]) == (Q1.shape[1], Q2.shape[1])


@pytest.mark.parametrize("operation", OPTIMIZERS)
def test_optimizers(operation, cases):
    for case in cases[operation]:
        a = case.arguments
        T, d = a["gradients"].shape
        assert d == a["d"] if "d" in a else sum(int(np.prod(s)) for s in a["shapes"])
        assert 4 <= T <= 40
        assert np.isfinite(a["gradients"]).all()
        assert 1 <= a.get("k", 1) <= d
        assert a.get("m", 1) >= 1
        assert all(a.get(n, 1.0) > 0 for n in ("lam", "eps", "gamma", "cutoff"))
        if "Q0" in a:
            sides = [(s[0], int(np.prod(s[1:]))) for s in a["shapes"] if len(s) > 1]
            assert [Q.shape for Q in a["Q0"]] == [(p2, min(a["rank"], p1, p2)) for p1, p2 in sides]
        if "density" in a:
            assert build.agrees(d, a["block_size"], a["density"])


@pytest.mark.parametrize("operation", [n for n in OPERATIONS if "indices" in [a.name for a in OPERATIONS[n].arguments]])
def test_indices_in_block_order(operation, cases):
    for case in cases[operation]:
        a, d = case.arguments, dimensions(case)["d"]
        _, density, blocks = layout(d, a["block_size"], a["density"])
        for row, values in zip(a["indices"], a["values"], strict=True):
            assert len(set(row.tolist())) == len(row)
            assert (row.min(), row.max()) >= (0, 0)
            assert row.max() < d
            ends = np.cumsum([kept(end - start, density) for start, end in blocks])[:-1]
            for part, (start, end) in zip(np.split(row, ends), blocks, strict=True):
                assert ((part >= start) & (part < end)).all(), case.label
            if case.label in ("half-filled window", "empty window") and not values.astype(float).any():
                first = [start + i for start, end in blocks for i in range(kept(end - start, density))]
                assert row.tolist() == first


# ---- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", NAMES)
def test_float32_holds_every_number(operation, cases):
    for case in cases[operation]:
        for name, array in arrays(case):
            if array.dtype == np.float64:
                same = array.astype(np.float32)
                assert np.array_equal(array, same, equal_nan=True), (case.id, case.label, name)
                assert np.array_equal(np.signbit(array), np.signbit(same))
                assert ("nan" in case.flags) or np.isfinite(array).all(), (case.id, case.label, name)
                assert (name, operation) == ("G", "adagrad_step") or (
                    np.abs(array[np.isfinite(array)]) < 1e17
                ).all()  # squares fit float32
        for name in ("lam", "eps", "eta", "gamma", "cutoff"):
            if name in case.arguments:
                value = case.arguments[name]
                assert type(value) is float
                assert value == np.float32(value) > 0


@pytest.mark.parametrize("operation", NAMES)
def test_second_pass_keeps_values_and_layout(operation, cases):
    for case in cases[operation]:
        single = case.with_dtype("float32")
        assert single.id == case.id.replace("float64", "float32")
        for (name, a), (_, b) in zip(arrays(case), arrays(single), strict=True):
            assert b.dtype == (np.float32 if a.dtype == np.float64 else a.dtype), name
            assert np.array_equal(a.astype(np.float64), b.astype(np.float64), equal_nan=True)
            assert a.flags.writeable == b.flags.writeable
            assert a.flags.c_contiguous == b.flags.c_contiguous


def unit(*parts) -> float:
    """The largest power of two of which every number is a multiple."""
    numbers = [abs(Fraction(float(x))) for part in parts for x in np.ravel(part) if x]
    if not numbers:
        return 1.0
    return float(min(Fraction(n.numerator & -n.numerator, n.denominator) for n in numbers))


def fits(total, u) -> bool:
    """Whether sums of absolute terms ``total``, of multiples of ``u``, fit 24 bits."""
    return bool(np.max(total, initial=0) <= 2**24 * u)


def largest_sum(case: Case) -> tuple[float, float]:
    """The largest sum of absolute terms that an exact case can meet, and the unit of the terms."""
    a = {n: np.abs(v) if isinstance(v, np.ndarray) and n != "indices" else v for n, v in case.arguments.items()}
    match case.operation:
        case "top_k" | "block_top_k":
            return a["a"].max(), unit(a["a"])
        case "error_feedback":
            return (a["xi"] + a["g"]).max(), unit(a["xi"], a["g"])
        case "sp":
            terms = a["values"] * a["g"][a["indices"]]
            return terms.sum(axis=1).max(), unit(a["values"]) * unit(a["g"])
        case "lcg":
            G = build.dense(a["indices"], a["values"], a["d"])
            return (a["c"] @ G).max(), unit(a["values"]) * unit(a["c"])
        case "low_rank_inner_product":
            terms = (a["P1"] @ a["Q1"].T) * (a["P2"] @ a["Q2"].T)
            return terms.sum(), np.prod([unit(v) for v in a.values()])
        case "adagrad_step":
            c = a["xi"] + a["g"]
            square = unit(a["xi"], a["g"]) ** 2
            assert fits(c.max(), unit(a["xi"], a["g"]))
            return (a["G"] + c**2).max(), min(square, unit(a["G"]))
        case "sign_step":
            d = len(a["x"])
            p = a["gamma"] * case.arguments["g"] + case.arguments["e"]
            u = unit(p, a["x"], a["e"])
            assert d & (d - 1) == 0
            assert p.all()
            assert fits(np.abs(p).sum(), u)
            return (a["x"] + np.abs(p) + np.abs(p).sum() / d).max(), u / d
        case _:
            G = a["G"] if "G" in a else build.dense(a["indices"], a["values"], a["d"])
            return max((G @ G.T).max(), (G @ a["x"]).max()), min(unit(G) ** 2, unit(G) * unit(a["x"]))


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"power_compress", "scaled_top_k"}))
@pytest.mark.parametrize("seed", range(5))
def test_exact_sums_fit_24_bits(operation, seed):
    exact = [c for c in family(operation, "exact", seed) if "exact" in c.flags]
    assert len(exact) >= 3
    for case in exact:
        assert case.family == "exact"
        assert fits(*largest_sum(case)), (case.id, case.label)


def test_flag_exact_only_where_the_tier_exists(cases):
    for operation in ("power_compress", "scaled_top_k"):
        assert any(c.family == "exact" for c in cases[operation])
        assert not any("exact" in c.flags for c in cases[operation])


@pytest.mark.parametrize("operation", ["wsm", "mfac_direction", "sparse_mfac_direction"])
@pytest.mark.parametrize("seed", range(5))
def test_solves_on_a_multiple_of_the_identity(operation, seed):
    found = [c for c in family(operation, "exact", seed) if c.label == "m lam I + S = 4^p I"]
    assert found
    for case in found:
        a = case.arguments
        G = a["G"] if "G" in a else build.dense(a["indices"], a["values"], a["d"])
        M = len(G) * a["lam"] * np.eye(len(G)) + G @ G.T
        assert np.array_equal(M, M[0, 0] * np.eye(len(G)))
        assert np.log2(M[0, 0]) % 2 == 0
        assert G.any()


@pytest.mark.parametrize("operation", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(5))
def test_exact_runs_stay_small(operation, seed):
    """Even if every gradient waited in the error and were then sent, products and squares would fit 24 bits."""
    exact = family(operation, "exact", seed)
    assert len(exact) >= 2
    for case in exact:
        g = case.arguments["gradients"]
        total = np.abs(g).sum(axis=0)
        assert fits(total.max(), unit(g))
        if operation in ("dense_mfac", "sparse_mfac", "dense_ggt", "sparse_ggt"):
            assert fits(total @ total, unit(g) ** 2), case.label
        if operation == "adagrad_ef":
            assert fits(len(g) * total.max() ** 2, unit(g) ** 2), case.label


# ---- families and flags ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", NAMES)
def test_families_interleave(operation, cases):
    assert {c.family for c in cases[operation][:5]} == {"exact", "generic", "adversarial", "real"}
    assert len(FIXED[operation]) <= 40  # the default number of cases walks them all


BLOCKED = ("block_top_k", "error_feedback", "sp", "lcg", "sparse_mfac_direction", "sparse_ggt_direction")
WINDOWS = ("wsm", "mfac_direction", "sparse_mfac_direction", "ggt_direction", "sparse_ggt_direction")
VECTORS = tuple(n for n in OPERATIONS if n != "scaled_top_k")
RINGS = ("dense_mfac", "sparse_mfac", "low_rank_mfac", "dense_ggt", "sparse_ggt")
DISTRIBUTIONS = ("normal", "scale 1e-12", "scale 1e12", "wide range", "cancelling", "heavy tails", "uniform")
PROMISED = [  # operations, label, among the first so many
    *((tuple(OPERATIONS), label, 48) for label in DISTRIBUTIONS),
    (NAMES, "signed zeros", 40),
    (("top_k", "block_top_k", "error_feedback", "adagrad_step"), "ties at the cut", 12),
    (("top_k", "block_top_k", "error_feedback", "adagrad_step"), "large negatives", 24),
    (("top_k", "scaled_top_k"), "k = 0", 24),
    (("top_k", "adagrad_step", "scaled_top_k"), "k = d", 24),
    (("top_k", "block_top_k"), "NaN", 40),
    (("top_k", "block_top_k"), "infinity", 40),
    (BLOCKED, "block of 41728", 12),
    (BLOCKED, "block of 32767", 40),
    (BLOCKED, "block of 32768", 40),
    (BLOCKED, "block of 32769", 40),
    (BLOCKED, "partial last block", 24),
    (BLOCKED, "density 1", 40),
    (BLOCKED, "density 0.07", 40),
    (("error_feedback", "adagrad_step", "sign_step"), "zero gradient", 24),
    (("error_feedback", "adagrad_step", "sign_step"), "large error", 12),
    (("sp", "lcg", *WINDOWS), "half-filled window", 6),
    (("sp", "lcg", *WINDOWS), "one row", 24),
    (("sp", "lcg", *WINDOWS), "empty window", 30),
    (WINDOWS, "duplicate rows", 30),
    (WINDOWS, "parallel rows", 36),
    (WINDOWS, "damping 1e-7", 24),
    (WINDOWS, "damping 1e3", 30),
    (("wsm", "mfac_direction", "sparse_mfac_direction"), "condition 1..1e9", 24),
    (("sp", "lcg", "sparse_mfac_direction", "sparse_ggt_direction"), "bfloat16 values", 24),
    (("power_compress",), "zero gradient", 6),
    (tuple(OPERATIONS), "read-only arrays", 40),
    (tuple(OPERATIONS), "non-contiguous arrays", 40),
    (("wsm", "mfac_direction", "sparse_mfac_direction", "top_k", "block_top_k", "error_feedback", "sp", "lcg",
      "low_rank_inner_product", "adagrad_step", "sign_step", *OPTIMIZERS), "subnormal entries", 40),
    (RINGS, "wrap-around", 6),
    (RINGS, "half-filled window", 24),
    (RINGS, "one row", 24),
    (RINGS, "equal gradients", 30),
    (tuple(OPTIMIZERS), "zero gradients in between", 24),
    (("sparse_mfac",), "block of 41728", 12),
    (("sparse_mfac",), "partial last block", 6),
    (("topk_sgd", "sparse_mfac", "sparse_ggt", "adagrad_ef"), "ties at the cut", 24),
    (("low_rank_mfac",), "several layers", 6),
    (tuple(OPTIMIZERS), "softmax regression on the digits", 6),
    (tuple(OPERATIONS), "softmax regression on the digits", 6),
    (("top_k", "block_top_k", "error_feedback", "sp", "lcg", "sparse_mfac_direction"), "MLP on the digits", 12),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "label", "first"), [(n, x, f) for names, x, f in PROMISED for n in names])
def test_promised_cases_come_early(operation, label, first, cases):
    assert label in [c.label for c in cases[operation][: min(first, len(FIXED[operation]))]]


@pytest.mark.parametrize("operation", NAMES)
def test_flags_hold(operation, cases):
    seen = set()
    for case in cases[operation]:
        seen |= case.flags
        for name, array in arrays(case):
            assert array.flags.writeable == ("readonly" not in case.flags), name
            if "strided" in case.flags and array.size > 1:
                assert not array.flags.c_contiguous, name
                assert not array.flags.f_contiguous, name
        numbers = np.concatenate([a.astype(np.float64).ravel() for n, a in arrays(case) if n != "indices"])
        if "subnormal" in case.flags and case.label != "squares that underflow":
            assert ((numbers != 0) & (np.abs(numbers) < 2.0**-126)).any(), case.label
        assert np.isfinite(numbers).all() == ("nan" not in case.flags)
        assert any(a.dtype == ml_dtypes.bfloat16 for _, a in arrays(case)) == ("bf16" in case.flags)
        if case.label == "signed zeros":
            assert ((numbers == 0) & np.signbit(numbers)).any()
    assert {"readonly", "strided"} <= seen


@pytest.mark.parametrize("operation", BLOCKED)
def test_density_is_beyond_doubt_unless_flagged(operation, cases):
    doubtful = 0
    for case in cases[operation]:
        a, d = case.arguments, dimensions(case)["d"]
        sizes = {end - start for start, end in layout(d, a["block_size"], a["density"])[2]}
        exact = [math.ceil(Fraction(str(a["density"])) * size) for size in sizes]
        agree = exact == [math.ceil(a["density"] * size) for size in sizes]
        assert agree == ("density" not in case.flags), case.label
        doubtful += not agree
    assert doubtful >= 1


@pytest.mark.parametrize("operation", BLOCKED)
def test_big_blocks_hold_entries_at_their_end(operation, cases):
    big = {c.arguments["block_size"]: c for c in cases[operation] if c.label.startswith("block of")}
    assert set(big) == {32_767, 32_768, 32_769, 41_728}
    for size, case in big.items():
        a, d = case.arguments, dimensions(case)["d"]
        assert size < d < size + 100
        if "indices" in a:
            assert (a["indices"] == size - 1).any(axis=1).all()
            assert np.abs(a["values"][a["indices"] == size - 1]).min() > 0
        else:
            sums = np.abs(a["a"] if "a" in a else a["xi"] + a["g"])
            assert np.isin(np.argsort(-sums[:size])[: kept(size, Fraction(1, 1024))], range(size - 4, size)).any()


def test_special_windows(cases):
    def window(case):
        a = case.arguments
        return a["G"] if "G" in a else build.dense(a["indices"], a["values"], dimensions(case)["d"])

    for operation in WINDOWS:
        named = {c.label: c for c in cases[operation]}
        assert not window(named["empty window"]).any()
        half = window(named["half-filled window"]).any(axis=1)
        assert half.any()
        assert not half.all()
        assert len(window(named["one row"])) == 1
        assert np.linalg.matrix_rank(window(named["parallel rows"])) == 1
        rows = window(named["duplicate rows"])
        assert np.array_equal(rows[0], rows[-1])
        damping = "eps" if "ggt" in operation else "lam"
        assert named["damping 1e-7"].arguments[damping] == np.float32(1e-7)
        assert named["damping 1e3"].arguments[damping] == 1000


def test_ties_really_lie_at_the_cut(cases):
    for case in cases["top_k"]:
        if case.label == "ties at the cut":
            ordered = np.sort(np.abs(case.arguments["a"]))[::-1]
            assert ordered[case.arguments["k"] - 1] == ordered[case.arguments["k"]]
    for case in cases["error_feedback"]:
        if case.label == "ties at the cut":
            a = np.abs(case.arguments["xi"] + case.arguments["g"])[:16]
            assert len(set(a.tolist())) == 2


def test_condition_and_damping_cover_their_ranges():
    conditions, dampings = [], []
    for seed in range(60):
        for case in (generate("mfac_direction", seed, i) for i in range(len(FIXED["mfac_direction"]))):
            if case.label == "condition 1..1e9":
                G, lam = case.arguments["G"], case.arguments["lam"]
                conditions.append(np.linalg.norm(G @ G.T, 2) / (len(G) * lam))
                dampings.append(lam)
    assert min(conditions) < 1e1
    assert max(conditions) > 1e8
    assert min(conditions) >= 0.9
    assert max(conditions) <= 1.1e9
    assert min(dampings) < 1e-6
    assert max(dampings) > 1e2


def test_definite_matrices(cases):
    for case in cases["scaled_top_k"]:
        H = case.arguments["H"]
        assert np.array_equal(H, H.T)
        assert np.linalg.eigvalsh(H)[0] > 0


@pytest.mark.parametrize("operation", RINGS)
def test_runs_turn_the_window(operation, cases):
    turns = [len(c.arguments["gradients"]) / c.arguments["m"] for c in cases[operation]]
    assert sum(t > 2 for t in turns) >= 5
    assert min(turns) < 1

"""The kernels on the CPU: bit for bit what the same float32 operations give in NumPy, in any order of the threads."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from efcp_ref.gpu import operations, window
from efcp_ref.gpu.cpu.device import CPU
from efcp_ref.gpu.formats import FORMATS, Format, from_bits, to_bits
from efcp_ref.gpu.optimizer import sparse_mfac
from efcp_ref.oracle.core import Case, Declared
from efcp_ref.oracle.criteria import CRITERIA
from efcp_ref.paper.algorithm_1 import error_feedback
from efcp_ref.paper.optimizers import sparse_mfac as reference
from efcp_ref.paper.woodbury import sparse_mfac_direction as reference_direction
from tests.gpu import problems
from tests.gpu.problems import CASES, problem

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="no g++: no kernel can run on the CPU")
ORDERS = [("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2)]
U = 2.0**-24
GUIDE = Path(__file__).parents[2] / "docs" / "kernels.md"


def products(p, kernel, device=None, threads=None):
    device = device or CPU()
    omega = np.full(p.m, np.nan, np.float32)
    window.scalar_products(device, p.on(device), p.g, omega, kernel, threads)
    return omega


def combination(p, kernel, device=None, threads=None, blocks=None):
    device = device or CPU()
    omega = np.full(p.d, np.nan, np.float32)
    window.linear_combination(device, p.on(device), p.c, omega, kernel, threads, blocks)
    return omega


@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f"{f.index}-{f.value}")
@pytest.mark.parametrize("case", CASES)
def test_textbook_kernels_bit_for_bit(case, form):
    p = problem(*CASES[case], form)
    for order, seed in ORDERS:
        device = CPU(order, seed)
        assert np.array_equal(products(p, "textbook", device), problems.sp_textbook(p, window.threads_for(p.k)))
        assert np.array_equal(combination(p, "textbook", device), problems.lcg_in_order(p))


@pytest.mark.parametrize("form", [Format("absolute", "float32"), Format("uint16", "bfloat16")], ids=["int32", "uint16"])
@pytest.mark.parametrize("case", CASES)
def test_the_ladder_bit_for_bit(case, form):
    p = problem(*CASES[case], form)
    for order, seed in ORDERS[2:]:
        device = CPU(order, seed)
        assert np.array_equal(products(p, "warps", device, 64), problems.sp_warps(p))
        assert np.array_equal(products(p, "slices", device, 64), problems.sp_slices(p))
        assert np.array_equal(combination(p, "rows", device, 128), problems.lcg_grouped(p, 16, 128))
        assert np.array_equal(combination(p, "warp", device), problems.lcg_grouped(p, 16, 32))
        assert np.array_equal(combination(p, "global", device, 64), problems.lcg_in_order(p))


def test_rows_in_flight_do_not_change_the_order_of_the_sums_where_a_thread_has_one_entry():
    p = problem(*CASES["m not a power of two"])
    assert np.array_equal(problems.lcg_grouped(p, 16, 128), problems.lcg_in_order(p))


def test_within_the_declared_bound_of_the_exact_sums():
    p = problem(60_000, 4, 41_728, 0.05)
    terms = p.values.astype(np.float64) * p.g[p.indices]
    bound = (-(-p.k // 1024) + 10 + 1) * U * np.abs(terms).sum(1)  # h + 1, h = ceil(k / T) + log2 T
    for kernel in ("textbook", "slices"):
        assert (np.abs(products(p, kernel) - terms.sum(1)) <= bound).all()
    weighted = p.c[:, None].astype(np.float64) * p.values
    exact = np.bincount(p.indices.ravel(), weighted.ravel(), p.d)
    size = np.bincount(p.indices.ravel(), np.abs(weighted).ravel(), p.d)
    for kernel in ("textbook", "rows"):
        assert (np.abs(combination(p, kernel) - exact) <= p.m * U * size).all()


@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 9])
def test_R18_slices_are_shared_out_among_any_number_of_blocks(blocks):
    p = problem(300, 3, 64, 0.1)
    assert np.array_equal(combination(p, "textbook", threads=32, blocks=blocks), problems.lcg_in_order(p))
    assert np.array_equal(combination(p, "warp", blocks=blocks), problems.lcg_in_order(p))


@pytest.mark.parametrize("threads", [1, 2, 32, 256])
def test_R16_any_power_of_two_of_threads(threads):
    p = problem(300, 3, 64, 0.5)
    assert np.array_equal(products(p, "textbook", threads=threads), problems.sp_textbook(p, threads))


def test_R15_more_rows_than_1024_and_no_power_of_two():
    p = problem(40, 1100, 16, 0.25)
    assert np.array_equal(products(p, "textbook"), problems.sp_textbook(p, window.threads_for(p.k)))
    assert np.array_equal(combination(p, "rows"), problems.lcg_in_order(p))


def test_R13_blocks_beyond_32767_in_unsigned_16_bits():
    p = problem(90_000, 2, 40_000, 0.01, Format("uint16", "float32"))
    assert p.on(CPU()).indices.max() > 32_767
    assert np.array_equal(combination(p, "textbook", threads=32), problems.lcg_in_order(p))


def test_a_block_larger_than_shared_memory_goes_through_global_memory():
    p = problem(70_000, 2, 65_536, 0.002)
    omega = operations.lcg(p.indices, p.values, p.c, p.d, 65_536, 0.002, device="cpu", threads=64)
    assert np.array_equal(omega, problems.lcg_in_order(p))


def test_bfloat16_rounds_to_nearest_even_as_ml_dtypes_does():
    import ml_dtypes

    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    x[:4] = [1 + 2**-8, 1 + 3 * 2**-8, 2.0**-130, -0.0]
    assert np.array_equal(from_bits(to_bits(x)), x.astype(ml_dtypes.bfloat16).astype(np.float32))


# ---- Sparse M-FAC ----------------------------------------------------------------------------------------------------


def stepped(optimizer, gradients):
    for g in gradients:
        u = optimizer.step(g)
    return u, optimizer.state()


@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f"{f.index}-{f.value}")
def test_error_feedback_and_window_are_the_references_exactly(form):
    rng = np.random.default_rng(1)
    gradients = rng.integers(-9, 10, (5, 300)).astype(np.float32)  # many ties: the lowest index wins (R12)
    layout = {"d": 300, "m": 3, "lam": 64.0, "block_size": 128, "density": 0.1, "dtype": form.value}
    u, ours = stepped(sparse_mfac(**layout, index=form.index, device=CPU("shuffled", 3)), gradients)
    wanted, theirs = stepped(reference(**layout), gradients)
    assert (ours["t"], ours["row"]) == (5, 2)
    for name in ("indices", "values", "xi"):
        assert np.array_equal(np.asarray(ours[name], np.float64), np.asarray(theirs[name], np.float64)), name
    assert np.allclose(ours["S"], theirs["S"], rtol=1e-6)
    assert np.abs(u - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("layout", "kernel"),
    [
        ({"d": 30, "m": 2, "block_size": 64, "density": 0.2}, "fast"),  # d below B_d
        ({"d": 70, "m": 2, "block_size": 32, "density": 1}, "textbook"),  # everything kept, a partial last block
        ({"d": 70, "m": 5, "block_size": 32, "density": 0.01}, "fast"),  # one entry per block, m no power of two
        ({"d": 1, "m": 1, "block_size": 1, "density": 1}, "textbook"),
        ({"d": 60_000, "m": 2, "density": 0.05}, "textbook"),  # one block, larger than the shared memory; k over T
        ({"d": 60_000, "m": 2, "density": 0.05}, "fast"),
    ],
)
@pytest.mark.parametrize("order", ["ascending", "bank"])
def test_sparse_mfac_at_the_edges_of_its_layout(layout, kernel, order):
    rng, lam = np.random.default_rng(6), 2.0**20  # about as large as S / m: then u loses few digits
    gradients = rng.integers(-99, 100, (3, layout["d"])).astype(np.float32)
    u, ours = stepped(sparse_mfac(**layout, lam=lam, kernel=kernel, order=order, device="cpu"), gradients)
    wanted, theirs = stepped(reference(**layout, lam=lam), gradients)
    assert np.array_equal(np.sort(ours["indices"]), theirs["indices"])
    assert np.array_equal(ours["xi"], theirs["xi"])
    assert np.abs(u - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_R14_the_error_keeps_what_bfloat16_rounds_off():
    optimizer = sparse_mfac(d=1, m=1, lam=1.0, density=1, dtype="bfloat16", device="cpu")
    optimizer.step(np.float32([1.0048828]))
    assert optimizer.state()["xi"] == np.float32(1.0048828) - np.float32(1.0078125)


def bank_order(row, block_size):
    """The first entry of every bank of a block, by banks, then the second of every bank, and so on."""
    rank = [
        np.count_nonzero((row[:j] // block_size == i // block_size) & (row[:j] % 32 == i % 32))
        for j, i in enumerate(row)
    ]
    return row[np.lexsort((row % block_size % 32, rank, row // block_size))]


def passes(positions):
    """Passes over shared memory for positions in a block: the most entries in one bank, warp by warp."""
    return sum(np.bincount(positions[i : i + 32] % 32).max() for i in range(0, len(positions), 32))


def test_bank_order_by_hand():
    optimizer = sparse_mfac(d=128, m=1, lam=1.0, density=7 / 128, order="bank", device="cpu")
    g = np.zeros(128, np.float32)
    g[[1, 33, 65, 97, 5, 37, 31]] = 1  # four in bank 1, two in bank 5, one in bank 31
    optimizer.step(g)
    assert optimizer.state()["indices"].tolist() == [[1, 5, 31, 33, 37, 65, 97]]


def test_bank_order_keeps_the_same_entries_and_spreads_them_over_the_banks():
    rng = np.random.default_rng(2)
    g = rng.standard_normal(4000).astype(np.float32)  # the last block is partial
    layout = {"d": 4000, "m": 2, "lam": 1.0, "block_size": 2048, "density": 0.125}
    plain = sparse_mfac(**layout, device="cpu")
    plain.step(g)
    a = plain.state()["indices"][0]
    assert np.array_equal(a, error_feedback(np.zeros(4000), g, 2048, 0.125).indices)
    banked = bank_order(a, 2048)
    for device in (CPU(), CPU("shuffled", 1)):
        ours = sparse_mfac(**layout, order="bank", device=device)
        ours.step(g)
        assert np.array_equal(ours.state()["indices"][0], banked)
        assert np.array_equal(ours.state()["values"][0], g[banked])
    for block in (banked[:256], banked[256:]):
        # An entry of rank r has r before it in its bank. A warp needs no more passes than it holds ranks; ranks are in
        # order, so W warps and R ranks make W + R - 1 passes at most. No order needs fewer than W, nor than R, the
        # entries of the fullest bank.
        R, W = np.bincount(block % 32).max(), -(-len(block) // 32)
        assert max(R, W) <= passes(block) <= W + R - 1 < passes(np.sort(block))


def test_the_guide_says_how_often_random_positions_collide():
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.choice(12_800, 128, replace=False)) for _ in range(1000)]
    mean = sum(passes(row) for row in rows) / (len(rows) * 4)  # its standard error is 0.01
    assert f"collide {mean:.1f} ways on average" in GUIDE.read_text()


def test_the_direction_is_eq_2():
    p = problem(200, 35, 64, 0.2)
    lam = 3.0
    ours = operations.sparse_mfac_direction(p.indices, p.values, 200, lam, p.g, 64, 0.2, device=CPU("shuffled", 1))
    theirs = reference_direction(p.indices, p.values, 200, lam, p.g.astype(np.float64), 64, 0.2)
    for name in ("S", "h", "c", "u"):
        wanted = getattr(theirs, name)
        assert np.abs(getattr(ours, name) - wanted).max() <= 1e-5 * np.abs(wanted).max(), name
    assert np.array_equal(ours.S, ours.S.T)


def test_a_solve_with_more_rows_than_a_block_has_threads():
    m, lam, rng = 1030, 0.5, np.random.default_rng(7)
    G, h = rng.standard_normal((m, 8)), rng.standard_normal(m).astype(np.float32)
    M = m * lam * np.eye(m) + G @ G.T
    L, D, c = np.linalg.cholesky(M).astype(np.float32), np.zeros((m, 32), np.float32), np.empty(m, np.float32)
    for r in range(m):
        first = r // 32 * 32
        D[r, : r % 32 + 1] = L[r, first : r + 1]
    CPU("shuffled", 1).launch("cholesky_solve", Format(), 1, 1024, 4 * m, m, lam, L, D, h, c)
    wanted = np.linalg.solve(M, h / lam)
    assert np.abs(c - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_solve_that_rounding_would_break_takes_the_damping_for_its_pivot():
    S = np.ones((40, 40), np.float32)  # rank one, lam lost beside it: a pivot of plain Cholesky becomes 0 or less
    h, c = np.ones(40, np.float32), np.empty(40, np.float32)
    operations.coefficients(CPU(), 40, 1e-9, S, h, c)
    assert np.isfinite(c).all()
    assert abs(c.sum() * 1e-9 - 1) < 1e-2


def test_a_state_goes_on_from_where_it_was():
    rng = np.random.default_rng(3)
    gradients = rng.standard_normal((6, 100)).astype(np.float32)
    layout = {"d": 100, "m": 4, "lam": 0.5, "block_size": 32, "density": 0.2, "dtype": "bfloat16", "index": "uint16"}
    one, two = sparse_mfac(**layout, device="cpu"), sparse_mfac(**layout, device="cpu")
    stepped(one, gradients[:3])
    two.load(one.state())
    u, state = stepped(one, gradients[3:])
    again, same = stepped(two, gradients[3:])
    assert np.array_equal(u, again)
    assert all(np.array_equal(state[name], same[name]) for name in state)


def test_a_step_copies_nothing_but_the_gradient_and_the_direction():
    device = CPU()
    optimizer = sparse_mfac(d=64, m=2, lam=1.0, density=0.1, device=device)
    before = device.transfers
    optimizer.step(np.ones(64, np.float32))
    assert device.transfers - before == 2


def test_what_is_declared_of_the_arithmetic_is_true_of_every_window():
    """No number is the depth of every window: a coordinate of LCG adds up m terms, one after another."""
    from efcp_ref.gpu import ARITHMETIC

    assert ARITHMETIC == {"accumulator": "float32"}
    m = 300
    I, V, c = np.zeros((m, 1), np.int32), np.ones((m, 1)), np.full(m, 1.0)
    c[0] = 2.0**24  # to which float32 adds 1 without a trace: 299 roundings of 1 each
    case = Case(
        "lcg", "generic", "", 0, 0, {"indices": I, "values": V, "c": c, "d": 1, "block_size": 1, "density": 1.0}
    )
    omega = operations.lcg(I, V.astype(np.float32), c.astype(np.float32), 1, 1, 1.0, device="cpu")
    assert omega == [2.0**24]

    def verdict(arithmetic):
        checks = CRITERIA["lcg"](case, {"omega": omega}, Declared(arithmetic))
        return {check.verdict for check in checks if check.tier == "T2"}  # the rigorous bound

    assert verdict(ARITHMETIC) == {"pass"}
    assert verdict({**ARITHMETIC, "depth": 64}) == {"fail"}

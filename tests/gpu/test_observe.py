"""What `observe` reports: counted by hand on tiny cases, and facts that hold for every kernel on any data."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from efcp_ref.gpu import Observer, observe, operations, sparse_mfac
from efcp_ref.gpu.cpu.device import CPU
from efcp_ref.gpu.formats import FORMATS
from tests.gpu.problems import problem

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="no g++: no kernel can run on the CPU")
SP_LADDER = ("sp", "sp_warps", "sp_slices", "sp_sum")
LCG_LADDER = ("lcg", "lcg_rows", "lcg_rows_128", "lcg_warp", "lcg_global")
QUICK = {
    "sp_warps": FORMATS[0], "sp_slices": FORMATS[3], "sp_sum": FORMATS[3], "lcg_rows": FORMATS[0],
    "lcg_rows_128": FORMATS[3], "lcg_warp": FORMATS[3], "lcg_global": FORMATS[0],
}  # fmt: skip
EVERY = [
    pytest.param(kernel, form, id=f"{kernel}-{form.index}-{form.value}", marks=marks)
    for kernel in (*SP_LADDER, *LCG_LADDER)
    for form in FORMATS
    for marks in (() if QUICK.get(kernel, form) == form else pytest.mark.slow,)
]


def counts(o, paper, array, kind="read"):
    """Of one line: steps, lanes, idle lanes, idle threads, sectors, bytes, passes, conflicts."""
    (line,) = [x for x in o.lines if (x.paper, x.array, x.kind) == (paper, array, kind)]
    cost = (line.sectors, line.bytes, line.passes, line.conflicts)
    return (line.steps, line.lanes, line.idle_lanes, line.idle_threads, *cost)


def met(o, paper, kind="block barrier"):
    """How often blocks (or warps) met at the barrier of a line."""
    return sum(x.steps for x in o.lines if (x.paper, x.kind) == (paper, kind))


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile what follows on all processors."""
    device, needed = CPU(), [(name, form) for name in ("sp", "lcg") for form in FORMATS]
    needed += [*QUICK.items(), *((name, FORMATS[0]) for name in ("feedback", "direction", "cholesky_solve"))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda pair: device.library(*pair, observe=True), needed))


# ---- by hand ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scalar_products():
    """Two rows of four entries; d = 32, so g is four sectors of eight floats. Two blocks of four threads."""
    indices = np.int32([[0, 7, 8, 31], [0, 1, 2, 3]])
    return observe("sp", indices, np.ones((2, 4), np.float32), np.arange(32, dtype=np.float32), 32, 0.125)


def test_sp_counted_by_hand(scalar_products):
    o = scalar_products
    assert (o.blocks, o.threads, o.shared_bytes, o.arrays) == (2, 4, 16, ("g", "I", "V", "omega", "mem"))
    # A row's four indices lie side by side: one step of four lanes, 28 of the warp idle, 16 bytes in one sector.
    assert counts(o, "2:9", "I") == counts(o, "2:10", "V") == (2, 8, 56, 0, 2, 32, 0, 0)
    # g: row 0 needs the sectors 0 (entries 0 and 7), 1 (entry 8) and 3 (entry 31), row 1 sector 0 alone.
    assert counts(o, "2:11", "g") == (2, 8, 56, 0, 4, 32, 0, 0)
    assert counts(o, "2:13", "mem", "write") == (2, 8, 56, 0, 0, 0, 2, 0)
    # The tree of a block: two lanes, then one; each reads mem[Tid + half] and mem[Tid], then writes. So four steps read
    # 2 + 2 + 1 + 1 = 6 times, 4 * 32 - 6 = 122 lanes idle, and of the four threads 2 + 2 + 3 + 3 = 10.
    assert counts(o, "2:14", "mem") == (8, 12, 244, 20, 0, 0, 8, 0)
    assert counts(o, "2:14", "mem", "write") == (4, 6, 122, 10, 0, 0, 4, 0)
    assert met(o, "2:14") == 2 * 2  # log2(4) levels in each block
    assert counts(o, "2:16", "mem") == (2, 2, 62, 6, 0, 0, 2, 0)
    assert counts(o, "2:16", "omega", "write") == (2, 2, 62, 6, 2, 8, 0, 0)
    assert (o.totals["sectors"], o.totals["bytes"], o.totals["conflicts"]) == (2 + 2 + 4 + 2, 32 * 3 + 8, 0)


def test_sp_step_by_step_and_lane_by_lane(scalar_products):
    o = scalar_products
    seen = o.accesses[(o.accesses["block"] == 0) & (o.accesses["kind"] == 0)]
    of = {name: seen[seen["array"] == o.arrays.index(name)] for name in o.arrays}
    assert of["g"]["index"].tolist() == [0, 7, 8, 31]
    assert of["g"]["lane"].tolist() == [0, 1, 2, 3]
    assert np.unique(of["g"]["address"] - of["g"]["address"][0] - 4 * of["g"]["index"]).tolist() == [0]
    # Level 1: lanes 0 and 1 read mem[2], mem[3], then their own; level 2: lane 0 reads mem[1], mem[0]; then line 16.
    assert of["mem"]["index"].tolist() == [2, 3, 0, 1, 1, 0, 0]
    assert of["mem"]["lane"].tolist() == [0, 1, 0, 1, 0, 0, 0]
    steps = o.steps[o.steps["block"] == 0]
    assert [o.lines[row].paper for row in steps["row"]] == [
        "2:9", "2:10", "2:11", "2:13", *["2:14"] * 8, "2:16", "2:16"
    ]  # fmt: skip


def test_lanes_that_run_out_of_entries_are_idle():
    # Five entries for two threads: turns of 2, 2 and 1 lanes, the last one leaves a thread idle.
    o = observe("sp", np.int32([[0, 1, 2, 3, 4]]), np.ones((1, 5), np.float32), np.ones(5, np.float32), threads=2)
    assert counts(o, "2:9", "I")[:4] == (3, 5, 3 * 32 - 5, 1)
    row = o.lines.index(next(x for x in o.lines if x.paper == "2:9"))
    assert o.steps["lanes"][o.steps["row"] == row].tolist() == [2, 2, 1]


def test_lcg_counted_by_hand():
    # d = 8 in two slices of four, two entries of each row in each slice; one block of two threads takes both slices.
    indices, values = np.int32([[0, 3, 4, 5], [1, 2, 6, 7]]), np.ones((2, 4), np.float32)
    o = observe("lcg", indices, values, np.float32([1, 2]), 8, 4, 0.5, threads=2, blocks=1)
    assert o.result.tolist() == [1, 2, 2, 1, 1, 1, 2, 2]
    assert counts(o, "3:7", "mem", "write") == (2, 4, 60, 0, 0, 0, 2, 0)  # four entries, two at a time
    # Two slices of two rows: four steps, 8 bytes of one sector each. c[row] is one word for both lanes.
    assert counts(o, "3:18", "I") == counts(o, "3:19", "V") == (4, 8, 120, 0, 4, 32, 0, 0)
    assert counts(o, "3:20", "c") == (4, 8, 120, 0, 4, 16, 0, 0)
    assert counts(o, "3:20", "mem") == counts(o, "3:20", "mem", "write") == (4, 8, 120, 0, 0, 0, 4, 0)
    assert counts(o, "3:26", "omega", "write") == (4, 8, 120, 0, 4, 32, 0, 0)
    assert [met(o, paper) for paper in ("3:8", "3:22", "3:29")] == [1, 4, 2]
    assert o.totals["block barrier"] == 7


def test_conflicts_counted_by_hand():
    # One slice of 128, bank = position % 32: 0, 32 and 64 are three words of bank 0, 5 is one of bank 5. So the bank
    # needs three passes to read them and three to write them, two more than without a conflict. Of 64 threads four
    # have an entry: 28 idle lanes in their warp, and another 32 idle threads in the other one.
    indices, values = np.int32([[0, 32, 64, 5]]), np.ones((1, 4), np.float32)
    o = observe("lcg", indices, values, np.float32([1]), 128, 128, 4 / 128, threads=64, blocks=1)
    assert counts(o, "3:20", "mem") == counts(o, "3:20", "mem", "write") == (1, 4, 28, 60, 0, 0, 3, 2)
    assert counts(o, "3:7", "mem", "write") == (4, 128, 0, 0, 0, 0, 4, 0)  # neighbours: every bank once
    assert counts(o, "3:26", "omega", "write") == (4, 128, 0, 0, 4 * 4, 512, 0, 0)  # 32 floats are 4 sectors
    assert o.totals["conflicts"] == 4


def test_atomic_additions_to_one_word_wait_for_each_other():
    # All eight values have one magnitude: 8 lanes add to one of 256 counters, in each of four histograms.
    device = Observer()
    sparse_mfac(d=8, m=1, lam=1.0, density=0.5, device=device).step(np.ones(8, np.float32))
    feedback = next(o for o in device.observations if o.kernel == "feedback")
    (line,) = [x for x in feedback.lines if x.kind == "atomic"]
    assert (line.array, line.steps, line.lanes, line.passes, line.conflicts) == ("histogram", 4, 32, 32, 28)


# ---- on any data -----------------------------------------------------------------------------------------------------


def run(kernel, p, **more):
    layout = (p.block_size, p.density)
    window = p.on(CPU())
    I, V = p.indices, p.values
    if p.form.value == "bfloat16":
        import ml_dtypes

        V = V.astype(ml_dtypes.bfloat16)
    assert window.form == p.form
    if kernel in SP_LADDER:
        return observe(kernel, I, V, p.g, *layout, index=p.form.index, **more), operations.sp, (I, V, p.g, *layout)
    arguments = (I, V, p.c, p.d, *layout)
    return observe(kernel, *arguments, index=p.form.index, **more), operations.lcg, arguments


def indices_of(o, array, kind="read"):
    of = (o.accesses["array"] == o.arrays.index(array)) & (o.accesses["kind"] == ("read", "write").index(kind))
    return np.sort(o.accesses["index"][of])


@pytest.mark.parametrize(("kernel", "form"), EVERY)
def test_every_kernel_reads_the_window_once_and_its_result_is_the_same(kernel, form):
    p = problem(300, 5, 128, 0.1, form)
    o, call, arguments = run(kernel, p)
    called = {"sp": "textbook", "sp_sum": "slices", "lcg": "textbook", "lcg_rows_128": "rows"}
    more = {"kernel": called.get(kernel, kernel.partition("_")[2])}
    more |= {"threads": {"lcg_rows": 1024, "lcg_rows_128": 128}[kernel]} if "rows" in kernel else {}
    same = call(*arguments, **more, index=form.index, device=CPU())
    assert o.form == form
    assert o.result.tobytes() == same.tobytes()
    if kernel != "sp_sum":
        for name in ("I", "V"):
            assert np.array_equal(indices_of(o, name), np.arange(p.m * p.k))
    if kernel in ("sp", "sp_warps"):
        assert np.array_equal(indices_of(o, "g"), np.sort(p.indices, axis=None))
        assert np.array_equal(indices_of(o, "omega", "write"), np.arange(p.m))
    elif kernel == "sp_slices":
        assert np.array_equal(indices_of(o, "g"), np.arange(p.d))
    elif kernel != "sp_sum":
        wanted = np.bincount(p.indices.ravel(), minlength=p.d) if kernel == "lcg_global" else np.zeros(p.d, int)
        assert np.array_equal(np.bincount(indices_of(o, "omega", "write")), 1 + wanted)


@pytest.mark.parametrize("kernel", ["sp", "lcg_rows_128", "lcg_warp"])
def test_the_order_of_the_threads_does_not_show(kernel):
    p = problem(300, 5, 128, 0.1, FORMATS[3])
    forward, *others = (run(kernel, p, order=order, seed=3)[0] for order in ("forward", "reverse", "shuffled"))
    for other in others:
        assert forward.lines == other.lines
        assert forward.steps.tobytes() == other.steps.tobytes()
        assert forward.accesses.tobytes() == other.accesses.tobytes()


def test_bank_order_takes_the_conflicts_away():
    rng, layout = np.random.default_rng(2), {"d": 2048, "m": 1, "lam": 1.0, "block_size": 2048, "density": 0.125}
    g, seen = rng.standard_normal(2048).astype(np.float32), {}
    for order in ("ascending", "bank"):
        optimizer = sparse_mfac(**layout, device="cpu", order=order)
        optimizer.step(g)
        state = optimizer.state()
        o = observe("lcg", state["indices"], state["values"], np.ones(1, np.float32), 2048, 2048, 0.125)
        steps, *_, passes, seen[order] = counts(o, "3:20", "mem")
        turns = state["indices"].reshape(8, 32) % 32  # eight warps, each with 32 entries
        assert (steps, passes) == (8, sum(np.bincount(turn).max() for turn in turns))
    assert seen["bank"] <= np.bincount(turns.ravel()).max() - 1 < seen["ascending"]  # W + R - 1 passes: test_kernels.py


def test_a_whole_step_can_be_observed():
    device, plain = Observer("shuffled", 1), CPU()
    layout = {"d": 70, "m": 2, "lam": 1.0, "block_size": 32, "density": 0.2}
    ours, theirs = sparse_mfac(**layout, device=device), sparse_mfac(**layout, device=plain)
    for g in np.random.default_rng(4).standard_normal((2, 70)).astype(np.float32):
        assert ours.step(g).tobytes() == theirs.step(g).tobytes()
    kernels = {o.kernel for o in device.observations}
    assert {"feedback", "place_row", "direction", "cholesky_panel", "cholesky_solve"} <= kernels
    solve = next(o for o in device.observations if o.kernel == "cholesky_solve")
    assert solve.totals["warp barrier"] > 0
    assert all(x.paper == "" for x in solve.lines)


# ---- the report ------------------------------------------------------------------------------------------------------


def test_table_and_json_say_the_same(scalar_products):
    o = scalar_products
    rows = o.table()
    assert len(rows) == len(o.lines) + 2
    assert len({len(row) for row in rows}) == 1
    assert rows[0].split()[:6] == ["line", "paper", "kind", "array", "steps", "lanes"]
    assert rows[-1].split() == ["total", *(str(o.totals[name]) for name in rows[0].split()[4:])]
    said = json.loads(o.to_json())
    assert said["totals"] == o.totals
    assert said["accesses"]["address"] == o.accesses["address"].tolist()
    assert [line["place"] for line in said["lines"]] == [line.place for line in o.lines]
    with pytest.raises(ValueError, match="read-only"):
        o.accesses["index"] = 0


def test_the_guide_shows_this_table(scalar_products):
    guide = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
    assert "\n".join(scalar_products.table()) in guide


def test_every_count_of_the_lines_is_a_sum_of_steps(scalar_products):
    o = scalar_products
    for row, line in enumerate(o.lines):
        if line.array:
            of = o.steps[o.steps["row"] == row]
            sums = [int(of[name].sum()) for name in ("lanes", "sectors", "bytes", "passes")]
            assert [len(of), *sums] == [line.steps, line.lanes, line.sectors, line.bytes, line.passes]


@pytest.mark.parametrize(
    ("kernel", "more", "error", "said"),
    [
        ("sp_fast", {}, ValueError, "kernel"),
        ("sp", {"device": "cuda"}, TypeError, "device"),
        ("sp", {"order": "backwards"}, ValueError, "order"),
        ("sp", {"block_size": 0}, ValueError, "block_size"),
    ],
)
def test_bad_arguments(kernel, more, error, said):
    with pytest.raises(error, match=said):
        observe(kernel, np.int32([[0]]), np.ones((1, 1), np.float32), np.ones(1, np.float32), **more)


def test_too_much_to_observe_is_said(monkeypatch):
    from efcp_ref.gpu.cpu import events

    monkeypatch.setattr(events, "MOST", 10)
    with pytest.raises(ValueError, match="must be at most 10 to be observed"):
        observe("sp", np.int32([[0, 1, 2]]), np.ones((1, 3), np.float32), np.ones(3, np.float32))

# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The kernels, lane by lane
#
# After this page you will be able to
#
# - say which thread reads which address in Algorithms 2 and 3, without a GPU;
# - count memory sectors, idle lanes and bank conflicts of the CUDA kernels;
# - show what goes wrong where a barrier is missing.
#
# The reference runs a kernel as it is printed: the T threads of a block are *lanes* of a NumPy axis, and one line runs for
# all lanes before the next line starts. So a trace of it knows every address. The same kernels in CUDA C run on the CPU,
# too, through g++: `observe` writes down every access.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLUE, GREEN, PURPLE, RED, show, show_trace

from efcp_ref.gpu import observe
from efcp_ref.paper.algorithm_2 import parallel_reduce, sp_kernel
from efcp_ref.paper.algorithm_3 import lcg_kernel
from efcp_ref.tracing import trace

# %% [markdown]
# ## Algorithm 2: one row, four lanes
#
# A thread block multiplies one row of the window with a vector. The row has ten entries; lane $t$ takes the entries
# $t, t + T, t + 2T, \dots$ (line 8). Line 9 reads a position, line 10 a value, line 11 adds to a register of the lane.

# %%
rng = np.random.default_rng(0)
indices = np.sort(rng.choice(40, 10, replace=False)).astype(np.int32)[None]
values, g = np.arange(1.0, 11.0)[None], np.ones(40)
run = trace(sp_kernel, indices, values, g, T=4)
show_trace(run, keep=lambda event: event.line in ("2:8", "2:11", "2:13", "2:14", "2:16") and event.changed)

# %%
rounds = [event.variables for event in run.events if event.line == "2:8" and event.changed]
fig, ax = plt.subplots(figsize=(6.0, 2.0))
for number, variables in enumerate(rounds):
    for lane, j in zip(variables["lanes"], variables["j"], strict=True):
        ax.add_patch(plt.Rectangle((j + 0.05, 0.1), 0.9, 0.8, color=(BLUE, RED, GREEN, PURPLE)[lane]))
        ax.text(j + 0.5, 0.5, f"lane\n{lane}\nround\n{number}", color="white", ha="center", va="center", weight="bold")
ax.set(xlim=(0, 10), ylim=(0, 1), xticks=np.arange(10) + 0.5, xticklabels=range(10), yticks=[], xlabel="column j of the row")
ax.grid(False)
show(fig, alt="Ten columns of a row: round 0 covers columns 0 to 3 with lanes 0 to 3, round 1 columns 4 to 7, round 2 columns 8 "
     "and 9 with lanes 0 and 1 alone.")  # fmt: skip

# %% [markdown]
# In one round, neighbouring lanes read neighbouring addresses. In the last round two lanes have left the loop.
#
# ## Coalescing
#
# A GPU reads global memory in sectors of 32 bytes. Thirty-two lanes that read neighbouring 4-byte entries touch
# four; if each lane took a run of its own, one each. The gather $g_i$ in line 11 has no such order: positions are
# wherever Top-k found them. We observe `sp.cu` with one warp on a row of 250 entries.

# %%
K, D = 250, 20_000
row = np.sort(rng.choice(D, K, replace=False)).astype(np.int32)[None]
seen = observe("sp", row, np.ones((1, K), np.float32), np.ones(D, np.float32), threads=32)
print("\n".join(f"line {line.paper:5} {line.kind:6} {line.array:6} {line.steps:2} steps {line.lanes:4} lanes {line.idle_lanes:3} idle "
                f"{line.sectors:4} sectors" for line in seen.lines if line.space == "global"))  # fmt: skip
reads = {line.paper: line for line in seen.lines if line.kind == "read" and line.space == "global"}
index, gather = reads["2:9"], reads["2:11"]
first = seen.accesses[seen.accesses["array"] == seen.arrays.index("I")][:32]  # one step: lane and address
own_runs = len(np.unique((first["address"][0] + 4 * -(-K // 32) * np.arange(32)) // 32))
print(f"first step of line 9: {len(np.unique(first['address'] // 32))} sectors; if each lane had its own run, {own_runs}")

# %% [markdown]
# ## The tree needs a barrier per level
#
# Line 14 sums T partial sums in $\log_2 T$ levels: on the first, lane $t$ adds entry $t + T/2$ to entry $t$, and so on. A
# lane may start the next level only when all have finished this one. Without a barrier the order is up to the hardware.
# We let lanes of a block of eight run at random speeds, each lane's own levels in order, and look at the sum.

# %%
ACTIONS = [(half, lane) for half in (4, 2, 1) for lane in range(half)]  # in the order of the barriers


def unsynchronised(rng):
    """Return the actions in an order without barriers: each lane keeps its own order."""
    lanes = [[action for action in ACTIONS if action[1] == lane] for lane in range(4)]
    order = []
    while any(lanes):
        lane = rng.choice([number for number, left in enumerate(lanes) if left])
        order.append(lanes[lane].pop(0))
    return order


def summed(order, mem):
    """Run the additions of the tree on mem in an order; return mem[0]."""
    for half, lane in order:
        mem[lane] += mem[lane + half]
    return mem[0]


start, right = np.arange(1.0, 9.0), np.arange(1.0, 9.0)
parallel_reduce(right, 8)
without = np.array([summed(unsynchronised(rng), start.copy()) for _ in range(2000)])
wrong = np.mean(without != right[0])

# %%
fig, ax = plt.subplots()
found, counts = np.unique(without, return_counts=True)
ax.bar(found, 100 * counts / 2000, width=0.8, color=[GREEN if value == right[0] else RED for value in found])
ax.annotate("right", (right[0], 100 * counts[found == right[0]][0] / 2000), ha="center", va="bottom")
ax.set(xlabel="sum that lane 0 writes", ylabel="share of 2000 random orders, %")
show(fig, alt="Bars of the sums that come out without barriers: the right sum, 36, is one bar among several wrong ones, which are "
     "all smaller.")  # fmt: skip
print(f"wrong without barriers: {100 * wrong:.0f} % of the orders; with barriers the sum is {right[0]:g}")

# %% [markdown]
# Every wrong sum is too small: a lane added an entry before that entry was complete.
#
# ## Algorithm 3: shared memory
#
# LCG adds up a slice of the output in shared memory, `mem`. All lanes work on one row at a time. Positions within a row
# are distinct, so no two lanes write to one entry. Line 22 is the barrier between rows. Which entries would be at risk
# without it? Those that two rows hold. If both lanes read before either writes, one of the two additions is lost.

# %%
I = np.array([[0, 2, 5, 7], [2, 3, 5, 6]], np.int32)
V, c = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]), np.array([10.0, 1.0])
small = trace(lcg_kernel, I, V, c, 8, 4, 2, T=2)
show_trace(small, keep=lambda event: event.line in ("3:12", "3:18", "3:20", "3:26") and event.changed)
touched = [set(event.variables["index"].tolist()) for event in small.events if event.line == "3:18" and event.changed]
at_risk = sorted((touched[0] & touched[1]) | (touched[2] & touched[3]))
lost = np.where(np.isin(np.arange(8), at_risk), 1.0, small.result)  # row 1 has written last, over row 0
print("right", small.result, "\nentries at risk", at_risk, "\nlost update", lost)

# %% [markdown]
# ## Bank conflicts
#
# Shared memory has 32 banks; entry n lies in bank n mod 32. Lanes of a warp that hit different entries of one bank
# wait for each other: the step takes as many passes as the fullest bank has entries. Top-k positions are scattered, so
# a few collide in most steps. Multiples of 32 are the worst case. A window may also store the entries of a block in
# *bank order*: the first of every bank, then the second of every bank, and so on.

# %%
B_D, B_K, M = 8192, 256, 4
scattered = np.stack([np.sort(rng.choice(B_D, B_K, replace=False)) for _ in range(M)]).astype(np.int32)
aligned = np.stack([np.arange(B_K) * 32] * M).astype(np.int32)
turns = [[np.sum(row[:j] % 32 == i % 32) for j, i in enumerate(row)] for row in scattered]  # before it in its bank
ordered = np.take_along_axis(scattered, np.lexsort((scattered % 32, turns)), axis=1)
passes = {}
for name, positions in (("scattered", scattered), ("in bank order", ordered), ("multiples of 32", aligned)):
    o = observe("lcg", positions, np.ones((M, B_K), np.float32), np.ones(M, np.float32), B_D, B_D, B_K / B_D, threads=32)
    (line,) = (n for n, l in enumerate(o.lines) if (l.paper, l.array, l.kind) == ("3:20", "mem", "read"))
    passes[name] = o.steps["passes"][o.steps["row"] == line]
    print(f"{name:16} passes for one step: mean {passes[name].mean():.1f}, most {passes[name].max()}")

# %% [markdown]
# The kernels in CUDA C are in `efcp_ref/gpu/kernels`; `efcp_ref.gpu.sp(...)` runs them. Nothing here was timed on a GPU.
#
# ## What must hold

# %%
assert run.result[0] == 55  # 1 + 2 + ... + 10, for g is all ones
assert [variables["j"].tolist() for variables in rounds] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
assert seen.result == index.lanes == K  # every entry is read once
assert (index.steps, index.sectors, own_runs) == (8, 8 * 4, 32)  # the last step reads 26 entries: four sectors, too
assert index.idle_lanes == gather.idle_lanes == 8 * 32 - K
assert first["lane"].tolist() == list(range(32)) == first["index"].tolist()
assert gather.sectors == sum(len(np.unique(row[0, j : j + 32] // 8)) for j in range(0, K, 32)) > 0.9 * K
assert summed(ACTIONS, start.copy()) == right[0] == 36
assert 0 < wrong < 1
assert (without <= 36).all()
assert small.result.tolist() == [10, 0, 11, 1, 0, 11, 1, 10]
assert at_risk == [2, 5]
for name, positions in (("scattered", scattered), ("in bank order", ordered), ("multiples of 32", aligned)):
    assert passes[name].tolist() == [np.bincount(step % 32).max() for step in positions.reshape(-1, 32)]
assert passes["in bank order"].sum() < passes["scattered"].sum() < passes["multiples of 32"].sum() == 32 * M * B_K / 32

# %% [markdown]
# ## Summary
#
# Neighbouring lanes read neighbouring addresses; the gather does not. The tree needs a barrier on every level, LCG one
# between rows. Next: [does the paper's story hold on digits?](10_digits_story.py)

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Write the columns that one thread reads in line 8, and the tree of line 14: `check("2:8", f)`, `check("2:14", f)`.
# 2. Line 15 of Algorithm 3 prints an end that makes every slice but the first empty (R19). Mend it: `check("3:15", f)`.

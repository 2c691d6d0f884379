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
# - count memory sectors and bank conflicts from a trace;
# - show what goes wrong where a barrier is missing.
#
# The reference runs a kernel as it is printed: the T threads of a block are *lanes* of a NumPy axis, and one line runs for
# all lanes before the next line starts. So a trace of it knows every address.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLUE, GREEN, PURPLE, RED, show, show_trace

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
fig, ax = plt.subplots(figsize=(7.0, 2.0))
for number, variables in enumerate(rounds):
    for lane, j in zip(variables["lanes"], variables["j"], strict=True):
        ax.add_patch(plt.Rectangle((j + 0.05, 0.1), 0.9, 0.8, color=(BLUE, RED, GREEN, PURPLE)[lane]))
        ax.text(j + 0.5, 0.5, f"lane {lane}\nround {number}", color="white", ha="center", va="center", fontsize=8, weight="bold")
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
# four sectors. If each lane took a run of its own, they would touch one sector each. The gather $g_i$ in line 11 has no
# such order: positions are wherever Top-k found them. We count, from the addresses in a trace.

# %%
def sectors(addresses):
    """Return how many sectors of 32 bytes one warp touches."""
    return len(np.unique(np.asarray(addresses) // 32))


K, D = 256, 20_000
row = np.sort(rng.choice(D, K, replace=False)).astype(np.int32)[None]
warp = trace(sp_kernel, row, np.ones((1, K)), np.ones(D), T=32)
columns = [event.variables["j"] for event in warp.events if event.line == "2:8" and event.changed]
coalesced = np.mean([sectors(4 * j) for j in columns])
gather = np.mean([sectors(4 * event.variables["i"]) for event in warp.events if event.line == "2:9"])
own_runs = np.mean([sectors(4 * (np.arange(32) * (K // 32) + step)) for step in range(K // 32)])
print(f"sectors per round: line 9 {coalesced:.0f}, if each lane had its own run {own_runs:.0f}, gather of g {gather:.1f}")

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
# wait for each other. Top-k positions are scattered, so a few collide in most rounds. Positions that are multiples of 32
# are the worst case: all lanes in one bank.

# %%
def conflict(event):
    """Return how many lanes of a round share the fullest bank."""
    entry = event.variables["index"] - event.variables["start_d"]
    return np.bincount(entry % 32).max()


B_D, B_K, M = 2048, 64, 16
scattered = np.stack([np.sort(rng.choice(B_D, B_K, replace=False)) for _ in range(M)]).astype(np.int32)
aligned = np.stack([np.arange(B_K) * 32] * M).astype(np.int32)
degree = {}
for name, positions in (("scattered", scattered), ("multiples of 32", aligned)):
    kernel = trace(lcg_kernel, positions, np.ones((M, B_K)), np.ones(M), B_D, B_D, B_K, T=32)
    degree[name] = np.array([conflict(event) for event in kernel.events if event.line == "3:18"])
    print(f"{name:16} lanes in the fullest bank: mean {degree[name].mean():.1f}, most {degree[name].max()}")

# %% [markdown]
# The reference is not fast, and need not be. The same kernels in CUDA C are in `efcp_ref/gpu/kernels`, and
# `efcp_ref.gpu.sp(...)` runs them, on a GPU or through a C++ compiler on the CPU.
#
# ## What must hold

# %%
assert run.result[0] == 55  # 1 + 2 + ... + 10, for g is all ones
assert [variables["j"].tolist() for variables in rounds] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
assert sorted(np.concatenate(columns).tolist()) == list(range(K))  # every entry is read once
assert (coalesced, own_runs) == (4, 32)
assert 30 < gather <= 32
assert summed(ACTIONS, start.copy()) == right[0] == 36
assert 0 < wrong < 1
assert (without <= 36).all()
assert small.result.tolist() == [10, 0, 11, 1, 0, 11, 1, 10]
assert at_risk == [2, 5]
assert 2 < degree["scattered"].mean() < 6 < degree["multiples of 32"].min() == 32

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

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
# # Differential testing: catch six planted bugs
#
# After this page you will be able to
#
# - judge a file of your own, in any of its functions, in a process of its own;
# - read a verdict: stage, printed line, inequality, smallest case;
# - tell rounding from a mistake, and know why no tolerance was chosen by hand.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, RED, show

from efcp_ref.oracle import check_target
from efcp_ref.oracle.cases import standard
from efcp_ref.oracle.diagnose import explain
from efcp_ref.oracle.judge import judge, judge_case
from efcp_ref.oracle.mutants import MUTANTS
from efcp_ref.oracle.targets import Local
from efcp_ref.paper.printed import lines

# %% [markdown]
# ## A file of your own
#
# A target is a file whose functions carry the names of the contract. It needs no import of ours. This one holds the
# scalar products of Algorithm 2, in one line.

# %%
RIGHT = """
def sp(indices, values, g):
    return (values * g[indices]).sum(axis=1)
"""


def judged(source, operation):
    """Write a target to a file, judge it in a child process, delete it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "my_code.py")
        path.write_text(source)
        report = check_target(str(path), [operation], cases=12, shrink_seconds=10.0)
    assert not report.broken, report.broken
    return report[operation]


right = judged(RIGHT, "sp")
print(f"sp: {right.verdict}, {right.passed} of {right.judged} cases; worst error {right.worst.ratio:.2g} of its bound")

# %% [markdown]
# ## Plant a mistake
#
# The loop of line 8 ends one entry early. The results are of the right shape and size.

# %%
wrong = judged(RIGHT.replace("(values * g[indices])", "(values * g[indices])[:, :-1]"), "sp")
failure = wrong.failures[0]
first = failure.verdict.first
print(f"sp: {wrong.verdict}, {wrong.failed} of {wrong.judged} cases")
print(f"stage {first.stage}, line {first.line}: {lines()[first.line].comment}")
print(f"rule  {first.rule}")
small = failure.minimal.case.arguments
print("smallest case:", {name: np.asarray(small[name]).tolist() for name in ("indices", "values", "g")})

# %% [markdown]
# From a failing case the oracle takes away what it can, as long as the case still fails. What is left can be worked out
# by hand.
#
# ## Six bugs
#
# The package keeps a list of known mistakes, each with the line that it gets wrong. They test the oracle: every one
# must be caught. We take six, hide them behind the contract's names, and ask.

# %%
SIX = ("selected_by_g", "level_forgotten", "overwritten", "lam_for_m_lam", "layer_sum_overwritten", "e_not_cleared")
planted = [next(mutant for mutant in MUTANTS if mutant.name == name) for name in SIX]
verdicts = {}
for mutant in planted:
    report = judge(Local({mutant.operation: mutant.function}), [mutant.operation], 6, shrink_seconds=0)[mutant.operation]
    verdicts[mutant.name] = report
    blamed = report.failures[0].verdict.first
    print(f"{mutant.operation:15} {report.verdict}  blamed {blamed.stage} at {blamed.line:5} planted in {mutant.line}")

# %% [markdown]
# The line blamed is that of the first stage that cannot be explained by rounding, given the stages before it. A
# function that returns its stages ($S$, $h$, $c$, then $u$) gets a sharper answer than one that returns the end alone.
#
# ## Which mistake is it?
#
# For a failing case the known mistakes are run, too. One that gives the same wrong result explains the failure.

# %%
for mutant in planted[:2]:
    case = verdicts[mutant.name].failures[0].verdict.case
    outcome = Local({mutant.operation: mutant.function}).run(case)
    print(f"{mutant.operation} agrees with\n  ", "; ".join(m.text for m in explain(case, outcome.results, seconds=60)))

# %% [markdown]
# ## Rounding is not a mistake
#
# Two correct programs differ: they add in different orders. The oracle does not ask for equality, and no tolerance was
# tuned. For a scalar product of k terms in a format with unit roundoff $u$, rounding analysis gives
#
# $$|\hat\omega_r - \omega_r| \le k\,u \sum_j |v_j g_j| ,$$
#
# and $\omega_r$ is known to more bits than any result has. We compare, in float32: three correct ways to add up, and
# three wrong ones. Each dot is one case, its height the error as a share of the bound.

# %%
def in_float32(add):
    """Return an sp that adds the products of a row with ``add``, in float32."""
    return lambda indices, values, g: np.array([add((v * g[i]).astype(np.float32)) for i, v in zip(indices, values, strict=True)])


def backwards(products):
    """Add the last product first."""
    return np.float32(np.add.accumulate(products[::-1])[-1])


ways = {
    "NumPy's sum": in_float32(lambda p: p.sum(dtype=np.float32)),
    "backwards": in_float32(backwards),
    "by magnitude": in_float32(lambda p: backwards(p[np.argsort(-np.abs(p))])),
    "one dropped": in_float32(lambda p: p[:-1].sum(dtype=np.float32)),
    "first twice": in_float32(lambda p: p.sum(dtype=np.float32) + p[0]),
    "in bfloat16": in_float32(lambda p: (p.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).sum(dtype=np.float32)),
}
cases = [case.with_dtype("float32") for case in standard("sp", 24, 0) if "nan" not in case.flags]
ratios = {name: [] for name in ways}
for name, way in ways.items():
    target = Local({"sp": way})
    for case in cases:
        checks = judge_case(target, case)[0].checks
        ratios[name].append(max(check.ratio for check in checks if check.stage == "omega"))

# %%
fig, ax = plt.subplots(figsize=(6.0, 3.6))
jitter = np.random.default_rng(0)
for place, values in enumerate(ratios.values()):
    height = np.clip(values, 1e-3, 1e7)
    color, marker = (BLUE, "o") if place < 3 else (RED, "x")
    ax.semilogy(place + jitter.uniform(-0.25, 0.25, len(height)), height, marker, color=color, markersize=5)
ax.axhline(1, color=BLACK, linestyle="--")
ax.text(5.45, 1.3, "bound", ha="right")
ax.set(xticks=range(6), ylabel="error / bound (cut at .001 and 10 million)")
ax.set_xticklabels([name.replace(" ", "\n", 1) for name in ratios])
show(fig, alt="Dots of error over bound for six ways to add: the three correct ways stay below the line at one in every case; each "
     "of the three wrong ways has most cases far above it.")  # fmt: skip

# %% [markdown]
# ## What must hold

# %%
assert right.verdict == "pass"
assert right.worst.ratio <= 1
assert wrong.verdict == "fail"
assert first.line == "2:11"
assert failure.minimal.verdict == "fail"
assert np.size(small["values"]) <= np.size(failure.verdict.case.arguments["values"])
assert len(planted) == 6
for mutant in planted:
    assert verdicts[mutant.name].verdict == "fail"
    algorithm, blamed = mutant.line.split(":")[0], verdicts[mutant.name].failures[0].verdict.first.line
    assert blamed.split(":")[0] == algorithm  # the right algorithm; for most of them, the very line
assert sum(m.line == verdicts[m.name].failures[0].verdict.first.line for m in planted) >= 5
for name, values in ratios.items():
    assert (max(values) <= 1) == (name in list(ways)[:3])

# %% [markdown]
# ## Summary
#
# A verdict is an inequality with a name and a line. Correct code passes in any order of addition; known mistakes are
# caught and named. `efcp-ref check my_code.py` does this in a terminal. Next:
# [train a PyTorch model](12_train_with_pytorch.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Plant a mistake of your own in `sp` that survives `check("2:11", f)`. If you find one, we want to hear of it.
# 2. Write the window's update with the row replaced *after* the product (R7): what does `check("W:5", f)` say?

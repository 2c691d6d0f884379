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
# # Sparse M-FAC by hand
#
# After this page you will be able to
#
# - carry out five steps of Sparse M-FAC with pencil and paper, every number a small fraction;
# - point at the printed line that makes each number;
# - check the direction without trusting the method: multiply it with the matrix.
#
# The setting: d = 6 parameters, a window of m = 3 gradients, k = 2 entries kept of each, damping $\lambda = 1$. Then
# $x/\lambda$ is x itself, and the matrix to solve with is $M = 3 I + S$.

# %%
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, show, show_trace

import efcp_ref
from efcp_ref.tracing import trace

ROWS = "2 3 1 -1 1 0   2 0 0 -2 -2 1   2 1 -1 1 0 2   1 1 0 2 2 3   -3 1 0 2 2 -2"
GRADIENTS = np.array(ROWS.split(), float).reshape(5, 6)
optimizer = efcp_ref.sparse_mfac(d=6, m=3, lam=1.0, density=Fraction(1, 3))
runs = [trace(optimizer.step, g) for g in GRADIENTS]

# %% [markdown]
# The code below only reads the trace: which printed line ran, what its variables were. `1:5` is line 5 of Algorithm 1,
# `W:3` to `W:5` are the lines of section 2.2 (coefficients, direction, scalar products).

# %%
def at(step, line):
    """Return what one printed line left behind in a step, counted from 1: its variables, and what it returned."""
    event = next(event for event in runs[step - 1].events if event.line == line)
    return {**event.variables, "result": event.result}


def fractions(values):
    """Return numbers as fractions: 0.8125 as 13/16."""
    return [str(Fraction(float(value)).limit_denominator(1000)) for value in np.ravel(values)]


def tell(step):
    """Print every number of one step."""
    sent, products, end = at(step, "1:6")["c"], at(step, "W:5"), at(step, "W:4")
    for name, numbers, note in (
        ("g", fractions(GRADIENTS[step - 1]), "the gradient"), ("a", fractions(at(step, "1:5")["a"]), "line 5: the error so far, plus g"),
        ("c", [f"{v:g} at {i}" for i, v in zip(sent["indices"], sent["values"], strict=True)], "line 6: the two largest"),
        ("xi", fractions(at(step, "1:7")["xi"]), "line 7: what waits"),
        ("h", fractions(products["delta"]), f"G c, the new row {products['row']} of S"),
        ("S", [" ".join(fractions(row)) + ";" for row in products["S"]], "all scalar products"),
        ("M^-1 h", fractions(at(step, "W:3")["result"]), "coefficients of the rows, eq. (2)"),
        ("sum", fractions(end["combination"]), "their combination"), ("u", fractions(end["result"]), "c minus that"),
    ):  # fmt: skip
        print(f"{name:6} = {' '.join(numbers):26} {note}")


# %% [markdown]
# ## Step 1: one row
#
# The error is zero, so $a = g$. The two largest magnitudes are 2 and 3, at positions 0 and 1. They go into row 0 of the
# window. The other four entries wait in $\xi$.
#
# The window has one row, so $S$ has one entry: $2^2 + 3^2 = 13$. We solve $(3 + 13)\,\gamma = 13$, so $\gamma = 13/16$.
# The direction is $c - \tfrac{13}{16} c = \tfrac{3}{16} c$. In general the first step is $m\,g / (\lambda m + \|g\|^2)$.

# %%
tell(1)

# %% [markdown]
# ## Step 2: what waited comes back
#
# $\xi = (0, 0, 1, -1, 1, 0)$ is added to g. Position 3 had $-1$ waiting and gets $-2$: with $-3$ it is now the largest.
# The rows $(2, 3, 0, 0, 0, 0)$ and $(2, 0, 0, -3, 0, 0)$ meet in position 0 alone: their product is $4$. Solve
#
# $$\begin{pmatrix} 16 & 4 \\ 4 & 16 \end{pmatrix} \gamma = \begin{pmatrix} 4 \\ 13 \end{pmatrix}, \qquad
# \gamma = \left(\tfrac{1}{20}, \tfrac{4}{5}\right).$$

# %%
tell(2)

# %% [markdown]
# The direction has three nonzero entries although two were sent: the old row takes part. "The resulting preconditioned
# gradients are not necessarily very sparse", says the paper.
#
# ## Step 3: the window is full
#
# Three rows, each of squared length 13, and every two of them meet in position 0 with product 4. So $M$ has $16$ on the
# diagonal and $4$ elsewhere. Such a matrix is solved by looking at it: $\gamma = (\tfrac{1}{24}, \tfrac{1}{24},
# \tfrac{19}{24})$, for $16 \cdot \tfrac{1}{24} + 4 \cdot \tfrac{1}{24} + 4 \cdot \tfrac{19}{24} = 4$.

# %%
tell(3)

# %% [markdown]
# ## Step 4: the oldest row goes
#
# The ring comes back to row 0. First the row is replaced, then the scalar products are taken (R7), so the diagonal entry
# is the new $3^2 + 3^2 = 18$. Row 0 and row 1 now point apart: $-9$.

# %%
tell(4)

# %% [markdown]
# ## Step 5: two entries that waited
#
# Position 1 waited with 2 and position 4 with 1. Both reach 3 and are sent. No other row touches them, so $h$ has one
# entry, and the solution is that of step 1 with 18 for 13: $\gamma = 18/21 = 6/7$.

# %%
tell(5)

# %% [markdown]
# ## All five accumulators
#
# Each row is one step's $a = \xi + g$. The framed entries are sent; the others are what the next row starts from.

# %%
a = np.array([at(step, "1:5")["a"] for step in range(1, 6)])
sent = [set(at(step, "1:6")["c"]["indices"].tolist()) for step in range(1, 6)]
fig, ax = plt.subplots(figsize=(6.0, 3.4))
ax.imshow(np.abs(a), cmap="Greys", vmin=0, vmax=9, aspect="auto")
for (row, column), value in np.ndenumerate(a):
    kept = column in sent[row]
    ax.text(column, row, f"{value:g}", ha="center", va="center", color=BLACK, weight="bold" if kept else "normal")
    if kept:
        ax.add_patch(plt.Rectangle((column - 0.44, row - 0.42), 0.88, 0.84, fill=False, edgecolor=BLUE, linewidth=2.5))
ax.set(xlabel="position", ylabel="step", yticks=range(5), yticklabels=range(1, 6))
ax.grid(False)
show(fig, alt="A table of five accumulators of six entries; the two of largest magnitude in each row are framed: positions 0 and "
     "1, 0 and 3, 0 and 5, 3 and 5, 1 and 4.")  # fmt: skip

# %% [markdown]
# ## Line by line
#
# The same step as the tracer wrote it down: Algorithm 1 around Algorithm 2 (scalar products) and Algorithm 3
# (combination).

# %%
show_trace(runs[1], keep=lambda event: event.line in ("1:5", "1:6", "1:7", "2:11", "2:16", "W:5", "W:3", "3:20", "W:4"))

# %% [markdown]
# ## What must hold

# %%
WORKED = {  # step: M^-1 h, u, as worked out above
    1: ("13/16 0 0", "3/8 9/16 0 0 0 0"),
    2: ("1/20 4/5 0", "3/10 -3/20 0 -3/5 0 0"),
    3: ("1/24 1/24 19/24", "1/4 -1/8 0 1/8 0 5/8"),
    4: ("3/5 -3/10 3/10", "0 0 0 3/10 0 3/10"),
    5: ("0 6/7 0", "0 3/7 0 0 3/7 0"),
}
G = np.zeros((3, 6))
for step, (coefficients, u) in WORKED.items():
    assert fractions(at(step, "W:3")["result"]) == coefficients.split()
    assert fractions(at(step, "W:4")["result"]) == u.split()
    c = at(step, "1:6")["c"]
    G[(step - 1) % 3] = 0
    G[(step - 1) % 3, c["indices"]] = c["values"]
    F = np.eye(6) + G.T @ G / 3  # multiply u with the matrix: c must come back
    assert np.allclose(F @ at(step, "W:4")["result"], G[(step - 1) % 3], atol=1e-14)
    assert np.array_equal(at(step, "W:5")["S"], G @ G.T)
assert [sorted(s) for s in sent] == [[0, 1], [0, 3], [0, 5], [3, 5], [1, 4]]
assert at(1, "1:6")["c"]["values"].tolist() == [2, 3]
assert np.array_equal(at(3, "W:5")["S"], 13 * np.eye(3) + 4 * (1 - np.eye(3)))
assert at(4, "W:5")["S"][0].tolist() == [18, -9, 9]
assert at(5, "W:5")["delta"].tolist() == [0, 18, 0]
assert (at(4, "1:7")["xi"][1], at(4, "1:7")["xi"][4], at(5, "1:5")["a"][1], at(5, "1:5")["a"][4]) == (2, 1, 3, 3)
assert np.count_nonzero(at(2, "W:4")["result"]) == 3
assert np.array_equal(sum(G_t for G_t in GRADIENTS), a.sum(0) - sum(at(s, "1:7")["xi"] for s in range(1, 5)))
assert (optimizer.state()["values"].shape, len(GRADIENTS[0])) == ((3, 2), 6)

# %% [markdown]
# ## Summary
#
# Add the error, keep two entries, replace a row, take scalar products, solve a 3 x 3 system, subtract. Every number came
# from the trace of the reference. Next: [damping, window and learning rate](05_damping_window_rate.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Do step 6 with $g = (0, 0, 1, 1, 0, 0)$ on paper. Which row is replaced? Then write the update of S:
#    `check("W:5", f)`.
# 2. Set $\lambda = 2$ and work out step 1 again. Then write the direction of eq. (2): `check("W:4", f)`.

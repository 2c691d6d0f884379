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
# # The empirical Fisher matrix, without a matrix
#
# After this page you will be able to
#
# - say what M-FAC multiplies a gradient with, and why;
# - compute that product in three ways, and explain why all agree;
# - correct two lines of section 2.2 that cannot be run as printed.

# %%
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, RED, show, show_trace

import efcp_ref
from efcp_ref.data import MLP, SOFTMAX, recorded_gradients
from efcp_ref.oracle import mutants
from efcp_ref.paper.woodbury import coefficients, coefficients_recursive, denominator
from efcp_ref.tracing import trace

# %% [markdown]
# ## Steep is not far
#
# In a long narrow valley the gradient points across, to the near wall, and hardly along. Where gradients keep pointing
# the same way, back and forth, the loss is steep, and a step should be short. Where they are small, it may be long.
#
# The **empirical Fisher matrix** collects these directions from the last m gradients, the rows of $G$ (m x d):
#
# $$F = \lambda I + \tfrac{1}{m}\, G^T G, \qquad u = F^{-1} x .$$
#
# The damping $\lambda > 0$ is needed: without it the matrix has rank m at most and no inverse (R3). We look at two
# gradients in the plane.

# %%
G = np.array([[1.0, 0.0], [1.0, 1.0]])
x = np.array([1.0, 1.0])
lam, m, d = 1.0, 2, 2
F = lam * np.eye(d) + G.T @ G / m
dense = np.linalg.solve(F, x)
print("F =\n", F, "\nu =", dense, "= 4/11, 6/11")

# %% [markdown]
# ## One gradient after another
#
# A d x d matrix is out of reach for a large model. The Sherman-Morrison formula updates an inverse when one gradient
# $g_k$ is added. With $F_0 = \lambda I$ and $w_k = F_{k-1}^{-1} g_k$:
#
# $$F_k^{-1} x = F_{k-1}^{-1} x - \frac{w_k\,(w_k^T x)}{m + g_k^T w_k} .$$
#
# No matrix occurs, only vectors. The trace shows the recursion work: `W:2` runs for $g_1$, then for $g_2$, then for $x$.

# %%
run = trace(efcp_ref.wsm, G, lam, x)
show_trace(run, keep=lambda event: event.line in ("W:1", "W:2"))

# %% [markdown]
# The paper prints the sum of all terms with $F_k$ in place of $F_{k-1}$. That uses each gradient before its turn (R2).
# Both variants can be run; the printed one is among the oracle's known mistakes.

# %%
by_recursion = efcp_ref.wsm(G, lam, x)
as_printed = mutants.mfac.printed_sum.function(G, lam, x)
print("right", by_recursion.round(4), "  as printed", as_printed.round(4))

# %% [markdown]
# ## Only scalar products
#
# Every $w_k$ is a combination of gradients, so the result is one, too. That is equation (2) of the paper:
#
# $$\begin{aligned} F^{-1} x &= \frac{1}{\lambda} x - \sum_{k=1}^{m} c_k g_k, \\ c &= \frac{1}{\lambda} (\lambda m I + G G^T)^{-1} G x . \end{aligned}$$
#
# The paper says that the coefficients are computed "based only on scalar products" and gives no formula. The one above
# (R5) follows from the Woodbury identity. It needs an m x m matrix $S = G G^T$ and m products $h = G x$. M-FAC computes
# the same coefficients by a recursion, one gradient after another. Two ways, one result:

# %%
u, S, h, c = efcp_ref.mfac_direction(G, lam, x)
print("S =\n", S, "\nh =", h, " c =", c, "= 2/11, 5/11")
print("by the recursion for coefficients", coefficients_recursive(S, h, lam))
exact = [Fraction(float(value)).limit_denominator(100) for value in (*c, *u)]
print("c and u as fractions:", *exact)

# %% [markdown]
# The coefficients belong to x. For another x they must be computed again: $S$ stays, $h$ changes.
#
# ## What it does to a direction
#
# The gradients of a softmax regression during training fill the window. We compare the length of each component of x
# before and after: along directions in which the window has much energy, u is short.

# %%
window = recorded_gradients(SOFTMAX, steps=33)
W, g = window[:32], window[32]
direction = efcp_ref.mfac_direction(W, 0.01, g)
energy, basis = np.linalg.eigh(W.T @ W / 32)
energy, basis = energy[-32:], basis[:, -32:]  # the directions that the window has seen
ratio = (basis.T @ direction.u) / (basis.T @ g)  # in each of them

# %%
fig, ax = plt.subplots()
grid = np.geomspace(energy.min(), energy.max(), 50)
ax.loglog(grid, 1 / (0.01 + grid), color=BLACK, linestyle=":", label=r"$1/(\lambda + \mathrm{energy})$")
ax.loglog(energy, ratio, "o", color=BLUE, label="u against g, one dot per direction")
ax.axhline(1 / 0.01, color=RED, linestyle="--", label=r"$1/\lambda$: all directions that the window never saw")
ax.set(xlabel="energy of the window in the direction", ylabel="factor applied to g")
ax.legend(loc="lower left")
show(fig, alt="Thirty-two dots lie on the curve one over lambda plus energy, which falls from the level one over lambda at the "
     "left; high-energy directions are scaled down the most.")  # fmt: skip

# %% [markdown]
# Every dot lies on the curve. Directions that the window never saw are divided by $\lambda$ alone: they move as under
# SGD with the rate $\eta / \lambda$.
#
# ## What it costs
#
# For the network of tutorial 10, d = 19,210, the matrix would hold about 369 million numbers. The window of m = 128
# gradients holds about 2.5 million, and a window at one per cent about 25 thousand.

# %%
numbers = {"matrix": MLP.d**2, "window": 128 * MLP.d, "sparse window": 128 * -(-MLP.d // 100)}
for name, count in numbers.items():
    print(f"{name:14} {count:>12,} numbers")

# %% [markdown]
# ## Which m?
#
# While fewer than m gradients are stored, the paper keeps m in the denominator. Dividing by the number stored would be
# defensible, too (R4). With $\lambda = 0.1$, m = 4 and one stored gradient the two give different directions.

# %%
early = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
fixed = efcp_ref.mfac_direction(early, 0.1, early[0]).u[0]
stored = efcp_ref.mfac_direction(early, 0.1, early[0], normalise="stored").u[0]
print(f"m: {fixed:.3f}   number stored: {stored:.3f}")

# %% [markdown]
# ## What must hold

# %%
assert np.allclose(dense, [4 / 11, 6 / 11], atol=1e-15)
assert np.allclose(by_recursion, dense, atol=1e-15)
assert np.allclose(u, dense, atol=1e-15)
assert np.allclose(as_printed, [0.7197, 0.8295], atol=1e-4)
assert np.allclose(c, [2 / 11, 5 / 11], atol=1e-15)
assert np.allclose(coefficients(S, h, lam), coefficients_recursive(S, h, lam), atol=1e-15)
assert exact == [Fraction(2, 11), Fraction(5, 11), Fraction(4, 11), Fraction(6, 11)]
assert np.allclose(ratio, 1 / (0.01 + energy), rtol=1e-6)
assert np.allclose(efcp_ref.wsm(W, 0.01, g), direction.u, rtol=1e-9)
assert MLP.d == 19_210
assert round(numbers["matrix"] / 1e6) == 369
assert round(numbers["window"] / 1e6, 1) == 2.5
assert round(numbers["sparse window"] / 1e3) == 25
assert numbers["window"] / MLP.d == 128
assert (denominator(early), denominator(early, "stored")) == (4, 1)
assert (round(fixed, 3), round(stored, 3)) == (2.857, 0.909)

# %% [markdown]
# ## Summary
#
# $F^{-1}x$ needs no matrix: a recursion over vectors, or m coefficients from scalar products. Steep directions get
# short steps. Next: [Sparse M-FAC by hand](04_sparse_mfac_by_hand.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Write `wsm(G, lam, x)` as printed, then as it must be: `check("W:2", wsm)`.
# 2. Write `coefficients(S, h, lam)`: `check("W:3", coefficients)`. Where is the factor $1/\lambda$?

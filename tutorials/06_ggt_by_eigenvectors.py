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
# # GGT: preconditioning by eigenvectors
#
# After this page you will be able to
#
# - say how full-matrix AdaGrad differs from M-FAC, direction by direction;
# - take an inverse square root of a d x d matrix through an m x m one;
# - find the misprint in line 10 of Algorithm 4 by running it.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, RED, show, show_trace

import efcp_ref
from efcp_ref.data import SOFTMAX, recorded_gradients
from efcp_ref.paper.algorithm_4 import decompose, precondition, singular_values
from efcp_ref.tracing import trace

# %% [markdown]
# ## A square root
#
# AdaGrad divides every coordinate by the root of the sum of its squared gradients. Full-matrix AdaGrad does the same
# along every *direction*. GGT does it with a window of m gradients, the rows of $G$:
#
# $$u = \left(\epsilon I + (G^T G)^{1/2}\right)^{-1} x .$$
#
# M-FAC divides by an energy, $\lambda + \sigma^2 / m$. GGT divides by a length, $\epsilon + \sigma$. So GGT does not mind how
# large the loss is: multiply all gradients by ten, and the direction stays nearly the same.

# %%
G = np.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
x = np.array([1.0, 1.0, 1.0])
u, gram, eigenvalues, eigenvectors = efcp_ref.ggt_direction(G, x, eps=0.1)
print(f"G G^T = {gram.tolist()}  eigenvalues {eigenvalues}\nu = {u.round(4)}")
print("1 / (3 + .1), 1 / (4 + .1), 1 / .1 =", np.round([1 / 3.1, 1 / 4.1, 1 / 0.1], 4))

# %% [markdown]
# ## From m x m to d x d
#
# The eigenvectors of the small matrix $G G^T = V \Sigma^2 V^T$ give those of the large one, $G^T G$: they are the columns
# of $U = G^T V \Sigma^{-1}$, each of length one. Then
#
# $$u = \tfrac{1}{\epsilon} x + U \left[(\Sigma + \epsilon I)^{-1} - \tfrac{1}{\epsilon} I\right] U^T x .$$
#
# Inside the span of the window the bracket corrects $1/\epsilon$ to $1/(\sigma + \epsilon)$; outside, $x / \epsilon$ stays.

# %%
gradients = recorded_gradients(SOFTMAX, steps=25)
window, g = gradients[:24], gradients[24]
direction = efcp_ref.ggt_direction(window, g, eps=0.05)
sigma, inverse = singular_values(direction.eigenvalues, 1e-12)
U = window.T @ (direction.eigenvectors * inverse)  # (d, m)
factor_ggt = (U.T @ direction.u) / (U.T @ g)
factor_mfac = (U.T @ efcp_ref.mfac_direction(window, 0.05**2, g).u) / (U.T @ g)

# %%
fig, ax = plt.subplots()
grid = np.geomspace(sigma.min(), sigma.max(), 60)
ax.loglog(grid, 1 / (0.05 + grid), color=BLACK, linestyle=":", label=r"$1/(\epsilon + \sigma)$")
ax.loglog(sigma, factor_ggt, "o", color=BLUE, label="GGT")
ax.loglog(sigma, factor_mfac, "s", color=RED, label="M-FAC")
ax.set(xlabel=r"singular value $\sigma$ of the window", ylabel="factor applied to g")
ax.set_xticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
ax.xaxis.minorticks_off()
ax.legend()
show(fig, alt="Factor applied to each direction against its singular value: GGT's dots lie on one over epsilon plus sigma; M-FAC's "
     "squares fall more steeply, as one over sigma squared.")  # fmt: skip

# %% [markdown]
# ## Line by line
#
# Algorithm 4 keeps the window as one long list: values V, coordinates R, and C, which says to which gradient each entry
# belongs. One step on a window of two gradients with two entries each:

# %%
optimizer = efcp_ref.sparse_ggt(d=4, m=2, eps=0.5, cutoff=1e-12, k=2)
optimizer.step(np.array([3.0, 0.0, 4.0, 1.0]))
run = trace(optimizer.step, np.array([0.0, 5.0, -1.0, 1.0]))
show_trace(run, keep=lambda event: event.line.startswith("4:"))

# %% [markdown]
# The two gradients kept different coordinates, so line 8 decomposes a diagonal matrix with 25 and 29.
#
# ## A misprint, found by running it
#
# Line 10 prints $V \sqrt{\Sigma^\dagger}$. But the columns of $U$ must have length one, and $G^T v$ has length $\sigma$; so the
# factor is $\Sigma^\dagger$, without the root (R22). We try both on the window above.

# %%
values, V = decompose(gram)
lengths, pseudo = singular_values(values, 1e-12)
ours = G.T @ (V * pseudo)
printed = G.T @ (V * np.sqrt(pseudo))
print("U^T U, ours   ", np.diag(ours.T @ ours))
print("U^T U, printed", np.diag(printed.T @ printed), " direction", precondition(x, printed, lengths, 0.1).round(2))

# %% [markdown]
# As printed, the "direction" points backwards along two axes.
#
# ## Zero eigenvalues
#
# While the window fills up, or when two gradients agree, $G G^T$ is singular, and rounding leaves tiny eigenvalues where
# zero is meant, sometimes negative. The parameter `cutoff` drops what is below its share of the largest (R24). The
# authors' code adds $10^{-6}$ to the diagonal instead; `ridge` does that.

# %%
doubled = np.vstack([window[:3], window[:1]])
twice = efcp_ref.ggt_direction(doubled, g, eps=0.05)
ridge = efcp_ref.ggt_direction(doubled, g, eps=0.05, cutoff=0.0, ridge=1e-6)
print("eigenvalues", twice.eigenvalues)
print("difference between the two habits:", f"{np.linalg.norm(twice.u - ridge.u) / np.linalg.norm(twice.u):.1e}")

# %% [markdown]
# ## What must hold

# %%
assert np.allclose(u, [1 / 3.1, 1 / 4.1, 1 / 0.1], atol=1e-14)
root = np.linalg.eigh(window.T @ window)
dense = (root[1] / (0.05 + np.sqrt(np.maximum(root[0], 0)))) @ root[1].T @ g  # the definition, with a d x d matrix
assert np.linalg.norm(direction.u - dense) < 1e-6 * np.linalg.norm(dense)
assert np.allclose(factor_ggt, 1 / (0.05 + sigma), rtol=1e-8)
scaled = efcp_ref.ggt_direction(10 * window, 10 * g, eps=0.05).u
inside = U @ (U.T @ direction.u), U @ (U.T @ scaled)
assert np.linalg.norm(inside[1] - inside[0]) < 0.5 * np.linalg.norm(inside[0])
once = efcp_ref.dense_ggt(d=3, m=2, eps=0.1, cutoff=1e-12).step([1.0, 2.0, 2.0])
assert np.allclose(once, np.array([1, 2, 2]) / (3 + 0.1), atol=1e-15)  # first step: g / (|g| + eps)
decomposed = next(event.variables["eigenvalues"] for event in run.events if event.line == "4:8")
assert np.allclose(sorted(decomposed), [25, 29])
assert np.allclose(ours.T @ ours, np.eye(2), atol=1e-15)
assert np.allclose(np.diag(printed.T @ printed), [3, 4], atol=1e-14)
assert (precondition(x, printed, lengths, 0.1)[:2] < 0).all()
assert abs(twice.eigenvalues[0]) < 1e-12 * twice.eigenvalues[-1]
assert np.linalg.norm(twice.u - ridge.u) < 0.01 * np.linalg.norm(twice.u)

# %% [markdown]
# ## Summary
#
# GGT divides by $\sigma + \epsilon$ along the window's own directions, found from an m x m matrix. Line 10 needs the
# pseudo-inverse itself. Next: [power iteration and low rank](07_power_iteration_low_rank.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Write the matrix U of line 10 for a sparse window: `check("4:10", f)`. What is its product with itself?
# 2. Write line 11 so that nothing cancels where $\sigma$ is small: `check("4:11", f)`.

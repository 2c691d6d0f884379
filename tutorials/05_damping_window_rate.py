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
# # Damping, window and learning rate
#
# After this page you will be able to
#
# - predict what M-FAC does when the damping is very large or very small, and bound the difference;
# - choose a learning rate for a damping, and see both rules of appendix D at work;
# - tell when float32 or bfloat16 is too coarse for a small damping.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, GREEN, PURPLE, RED, show

import efcp_ref
from efcp_ref.data import SOFTMAX, digits, recorded_gradients, split
from efcp_ref.paper.theory.curvature import newton_limit_bound, newton_limit_gap, sgd_limit_bound, sgd_limit_gap
from efcp_ref.paper.window import storage

# %% [markdown]
# ## Two limits
#
# $F = \lambda I + G^T G / m$. If $\lambda$ is much larger than the energy of the window, $F$ is nearly $\lambda I$, and the
# direction is $x / \lambda$: **SGD at the rate $\eta / \lambda$**. If $\lambda$ is small, the window decides: inside its span
# M-FAC is Newton's method for the empirical Fisher matrix, outside it still divides by $\lambda$.
#
# Appendix D says both in words. As inequalities, with $x$ any vector:
#
# $$\|\lambda u - x\| \le \frac{\|G\|^2}{m \lambda + \|G\|^2}\,\|x\| .$$

# %%
gradients = recorded_gradients(SOFTMAX, steps=33)
G, x = gradients[:32], gradients[32]
dampings = np.geomspace(1e-7, 1e4, 12)
gap = np.array([lam * sgd_limit_gap(G, lam, x) for lam in dampings])
bound = np.array([lam * sgd_limit_bound(G, lam, x) for lam in dampings])
newton = np.array([newton_limit_gap(G, lam, x) for lam in dampings])
newton_bound = np.array([newton_limit_bound(G, lam, x) for lam in dampings])

# %%
fig, (left, right) = plt.subplots(1, 2)
left.loglog(dampings, bound, color=BLACK, linestyle=":", label="bound")
left.loglog(dampings, gap, color=BLUE, label="distance to SGD")
left.set(xlabel=r"damping $\lambda$", ylabel=r"$\|\lambda u - x\|$")
left.legend(loc="lower left")
right.loglog(dampings, newton_bound, color=BLACK, linestyle=":", label="bound")
right.loglog(dampings, newton, color=RED, linestyle="--", label="distance to Newton")
right.set(xlabel=r"damping $\lambda$", ylabel="distance inside the window's span")
right.legend(loc="lower right")
show(fig, alt="Left: the distance to SGD is level for small damping and falls in proportion to one over lambda for large. "
     "Right: the distance to Newton's method rises with lambda and levels off. Both stay under their bounds.")  # fmt: skip
print(f"lambda = 1e4: distance to SGD {gap[-1]:.1e}\nlambda = 1e-7: distance to Newton {newton[0]:.1e}")

# %% [markdown]
# ## Damping and learning rate go together
#
# A large damping shortens the step, so it wants a larger rate. We train softmax regression with Sparse M-FAC at 5 %
# density for 40 steps, on a grid of both.

# %%
X, y = digits()
part = split()
DENSITY = 0.05


def loss(lam, eta, m=8, steps=40):
    """Return the training loss after a short run."""
    rng = np.random.default_rng(0)
    theta = np.zeros(SOFTMAX.d)
    optimizer = efcp_ref.sparse_mfac(d=SOFTMAX.d, m=m, lam=lam, density=DENSITY)
    for _ in range(steps):
        chosen = rng.choice(part.train, 64, replace=False)
        theta = theta - eta * optimizer.step(SOFTMAX.gradient(theta, X[chosen], y[chosen]))
    return float(SOFTMAX.loss(theta, X[part.train], y[part.train]))


LAM, ETA = [1e-4, 1e-3, 1e-2, 1e-1, 1.0], [1e-3, 1e-2, 1e-1, 1.0]
grid = np.array([[loss(lam, eta) for lam in LAM] for eta in ETA])

# %%
fig, ax = plt.subplots(figsize=(6.0, 3.4))
ax.imshow(np.log10(grid), cmap="Blues", aspect="auto", vmin=np.log10(grid.min()), vmax=2)
for (row, column), value in np.ndenumerate(grid):
    best = column == grid[row].argmin()
    ax.text(column, row, f"{value:.2f}", ha="center", va="center", weight="bold" if best else "normal")
ax.set(xticks=range(5), xticklabels=LAM, yticks=range(4), yticklabels=ETA, xlabel=r"damping $\lambda$", ylabel=r"rate $\eta$")
ax.grid(False)
show(fig, alt="A grid of training losses over damping and rate: the best of each row moves to larger damping as the "
     "rate grows; small damping with the largest rate is far off.")  # fmt: skip

# %% [markdown]
# The best of each row is bold: the larger the rate, the larger the damping that suits it. Left of it the steps are too
# long: "if the model diverges, then the dampening is too small". Right of it they are too short: "if the model
# underfits, then the dampening is too large".
#
# ## The window
#
# With the damping fixed, a longer window covers more directions. Of each later gradient, what share lies in the span of
# the window? Only that share is bent; the rest is divided by the damping.

# %%
later = recorded_gradients(SOFTMAX, steps=160)[128:]
windows = [1, 2, 4, 8, 16, 32, 64, 128]
coverage = []
for m in windows:
    basis, _ = np.linalg.qr(recorded_gradients(SOFTMAX, steps=160)[128 - m : 128].T)
    coverage.append(np.mean([np.linalg.norm(basis.T @ g) ** 2 / (g @ g) for g in later]))
fig, ax = plt.subplots()
ax.semilogx(windows, 100 * np.array(coverage), color=GREEN, marker="o", base=2)
ax.set(xlabel="window size m", ylabel="share of a later gradient, %", ylim=(0, 100), xticks=windows, xticklabels=windows)
show(fig, alt="The share of a later gradient that lies in the span of the window rises steadily with the window size, from a few "
     "per cent for one gradient to most of it for 128.")  # fmt: skip
print("coverage ", *(f"{m}: {share:.2f}" for m, share in zip(windows, coverage, strict=True)))

# %% [markdown]
# ## When a number format is too coarse
#
# The last step of equation (2) is a subtraction: $u = x / \lambda - \sum_k c_k g_k$. When x itself is in the window, both
# terms nearly agree, and what they agree in is lost. The loss grows as $\kappa = 1 + \|x\|^2 / (\lambda m)$. We round
# both terms to a storage format, subtract, and compare.

# %%
def subtraction_error(lam, dtype):
    """Return the relative error of u when its two terms are rounded to ``dtype`` before they are subtracted."""
    window = np.vstack([G[:-1], x])
    u, _, _, c = efcp_ref.mfac_direction(window, lam, x)
    terms = [(x / lam).astype(storage(dtype)), (c @ window).astype(storage(dtype))]
    return np.linalg.norm(terms[0].astype(float) - terms[1].astype(float) - u) / np.linalg.norm(u)


small = np.geomspace(1e-8, 1.0, 17)
errors = {dtype: [subtraction_error(lam, dtype) for lam in small] for dtype in ("bfloat16", "float32")}
fig, ax = plt.subplots()
ax.loglog(small, errors["bfloat16"], color=PURPLE, marker="s", label="bfloat16")
ax.loglog(small, errors["float32"], color=BLUE, linestyle="--", marker="o", label="float32")
ax.set(xlabel=r"damping $\lambda$", ylabel="relative error of u")
ax.legend()
show(fig, alt="The relative error of the direction grows as the damping falls: bfloat16 starts at a few thousandths, float32 "
     "below ten to the minus seven; both rise in parallel on logarithmic axes.")  # fmt: skip

# %% [markdown]
# The reference computes in float64 and keeps a coarse format for storage only. A kernel that sums in float32 needs a
# damping that is not too small; the oracle says so when it is.
#
# ## What must hold

# %%
assert np.all(gap <= bound * (1 + 1e-12))
assert np.all(newton <= newton_bound * (1 + 1e-9))
assert gap[-1] < 1e-3 * np.linalg.norm(x)
assert newton[0] < 1e-3 * newton[-1]
best = [LAM[column] for column in grid.argmin(axis=1)]
assert best == sorted(best)  # the best damping grows with the rate
assert best[0] < best[-1]
assert grid.shape == (4, 5)
assert loss.__defaults__ == (8, 40)
assert 100 * DENSITY == 5
assert 100 * coverage[0] < 20 < 80 < 100 * coverage[-1]
assert coverage == sorted(coverage)
assert errors["bfloat16"] > errors["float32"]
assert errors["float32"][0] > 1000 * errors["float32"][-1]

# %% [markdown]
# ## Summary
#
# Large damping: SGD at rate $\eta / \lambda$. Small damping: Newton in the span of the window, and long steps outside it.
# Raise damping and rate together. Next: [GGT](06_ggt_by_eigenvectors.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Show on paper that the first step of M-FAC is $m\,g / (\lambda m + \|g\|^2)$, and that its length never exceeds
#    $\sqrt{m / \lambda} / 2$. Then write the coefficients: `check("W:3", f)`.
# 2. Write the direction of equation (2): `check("W:4", f)`. Does your form survive $\lambda = 10^{-7}$ in float32?

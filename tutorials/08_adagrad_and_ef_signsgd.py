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
# # Diagonal AdaGrad and EF-SignSGD
#
# After this page you will be able to
#
# - run Algorithm 7 by hand, and say what it does where nothing has been sent yet;
# - show a function on which SignSGD never arrives and EF-SignSGD does;
# - check four statements of theory with numbers: lemmas K.1 and K.2, Lemma 3, Theorem II.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, GREEN, PURPLE, RED, show, show_trace

from efcp_ref.paper.algorithm_7 import adagrad_ef
from efcp_ref.paper.compressors import keep_largest
from efcp_ref.paper.sign import ef_signsgd_run, ef_step, run, sign_sgd_step
from efcp_ref.paper.theory import counterexamples, scaled_ggt
from efcp_ref.paper.theory import error_feedback as theory
from efcp_ref.tracing import trace

# %% [markdown]
# ## One rate per coordinate
#
# AdaGrad divides each coordinate by the root of its own sum of squares. With feedback, only what was *sent* is counted.
# The paper prints ten lines without numbers; we number them in order (R36). Two steps, two coordinates, one sent at a time:

# %%
traced = trace(adagrad_ef, [4.0, 3.0], lambda theta: theta, k=1, eta=1.0, T=2)
show_trace(traced, keep=lambda event: event.line in ("7:5", "7:6", "7:7", "7:8", "7:9"))

# %% [markdown]
# After step 1 the second coordinate has $G = 0$. The printed line divides by its root. We do not move such a coordinate
# (R29): it has not been sent, so there is nothing to move it with. In step 2 it is sent with all that waited: $3 + 3 = 6$.
#
# ## The sign alone
#
# SignSGD sends one bit per coordinate. It forgets how large each was, and on the function
# $f(x) = \epsilon |x_1 + x_2| + |x_1 - x_2|$ of the slides it never arrives: every step is along $(1, -1)$, so the sum
# $x_1 + x_2$ stays what it was. EF-SignSGD scales the sign by the mean magnitude and keeps the rest in $e$:
#
# $$\begin{aligned} p_t &= \gamma g_t + e_t, \\ \Delta_t &= \frac{\|p_t\|_1}{d}\, \operatorname{sign}(p_t), \\ e_{t+1} &= p_t - \Delta_t . \end{aligned}$$

# %%
def g(x, t):
    """Return a subgradient of the slides' function."""
    return counterexamples.kinked_subgradient(x)


START, GAMMA, T = np.array([1.0, 1.0]), 0.02, 400
plain = run(lambda state, gradient: sign_sgd_step(state, gradient, GAMMA), g, START, T)
feedback = ef_signsgd_run(g, START, GAMMA, T)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(6.0, 3.3))
axis = np.linspace(-0.4, 1.4, 60)
levels = [[counterexamples.kinked([a, b]) for a in axis] for b in axis]
left.contour(axis, axis, levels, levels=8, colors="#999999", linewidths=0.8)
left.plot(*plain.x.T, color=RED, linestyle="-", marker="s", markersize=3, label="SignSGD")
left.plot(*feedback.x.T, color=BLUE, linestyle="-", linewidth=1, label="EF-SignSGD")
left.plot(0, 0, "*", color=BLACK, markersize=12)
left.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
left.legend(loc="lower right")
right.semilogy([counterexamples.kinked(x) for x in plain.x], color=RED, label="SignSGD")
right.semilogy([counterexamples.kinked(x) for x in feedback.x], color=BLUE, linestyle="--", linewidth=1, label="EF-SignSGD")
right.set(xlabel="step", ylabel="f(x)")
show(fig, alt="Left: level lines of a narrow valley; SignSGD stays at its start (1, 1) and EF-SignSGD walks along the valley to "
     "the minimum at the origin. Right: the function value stays at one for SignSGD and falls for EF-SignSGD.")  # fmt: skip
print(f"f at the end: SignSGD {counterexamples.kinked(plain.x[-1]):.3f}, "
      f"EF-SignSGD {counterexamples.kinked(feedback.x[-1]):.3f}")  # fmt: skip

# %% [markdown]
# ## Lemma 3: the error is bounded
#
# If a compressor loses at most the share $1 - \delta$ of the squared length, the error of SGD with feedback obeys
# $E\|e_t\|^2 \le 4 (1 - \delta) \gamma^2 \sigma^2 / \delta^2$, with $\sigma^2$ a bound of $E\|g\|^2$. We take a smooth function
# with bounded gradients, $f(x) = \sum_i \sqrt{1 + x_i^2}$, in ten dimensions, add noise, and keep two entries per step.
#
# ## Theorem II: the gradient becomes small
#
# $$\begin{aligned} \min_t E\|\nabla f(x_t)\|^2 \le{} & \frac{2 f_0}{\gamma (T + 1)} + \gamma L \sigma^2 \\ & + \frac{4 \gamma^2 L^2 \sigma^2 (1 - \delta)}{\delta^2} . \end{aligned}$$
#
# The slides print half of the middle term; the proof gives all of it (R40). Both are drawn.

# %%
D, K, NOISE, RUNS = 10, 2, 0.5, 8


def slope(x):
    """Return the gradient of the sum of sqrt(1 + x_i^2)."""
    return x / np.sqrt(1 + x**2)


def noisy(seed):
    """Return a stochastic gradient with noise of two values, so that its second moment is known."""
    rng = np.random.default_rng(seed)
    return lambda x, t: slope(x) + rng.choice([-NOISE, NOISE], D)


def descend(gamma, seed, steps=300):
    """Run SGD with feedback and Top-k from x = (2, ..., 2)."""
    step = lambda state, gradient: ef_step(state, gradient, gamma, lambda p: keep_largest(p, K))  # noqa: E731
    return run(step, noisy(seed), np.full(D, 2.0), steps)


sigma2, delta, f0 = D * (1 + NOISE**2), theory.delta_top_k(D, K), D * (np.sqrt(5) - 1)
gammas = [0.003, 0.01, 0.03, 0.1]
runs = {gamma: [descend(gamma, seed) for seed in range(RUNS)] for gamma in gammas}
errors = {gamma: np.mean([theory.error_norms(r) for r in rs], axis=0) for gamma, rs in runs.items()}
smallest = [min(np.mean([[np.sum(slope(x) ** 2) for x in r.x] for r in rs], axis=0)) for rs in runs.values()]
bounds = {v: [theory.theorem_2_bound(f0, gamma, 1.0, sigma2, delta, 300, v) for gamma in gammas] for v in ("derived", "printed")}

# %%
fig, (left, right) = plt.subplots(1, 2)
for gamma, color in ((0.1, BLUE), (0.01, GREEN)):
    left.semilogy(errors[gamma][1:], color=color, linestyle="-", label=rf"$\gamma$ = {gamma}")
    left.axhline(theory.lemma_3_bound(gamma, sigma2, delta), color=color, linestyle=":")
left.set(xlabel="step", ylabel=r"mean of $\|e_t\|^2$ (dotted: Lemma 3)")
left.legend(loc=(0.55, 0.66))
right.loglog(gammas, bounds["derived"], color=BLACK, linestyle=":", label="bound, derived")
right.loglog(gammas, bounds["printed"], color=PURPLE, linestyle="-.", label="bound, printed")
right.loglog(gammas, smallest, color=RED, marker="o", linestyle="-", label="measured")
right.set(xlabel=r"rate $\gamma$", ylabel="smallest squared gradient", ylim=(1e-3, None))
right.legend(loc="lower left")
show(fig, alt="Left: for two rates the mean squared error levels off well below its dotted bound. Right: the measured smallest "
     "squared gradient lies far below both bounds of Theorem II for all four rates.")  # fmt: skip

# %% [markdown]
# The bounds hold with room to spare: they must cover the worst function and the worst compressor.
#
# ## Lemmas K.1 and K.2
#
# K.1: Top-k in the basis of a positive definite H keeps at least the share $k/d$ of $\|v\|^2_{H^{-1}}$. K.2: for a positive
# definite A, $\ln\det(A + uu^T + vv^T) \ge \ln\det A + \ln\left(1 + \tfrac12 \|u\|^2_{A^{-1}} + \tfrac12 \|v\|^2_{A^{-1}}\right)$.
# Three hundred random cases of each:

# %%
rng = np.random.default_rng(1)
first, second = [], []
for _ in range(300):
    root = rng.standard_normal((6, 6))
    H, v, w = root @ root.T + 0.1 * np.eye(6), rng.standard_normal(6), rng.standard_normal(6)
    left_1, right_1 = scaled_ggt.lemma_k1(v, H, 2)
    left_2, right_2 = scaled_ggt.lemma_k2(H, v, w)
    first.append(left_1 / right_1)
    second.append(left_2 - right_2)
print(f"K.1: kept / (k/d of all) is between {min(first):.2f} and {max(first):.2f}; it may not be below one")
print(f"K.2: left less right side is between {min(second):.2f} and {max(second):.2f}; it may not be negative")

# %% [markdown]
# ## What must hold

# %%
accumulators = [event.variables["a"].tolist() for event in traced.events if event.line == "7:5"]
assert accumulators == [[4, 3], [3, 6]]
assert traced.result["G"].tolist() == [16, 36]
assert traced.result["theta"].tolist() == [3, 2]
assert np.allclose(plain.x.sum(axis=1), 2, atol=1e-12)  # x_1 + x_2 never changes
assert counterexamples.kinked(plain.x[-1]) > 0.99
assert counterexamples.kinked(feedback.x[-1]) < 0.05
assert np.allclose(feedback.x - feedback.e, START - GAMMA * np.vstack([np.zeros(2), np.cumsum(feedback.g, axis=0)]), atol=1e-12)
for gamma in gammas:
    assert errors[gamma].max() <= theory.lemma_3_bound(gamma, sigma2, delta)
assert all(np.array(smallest) <= bounds["derived"])
assert all(np.array(bounds["printed"]) < bounds["derived"])
assert min(first) >= 1 - 1e-12
assert min(second) >= -1e-12
assert len(first) == 300

# %% [markdown]
# ## Summary
#
# Algorithm 7 counts what it sends. Feedback cures the sign of its blindness. The theorems hold on runs, with room.
# Next: [the kernels, lane by lane](09_kernels_lane_by_lane.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Write lines 8 and 9 of Algorithm 7 for a coordinate with $G = 0$: `check("7:9", f)`.
# 2. Write one step of EF-SignSGD: `check("S1:5", f)`. What is $\operatorname{sign}(0)$?

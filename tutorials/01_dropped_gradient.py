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
# # Where does the dropped gradient go?
#
# After this page you will be able to
#
# - state the conservation law of error feedback and check it on a run;
# - follow one coordinate from the gradient through the error to the model;
# - measure what feedback is worth on real data, and when the error stays small.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, GREEN, RED, show, show_trace

import efcp_ref
from efcp_ref.data import SOFTMAX, digits, split
from efcp_ref.paper.algorithm_1 import efcp, identity
from efcp_ref.paper.compressors import keep_largest
from efcp_ref.paper.theory.error_feedback import feedback_metric
from efcp_ref.paper.window import keep
from efcp_ref.tracing import trace

# %% [markdown]
# ## A jar for small change
#
# Think of a shopper who may spend one coin a day, the largest in the pocket. Small coins are not thrown away. They go
# into a jar, and the jar is emptied into the pocket every morning. A coordinate whose gradient is small, but always of
# the same sign, grows in the jar until it is among the largest. Then it is sent, all of it.
#
# The jar is the error $\xi$. Algorithm 1 fills and empties it:
#
# $$\begin{aligned} a_t &= \xi_{t-1} + g_t, \\ c_t &= \text{COMPRESS}(a_t), \\ \xi_t &= a_t - c_t. \end{aligned}$$
#
# Add the last equation over all steps. Everything between cancels, and the **conservation law** is left:
#
# $$\sum_{s=1}^{t} c_s + \xi_t = \sum_{s=1}^{t} g_s .$$
#
# ## Three steps, line by line
#
# Four parameters, one is sent per step, and the gradients are given. The trace shows what each printed line did.

# %%
gradients = iter(np.array([[4.0, 3.0, 0.0, -1.0], [1.0, 2.0, 0.0, -1.0], [1.0, 0.0, 0.0, -1.0]]))
run = trace(efcp, np.zeros(4), lambda theta: next(gradients), lambda a: keep(a, 1), identity, None, 1.0, 3)
show_trace(run, keep=lambda event: event.line in ("1:4", "1:5", "1:6", "1:7", "1:9"))

# %% [markdown]
# Read the lines `1:7`. The second coordinate waits in step 1 with 3, gets 2 more, and is sent as 5 in step 2. The model
# has then moved as far in that direction as if nothing had been compressed.

# %%
errors = [event.variables["xi"] for event in run.events if event.line == "1:7"]
accumulators = [event.variables["a"] for event in run.events if event.line == "1:5"]
received = [event.variables["g"] for event in run.events if event.line == "1:4"]
sent = [a - xi for a, xi in zip(accumulators, errors, strict=True)]
print(f"sent in all      {sum(sent)}\nwaiting          {errors[-1]}\ngradients in all {sum(received)}")

# %% [markdown]
# ## One coordinate over time
#
# Now real gradients: softmax regression on the digits, where one entry in a hundred is sent. We pick a coordinate and
# draw what its gradient adds up to, and what has been sent. The gap between the two curves is the error.

# %%
X, y = digits()
part = split()
K = 7  # of 650: one per cent, rounded up


def train(step, rate, seed=0, steps=300, batch=64):
    """Run SGD on the directions that ``step`` makes of gradients; return theta, every gradient, every direction."""
    rng = np.random.default_rng(seed)
    theta, g, u = np.zeros(SOFTMAX.d), [], []
    for t in range(steps):
        chosen = rng.choice(part.train, batch, replace=False)
        g.append(SOFTMAX.gradient(theta, X[chosen], y[chosen]))
        u.append(step(g[-1]))
        theta = theta - rate * (1 - t / steps) * u[-1]
    return theta, np.array(g), np.array(u)


feedback = efcp_ref.topk_sgd(d=SOFTMAX.d, k=K)
theta_with, g, u = train(feedback.step, rate=1.0)
xi = np.cumsum(g, axis=0) - np.cumsum(u, axis=0)  # (T, d), by the conservation law
print("largest difference from the optimizer's own error:", abs(xi[-1] - feedback.state()["xi"]).max())

# %%
times = (u != 0).sum(axis=0)
j = int(np.flatnonzero(times == 4)[0])  # a coordinate that was sent four times
fig, ax = plt.subplots()
ax.plot(np.cumsum(g[:, j]), color=BLUE, label="sum of its gradients")
ax.step(range(len(u)), np.cumsum(u[:, j]), where="post", color=RED, linestyle="--", label="sum of what was sent")
ax.fill_between(range(len(u)), np.cumsum(g[:, j]), np.cumsum(u[:, j]), step="post", color=BLACK, alpha=0.12, label="error")
ax.set(xlabel="step", ylabel=f"coordinate {j}", xlim=(0, 300))
ax.legend()
show(fig, alt="The sum of one coordinate's gradients is a wandering curve; the sum of what was sent is a staircase of four "
     "jumps that meets the curve at every jump.")  # fmt: skip

# %% [markdown]
# At every jump the staircase meets the curve: Top-k sends the whole accumulator of a coordinate, so its error is then
# zero. Between the jumps the model works with what it last heard.
#
# ## With and without
#
# Without feedback we keep the same number of entries and forget the rest. Coordinates that are never among the largest
# never move. Five seeds each:

# %%
def accuracy(theta):
    """Return the share of test images that are recognised."""
    return SOFTMAX.accuracy(theta, X[part.test], y[part.test])


steps = {
    "whole gradient": lambda: efcp_ref.topk_sgd(d=SOFTMAX.d, k=SOFTMAX.d).step,
    "1 %, feedback": lambda: efcp_ref.topk_sgd(d=SOFTMAX.d, k=K).step,
    "1 %, no feedback": lambda: lambda g: keep_largest(g, K),
}
scores, never = {}, {}
for name, make in steps.items():
    runs = [train(make(), rate=1.0, seed=seed) for seed in range(5)]
    scores[name] = np.array([accuracy(theta) for theta, _, _ in runs])
    never[name] = np.mean([(u == 0).all(axis=0).mean() for _, _, u in runs])
    print(f"{name:17} accuracy {scores[name].mean():.3f} (spread {np.ptp(scores[name]):.3f}), "
          f"coordinates unmoved {never[name]:.2f}")  # fmt: skip

# %% [markdown]
# Feedback costs nothing here. Without it more than 2 points of accuracy are lost.
#
# ## Does the jar overflow?
#
# Appendix A measures the error against everything that came in:
# $\|\xi_t\|_2 / (\|g_1\|_2 + \dots + \|g_t\|_2)$. If it falls, the error is a buffer. If it grew, gradient would pile up.

# %%
metric = feedback_metric(xi, g)
fig, (left, right) = plt.subplots(1, 2)
left.plot(np.linalg.norm(g, axis=1), color=BLUE, linewidth=1, label="gradient")
left.plot(np.linalg.norm(xi, axis=1), color=RED, linestyle="--", label="error")
left.set(xlabel="step", ylabel="norm", ylim=(0, None))
left.legend()
right.semilogy(metric, color=GREEN)
right.set(xlabel="step", ylabel="metric of appendix A")
show(fig, alt="Left: the norm of the error rises for some twenty steps, then falls to a fifth and levels off; gradients shrink. "
     "Right: the metric of appendix A falls by more than a factor of ten on a logarithmic axis.")  # fmt: skip
print(f"metric after 10 steps {metric[9]:.3f}, at the end {metric[-1]:.4f}")

# %% [markdown]
# ## What must hold

# %%
assert np.array_equal(sum(sent) + errors[-1], sum(received))  # exactly: these are small integers
assert (errors[0][1], received[1][1], sent[1][1]) == (3, 2, 5)
assert np.allclose(xi[-1], feedback.state()["xi"], atol=1e-12)
assert all(xi[t, j] == 0 or abs(xi[t, j]) < 1e-12 for t in np.flatnonzero(u[:, j]))
assert (u != 0).sum(axis=1).max() == K
assert abs(scores["1 %, feedback"].mean() - scores["whole gradient"].mean()) < 0.01
assert 100 * (scores["1 %, feedback"].mean() - scores["1 %, no feedback"].mean()) > 2  # points
assert never["1 %, feedback"] < never["1 %, no feedback"]
assert metric[-1] < metric[9] / 10

# %% [markdown]
# ## Summary
#
# What is dropped goes into the error and comes back. What was sent plus what waits is the sum of all gradients, at
# every step and to the last bit where the numbers are exact. The error levels off, so its share falls.
# Next: [what Top-k keeps](02_top_k.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Write lines 5 to 7 as a function of `xi`, `g`, `block_size` and `density`: `check("1:7", f)`.
# 2. Replace COMPRESS by one that keeps random entries (`keep_random`). Does the law still hold? Then write the Top-k of
#    line 6 for `check("1:6", f)`.

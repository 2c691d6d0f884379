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
# # Ten minutes with efcp_ref
#
# After this page you will be able to
#
# - compress a gradient and say where the rest of it went;
# - run Algorithm 1 of the paper and watch every printed line work;
# - train a small model with Sparse M-FAC;
# - ask the oracle whether code of your own is right.
#
# You need `pip install -e ".[tutorials]"` and a few minutes. Every page of this course is a script: it runs in a
# terminal, as a notebook, and as the page that you read.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLUE, RED, show, show_trace

import efcp_ref
from efcp_ref.data import SOFTMAX, digits, split
from efcp_ref.oracle import assert_conforms
from efcp_ref.tracing import trace

# %% [markdown]
# ## One gradient
#
# A gradient has one entry for each parameter. Top-k keeps the k entries of largest magnitude. Nobody keeps the signs
# apart: minus five is larger than four.

# %%
g = np.array([1.0, -5.0, 0.5, 4.0, -2.0, 3.0])
kept = efcp_ref.top_k(g, 2)
print("positions", kept.indices, "values", kept.values)

# %% [markdown]
# Four entries are gone. If we drop them, the optimizer never hears of them. **Error feedback** writes them down in a
# vector $\xi$ and adds them to the next gradient. In the paper's letters, lines 5 to 7 of Algorithm 1:
#
# $$\begin{aligned} a_t &= \xi_{t-1} + g_t, \\ c_t &= \text{TopK}(a_t), \\ \xi_t &= a_t - c_t. \end{aligned}$$

# %%
indices, values, xi = efcp_ref.error_feedback(xi=np.zeros(6), g=g, density=1 / 3)
sent = np.zeros(6)
sent[indices] = values
print("sent   ", sent)
print("waiting", xi)
assert np.array_equal(sent + xi, g)

# %% [markdown]
# Nothing is lost: what was sent and what waits add up to the gradient, exactly.
#
# ## The code is the paper
#
# The functions of this package are the paper's algorithms, one code line for each printed line. `trace` runs them
# unchanged and writes down what each printed line did. `1:5` is line 5 of Algorithm 1.

# %%
run = trace(efcp_ref.error_feedback, np.zeros(6), g, 6, 1 / 3)
show_trace(run, keep=lambda event: event.line.startswith("1:"))

# %% [markdown]
# ## Train something
#
# Softmax regression on 8 x 8 pictures of digits has 650 parameters. Sparse M-FAC keeps a window of the last m
# compressed gradients and uses it to bend the direction, so that it fits the curvature. We keep 5 % of every gradient.

# %%
X, y = digits()
part = split()


def train(optimizer, rate, steps=150, batch=64):
    """Return the accuracy on the test images after every tenth step."""
    rng = np.random.default_rng(0)
    theta, accuracy = np.zeros(SOFTMAX.d), []
    for t in range(steps):
        if t % 10 == 0:
            accuracy.append(SOFTMAX.accuracy(theta, X[part.test], y[part.test]))
        chosen = rng.choice(part.train, batch, replace=False)
        theta = theta - rate * optimizer.step(SOFTMAX.gradient(theta, X[chosen], y[chosen]))
    return [*accuracy, SOFTMAX.accuracy(theta, X[part.test], y[part.test])]


sparse = train(efcp_ref.sparse_mfac(d=SOFTMAX.d, m=16, lam=0.01, density=0.05), rate=0.03)
plain = train(efcp_ref.topk_sgd(d=SOFTMAX.d, k=33), rate=0.5)
print(f"test accuracy: Sparse M-FAC {sparse[-1]:.3f}, Top-k SGD {plain[-1]:.3f}")

# %%
fig, ax = plt.subplots()
ax.plot(range(0, 151, 10), 100 * np.array(sparse), color=BLUE, marker="o", label="Sparse M-FAC, 5 % kept")
ax.plot(range(0, 151, 10), 100 * np.array(plain), color=RED, marker="s", linestyle="--", label="Top-k SGD, 5 % kept")
ax.set(xlabel="step", ylabel="test accuracy, %", ylim=(0, 100))
ax.legend(loc="lower right")
show(fig, alt="Two curves of test accuracy against steps: both start at 10 per cent, rise above 90, and stay there.")

# %% [markdown]
# ## Is my code right?
#
# The oracle hands a function many cases, among them ties, zeros and partial blocks, and checks an inequality that
# follows from rounding analysis. Here is a Top-k with a plausible mistake: it forgets the magnitude.

# %%
def mine(a, k):
    """Keep the k largest entries, but of a in place of |a|."""
    order = np.argsort(-a, kind="stable")[:k]
    return np.sort(order).astype(np.int32), a[np.sort(order)]


try:
    assert_conforms(mine, "top_k", cases=10, shrink_seconds=1.0)
    verdict = "passes"
except AssertionError as failure:
    verdict = str(failure)
print("\n".join(line for line in verdict.splitlines() if line.startswith(("top_k:", "  rule", "  what"))))

# %% [markdown]
# It names the printed line that went wrong, the rule, and the entry that breaks it.
#
# ## What must hold

# %%
assert kept.indices.tolist() == [1, 3]
assert np.count_nonzero(sent) == 2
assert SOFTMAX.d == 650
assert X[0].reshape(8, 8).shape == (8, 8)
assert [event.line for event in run.events if event.line.startswith("1:")] == ["1:5", "1:6", "1:7", "1:8"]
assert -(-SOFTMAX.d * 5 // 100) == 33  # 5 % kept
assert sparse[-1] > 0.9
assert plain[-1] > 0.9
assert "fails at" in verdict

# %% [markdown]
# ## Summary
#
# `efcp_ref.NAME` is the paper as code; `trace` shows it line by line; `efcp_ref.oracle` judges yours. Error feedback
# keeps what compression leaves out. Next: [where the dropped gradient goes](01_dropped_gradient.py).

# %% [markdown]
# ## Exercises
#
# Write a function, then let the checker look: `from efcp_ref.exercises import check`.
#
# 1. Write `top_k(a, k)` without sorting the whole vector, and run `check("1:6", top_k)`.
# 2. Write `error_feedback(xi, g, block_size, density)` and run `check("1:7", error_feedback)`. What must
#    `xi` hold when nothing was dropped?

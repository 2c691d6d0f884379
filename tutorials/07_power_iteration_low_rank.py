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
# # Power iteration and low rank
#
# After this page you will be able to
#
# - compress a gradient matrix to two thin factors with one step of power iteration;
# - say what a warm start is worth, and what happens after a zero gradient;
# - take scalar products of compressed gradients without rebuilding them.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _style import BLACK, BLUE, GREEN, RED, show, show_trace

import efcp_ref
from efcp_ref.data import MLP, digits, recorded_gradients
from efcp_ref.paper.theory.rank import TABLE_12, density_of_rank, low_rank_entries, percent, resnet20_shapes
from efcp_ref.tracing import trace

# %% [markdown]
# ## Thin factors
#
# The gradient of a layer is a matrix. Often a few directions explain most of it. A matrix of rank $\rho$ is a product
# $P Q^T$ of two thin ones: $p_1 \rho + p_2 \rho$ numbers in place of $p_1 p_2$. Algorithm 5 finds such factors with three
# products: multiply with the old $Q$, make the columns orthonormal, multiply back.

# %%
g = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 1.0]])
run = trace(efcp_ref.power_compress, g, np.array([[1.0], [1.0]]))
show_trace(run)
P, Q = run.result["P"], run.result["Q"]
print("P Q^T =\n", (P @ Q.T).round(3) + 0.0)

# %% [markdown]
# "$\tilde g = P Q^T$", says the text. It cannot be meant: the product is the *projection* $P P^T \tilde g$ on the columns of
# P (R25). What the projection misses is the compression error, and it is orthogonal to what is kept.
#
# ## Repeat, and it turns
#
# One step is a crude start. But Q is kept from step to step, so a slowly changing gradient gets one more power iteration
# at each step. We compress one and the same gradient again and again, and compare with the best matrix of that rank.

# %%
gradients = recorded_gradients(MLP, steps=30)
layer = gradients[-1][: 64 * 256].reshape(64, 256)
size = np.linalg.norm(layer)
singular = np.linalg.svd(layer, compute_uv=False)
rng = np.random.default_rng(0)
RANKS = (1, 2, 4)
curves = {}
for rank in RANKS:
    Q, curves[rank] = rng.standard_normal((256, rank)), []
    for _ in range(12):
        P, Q = efcp_ref.power_compress(layer, Q)
        curves[rank].append(np.linalg.norm(layer - P @ Q.T) / size)

# %%
fig, ax = plt.subplots()
for rank, color, marker in zip(RANKS, (BLUE, RED, GREEN), "os^", strict=True):
    best = np.sqrt((singular[rank:] ** 2).sum()) / size
    ax.plot(range(1, 13), curves[rank], color=color, marker=marker, linestyle="-", label=f"rank {rank}")
    ax.axhline(best, color=BLACK, linestyle=":", linewidth=1)
ax.set(xlabel="step of power iteration", ylabel="share of the norm that is missed", ylim=(0, 1))
ax.legend(title="dotted: the best of that rank", loc="upper right")
show(fig, alt="Error of the compression against the number of power iterations for ranks 1, 2 and 4: each curve falls in the first "
     "three steps and then lies on the dotted line of the best possible.")  # fmt: skip

# %% [markdown]
# ## A picture of it
#
# The same on something that you can see: one handwritten digit, an 8 x 8 matrix, at rank 1, 2 and 4.

# %%
X, _ = digits()
image = X[2].reshape(8, 8)
pictures = [image]
for rank in RANKS:
    Q = np.eye(8)[:, :rank] + 0.1
    for _ in range(6):
        P, Q = efcp_ref.power_compress(image, Q)
    pictures.append(P @ Q.T)
fig, axes = plt.subplots(1, 4, figsize=(6.0, 2.1))
for ax, picture, title in zip(axes, pictures, ("whole", "rank 1", "rank 2", "rank 4"), strict=True):
    ax.imshow(picture, cmap="Greys", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
show(fig, alt="A handwritten two, whole and at ranks 1, 2 and 4: at rank 1 only a blur, at rank 2 an outline, at rank 4 almost "
     "the original picture.")  # fmt: skip

# %% [markdown]
# ## After a zero gradient
#
# A layer that gets no gradient once makes $Q = 0$. The next P would be zero, too, and a normalisation that divides by
# its length gives NaN for ever; one that adds a small number stays at zero for ever. A complete QR factorisation
# returns orthonormal columns in any case, so the next step recovers (R25).

# %%
_, Q = efcp_ref.power_compress(np.zeros((3, 2)), np.ones((2, 1)))
P, Q_next = efcp_ref.power_compress(g, Q)
_, Q_later = efcp_ref.power_compress(g, Q_next)
print("Q after a zero gradient", Q.ravel() + 0.0, " |P| =", np.linalg.norm(P), " next Q", Q_later.ravel().round(3))

# %% [markdown]
# ## Scalar products stay small
#
# M-FAC needs $\langle g_i, g_j \rangle$ only. For factors that is a sum over $\rho$ x $\rho$ matrices:
# $\operatorname{Tr}\left((P_1 Q_1^T)^T P_2 Q_2^T\right) = \sum (P_2^T P_1) \circ (Q_2^T Q_1)$. Algorithm 6 adds these over
# the layers; an assignment in its line 8, as printed, would keep the last layer alone (R26).

# %%
pairs = [efcp_ref.power_compress(h[: 64 * 256].reshape(64, 256), rng.standard_normal((256, 4))) for h in gradients[:2]]
product = efcp_ref.low_rank_inner_product(*pairs[0], *pairs[1])
dense = np.sum((pairs[0].P @ pairs[0].Q.T) * (pairs[1].P @ pairs[1].Q.T))
print(f"from factors {product:.12f}   from matrices {dense:.12f}")

# %% [markdown]
# ## How much memory is a rank?
#
# Table 12 of the paper converts ranks to densities for ResNet-20. Our function gives its five entries to the last digit,
# provided that a vector of p entries counts p (R31).

# %%
table = {rank: percent(density_of_rank(resnet20_shapes(), rank)) for rank in TABLE_12}
print("computed", table)
print("one layer of 64 x 256 at rank 4:", low_rank_entries((64, 256), 4), "numbers in place of", 64 * 256)

# %% [markdown]
# ## What must hold

# %%
kept = run.result["P"] @ run.result["Q"].T
assert np.allclose(kept, run.result["P"] @ run.result["P"].T @ g, atol=1e-14)
assert abs(np.sum(kept * (g - kept))) < 1e-14  # what is missed is orthogonal to what is kept
for rank in RANKS:
    best = np.sqrt((singular[rank:] ** 2).sum()) / size
    assert curves[rank][0] >= curves[rank][-1] >= best * (1 - 1e-12)
    assert curves[rank][-1] < 1.05 * best
errors = [np.linalg.norm(image - picture) / np.linalg.norm(image) for picture in pictures]
assert errors[1] > errors[2] > errors[3]
assert image.shape == (8, 8)
assert RANKS == (1, 2, 4)
assert not Q.any()
assert abs(np.linalg.norm(P) - 1) < 1e-14
assert Q_later.any()
assert abs(product - dense) < 1e-12
assert table == TABLE_12
assert len(TABLE_12) == 5

# %% [markdown]
# ## Summary
#
# Three products and a QR factorisation give thin factors; keeping Q makes them good. Scalar products need only small
# matrices. Next: [diagonal AdaGrad and EF-SignSGD](08_adagrad_and_ef_signsgd.py).

# %% [markdown]
# ## Exercises
#
# `from efcp_ref.exercises import check` judges a function of yours by the printed line that it implements.
#
# 1. Write `power_compress(g, Q)` for tensors of any shape: `check("5:4", power_compress)`. Try $Q = 0$.
# 2. Write the scalar product of two pairs of factors: `check("6:8", f)`. Count its multiplications.

"""Typical wrong answers, with the paper line that each must be told: ``WRONG[id] = ((function, line), ...)``."""

import math

import numpy as np


def first(a, k):
    return np.argsort(-a, kind="stable")[:k]


def blocks(a, size, count, key=np.abs):
    parts = [(s, key(a[s : s + size])) for s in range(0, len(a), size)]
    return np.concatenate([s + first(p, count(len(p))) for s, p in parts]).astype(int)


def pick(a, kept):
    c = np.zeros(len(a))
    c[kept] = a[kept]
    return c


# ---- Top-k


def signed(a, k):
    return first(a, k), a[first(a, k)]


def smallest(a, k):
    return first(-np.abs(a), k), a[first(-np.abs(a), k)]


def magnitudes(a, k):
    kept = first(np.abs(a), k)
    return kept, np.abs(a[kept])


def one_too_many(a, k):
    kept = first(np.abs(a), min(len(a), k + 1))
    return kept, a[kept]


def no_feedback(xi, g, block_size, density):
    kept = blocks(g, block_size, lambda n: math.ceil(density * n))
    return kept, g[kept], g - pick(g, kept)


def error_not_cleared(xi, g, block_size, density):
    a = xi + g
    kept = blocks(a, block_size, lambda n: math.ceil(density * n))
    return kept, a[kept], a


def selects_by_gradient(xi, g, block_size, density):
    a = xi + g
    kept = blocks(g, block_size, lambda n: math.ceil(density * n))
    return kept, a[kept], a - pick(a, kept)


def global_feedback(xi, g, block_size, density):
    a = xi + g
    kept = first(np.abs(a), len(blocks(a, block_size, lambda n: math.ceil(density * n))))
    return kept, a[kept], a - pick(a, kept)


def floor_kept(size, density):
    return int(density * size)


def float_kept(size, density):
    return math.ceil(density * size)


def rounded_kept(size, density):
    return max(1, round(density * size))


def block_floor(a, block_size, density):
    kept = blocks(a, block_size, lambda n: int(density * n))
    return kept, a[kept]


def relative(a, block_size, density):
    kept = blocks(a, block_size, lambda n: math.ceil(density * n))
    return kept % block_size, a[kept]


def forgets_last(a, block_size, density):
    kept = blocks(a, block_size, lambda n: math.ceil(density * n) if n == block_size else 0)
    return kept, a[kept]


def block_signed(a, block_size, density):
    kept = blocks(a, block_size, lambda n: math.ceil(density * n), key=lambda b: b)
    return kept, a[kept]


def roots(H):
    h, V = np.linalg.eigh(H)
    return (V * np.sqrt(h)) @ V.T, (V / np.sqrt(h)) @ V.T


def plain_top_k(v, H, k):
    return pick(v, first(np.abs(v), k))


def not_back(v, H, k):
    basis = roots(H)[1] @ v
    return pick(basis, first(np.abs(basis), k))


def wrong_basis(v, H, k):
    root, inverse = roots(H)
    return inverse @ pick(root @ v, first(np.abs(root @ v), k))


# ---- the loop


def preconditions_first(G, row, c, lam):
    u = np.linalg.solve(lam * np.eye(G.shape[1]) + G.T @ G / len(G), c)
    G = G.copy()
    G[row] = c
    return G, (row + 1) % len(G), u


def ring_too_short(G, row, c, lam):
    new = G.copy()
    new[row] = c
    return new, (row + 1) % max(1, len(G) - 1), np.linalg.solve(lam * np.eye(G.shape[1]) + new.T @ new / len(G), c)


def forgets_m(G, row, c, lam):
    new = G.copy()
    new[row] = c
    return new, (row + 1) % len(G), np.linalg.solve(lam * np.eye(G.shape[1]) + new.T @ new, c)


def in_place(G, row, c, lam):
    G[row] = c
    return G, (row + 1) % len(G), np.linalg.solve(lam * np.eye(G.shape[1]) + G.T @ G / len(G), c)


def run(theta, H, k, eta, T, feedback=True, pays=1.0, late=False):
    xi, points = np.zeros(len(theta)), [theta]
    for _ in range(T):
        g = H @ (points[max(0, len(points) - 2)] if late else points[-1])
        a = xi + g if feedback else g
        c = pick(a, first(np.abs(a), k))
        xi = a - pays * c
        points.append(points[-1] - eta * c)
    return np.array(points), xi


def forgets_start(theta, H, k, eta, T):
    points, xi = run(theta, H, k, eta, T)
    return points[1:], xi


# ---- kernels


def transposed(indices, values, g):
    return (values * g[: values.shape[1]]).sum(axis=1)


def absolute_values(indices, values, g):
    return np.abs(values * g[indices]).sum(axis=1)


def first_entry_lost(indices, values, g):
    return (values * g[indices])[:, 1:].sum(axis=1)


def neighbours(indices, values, g, T):
    share = -(-len(values) // T)
    return np.array([(values * g[indices])[t * share : (t + 1) * share].sum() for t in range(T)])


def only_one_round(indices, values, g, T):
    mem = np.zeros(T)
    n = min(T, len(values))
    mem[:n] = (values * g[indices])[:n]
    return mem


def sum_in_first(indices, values, g, T):
    mem = np.zeros(T)
    mem[0] = values @ g[indices]
    return mem


def tree(mem, add=lambda mem, half: mem[half : 2 * half], stop=0):
    mem, levels, half = mem.copy(), [mem.copy()], len(mem) // 2
    while half > stop:
        mem[:half] += add(mem, half)
        levels.append(mem.copy())
        half //= 2
    return np.array(levels)


def tree_neighbours(mem):
    mem, levels, step = mem.copy(), [mem.copy()], 1
    while step < len(mem):
        mem[:: 2 * step] += mem[step :: 2 * step]
        levels.append(mem.copy())
        step *= 2
    return np.array(levels)


def no_barrier(mem):
    mem, levels, half = mem.copy(), [mem.copy()], len(mem) // 2
    while half > 0:
        for i in range(len(mem) - half):  # lanes of the upper half run on, and read what has changed
            mem[i] += mem[i + half]
        levels.append(mem.copy())
        half //= 2
    return np.array(levels)


def bounds(BlockId, i, workload, B_d, B_k, d, k):
    at = BlockId * workload + i
    return B_d * at, min(d, B_d * at + B_d), B_k * at, min(k, B_k * at + B_k)


def changed(place, value):
    def wrong(*given):
        right = list(bounds(*given))
        right[place] = value(*given)
        return tuple(right)

    return wrong


def assigns(indices, values, c, d):
    omega = np.zeros(d)
    for r in range(len(c)):
        omega[indices[r]] = c[r] * values[r]
    return omega


def first_row_only(indices, values, c, d):
    omega = np.zeros(d)
    np.add.at(omega, indices[:1], c[:1, None] * values[:1])
    return omega


def unweighted(indices, values, c, d):
    omega = np.zeros(d)
    np.add.at(omega, indices, values)
    return omega


# ---- the window


def wsm(G, lam, x, count=len, start=1.0, after=False):
    inverse = np.eye(len(x)) / (lam * start)
    for g in G:
        w = inverse @ g
        if after:  # R2 as printed: the inverse that already holds g_k
            w = np.linalg.inv(np.linalg.inv(inverse) + np.outer(g, g) / len(G)) @ g
        inverse = inverse - np.outer(w, w) / (count(G) + g @ w)
    return inverse @ x


def mfac(G, lam, x, damping=lambda lam, m: lam * m, outside=lambda lam: lam, sign=-1):
    m = len(G)
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(damping(lam, m) * np.eye(m) + S, h) / outside(lam)
    return x / lam + sign * (c @ G), S, h, c


def coefficients(S, h, lam, m=None, outside=None):
    m = len(h) if m is None else m
    return np.linalg.solve(lam * m * np.eye(len(h)) + S, h) / (lam if outside is None else outside)


def products_first(G, S, row, g):
    S = S.copy()
    S[row, :] = S[:, row] = G @ g
    G = G.copy()
    G[row] = g
    return G, S


def row_only(G, S, row, g):
    G, S = G.copy(), S.copy()
    G[row] = g
    S[row, :] = G @ g
    return G, S


def shifts(G, S, row, g):
    G = np.vstack([G[1:], g])
    return G, G @ G.T


# ---- GGT


def insert_at(V, R, i, V_t, I_t, start=lambda i, k: i * k, following=lambda i, m: (i + 1) % m):
    k, V, R = len(V_t), V.copy(), R.copy()
    at = min(start(i, k), len(V) - k)
    V[at : at + k], R[at : at + k] = V_t, I_t
    return V, R, following(i, len(V) // k)


def left(G, squares, V, cutoff, power=-0.5, drop=True):
    keep = squares > cutoff * squares.max() if drop else squares > -1
    scale = np.where(keep, np.where(squares > 0, squares, 1) ** power, 0)
    return (G.T @ V) * scale


def other_side(G, squares, V, cutoff):
    return left(G, squares, V.T, cutoff)


def ggt(G, x, eps, cutoff, root=True, outside=lambda x, eps: x / eps, fold=1.0):
    squares, V = np.linalg.eigh(G @ G.T)
    keep = squares > cutoff * squares.max()
    sigma = np.sqrt(squares[keep]) if root else squares[keep]
    U = G.T @ V[:, keep] / np.sqrt(squares[keep])
    return outside(x, eps) + U @ ((1 / (sigma + fold * eps) - 1 / eps) * (U.T @ x))


# ---- low rank


def not_orthogonal(g, Q):
    P = g @ Q
    return P, g.T @ P


def old_q(g, Q):
    return np.linalg.qr(g @ Q).Q, Q


def no_iteration(g, Q):
    P = np.linalg.qr(np.eye(g.shape[0], Q.shape[1])).Q
    return P, g.T @ P


def product_of_traces(P1, Q1, P2, Q2):
    return float(np.sum(P1.T @ P2) * np.sum(Q1.T @ Q2))


def first_column(P1, Q1, P2, Q2):
    return float((P1[:, 0] @ P2[:, 0]) * (Q1[:, 0] @ Q2[:, 0]))


def only_p(P1, Q1, P2, Q2):
    return float((P1.T @ P2).sum())


def gram(products, S, row, delta=lambda p: p.sum(axis=0), column=True, shift=0):
    d = delta(products)
    S = S.copy()
    S[row, :] = np.roll(d, shift)
    if column:
        S[:, row] = np.roll(d, shift)
    return d, S


def layer(P, Q, row, S, eps, sign=-1.0, m=None, first=lambda g, row, eps: g[row] / eps):
    n = len(S)
    w = sign * np.linalg.solve(eps * (m or n) * np.eye(n) + S, S[row]) / eps
    g = P @ Q.transpose(0, 2, 1)
    return w, first(g, row, eps) + np.tensordot(w, g, 1)


# ---- AdaGrad and the slides


def adagrad(theta, xi, G, g, k, eta, feedback=True, squares=lambda c, g: c**2, root=np.sqrt, guard=True):
    a = xi + g if feedback else g
    c = pick(a, first(np.abs(a), k))
    G = G + squares(c, g)
    moved = np.divide(c, root(G), out=np.zeros(len(c)), where=G > 0) if guard else c / root(G)
    return theta - eta * moved, a - c, G


def adagrad_old_root(theta, xi, G, g, k, eta):
    a = xi + g
    c = pick(a, first(np.abs(a), k))
    moved = np.divide(c, np.sqrt(G), out=np.zeros(len(c)), where=G > 0)
    return theta - eta * moved, a - c, G + c**2


def sign_step(x, e, g, gamma, p=lambda e, g, gamma: gamma * g + e, scale=lambda p: np.abs(p).mean(), kept=1.0):
    p = p(e, g, gamma)
    delta = scale(p) * np.sign(p)
    return x - delta, p - kept * delta


def over(function, **fixed):
    """The function with some keywords fixed; its positional arguments stay as they are."""

    def wrong(*given):
        return function(*given, **fixed)

    return wrong


def endless(*given):
    while True:
        pass


WRONG = {
    "1:6": ((signed, "1:6"), (smallest, "1:6"), (magnitudes, "1:6"), (one_too_many, "1:6")),
    "1:7": ((no_feedback, "1:5"), (error_not_cleared, "1:7"), (selects_by_gradient, "1:6"), (global_feedback, "1:6")),
    "1:8": ((preconditions_first, "1:8"), (ring_too_short, "1:8"), (forgets_m, "1:8"), (in_place, "1:8")),
    "1:9": (
        (over(run, feedback=False), "1:9"), (over(run, late=True), "1:9"), (over(run, pays=0.0), "1:9"),
        (forgets_start, "1:9"),
    ),
    "2:8": (
        (lambda Tid, k, T: list(range(Tid, k)), "2:8"),
        (lambda Tid, k, T: list(range(Tid * -(-k // T), min(k, (Tid + 1) * -(-k // T)))), "2:8"),
        (lambda Tid, k, T: list(range(Tid, k + T, T)), "2:8"),
    ),
    "2:11": ((transposed, "2:11"), (absolute_values, "2:11"), (first_entry_lost, "2:8")),
    "2:13": ((neighbours, "2:13"), (only_one_round, "2:13"), (sum_in_first, "2:13")),
    "2:14": ((tree_neighbours, "2:14"), (no_barrier, "2:14"), (over(tree, stop=1), "2:14")),
    "3:10": (
        (lambda d, B_d, B: (-(-d // B_d), -(-(-(-d // B_d) * B_d) // B)), "3:10"),
        (lambda d, B_d, B: (-(-d // B_d), -(-d // B_d) // B), "3:10"),
        (lambda d, B_d, B: (d // B_d, -(-(d // B_d) // B)), "3:9"),
    ),
    "3:15": (
        (changed(3, lambda BlockId, i, workload, B_d, B_k, d, k: min(B_k, B_k * (BlockId * workload + i + 1))), "3:15"),
        (changed(1, lambda BlockId, i, workload, B_d, B_k, d, k: B_d * (BlockId * workload + i) + B_d), "3:13"),
        (changed(0, lambda BlockId, i, workload, B_d, B_k, d, k: B_d * (BlockId + i)), "3:12"),
        (changed(2, lambda BlockId, i, workload, B_d, B_k, d, k: B_d * (BlockId * workload + i)), "3:14"),
    ),
    "3:20": ((assigns, "3:20"), (first_row_only, "3:20"), (unweighted, "3:20")),
    "W:2": ((over(wsm, after=True), "W:2"), (over(wsm, count=lambda G: 1), "W:2"), (over(wsm, start=2.0), "W:2")),
    "W:3": (
        (over(coefficients, m=1), "W:3"), (over(coefficients, outside=1.0), "W:3"),
        (lambda S, h, lam: -coefficients(S, h, lam), "W:3"),
    ),
    "W:4": (
        (over(mfac, damping=lambda lam, m: lam), "W:3"), (over(mfac, outside=lambda lam: 1.0), "W:3"),
        (over(mfac, sign=1), "W:4"),
    ),
    "W:5": ((products_first, "W:5"), (row_only, "W:5"), (shifts, "1:8")),
    "4:4": (
        (over(insert_at, start=lambda i, k: i), "4:4"), (over(insert_at, following=lambda i, m: i + 1), "4:9"),
        (over(insert_at, start=lambda i, k: 0), "4:4"),
    ),
    "4:10": ((over(left, power=-0.25), "4:10"), (over(left, power=0.25), "4:10"), (over(left, power=-1), "4:10"),
             (other_side, "4:10")),
    "4:11": (
        (over(ggt, root=False), "4:11"), (over(ggt, outside=lambda x, eps: 0 * x), "4:11"), (over(ggt, fold=0), "4:11"),
    ),
    "5:4": ((not_orthogonal, "5:4"), (old_q, "5:5"), (no_iteration, "5:3")),
    "6:8": ((product_of_traces, "6:8"), (first_column, "6:8"), (only_p, "6:8")),
    "6:11": (
        (over(gram, delta=lambda p: p[-1]), "6:8"), (over(gram, column=False), "6:11"), (over(gram, shift=1), "6:11"),
    ),
    "6:14": (
        (over(layer, sign=1.0), "6:12"), (over(layer, m=1), "6:12"),
        (over(layer, first=lambda g, row, eps: g[row]), "6:14"),
    ),
    "7:9": (
        (over(adagrad, squares=lambda c, g: g**2), "7:8"), (over(adagrad, guard=False), "7:9"),
        (over(adagrad, feedback=False), "7:5"), (over(adagrad, root=lambda G: G), "7:9"), (adagrad_old_root, "7:9"),
    ),
    "K:2": ((floor_kept, "K:2"), (float_kept, "K:2"), (rounded_kept, "K:2")),
    "K:3": ((block_floor, "K:2"), (relative, "K:3"), (forgets_last, "K:3"), (block_signed, "K:3")),
    "K:6": ((plain_top_k, "K:6"), (not_back, "K:6"), (wrong_basis, "K:6")),
    "S1:5": (
        (lambda p: np.sign(p), "S1:5"), (lambda p: np.abs(p).sum() * np.sign(p), "S1:5"),
        (lambda p: np.abs(p).mean() * np.where(p >= 0, 1, -1), "S1:5"),
        (lambda p: np.abs(p).sum() / max(1, np.count_nonzero(p)) * np.sign(p), "S1:5"),
    ),
    "S1:7": (
        (over(sign_step, p=lambda e, g, gamma: gamma * g), "S1:4"), (over(sign_step, kept=0.0), "S1:7"),
        (over(sign_step, scale=lambda p: np.abs(p).sum()), "S1:5"), (over(sign_step, scale=lambda p: 1.0), "S1:5"),
        (over(sign_step, p=lambda e, g, gamma: gamma * (g + e)), "S1:4"),
    ),
}  # fmt: skip

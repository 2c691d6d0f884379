"""A correct implementation of functions and classes, with NumPy alone and nothing declared: the shortest that works."""

from math import ceil

import numpy as np


def top_k(a, k):
    kept = np.argsort(-abs(a))[:k]
    return kept.astype(np.int32), a[kept]


def block_top_k(a, block_size, density):
    kept = np.concatenate([b + np.argsort(-abs(a[b : b + block_size]))[: ceil(density * len(a[b : b + block_size]))]
                           for b in range(0, len(a), block_size)])
    return kept.astype(np.int32), a[kept]


def error_feedback(xi, g, block_size, density):
    a = xi + g
    indices, values = block_top_k(a, block_size, density)
    a[indices] = 0
    return {"indices": indices, "values": values, "xi": a}


def sp(indices, values, g):
    return (values.astype(g.dtype) * g[indices]).sum(axis=1)


def lcg(indices, values, c, d):
    omega = np.zeros(d, c.dtype)
    np.add.at(omega, indices.ravel(), (c[:, None] * values.astype(c.dtype)).ravel())
    return omega


def wsm(G, lam, x):
    return np.linalg.solve(lam * np.eye(len(G)) + G @ G.T / len(G), G @ x) @ G / -(lam * len(G)) + x / lam


def mfac_direction(G, lam, x):
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(S + len(G) * lam * np.eye(len(G)), h) / lam
    return {"u": x / lam - c @ G, "S": S, "h": h, "c": c}


def ggt_direction(G, x, eps, cutoff):
    gram = G @ G.T
    values, V = np.linalg.eigh(gram)
    kept = (values > cutoff * values[-1]) & (values > 0)
    sigma = np.sqrt(values[kept])
    u = x / eps - G.T @ (V[:, kept] @ ((V[:, kept].T @ (G @ x)) / (eps * sigma * (sigma + eps))))
    return u, gram, values, V


def power_compress(g, Q):
    M = g.reshape(len(g), -1)
    P = np.linalg.qr(M @ Q)[0]
    return P, M.T @ P


def low_rank_inner_product(P1, Q1, P2, Q2):
    return float(((P1 @ Q1.T) * (P2 @ Q2.T)).sum())


def sign_step(x, e, g, gamma):
    p = gamma * g + e
    delta = abs(p).mean() * np.sign(p)
    return x - delta, p - delta


class topk_sgd:
    def __init__(self, d, k):
        self.xi, self.k = np.zeros(d), k

    def step(self, g):
        a = self.xi + g
        u = np.zeros_like(a)
        kept = np.argsort(-abs(a))[: self.k]
        u[kept] = a[kept]
        self.xi = a - u
        return u

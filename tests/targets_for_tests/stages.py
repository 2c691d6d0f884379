"""mfac_direction with the stages up to h, and None for c."""

import numpy as np


def mfac_direction(G, lam, x):
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(lam * len(G) * np.eye(len(G), dtype=G.dtype) + S, h) / lam
    return x / lam - c @ G, S, h, None

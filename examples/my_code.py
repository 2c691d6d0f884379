"""A target: functions with the contract's names. The second one holds a mistake that the oracle is to find."""

import numpy as np


def sp(indices, values, g):
    """Scalar products of the rows of a sparse window with g."""
    return (values * g[indices]).sum(axis=1)


def mfac_direction(G, lam, x):
    """x preconditioned by the damped Fisher matrix of the window G, by eq. (2)."""
    M = lam * np.eye(len(G)) + G @ G.T
    c = np.linalg.solve(M, G @ x) / lam
    return x / lam - c @ G

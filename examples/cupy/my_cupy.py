"""Three operations in CuPy on a GPU: ``efcp-ref check examples/cupy/my_cupy.py --memory 0``."""

# Not run yet: no machine with both CuPy and a GPU was at hand. Its logic passes with a stand-in for CuPy made of NumPy;
# its test on a GPU is skipped where there is none, and counted as not run.

import cupy

ARRAYS = "cupy"


def top_k(a, k):
    """Positions and values of the k entries of largest magnitude."""
    indices = cupy.argsort(-cupy.abs(a))[:k]
    return indices, a[indices]


def sp(indices, values, g):
    """Scalar products of sparse rows with g."""
    return (values * g[indices]).sum(axis=1)


def lcg(indices, values, c, d):
    """Linear combination of sparse rows."""
    omega = cupy.zeros(d, values.dtype)
    cupy.add.at(omega, indices.ravel(), (c[:, None] * values).ravel())
    return omega

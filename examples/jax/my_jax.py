"""Four operations in JAX, compiled; arrays arrive as JAX arrays: ``efcp-ref check examples/jax/my_jax.py``."""

from functools import partial

import jax
import jax.numpy as jnp

ARRAYS = "jax"
ARITHMETIC = {"flush_to_zero": True, "denormals_are_zero": True}  # XLA does so on the CPU; without it: fail, subnormal
jax.config.update("jax_platforms", "cpu")


@partial(jax.jit, static_argnums=1)
def top_k(a, k):
    """Positions and values of the k entries of largest magnitude."""
    _, indices = jax.lax.top_k(jnp.abs(a), k)
    return indices, a[indices]


@jax.jit
def sp(indices, values, g):
    """Scalar products of sparse rows with g."""
    return (values * g[indices]).sum(axis=1)


@partial(jax.jit, static_argnums=3)
def lcg(indices, values, c, d):
    """Linear combination of sparse rows."""
    terms = c[:, None] * values  # in the wider precision where values are stored as bfloat16
    return jnp.zeros(d, terms.dtype).at[indices.ravel()].add(terms.ravel())


@jax.jit
def mfac_direction(G, lam, x):
    """x preconditioned by a window G: eq. (2) with a Cholesky solve."""
    S, h = G @ G.T, G @ x
    M = S + lam * len(G) * jnp.eye(len(G), dtype=G.dtype)
    c = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(M), True), h) / lam
    return x / lam - c @ G, S, h, c

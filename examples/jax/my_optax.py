"""Two optax chains as optimizers: ``efcp-ref check examples/jax/my_optax.py --memory 0 --timeout 60``."""

import jax
import jax.numpy as jnp
import optax

from efcp_ref.adapt import optax_transformation

ARITHMETIC = {"flush_to_zero": True, "denormals_are_zero": True}  # XLA does so on the CPU
jax.config.update("jax_platforms", "cpu")


def keep_largest(k):
    """Top-k with error feedback, as a link of a chain."""

    def update(updates, xi, params=None):
        a = xi + updates
        kept = jax.lax.top_k(jnp.abs(a), k)[1]
        c = jnp.zeros_like(a).at[kept].set(a[kept])
        return c, a - c

    return optax.GradientTransformation(jnp.zeros_like, update)


@optax_transformation
def topk_sgd(k):
    """Called like the operation; the last link is the rate, 1."""
    return optax.chain(keep_largest(k), optax.scale(-1.0))


@optax_transformation
def adagrad_ef(d, k):
    """`optax.adagrad` compresses nothing: k = d. Its eps stands inside the root and must be 0."""
    if k < d:
        raise NotImplementedError
    return optax.adagrad(1.0, initial_accumulator_value=0.0, eps=0.0)
